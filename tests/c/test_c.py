"""The C unit tests: each TEST() of test_*.c is a test here, in its own process."""

import re
import subprocess

import c_build
import pytest

FILES = sorted(path.name for path in c_build.HERE.glob("test_*.c"))
TESTS = [
    (file, name)
    for file in FILES
    for name in re.findall(r"^TEST\((\w+)\)$", (c_build.HERE / file).read_text(), re.M)
]


@pytest.fixture(scope="module")
def program(build_c):
    return build_c("tests", "main.c", "check.c", "hex.c", "ends.c", *FILES)


@pytest.mark.parametrize("file, name", TESTS)
def test_c(program, c_environment, file, name):
    done = subprocess.run(
        [program, name], capture_output=True, text=True, env=c_environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if done.stdout.startswith("skip: "):
        pytest.skip(done.stdout.strip())

"""The C unit tests: each TEST() of test_*.c is a test here, in its own process."""

import re
import subprocess

import c_build
import pytest

from aiozmq_speedups import _ext

FLAVOUR = getattr(_ext.core, "BUILD_FLAVOUR", "release")
FLAGS = {"asan": [*c_build.SANITIZE, "-Werror"], "debug": ["-O1", "-Werror"]}

SOURCES = sorted(c_build.HERE.glob("test_*.c"))
TESTS = [
    (path.stem, name)
    for path in SOURCES
    for name in re.findall(r"^TEST\((\w+)\)$", path.read_text(), re.M)
]

pytestmark = [
    pytest.mark.skipif(c_build.compiler() is None, reason="no C compiler"),
    pytest.mark.skipif(not c_build.CSRC.exists(), reason="the sources are not here"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    target = tmp_path_factory.mktemp("c") / "tests"
    flags = FLAGS.get(FLAVOUR, ["-O2"])
    return c_build.build(target, [c_build.HERE / "main.c", *SOURCES], flags)


@pytest.mark.parametrize("file, name", TESTS, ids=lambda value: value)
def test_c(program, file, name):
    done = subprocess.run(
        [program, name], capture_output=True, text=True, env=c_build.environment()
    )
    assert done.returncode == 0, done.stdout + done.stderr

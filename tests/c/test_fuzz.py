"""Each fuzzer for as many inputs as take a moment; `make fuzz` runs them longer."""

import subprocess

import fuzz
import pytest


@pytest.mark.parametrize("name", fuzz.names())
def test_fuzz(build_c, c_environment, tmp_path, name):
    program = build_c(f"fuzz-{name}", f"fuzz_{name}.c", "fuzz_main.c", *fuzz.WITH)
    done = subprocess.run(
        [program, "2000", "60"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=c_environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr

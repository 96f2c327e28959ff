"""Processes that do what could crash them, and must not."""

import os
import pathlib
import subprocess
import sys

import pytest

from aiozmq_speedups._ext import core

pytestmark = pytest.mark.skipif(core is None, reason="needs the C extension")

HERE = pathlib.Path(__file__).parent
if core is not None:
    from crash_cases import CASES
else:
    CASES = {}


def run(*args):
    process = subprocess.run(
        [sys.executable, *map(str, args)],
        # What is used after its end is not what it was.
        env={"PYTHONMALLOC": "debug", **os.environ},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-8000:]
    return process.stdout


@pytest.mark.parametrize("case", CASES)
def test_does_not_crash(case):
    if case == "huge_descriptors" and core.BUILD_FLAVOUR == "asan":
        pytest.skip("AddressSanitizer needs terabytes of address space")
    assert run(HERE / "crash_cases.py", case).endswith("done\n")


@pytest.mark.parametrize("seed", range(3))
def test_methods_with_random_arguments(seed):
    output = run(HERE / "random_calls.py", seed, 5000)
    assert output == "done\n", output[-4000:]

"""Every allocation of the hot entry points may fail: MemoryError, never a crash."""

import pathlib
import subprocess
import sys

import pytest

from aiozmq_speedups._ext import core

pytest.importorskip("_testcapi")
pytestmark = pytest.mark.skipif(core is None, reason="needs the C extension")

HERE = pathlib.Path(__file__).parent
if core is not None:
    from nomemory_cases import CASES
else:
    CASES = {}


@pytest.mark.parametrize("case", CASES)
def test_allocations_may_fail(case):
    process = subprocess.run(
        [sys.executable, str(HERE / "nomemory_cases.py"), case],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-8000:]
    assert process.stdout.endswith("done\n")

"""Every allocation of the hot entry points may fail: MemoryError, never a crash."""

import pathlib
import subprocess
import sys

import pytest

from aiozmq_speedups._ext import core

pytest.importorskip("_testcapi")
pytestmark = pytest.mark.skipif(core is None, reason="needs the C extension")

HERE = pathlib.Path(__file__).parent
CASES = []
if core is not None:
    import nomemory_awaitable
    import nomemory_cases
    import nomemory_connections
    import nomemory_native
    import nomemory_transports

    for module in (
        *(nomemory_cases, nomemory_transports, nomemory_connections),
        *(nomemory_awaitable, nomemory_native),
    ):
        CASES += [(module.__name__, case) for case in module.CASES]
cases = pytest.mark.parametrize(("program", "case"), CASES)


def run(program, case):
    process = subprocess.run(
        [sys.executable, str(HERE / f"{program}.py"), case],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-8000:]
    assert process.stdout.endswith("done\n")


@cases
def test_allocations_may_fail(program, case):
    run(program, case)


@pytest.mark.slow
@cases
def test_more_allocations_may_fail(program, case, monkeypatch):
    monkeypatch.setenv("NOMEMORY_ALLOCATIONS", "400")
    run(program, case)

"""multiprocessing from a running loop, with loops in its processes."""

import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("processes.py")


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_start_method(method, loop_kind):
    ran = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            "-W",
            "always::ResourceWarning",
        ]
        + [str(PROGRAM), method, loop_kind],
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert ran.returncode == 0, ran.stderr[-6000:]
    loop = "aiozmq_speedups.loop" if loop_kind == "speedups" else "asyncio.unix_events"
    assert ran.stdout == f"served by {loop}\n" * 2
    assert ran.stderr == ""

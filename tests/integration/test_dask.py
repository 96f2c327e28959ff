"""Dask's scheduler, workers and client on this loop: Tornado's streams over it."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("cluster.py")


@pytest.mark.parametrize("mode", ["threads", "processes", "asynchronous"])
def test_local_cluster(mode, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setenv("DASK_TEMPORARY_DIRECTORY", str(tmp_path))
    # Not that the machine is busy, which it says below.
    monkeypatch.setenv("DASK_LOGGING__DISTRIBUTED", "error")
    ran = subprocess.run(
        [sys.executable, "-m", "aiozmq_speedups", "run", str(PROGRAM), mode],
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert ran.returncode == 0, ran.stderr[-6000:]
    assert ran.stdout.split() == ["aiozmq_speedups.loop"] * 2
    # It may warn of a loop that is slow to answer, on a busy machine.
    assert "Traceback" not in ran.stderr, ran.stderr

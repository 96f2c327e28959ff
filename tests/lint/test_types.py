"""The public interface is typed: a user's program passes mypy, and runs."""

import asyncio
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import aiozmq_speedups

PROGRAM = Path(__file__).with_name("typed_program.py")


def test_a_program_passes_mypy(tmp_path):
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("no mypy")
    package = Path(aiozmq_speedups.__file__).parents[1]
    env = dict(os.environ)
    if package.name != "site-packages":  # which mypy searches anyway, and refuses here
        env["MYPYPATH"] = str(package)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--config-file="),
            *("--cache-dir", tmp_path / "cache", "--python-version", "3.11", PROGRAM),
        ],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_program_runs():
    spec = importlib.util.spec_from_file_location("typed_program", PROGRAM)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    assert program.run() == 0
    asyncio.set_event_loop(None)

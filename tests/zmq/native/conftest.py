"""Lets the tests of this folder import tests/zmq/helpers.py, too."""

import asyncio
import sys
from pathlib import Path

import pytest

from aiozmq_speedups import _ext, new_event_loop

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))


@pytest.fixture
def run():
    """Runs a coroutine on a loop whose sockets are the native engine's."""
    if _ext.core is None:
        pytest.skip("the C extension was not built")
    loop = new_event_loop(zmq_engine="native")
    loop.close_timeout = 1

    def run(coroutine, seconds=100):
        return loop.run_until_complete(asyncio.wait_for(coroutine, seconds))

    yield run
    loop.close()

"""Handles are used again; what a burst of them leaves behind is freed in idle time."""

import asyncio
import gc
import sys
import threading

import pytest

from aiozmq_speedups import _ext, new_event_loop

pytestmark = [
    pytest.mark.skipif(_ext.core is None, reason="no extension"),
    pytest.mark.skipif(not sys.getallocatedblocks(), reason="not Python's allocator"),
]
BURST = 50_000
USUAL = 10_000  # may stay


def call_soon(loop):
    for _ in range(BURST):
        loop.call_soon(str)


def call_soon_threadsafe(loop):
    def schedule():
        for _ in range(BURST):
            loop.call_soon_threadsafe(str)

    thread = threading.Thread(target=schedule)
    thread.start()
    thread.join()


def timers(loop):
    for _ in range(BURST):
        loop.call_later(0, str)


@pytest.mark.parametrize("schedule", [call_soon, call_soon_threadsafe, timers])
def test_a_burst_is_freed(schedule):
    loop = new_event_loop()

    async def idle():
        sleeps = loop.stats()["sleeps"]
        while loop.stats()["sleeps"] < sleeps + 150:
            await asyncio.sleep(1e-4)

    loop.run_until_complete(idle())
    gc.collect()
    before = sys.getallocatedblocks()
    schedule(loop)
    assert sys.getallocatedblocks() > before + BURST - USUAL
    loop.run_until_complete(asyncio.sleep(0.001))
    assert loop.stats()["ready"] == loop.stats()["timers"] == 0
    loop.run_until_complete(idle())
    assert sys.getallocatedblocks() < before + USUAL
    # And again, with what was kept.
    schedule(loop)
    loop.run_until_complete(idle())
    loop.close()


def test_a_burst_that_is_cancelled():
    loop = new_event_loop()
    handles = [loop.call_soon(str) for _ in range(BURST)]
    for handle in handles:
        handle.cancel()
    del handle
    loop.run_until_complete(asyncio.sleep(0.001))
    handles.clear()
    loop.run_until_complete(asyncio.sleep(0.001))
    loop.close()

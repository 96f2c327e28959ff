"""A loop of ours and one of asyncio's, for the tests that make them themselves."""

import asyncio

from aiozmq_speedups import new_event_loop

KINDS = {"speedups": new_event_loop, "asyncio": asyncio.SelectorEventLoop}


async def until(condition):
    """Waits until condition() is true."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)

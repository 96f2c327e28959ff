"""Waiting for what has no event of its own, and turns of a loop."""

import asyncio


async def until(condition):
    """Waits until condition() is true."""
    async with asyncio.timeout(100):
        while not condition():
            await asyncio.sleep(0.001)


def run_ready(loop):
    """Three turns: what is ready, and what that makes ready."""
    for _ in range(3):
        loop.call_soon(loop.stop)
        loop.run_forever()

"""Each test on a loop of ours and on one of asyncio's, which see no other turn.

``from two_loops import loop`` gives a test module a fixture in place of conftest.py's,
which runs the loop once more before it closes it; ``from two_loops import loop_kind``
has conftest.py's make these two kinds only.
"""

import asyncio

import pytest

from aiozmq_speedups import new_event_loop

KINDS = {"speedups": new_event_loop, "asyncio": asyncio.SelectorEventLoop}


@pytest.fixture(params=KINDS)
def loop(request):
    loop = KINDS[request.param]()
    yield loop
    loop.close()


@pytest.fixture(params=KINDS)
def loop_kind(request):
    return request.param


async def until(condition):
    """Waits until condition() is true."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)

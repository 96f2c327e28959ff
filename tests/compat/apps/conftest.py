"""What the applications' tests share: a certificate, and waiting for quiet."""

import asyncio

import pytest
from certificate import tls  # noqa: F401


@pytest.fixture(params=["speedups", "asyncio"])
def loop_kind(request):
    return request.param


@pytest.fixture
def run(loop):
    return loop.run_until_complete


@pytest.fixture
def until():
    async def until(condition):
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.001)

    return until


@pytest.fixture(autouse=True)
def _no_tracebacks(caplog):
    """What is logged keeps frames, and they the loop, which the leak guard finds."""
    yield
    caplog.get_records("call").clear()

"""time() of a subclass or an instance: virtual clocks, as tests have them."""

import asyncio
import inspect
from unittest import mock

import pytest

from aiozmq_speedups import Loop, _ext

KINDS = {"speedups": Loop, "asyncio": asyncio.SelectorEventLoop}


class Clock:
    def __init__(self):
        self.now = 1000.0

    def time(self):
        return self.now


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture(params=["subclass", "instance", "class set later"])
def loop_and_clock(request, kind):
    clock = Clock()
    if request.param == "instance":
        loop = kind()
        loop.time = clock.time
    elif request.param == "subclass":
        loop = type("Own", (kind,), {"time": lambda self: clock.now})()
    else:
        cls = type("Own", (kind,), {})
        loop = cls()
        cls.time = lambda self: clock.now
    yield loop, clock
    loop.close()


def turn(loop):
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_timers_go_by_it(loop_and_clock):
    loop, clock = loop_and_clock
    fired = []
    late = loop.call_later(100, fired.append, "late")
    loop.call_at(1050.0, fired.append, "at")
    assert late.when() == 1100.0
    turn(loop)
    assert fired == []
    clock.now = 1050.0
    turn(loop)
    assert fired == ["at"]
    clock.now = 1100.0
    turn(loop)
    assert fired == ["at", "late"]


def test_timeouts_do_not_mix_clocks(loop_and_clock):
    loop, clock = loop_and_clock

    async def main():
        async with asyncio.timeout(3600) as timeout:
            assert timeout.when() == 4600.0
            loop.call_soon(advance)
            await asyncio.sleep(60)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                loop.call_soon(advance)
                await asyncio.sleep(1000)

    def advance():
        clock.now += 61

    loop.run_until_complete(main())
    assert clock.now == 1122.0


def test_it_may_go_again(kind):
    loop = kind()
    loop.time = lambda: 5.0
    assert loop.call_later(1, print).when() == 6.0
    del loop.time
    before = loop.time()
    handle = loop.call_later(1, print)
    assert before + 1 <= handle.when() <= loop.time() + 1
    loop.close()


def test_a_clock_that_fails(loop_and_clock):
    loop, clock = loop_and_clock
    loop.call_later(1, print)
    clock.now = "late"
    with pytest.raises(TypeError):
        turn(loop)
    with pytest.raises(TypeError):
        loop.call_later(1, print)


@pytest.mark.skipif(_ext.core is None, reason="asyncio's loop can be patched")
def test_nested_turns_are_refused():
    """nest_asyncio.apply() asks for this first; all goes on as before."""
    loop = Loop()
    with pytest.raises(ValueError, match="nested turns are not supported"):
        hasattr(loop, "_nest_patched")
    assert loop.run_until_complete(asyncio.sleep(0, "goes on")) == "goes on"
    loop.close()


@pytest.mark.parametrize(
    "walk", [lambda x: mock.Mock(spec=x), mock.create_autospec, inspect.getmembers]
)
def test_attributes_may_be_walked(kind, walk):
    """Tools forgive no other exception than AttributeError, and begin with dir()."""
    loop = kind()
    walk(loop)
    assert "run_forever" in dir(loop) and "_nest_patched" not in dir(loop)
    loop.close()

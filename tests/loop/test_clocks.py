"""time() of a subclass or an instance: virtual clocks, as tests have them."""

import asyncio
import contextlib
import inspect
import math
import threading
import time
from unittest import mock

import pytest

from aiozmq_speedups import Loop, _ext

pytestmark = pytest.mark.loops("speedups", "asyncio")


class Clock:
    def __init__(self):
        self.now = 1000.0

    def time(self):
        return self.now


@pytest.fixture
def kind(make_loop):
    with contextlib.closing(make_loop()) as loop:
        return type(loop)


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


@pytest.mark.parametrize(
    "start, step",
    [
        (-100.0, 1.0),
        (-1.0, 0.5),
        (-0.25, 0.25),
        (2.0**32 - 1, 1.0),
        (-(2.0**32) - 1, 1.0),
        (9.2e9, 1.0),
        (1.8e12, 1.0),
        (-1.8e12, 1.0),
        (-1e300, 1e299),
        (1e300, 1e299),
    ],
)
def test_it_may_begin_anywhere(loop_and_clock, start, step):
    """A clock below 0, or further off than nanoseconds in 64 bits can count."""
    loop, clock = loop_and_clock
    clock.now = start
    fired = []
    times = sorted({start + i * step for i in range(1, 4)})
    for when in reversed(times):
        loop.call_at(when, fired.append, when)
    for i, when in enumerate(times):
        assert fired == times[:i]
        turn(loop)
        assert fired == times[:i]
        # asyncio's come a nanosecond early, so a moment late where floats are coarse.
        clock.now = math.nextafter(when, math.inf)
        turn(loop)
    assert fired == times


@pytest.mark.parametrize("start", [-1e300, -1.8e12, -5.0, 1.8e12, 1e18, 1e300])
def test_a_far_clock_lets_the_loop_sleep(loop_and_clock, start):
    loop, clock = loop_and_clock
    clock.now = start
    end = start + max(1000.0, abs(start) / 1000)

    def reach():
        clock.now = math.nextafter(end, math.inf)

    loop.call_at(end, loop.stop)
    thread = threading.Timer(0.001, loop.call_soon_threadsafe, [reach])
    thread.start()
    loop.run_forever()
    thread.join()
    assert clock.now >= end


@pytest.mark.parametrize("start", [-1.8e12, -5.0, 1.8e12])
def test_a_wait_in_real_time(kind, start):
    """A clock that is the system's but for its start."""
    loop = type("Own", (kind,), {"time": lambda self: start + time.monotonic()})()

    async def main():
        started = loop.time()
        await asyncio.sleep(0.01)
        # asyncio's may be a nanosecond early.
        assert loop.time() >= started + 0.01 - 1e-9

    loop.run_until_complete(main())
    loop.close()


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


def test_a_selector_to_replace():
    """looptime, and others whose clock jumps, do so; here they would wait for ever."""
    loop = Loop()
    if _ext.core is not None:
        with pytest.raises(AttributeError, match="polls in C and has no selector"):
            _ = loop._selector.select
        with pytest.raises(AttributeError):
            loop._selector.select = print
        assert not hasattr(loop._selector, "select")
    loop.close()

"""The loop runs asyncio programs; the details are CPython's own test_asyncio."""

import asyncio
import contextlib
import gc
import importlib
import os
import resource
import socket
import sys
import weakref

import pytest

from aiozmq_speedups._loop.hooks import ASYNCIO_HOOKS
from aiozmq_speedups.loop import Loop, new_event_loop, run

pytestmark = pytest.mark.loops("speedups", "asyncio", closed_at_once=True)


def test_run_returns_the_result():
    async def main():
        await asyncio.sleep(0)
        return type(asyncio.get_running_loop())

    assert run(main()) is Loop


def test_run_on_a_loop_of_ones_own():
    async def main():
        return asyncio.get_running_loop().busy_poll_us

    assert run(main(), loop_factory=lambda: new_event_loop(busy_poll_us=7)) == 7
    assert run(main(), loop_factory=None) == 0


def test_run_inside_a_running_loop_is_refused():
    async def main():
        coro = asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="running event loop"):
            run(coro)
        coro.close()

    run(main())


def test_call_soon_keeps_order_and_arguments(loop):
    seen = []
    loop.call_soon(seen.append, 0)
    loop.call_soon(lambda *args: seen.append(args), 1, 2, 3, 4, 5)
    loop.call_soon(lambda: seen.append("none"))
    loop.call_soon(loop.stop)
    loop.call_soon(seen.append, "same turn")
    loop.call_soon(lambda: loop.call_soon(seen.append, "next turn"))
    loop.run_forever()
    assert seen == [0, (1, 2, 3, 4, 5), "none", "same turn"]


def test_handles_are_asyncio_handles(loop):
    handle = loop.call_soon(print)
    assert isinstance(handle, asyncio.Handle)
    assert not isinstance(handle, asyncio.TimerHandle)
    timer = loop.call_later(0, print)
    assert isinstance(timer, asyncio.TimerHandle)
    for h in (handle, timer):
        assert not h.cancelled()
        h.cancel()
        h.cancel()
        assert h.cancelled()
        assert "cancelled" in repr(h)


def test_timers_fire_in_order_and_never_early(loop):
    seen = []
    now = loop.time()

    def fired(when):
        seen.append(when - now)
        assert loop.time() >= when

    for delay in (0.02, 0.0, 0.01, 0.0, 0.005):
        loop.call_at(now + delay, fired, now + delay)
    loop.call_at(now + 0.03, loop.stop)
    loop.run_forever()
    assert seen == sorted(seen)
    assert len(seen) == 5


@pytest.mark.parametrize("method", ["call_later", "call_at"])
def test_times_that_are_none_are_refused(loop, method):
    with pytest.raises(TypeError, match="None"):
        getattr(loop, method)(None, print)


def test_readers_and_writers(loop):
    a, b = socket.socketpair()
    seen = []
    with a, b:
        a.setblocking(False)

        def readable():
            seen.append(a.recv(10))
            loop.remove_reader(a)

        def writable():
            b.send(b"x")
            assert loop.remove_writer(b)
            loop.call_later(0.001, loop.stop)

        loop.add_reader(a, readable)
        loop.add_writer(b.fileno(), writable)
        loop.run_forever()
        assert not loop.remove_reader(a)
        assert seen == [b"x"]


@pytest.mark.parametrize(
    ("fd", "error"), [(-1, ValueError), ("x", ValueError), (10**6, OSError)]
)
def test_bad_descriptors_are_refused(loop, fd, error):
    with pytest.raises(error):
        loop.add_reader(fd, print)


def test_a_descriptor_number_used_again_is_watched_again(loop):
    """Closed without remove_reader(): asyncio loses the second one's events."""
    if not isinstance(loop, Loop):
        pytest.skip("asyncio has this defect")
    a, b = socket.socketpair()
    fd = a.fileno()
    loop.add_reader(fd, print)
    a.close()
    b.close()
    c, d = socket.socketpair()
    with c, d:
        assert fd in (c.fileno(), d.fileno())
        reading, writing = (c, d) if c.fileno() == fd else (d, c)
        loop.add_reader(fd, loop.stop)
        loop.call_later(5, pytest.fail)
        writing.send(b"x")
        loop.run_forever()
        loop.remove_reader(fd)
        assert reading.recv(1) == b"x"


@pytest.mark.parametrize("room", range(5))
def test_a_loop_without_descriptors(room):
    """OSError and nothing else: asyncio's prints an AttributeError of _ssock."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull) as free:
        lowest = free.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + room, hard))
    loop = None
    try:
        with contextlib.suppress(OSError):
            loop = new_event_loop()
        if loop is not None:
            loop.close()
        gc.collect()
        assert loop is None or room > 2
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_asyncio_still_has_what_the_loop_relies_on():
    for path, names in ASYNCIO_HOOKS.items():
        try:
            owner = importlib.import_module(path)
        except ImportError:
            module, cls = path.rsplit(".", 1)
            owner = getattr(importlib.import_module(module), cls)
        for name in names:
            assert hasattr(owner, name), f"{path}.{name}"
    server = asyncio.base_events.Server(None, [], None, None, 1, None)
    assert server._sockets == []
    if sys.version_info >= (3, 13):
        assert type(server._clients) is weakref.WeakSet

"""slow_callback_ms: callbacks that take long are told of, without debug mode."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

import aiozmq_speedups
from aiozmq_speedups import SlowCallback, _ext, new_event_loop

LIMIT_MS = 20
LONG = 0.1

pytestmark = pytest.mark.skipif(_ext.core is None, reason="no extension")


class Told(list):
    """Of a callback in which block() was called: on a busy machine any may be slow."""

    def __init__(self):
        self.times = []  # of all: when they began and ended
        self.known = 0  # of `blocked`

    def append(self, slow):
        now = time.perf_counter()
        self.times.append((now - slow.seconds, now))
        # The first that is told of after it, or another one with it in its time.
        fits = self.known < len(blocked) or any(now - t < slow.seconds for t in blocked)
        if slow.seconds >= LONG and fits:
            self.known = len(blocked)
            super().append(slow)


#: Times in the middle of block().
blocked = []


@pytest.fixture
def told():
    blocked.clear()
    return Told()


@pytest.fixture
def loop(told):
    loop = new_event_loop(slow_callback_ms=LIMIT_MS, on_slow_callback=told.append)
    yield loop
    loop.close()


def block(seconds=LONG):
    time.sleep(seconds / 2)
    blocked.append(time.perf_counter())
    time.sleep(seconds / 2)
    stuck = asyncio.get_running_loop()._stuck
    while not stuck()[2] and seconds == LONG:  # the ticker has a processor, too
        time.sleep(0.001)


def run_ready(loop):
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_handle(loop, told, caplog):
    handle = loop.call_soon(block)
    loop.call_soon(lambda: None)
    run_ready(loop)
    [slow] = told
    assert isinstance(slow, SlowCallback)
    assert slow.handle is handle
    assert slow.task is slow.owner is slow.method is slow.stack is None
    assert slow.seconds >= LONG
    record = next(r for r in caplog.records if "block" in r.getMessage())
    assert record.name == "aiozmq_speedups.loop"
    assert record.levelno == logging.WARNING
    assert "block()" in record.getMessage()
    assert f"took {slow.seconds:.3f} seconds" in record.getMessage()
    assert loop.stats()["longest_callback_ns"] >= LONG * 1e9


def test_timer_and_threadsafe(loop, told):
    handles = [loop.call_later(0, block), loop.call_soon_threadsafe(block)]
    run_ready(loop)
    run_ready(loop)
    assert {slow.handle for slow in told} == set(handles)


def test_task(loop, told, caplog):
    async def main():
        await asyncio.sleep(0)
        block()
        await asyncio.sleep(0)

    loop.run_until_complete(loop.create_task(main(), name="my task"))
    [slow] = told
    assert slow.task == "my task"
    assert "my task" in caplog.text


def test_quick_ones_are_not_told_of(told):
    loop = new_event_loop(slow_callback_ms=60_000, on_slow_callback=told.append)
    for _ in range(3):
        loop.call_soon(block, 0.001)
    run_ready(loop)
    loop.close()
    assert told == []


def test_waiting_is_not_slow(loop, told):
    async def main():
        began = time.perf_counter()
        await asyncio.sleep(LONG)
        return began, time.perf_counter()

    began, ended = loop.run_until_complete(main())
    run_ready(loop)
    assert not [t for t in told.times if t[0] < began + LONG / 2 and ended < t[1]]


@pytest.mark.parametrize("raises", [False, True])
def test_protocol_method(loop, told, caplog, raises):
    class Blocking(asyncio.Protocol):
        def data_received(self, data):
            block()
            if raises:
                raise ZeroDivisionError

    failed = []
    loop.set_exception_handler(lambda _, context: failed.append(context))

    async def main():
        a, b = socket.socketpair()
        transport, protocol = await loop.create_connection(Blocking, sock=a)
        with b:
            b.send(b"x")
            while not told:
                await asyncio.sleep(0)
            transport.abort()
        return protocol

    protocol = loop.run_until_complete(main())
    run_ready(loop)
    [slow] = told
    assert slow.owner is protocol and slow.method == "data_received"
    assert slow.handle is None
    assert "Blocking.data_received() of " in caplog.text
    assert len(failed) == raises


def test_call_within_a_callback(loop, told):
    """A protocol's quick method, called by a callback that was slow before."""

    class Paused(asyncio.Protocol):
        def pause_writing(self):
            self.paused = True

    async def main():
        a, b = socket.socketpair()
        with b:
            transport, protocol = await loop.create_connection(Paused, sock=a)
            transport.set_write_buffer_limits(high=0)
            await asyncio.sleep(0)
            block()
            transport.write(b"x" * 10_000_000)
            assert protocol.paused
            transport.abort()
            await asyncio.sleep(0)

    loop.run_until_complete(main())
    [slow] = told
    assert slow.method is None and slow.task is not None


def test_factory(loop, told):
    lost = loop.create_future()

    class Server(asyncio.Protocol):
        def connection_lost(self, exc):
            lost.set_result(None)

    def factory():
        block()
        return Server()

    async def main():
        server = await loop.create_server(factory, "127.0.0.1", 0)
        socket.create_connection(server.sockets[0].getsockname()).close()
        await lost
        server.close()

    loop.run_until_complete(main())
    [slow] = told
    assert slow.owner is factory and slow.method is None


def test_hook_that_raises(loop, told):
    def hook(slow):
        raise ZeroDivisionError

    loop.on_slow_callback = hook
    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))
    loop.call_soon(block)
    run_ready(loop)
    context = contexts[0]
    assert isinstance(context["exception"], ZeroDivisionError)
    assert context["message"] == "Exception in on_slow_callback"


def test_hook_that_exits(loop):
    def hook(slow):
        loop.on_slow_callback = None
        raise SystemExit

    loop.on_slow_callback = hook
    loop.call_soon(block)
    with pytest.raises(SystemExit):
        run_ready(loop)
    run_ready(loop)


def test_both_with_debug_mode(loop, told, caplog):
    """asyncio's message, once, and the hook."""
    loop.set_debug(True)
    loop.slow_callback_duration = LIMIT_MS / 1000
    loop.call_soon(block)
    run_ready(loop)
    assert len(told) == 1
    [record] = [r for r in caplog.records if "block" in r.getMessage()]
    assert record.name == "asyncio"


def test_watchdog():
    """The stack is logged while the callback blocks, and belongs to it afterwards."""
    logged = threading.Event()
    messages, slows = [], []

    class Handler(logging.Handler):
        def emit(self, record):
            messages.append(record.getMessage())
            if "in stuck_here" in messages[-1]:
                logged.set()

    handler = Handler()
    logger = logging.getLogger("aiozmq_speedups.loop")
    logger.addHandler(handler)
    loop = new_event_loop(
        slow_callback_ms=LIMIT_MS,
        on_slow_callback=lambda slow: hook(slow),
        watchdog=True,
    )

    def stuck_here():
        assert logged.wait(100)
        block()

    def hook(slow):
        if "stuck_here" in str(slow):
            slows.append(slow)

    try:
        loop.call_soon(stuck_here)
        run_ready(loop)
    finally:
        logger.removeHandler(handler)
        loop.close()
    assert any("stuck for" in m and "in stuck_here" in m for m in messages)
    [slow] = slows
    assert any(frame.name == "stuck_here" for frame in slow.stack)
    assert not [t for t in threading.enumerate() if "watchdog" in t.name]


def test_watchdog_of_an_abandoned_loop():
    loop = new_event_loop(slow_callback_ms=4, watchdog=True)
    run_ready(loop)
    [thread] = [t for t in threading.enumerate() if "watchdog" in t.name]
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        del loop
        gc.collect()
    thread.join(100)
    assert not thread.is_alive()


def test_watchdog_at_the_end_of_the_process():
    """The loop is left to the interpreter, which has stopped the thread by then."""
    program = (
        "import aiozmq_speedups as a; l = a.Loop(slow_callback_ms=4, watchdog=True);"
        "l.call_soon(l.stop); l.run_forever()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=250)


def test_options(monkeypatch):
    def made(**options):
        loop = new_event_loop(**options)
        loop.close()
        return loop

    assert made().slow_callback_ms is None
    assert made(slow_callback_ms=2.5).slow_callback_ms == 2.5
    for wrong in (0, 0.5, -1, float("nan"), float("inf"), 1e9):
        with pytest.raises(ValueError, match="slow_callback_ms must be from 1"):
            made(slow_callback_ms=wrong)
    for wrong in (True, "1", [], 1j):
        with pytest.raises(TypeError, match="slow_callback_ms must be a number"):
            made(slow_callback_ms=wrong)
    with pytest.raises(ValueError, match="watchdog=True needs slow_callback_ms"):
        made(watchdog=True)
    monkeypatch.setenv("AIOZMQ_SPEEDUPS_WATCHDOG", "1")
    assert not made()._watchdog_wanted
    monkeypatch.setenv("AIOZMQ_SPEEDUPS_SLOW_CALLBACK_MS", "250")
    assert made().slow_callback_ms == 250
    assert made()._watchdog_wanted and not made(watchdog=False)._watchdog_wanted
    assert made(slow_callback_ms=50).slow_callback_ms == 50
    monkeypatch.setenv("AIOZMQ_SPEEDUPS_SLOW_CALLBACK_MS", "slow")
    with pytest.raises(ValueError, match="SLOW_CALLBACK_MS must be a number"):
        made()


def test_run(told):
    async def main():
        block()

    aiozmq_speedups.run(main(), slow_callback_ms=LIMIT_MS, on_slow_callback=told.append)
    assert len(told) == 1
    with pytest.raises(ValueError, match="slow_callback_ms is for the loop"):
        coroutine = main()
        try:
            aiozmq_speedups.run(
                coroutine, loop_factory=new_event_loop, slow_callback_ms=1
            )
        finally:
            coroutine.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_fork(loop):
    """The ticking thread is the parent's: the child's copy of the loop goes quietly."""
    run_ready(loop)
    pid = os.fork()
    if pid == 0:
        try:
            loop.close()
            del loop
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert status == 0

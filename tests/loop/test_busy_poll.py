"""Busy polling: counted by Loop.stats(), never by the clock.

BUSY is longer than any test may take: a loop that busy-polls for so long does not
sleep at all, and one that sleeps all the same is caught by its `sleeps`.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import zmq

import aiozmq_speedups
from aiozmq_speedups import _ext, create_zmq_stream, new_event_loop
from aiozmq_speedups.loop import Loop

BUSY = 3600 * 1_000_000
needs_extension = pytest.mark.skipif(_ext.core is None, reason="no extension")


@pytest.fixture
def make_loop():
    loops = []

    def make(busy_poll_us):
        loops.append(new_event_loop(busy_poll_us=busy_poll_us))
        return loops[-1]

    yield make
    for loop in loops:
        loop.close()


@pytest.fixture
def busy(make_loop):
    """A loop that must not have slept when the test is over."""
    loop = make_loop(BUSY)
    yield loop
    if _ext.core is not None:
        assert loop.stats()["sleeps"] == 0


def in_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    return thread


# --- the argument --------------------------------------------------------------


def test_off_by_default():
    loop = new_event_loop()
    assert loop.busy_poll_us == 0
    loop.run_until_complete(asyncio.sleep(1e-4))
    if _ext.core is not None:
        while not loop.stats()["sleeps"]:  # a busy machine is late for the first
            loop.run_until_complete(asyncio.sleep(0.01))
        assert loop.stats()["busy_polls"] == 0
    loop.close()
    assert loop.busy_poll_us == 0


@needs_extension
@pytest.mark.parametrize("value", [0, 1, 50, 24 * 3600 * 1_000_000])
def test_attribute(value):
    for loop in new_event_loop(busy_poll_us=value), Loop(busy_poll_us=value):
        assert loop.busy_poll_us == value
        assert type(loop.busy_poll_us) is int
        with pytest.raises(AttributeError):
            loop.busy_poll_us = 1
        loop.close()


@pytest.mark.parametrize("value", [-1, -(10**30), 24 * 3600 * 1_000_000 + 1, 10**30])
def test_bad_value(value):
    with pytest.raises(ValueError, match="busy_poll_us"):
        new_event_loop(busy_poll_us=value)
    with pytest.raises(ValueError, match="busy_poll_us"):
        Loop(busy_poll_us=value)


@pytest.mark.parametrize("value", [None, "1", 1.0, b"", object()])
def test_bad_type(value):
    with pytest.raises(TypeError):
        new_event_loop(busy_poll_us=value)
    with pytest.raises(TypeError):
        Loop(busy_poll_us=value)


def test_keyword_only():
    with pytest.raises(TypeError):
        new_event_loop(50)


def test_anything_with_an_index():
    class Fifty:
        def __index__(self):
            return 50

    loop = new_event_loop(busy_poll_us=Fifty())
    assert loop.busy_poll_us == (50 if _ext.core is not None else 0)
    loop.close()


def test_runner():
    async def main():
        await asyncio.sleep(1e-4)
        return asyncio.get_running_loop().busy_poll_us

    factory = functools.partial(new_event_loop, busy_poll_us=50)
    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(main()) == (50 if _ext.core is not None else 0)


def test_in_pure_python():
    program = """
import asyncio
from aiozmq_speedups.loop import Loop, new_event_loop
for bad, error in (-1, ValueError), (10**30, ValueError), (1.5, TypeError):
    try:
        new_event_loop(busy_poll_us=bad)
    except error as exc:
        pass
    else:
        raise AssertionError(bad)
loop = Loop(busy_poll_us=50)
assert loop.busy_poll_us == 0
loop.run_until_complete(asyncio.sleep(1e-4))
loop.close()
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=os.environ
        | {
            "AIOZMQ_SPEEDUPS_PURE": "1",
            # What is tested here, be it a checkout or installed.
            "PYTHONPATH": str(Path(aiozmq_speedups.__file__).parents[1]),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


# --- what ends it ---------------------------------------------------------------


@pytest.mark.parametrize("debug", [False, True])
def test_timer(busy, debug):
    busy.set_debug(debug)
    start = busy.time()
    busy.run_until_complete(asyncio.sleep(0.03))  # more than one slice
    assert busy.time() >= start + 0.03
    if _ext.core is not None:
        while not busy.stats()["busy_polls"]:  # a busy machine is late for the first
            busy.run_until_complete(asyncio.sleep(0.03))


def test_timers_in_order(busy):
    fired = []
    now = busy.time()
    for delay in 0.003, 0.001, 0.002:
        busy.call_at(now + delay, fired.append, delay)
    busy.call_at(now + 0.004, busy.stop)
    busy.run_forever()
    assert fired == [0.001, 0.002, 0.003]


def test_call_soon_threadsafe(busy):
    count = 100
    done = threading.Semaphore(0)
    called = []

    def call(number):
        called.append(number)
        done.release()
        if number == count - 1:
            busy.stop()

    def schedule():
        for number in range(count):
            # One at a time, so that the loop is idle in between. It would never get
            # here if the loop kept the GIL.
            busy.call_soon_threadsafe(call, number)
            done.acquire()

    thread = in_thread(schedule)
    busy.run_forever()
    thread.join()
    assert called == list(range(count))


def test_stop_from_thread(busy):
    thread = in_thread(lambda: busy.call_soon_threadsafe(busy.stop))
    busy.run_forever()
    thread.join()


def test_executor(busy):
    async def main():
        for _ in range(10):
            assert await busy.run_in_executor(None, lambda: 42) == 42
        await busy.shutdown_default_executor()

    busy.run_until_complete(main())


def test_descriptor(busy):
    a, b = socket.socketpair()
    with a, b:
        busy.add_reader(a, busy.stop)
        thread = in_thread(lambda: b.send(b"x"))
        busy.run_forever()
        thread.join()
        busy.remove_reader(a)


def test_streams(busy):
    async def serve(reader, writer):
        while data := await reader.read(100):
            writer.write(data)
        writer.close()
        await writer.wait_closed()
        served.set_result(None)

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for _ in range(20):
            writer.write(b"ping")
            assert await reader.readexactly(4) == b"ping"
        writer.close()
        await writer.wait_closed()
        await served
        server.close()
        await server.wait_closed()

    served = busy.create_future()
    busy.run_until_complete(main())


def test_sock_methods(busy):
    async def main():
        a, b = socket.socketpair()
        with a, b:
            a.setblocking(False)
            b.setblocking(False)
            for _ in range(5):
                receive = busy.create_task(busy.sock_recv(a, 10))
                await asyncio.sleep(0.001)
                await busy.sock_sendall(b, b"x")
                assert await receive == b"x"

    busy.run_until_complete(main())


def test_zmq(busy):
    async def main():
        pull = await create_zmq_stream(zmq.PULL, bind="tcp://127.0.0.1:*")
        (endpoint,) = pull.transport.bindings()
        push = await create_zmq_stream(zmq.PUSH, connect=endpoint)
        for number in range(20):
            push.write([b"%d" % number])
            assert await pull.read() == [b"%d" % number]
        push.close()
        pull.close()
        while busy.stats()["zmq_transports"]:
            await asyncio.sleep(0)

    busy.run_until_complete(main())


def test_signal_handler(busy):
    busy.add_signal_handler(signal.SIGUSR1, busy.stop)
    thread = in_thread(lambda: os.kill(os.getpid(), signal.SIGUSR1))
    busy.run_forever()
    thread.join()
    busy.remove_signal_handler(signal.SIGUSR1)


@needs_extension
@pytest.mark.parametrize("wakeup_fd", [True, False])
def test_signal_that_raises(busy, wakeup_fd):
    def handler(number, frame):
        raise LookupError(number)

    def kill():
        while not busy.stats()["busy_polls"]:
            pass  # no callback shall run when the signal comes
        os.kill(os.getpid(), signal.SIGUSR1)

    if not wakeup_fd:  # nothing tells epoll of the signal then
        busy.call_soon(signal.set_wakeup_fd, -1)
    old = signal.signal(signal.SIGUSR1, handler)
    try:
        thread = in_thread(kill)
        with pytest.raises(LookupError):
            busy.run_forever()
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, old)
    busy.run_until_complete(asyncio.sleep(0.001))


def test_signal_that_schedules(busy):
    """What a handler of signal.signal() adds counts at once: without the GIL nothing
    else could have been added."""

    def handler(number, frame):
        busy.call_later(0.001, busy.stop)

    old = signal.signal(signal.SIGUSR1, handler)
    try:
        thread = in_thread(lambda: os.kill(os.getpid(), signal.SIGUSR1))
        busy.run_forever()
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, old)


# --- for how long ---------------------------------------------------------------


@needs_extension
def test_sleeps_when_the_time_is_over(make_loop):
    loop = make_loop(1)
    while not (loop.stats()["busy_polls"] and loop.stats()["sleeps"]):
        loop.run_until_complete(asyncio.sleep(0.02))


@needs_extension
def test_only_callbacks_earn_more(make_loop):
    """Woken for nothing, the loop goes on sleeping."""
    loop = make_loop(1)
    polls = []
    woken = 20

    def wake():
        for _ in range(woken):
            sleeps = loop.stats()["sleeps"]
            loop._write_to_self()
            while loop.stats()["sleeps"] == sleeps:
                pass  # until it sleeps again
            polls.append(loop.stats()["busy_polls"])
        loop.call_soon_threadsafe(loop.stop)

    thread = in_thread(wake)
    loop.run_forever()
    thread.join()
    # The first may have been before the first sleep.
    assert polls[1:] == [polls[-1]] * (woken - 1)
    assert loop.stats()["sleeps"] >= woken


@needs_extension
def test_busy_loop_does_not_spin(make_loop):
    loop = make_loop(BUSY)

    async def main():
        for _ in range(1000):
            await asyncio.sleep(0)

    loop.run_until_complete(main())
    stats = loop.stats()
    assert stats["busy_polls"] == stats["sleeps"] == 0


@needs_extension
def test_each_callback_earns_it_again(make_loop):
    loop = make_loop(1)

    async def main():
        for _ in range(10):
            before = loop.stats()["busy_polls"]
            while loop.stats()["busy_polls"] == before:
                await asyncio.sleep(0.001)  # on a busy machine it may be over at once

    loop.run_until_complete(main())

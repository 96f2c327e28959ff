"""A million callbacks later: the same counters, reference counts and memory."""

import asyncio
import contextvars
import gc
import socket
import sys

import pytest
from measuring import live_objects, memory
from waiting import run_ready

from aiozmq_speedups import EpollSelector, new_event_loop
from aiozmq_speedups._ext import core

pytestmark = [
    pytest.mark.loops("speedups", closed_at_once=True),
    pytest.mark.skipif(core is None, reason="needs the C extension"),
]

MIB = 1 << 20


def assert_flat(one_round, objects, rounds=10, slack=0):
    """`one_round` leaves no object, no reference and no memory behind.

    `slack` is how many more may be left by chance, whatever the rounds.
    """
    for _ in range(3):
        one_round()  # free lists, buffers and caches reach their size
    gc.collect()
    before = [*live_objects().values(), *(sys.getrefcount(o) for o in objects)]
    blocks, rss = sys.getallocatedblocks(), memory()
    for _ in range(rounds):
        one_round()
    gc.collect()
    after = [*live_objects().values(), *(sys.getrefcount(o) for o in objects)]
    for old, new in zip(before, after, strict=True):
        assert new - old <= slack, (live_objects(), before, after)
    assert sys.getallocatedblocks() - blocks < 2000 + 10 * slack
    if core.BUILD_FLAVOUR != "asan":  # which keeps what was freed, to watch it
        # a leak of one object a callback would be tens of MiB
        assert memory() - rss < 8 * MIB


class Callback:
    def __call__(self, *args):
        pass


def test_call_soon(loop):
    callback, arg, context = Callback(), object(), contextvars.copy_context()

    def one_round():
        for _ in range(2_000):
            for args in ((), (arg,), (arg, arg, arg), (arg,) * 6):
                loop.call_soon(callback, *args)
                loop.call_soon(callback, *args, context=context)
                loop.call_soon_threadsafe(callback, *args)
                loop.call_soon(callback, *args).cancel()
        run_ready(loop)

    # 32,000 a round, 32 rounds: a million
    assert_flat(one_round, [callback, arg, context, loop], rounds=29)


def test_timers(loop):
    callback, arg = Callback(), object()

    def one_round():
        handles = []
        for i in range(10_000):
            loop.call_later(0, callback, arg)
            handles.append(loop.call_later(1000 + i % 7, callback, arg))
        for handle in handles:
            handle.cancel()
        run_ready(loop)
        run_ready(loop)

    # cancelled ones leave the heap when they are half of it
    assert_flat(one_round, [callback, arg, loop], slack=10_000)


def test_failing_callbacks(loop):
    loop.set_exception_handler(lambda loop, context: None)
    arg = object()

    def fail(arg):
        raise ZeroDivisionError

    def one_round():
        for _ in range(1_000):
            loop.call_soon(fail, arg)
            for wrong in (
                lambda: loop.call_soon(),
                lambda: loop.call_soon(fail, arg, nothing=arg),
                lambda: loop.call_soon(fail, arg, context=arg),
                lambda: loop.call_later(arg, fail),
                lambda: loop.add_reader(arg, fail),
                lambda: loop.add_reader(-1, fail, arg),
                lambda: loop.create_task(arg),
            ):
                with pytest.raises((TypeError, ValueError)):
                    wrong()
        run_ready(loop)

    assert_flat(one_round, [fail, arg, loop], rounds=4)


def test_readers_and_writers(loop):
    callback, arg = Callback(), object()
    a, b = socket.socketpair()

    def one_round():
        for _ in range(2_000):
            loop.add_writer(b, callback, arg)
            loop.add_reader(a, callback, arg)
            loop.add_reader(a, callback, arg, arg, arg, arg, arg)
            loop._watched(a)
            run_ready(loop)
            loop.remove_reader(a)
            loop.remove_writer(b)

    with a, b:
        assert_flat(one_round, [callback, arg, loop], rounds=5)


def test_futures_and_tasks(loop):
    value = object()

    async def coroutine():
        await asyncio.sleep(0)
        future = loop.create_future()
        loop.call_soon(future.set_result, value)
        return await future

    async def main():
        assert set(await asyncio.gather(*(coroutine() for _ in range(1_000)))) == {
            value
        }
        for _ in range(200):
            task = asyncio.ensure_future(coroutine())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    assert_flat(lambda: loop.run_until_complete(main()), [value, loop])


def test_debug_mode(loop):
    loop.set_debug(True)
    loop.slow_callback_duration = 1000
    callback, arg = Callback(), object()

    def one_round():
        for _ in range(500):
            loop.call_soon(callback, arg)
            loop.call_later(0, callback, arg)
            repr(loop.call_soon_threadsafe(callback, arg))
        run_ready(loop)
        run_ready(loop)

    assert_flat(one_round, [callback, arg, loop], rounds=4)


def test_loops():
    callback, arg = Callback(), object()

    def one_round():
        for _ in range(50):
            loop = new_event_loop()
            loop.call_soon(callback, arg)
            loop.call_later(1000, callback, arg)
            loop.call_soon_threadsafe(callback, arg)
            run_ready(loop)
            loop.call_soon(callback, arg)
            loop.close()

    assert_flat(one_round, [callback, arg])


def test_selectors():
    a, b = socket.socketpair()
    data = object()

    def one_round():
        for _ in range(500):
            with EpollSelector() as s:
                s.register(a, 1, data)
                s.register(b, 3, data)
                s.modify(a, 3, [data])
                s.select(0)
                s.select(0)
                list(s.get_map().items())

    with a, b:
        assert_flat(one_round, [data, a, b], rounds=5)


def test_connections(loop):
    """Servers, streams and transports come and go."""
    payload = b"x" * 100_000

    async def handle(reader, writer):
        writer.write(await reader.read())
        writer.close()

    async def main():
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(payload)
            writer.write_eof()
            assert await reader.read() == payload
            writer.close()
            await writer.wait_closed()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0)

    assert_flat(lambda: loop.run_until_complete(main()), [payload, loop], rounds=5)

"""Threads without a GIL, and with one: the same programs on asyncio's loop.

AZS_STRESS=100 makes each as many times as long: with 125 eight threads make a million
calls (tests/threads.py).
"""

import asyncio
import os
import subprocess
import sys
import sysconfig
import threading
import time

import pytest
from threads import LONG, in_threads

from aiozmq_speedups import Loop
from aiozmq_speedups._ext import core

pytestmark = [
    pytest.mark.loops("speedups", "asyncio", closed_at_once=True),
    pytest.mark.timeout(300 + 60 * LONG),
]


def test_threadsafe_calls_of_eight_threads(loop):
    """Each thread's in its order, none lost, none on another loop's thread."""
    threads, per_thread = 8, 1000 * LONG
    got = [[] for _ in range(threads)]
    places = set()

    def callback(i, n):
        got[i].append(n)
        if n == 0 or n == per_thread - 1:
            places.add(threading.get_ident())
        if n == per_thread - 1 and all(len(one) == per_thread for one in got):
            loop.stop()

    def send(i):
        for n in range(per_thread):
            loop.call_soon_threadsafe(callback, i, n)

    in_threads(*(lambda i=i: send(i) for i in range(threads)), loop.run_forever)
    assert got == [list(range(per_thread))] * threads
    assert len(places) == 1


def test_handles_cancelled_by_other_threads(loop):
    """They run once or not at all, and what is cancelled is let go."""
    handles, ran = [], []
    over = threading.Event()

    def cancel():
        while not over.is_set() or handles:
            try:
                handle = handles.pop()
            except IndexError:
                continue
            handle.cancel()
            assert handle.cancelled()
            repr(handle)
            if sys.version_info >= (3, 12):
                handle.get_context()

    async def main():
        for i in range(2000 * LONG):
            if i % 2:
                handles.append(loop.call_later(i % 3 / 1000, ran.append, i))
            else:
                handles.append(loop.call_soon_threadsafe(ran.append, i))
            if i % 50 == 0:
                await asyncio.sleep(0)
        over.set()
        await asyncio.sleep(0.01)

    in_threads(cancel, cancel, lambda: loop.run_until_complete(main()))
    assert len(ran) == len(set(ran))


def test_executors_and_threadsafe_coroutines(loop):
    async def double(number):
        await asyncio.sleep(0)
        return 2 * number

    def ask():
        for i in range(100 * LONG):
            future = asyncio.run_coroutine_threadsafe(double(i), loop)
            assert future.result(100) == 2 * i

    async def work():
        for i in range(100 * LONG):
            assert await loop.run_in_executor(None, pow, 2, i % 50) == 2 ** (i % 50)

    async def main():
        asked = [loop.run_in_executor(None, ask) for _ in range(3)]
        async with asyncio.timeout(100):
            await asyncio.gather(*asked, *(work() for _ in range(4)))
        await loop.shutdown_default_executor()

    loop.run_until_complete(main())


def test_loops_that_start_stop_and_close_in_threads(make_loop):
    """Each with its own server and clients."""

    async def echo(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def client(address):
        reader, writer = await asyncio.open_connection(*address)
        for size in (1, 1000, 100_000):
            writer.write(b"x" * size)
            assert await reader.readexactly(size) == b"x" * size
        writer.close()
        await writer.wait_closed()

    async def main():
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        await asyncio.gather(*(client(address) for _ in range(4)))
        server.close()
        await server.wait_closed()

    def run():
        for _ in range(2 * LONG):
            with asyncio.Runner(loop_factory=make_loop) as runner:
                runner.run(main())

    in_threads(*[run] * 4)


def test_a_loop_closed_while_threads_call_it(make_loop):
    room = threading.Semaphore(100)  # lest they outrun the loop

    def send(loop):
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            while True:
                room.acquire(timeout=0.001)
                loop.call_soon_threadsafe(room.release)

    def run(loop):
        for _ in range(5):
            loop.call_soon(loop.stop)
            loop.run_forever()
        loop.close()

    for _ in range(5 * LONG):
        loop = make_loop()
        in_threads(
            lambda loop=loop: send(loop),
            lambda loop=loop: send(loop),
            lambda loop=loop: run(loop),
        )


def test_what_another_thread_may_ask(loop):
    over = threading.Event()

    def ask():
        while not over.is_set():
            assert loop.is_running() in (True, False)
            assert loop.is_closed() is False
            repr(loop)
            loop.get_debug()
            loop.time()
            if hasattr(loop, "stats"):
                assert all(number < 1 << 60 for number in loop.stats().values())

    async def main():
        for _ in range(20 * LONG):
            reader, writer = await asyncio.open_connection(*address)
            writer.close()
            await writer.wait_closed()
        server.close()
        await server.wait_closed()
        over.set()

    server = loop.run_until_complete(
        asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    )
    address = server.sockets[0].getsockname()
    in_threads(ask, ask, lambda: loop.run_until_complete(main()))


def test_a_reader_changed_by_another_thread(loop):
    """What is read of its attributes lives as long as it is used."""
    over = threading.Event()
    readers = []

    def change():
        limit = 1 << 20
        while not over.is_set():
            for reader in readers:
                limit += 1
                reader._limit = limit  # no object of long life
                reader.exception()
            time.sleep(0)

    async def main():
        async with server:
            reader, writer = await asyncio.open_connection(*address)
            readers.append(reader)
            for i in range(100 * LONG):
                writer.write(b"%d\n" % i)
                await writer.drain()
                assert await reader.readline() == b"%d\n" % i
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    async def echo(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()
        await writer.wait_closed()

    server = loop.run_until_complete(asyncio.start_server(echo, "127.0.0.1", 0))
    address = server.sockets[0].getsockname()

    def run():
        try:
            loop.run_until_complete(asyncio.wait_for(main(), 100))
        finally:
            over.set()

    in_threads(change, run)


@pytest.mark.skipif(core is None, reason="the C extension was not built")
def test_watched_to_the_end():
    """A watchdog looks at a loop that is closed at that moment."""
    loops = [Loop(slow_callback_ms=1) for _ in range(20 * LONG)]

    def watch():
        for loop in loops:
            while not loop.is_closed():
                assert len(loop._stuck() or "ran") == 3

    def run():
        for loop in loops:
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

    in_threads(watch, watch, run)


@pytest.mark.skipif(
    core is None or getattr(sys, "_is_gil_enabled", lambda: True)(),
    reason="without a GIL",
)
@pytest.mark.loops("speedups", closed_at_once=True)
def test_a_transport_in_the_wrong_thread(loop):
    """RuntimeError in place of a crash; asyncio's goes on, unguarded."""
    refused = []

    def misuse(transport):
        for call in (
            lambda: transport.write(b"x"),
            lambda: transport.pause_reading(),
            lambda: transport.set_write_buffer_limits(1),
            lambda: loop.remove_reader(transport.get_extra_info("socket")),
        ):
            try:
                call()
            except RuntimeError as exc:
                refused.append(str(exc))
        assert transport.get_extra_info("peername") is not None
        assert transport.get_protocol() is not None
        assert not transport.is_closing()

    async def main():
        _, writer = await asyncio.open_connection(*address)
        await asyncio.gather(
            *(asyncio.to_thread(misuse, writer.transport) for _ in "ab")
        )
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        await loop.shutdown_default_executor()

    server = loop.run_until_complete(
        asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    )
    address = server.sockets[0].getsockname()
    loop.run_until_complete(main())
    assert len(refused) == 8
    assert all(
        "Non-thread-safe operation" in text or "transport" in text for text in refused
    )


def test_transports_handed_to_executors(loop):
    """Those are asked while the loop reads, writes and closes them, and may have the
    last reference. What only the loop's thread may do is refused without a GIL."""
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    refuses = hasattr(loop, "stats") and not has_gil
    calls = (
        lambda transport: transport.write(b"!"),
        lambda transport: transport.resume_reading(),
        lambda transport: transport.set_write_buffer_limits(1),
        lambda transport: transport.abort(),
    )

    def ask(transport, over):
        while not over.is_set():
            assert transport.get_extra_info("socket").fileno() >= -1
            assert transport.is_closing() in (True, False)
            transport.get_protocol()
            if hasattr(loop, "stats"):
                repr(transport)  # asyncio's looks into its loop's selector
            if refuses and not transport.is_closing():
                for call in calls:
                    with pytest.raises(RuntimeError):
                        call(transport)

    async def talk(address):
        reader, writer = await asyncio.open_connection(*address)
        over = threading.Event()
        asked = [
            loop.run_in_executor(None, ask, writer.transport, over) for _ in range(2)
        ]
        try:
            for size in (1, 1000, 100_000):
                writer.write(b"x" * size)
                assert await reader.readexactly(size) == b"x" * size
            writer.close()
            await writer.wait_closed()
            del reader, writer
        finally:
            over.set()
        await asyncio.gather(*asked)

    async def echo(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main():
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        for _ in range(3 * LONG):
            await asyncio.gather(talk(address), talk(address))
        server.close()
        await server.wait_closed()
        await loop.shutdown_default_executor()

    loop.run_until_complete(main())


@pytest.mark.loops("speedups", closed_at_once=True)
def test_one_coroutine_in_two_threads(loop):
    """It runs once at a time: the other thread gets ValueError or RuntimeError."""
    for _ in range(50 * LONG):
        coro = loop.sock_recv(0, 1)
        raised = []

        def send(coro=coro, raised=raised):
            try:
                coro.send(None)
            except BaseException as exc:
                raised.append(type(exc))

        in_threads(send, send)
        assert len(raised) == 2
        coro.close()


@pytest.mark.skipif(
    core is None
    or sys.version_info < (3, 14)
    or not sysconfig.get_config_var("Py_GIL_DISABLED"),
    reason="of free-threaded builds since Python 3.14",
)
@pytest.mark.loops("speedups")
def test_the_import_leaves_the_gil_off():
    program = "import aiozmq_speedups._core, sys; print(sys._is_gil_enabled())"
    env = {name: value for name, value in os.environ.items() if name != "PYTHON_GIL"}
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=env,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert process.stdout == "False\n", process.stderr

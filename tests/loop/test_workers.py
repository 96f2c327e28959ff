"""run_workers(): loops in threads."""

import asyncio
import os
import signal
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from aiozmq_speedups import new_event_loop, run_workers

LOOPS = [None, asyncio.SelectorEventLoop]


@pytest.fixture(params=LOOPS, ids=["speedups", "asyncio"])
def run(request):
    return lambda *args: run_workers(*args, loop_factory=request.param)


def test_results_in_their_order(run):
    async def work(i):
        await asyncio.sleep((3 - i) / 1000)
        return i, threading.current_thread(), asyncio.get_running_loop()

    results = run(work, 3)
    assert [i for i, _, _ in results] == [0, 1, 2]
    assert len({thread for _, thread, _ in results} | {threading.current_thread()}) == 4
    assert all(loop.is_closed() for _, _, loop in results)


def test_one_port_for_all(run):
    """The kernel shares connections out among the listeners of one port."""
    placeholder = socket.socket()
    placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    placeholder.bind(("127.0.0.1", 0))
    port = placeholder.getsockname()[1]
    listening = threading.Barrier(2, timeout=100)
    over = threading.Event()

    async def work(i):
        async def handle(reader, writer):
            writer.write(b"%d" % i)
            writer.close()

        async with await asyncio.start_server(
            handle, "127.0.0.1", port, reuse_port=True
        ):
            await asyncio.to_thread(listening.wait)
            if i == 0:
                answers = set()
                while len(answers) < 2:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    answers.add(await reader.read())
                    writer.close()
                over.set()
                return answers
            await asyncio.to_thread(over.wait, 100)

    with placeholder:
        assert run(work, 2)[0] == {b"0", b"1"}


def test_the_first_error_stops_the_others_in_order(run):
    stopped = []
    waiting = threading.Barrier(4, timeout=100)

    async def work(i):
        try:
            await asyncio.to_thread(waiting.wait)
            if i == 2:
                raise ZeroDivisionError
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            stopped.append(i)

    with pytest.raises(BaseExceptionGroup) as caught:
        run(work, 4)
    assert [type(exc) for exc in caught.value.exceptions] == [ZeroDivisionError]
    assert stopped == [2, 0, 1, 3]


def test_interrupted(run):
    started = threading.Barrier(2, timeout=100)
    ended = []

    def is_starting_one():
        """Is the main thread in Thread.start()? An interrupt may break that."""
        frame = sys._current_frames()[threading.main_thread().ident]
        while frame is not None and frame.f_code is not threading.Thread.start.__code__:
            frame = frame.f_back
        return frame is not None

    async def work(i):
        try:
            await asyncio.to_thread(started.wait)
            if i == 0:
                while is_starting_one():
                    await asyncio.sleep(0.001)
                os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            ended.append(i)

    with pytest.raises(KeyboardInterrupt):
        run(work, 2)
    assert ended == [0, 1]


def test_interrupted_while_they_stop(run):
    """Those behind one that takes its time are stopped at once."""
    started = threading.Barrier(3, timeout=20)
    stopped = threading.Event()

    async def work(i):
        try:
            await asyncio.to_thread(started.wait)
            if i == 2:
                raise ZeroDivisionError
            await asyncio.sleep(60)
        finally:
            if i == 0:
                os.kill(os.getpid(), signal.SIGINT)
                assert await asyncio.to_thread(stopped.wait, 20)
            elif i == 1:
                stopped.set()

    with pytest.raises(KeyboardInterrupt):
        run(work, 3)
    for thread in threading.enumerate():
        if thread.name.startswith("aiozmq-worker-"):
            thread.join(20)
            assert not thread.is_alive()


def test_a_factory_that_fails(run):
    def factory(i):
        raise LookupError(i)

    with pytest.raises(BaseExceptionGroup) as caught:
        run(factory, 1)
    assert [repr(exc) for exc in caught.value.exceptions] == ["LookupError(0)"]


def test_refused(run):
    async def main():
        with pytest.raises(RuntimeError, match="running event loop"):
            run(main, 1)

    asyncio.run(main())
    with pytest.raises(ValueError, match="at least 1"):
        run(main, 0)
    coro = main()
    with pytest.raises(TypeError, match="a function of the worker's index, not <cor"):
        run(coro, 1)
    coro.close()


@pytest.mark.parametrize("factory", [new_event_loop, asyncio.SelectorEventLoop])
def test_a_thread_pool_with_a_loop_in_each(factory):
    together = threading.Barrier(3, timeout=100)

    async def echo(reader, writer):
        writer.write(await reader.readline())
        writer.close()

    async def work(i):
        await asyncio.to_thread(together.wait)
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(
                *server.sockets[0].getsockname()
            )
            writer.write(b"%d\n" % i)
            line = await reader.read()
            writer.close()
            await writer.wait_closed()
        return line

    def run_one(i):
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(work(i))

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(run_one, range(6))) == [b"%d\n" % i for i in range(6)]

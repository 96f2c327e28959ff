"""asyncio.SelectorEventLoop runs on the selectors."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from aiozmq_speedups.selector import EpollSelector, ZmqSelector


def run(main, selector_type):
    with asyncio.Runner(
        loop_factory=lambda: asyncio.SelectorEventLoop(selector_type())
    ) as runner:
        return runner.run(main)


@pytest.fixture(params=[EpollSelector, ZmqSelector], ids=["epoll", "zmq"])
def loop_selector(request):
    return request.param


def test_tcp_echo(loop_selector):
    async def echo(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def client(port, payload):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(payload)
        writer.write_eof()
        result = await reader.read()
        writer.close()
        await writer.wait_closed()
        return result == payload

    async def main():
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            payloads = [bytes([i]) * (i * 20_000 + 1) for i in range(20)]
            return await asyncio.gather(*(client(port, p) for p in payloads))

    assert run(main(), loop_selector) == [True] * 20


def test_subprocess(loop_selector):
    async def main():
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "import sys; sys.stdout.write(sys.stdin.read().upper()); sys.exit(3)",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        out, _ = await process.communicate(b"hello")
        return out, process.returncode

    # 3.11's loop finds the child watcher through the policy, which wants the
    # main thread's loop to be set
    assert run(main(), loop_selector) == (b"HELLO", 3)


def test_threads_and_timers(loop_selector):
    async def main():
        loop = asyncio.get_running_loop()
        results = []
        for i in range(20):
            results.append(await asyncio.to_thread(lambda i=i: i * i))
        done = asyncio.Event()
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(done.set,))
        thread.start()
        await done.wait()
        thread.join()
        start = loop.time()
        await asyncio.sleep(0.005)
        assert loop.time() - start >= 0.005 - loop._clock_resolution
        return results

    assert run(main(), loop_selector) == [i * i for i in range(20)]


def test_readers_writers_and_signals(loop_selector):
    async def main():
        loop = asyncio.get_running_loop()
        a, b = socket.socketpair()
        with a, b:
            a.setblocking(False)
            b.setblocking(False)
            got, sent, signalled = (loop.create_future() for _ in range(3))
            loop.add_reader(a, lambda: got.done() or got.set_result(a.recv(10)))
            loop.add_writer(b, lambda: sent.done() or sent.set_result(b.send(b"x")))
            loop.add_signal_handler(signal.SIGUSR1, signalled.set_result, "signal")
            os.kill(os.getpid(), signal.SIGUSR1)
            result = await got, await sent, await signalled
            assert loop.remove_reader(a) and loop.remove_writer(b)
            assert not loop.remove_reader(a)
            assert loop.remove_signal_handler(signal.SIGUSR1)
            return result

    assert run(main(), loop_selector) == (b"x", 1, "signal")

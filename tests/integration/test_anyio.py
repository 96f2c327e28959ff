"""anyio on a loop that its `loop_factory` makes."""

import asyncio
import functools
import signal
import socket
import subprocess

import pytest

from aiozmq_speedups import new_event_loop

anyio = pytest.importorskip("anyio")
from anyio import from_thread, to_thread  # noqa: E402
from anyio.abc import SocketAttribute  # noqa: E402
from anyio.streams.tls import TLSListener, TLSStream  # noqa: E402

DATA = bytes(range(256)) * 20_000


@pytest.fixture
def run(loop_kind):
    factory = new_event_loop if loop_kind == "speedups" else asyncio.SelectorEventLoop

    async def within(main):
        loop = asyncio.get_running_loop()
        assert type(loop).__module__.startswith(
            "aiozmq_speedups." if loop_kind == "speedups" else "asyncio."
        )
        with anyio.fail_after(60):
            await main()

    def run(main):
        anyio.run(within, main, backend_options={"loop_factory": factory})

    return run


async def echo(stream):
    async with stream:
        async for chunk in stream:
            await stream.send(chunk)


async def check_echo(stream):
    async def send():
        await stream.send(DATA)

    received = bytearray()
    async with anyio.create_task_group() as group:
        group.start_soon(send)
        while len(received) < len(DATA):
            received += await stream.receive()
    assert received == DATA


def test_tcp(run):
    async def main():
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, echo)
            port = listener.extra(SocketAttribute.local_port)
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                await check_echo(stream)
            group.cancel_scope.cancel()

    run(main)


def test_tls(run, tls):
    async def main():
        plain = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = plain.extra(SocketAttribute.local_port)
        listener = TLSListener(plain, tls.server)
        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, echo)
            stream = await anyio.connect_tcp("127.0.0.1", port)
            stream = await TLSStream.wrap(
                stream, hostname="127.0.0.1", ssl_context=tls.client
            )
            async with stream:
                await check_echo(stream)
            group.cancel_scope.cancel()

    run(main)


def test_unix(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("s") / "s"

    async def main():
        listener = await anyio.create_unix_listener(path)
        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, echo)
            async with await anyio.connect_unix(path) as stream:
                await check_echo(stream)
            group.cancel_scope.cancel()

    run(main)


def test_udp(run):
    async def main():
        async with await anyio.create_udp_socket(
            family=socket.AF_INET, local_host="127.0.0.1"
        ) as server:
            port = server.extra(SocketAttribute.local_port)
            async with await anyio.create_connected_udp_socket(
                "127.0.0.1", port
            ) as client:
                for number in range(100):
                    await client.send(b"%d" % number)
                    message, address = await server.receive()
                    await server.sendto(message, *address)
                    assert await client.receive() == b"%d" % number

    run(main)


def test_process(run):
    """100 kB through cat, and what becomes of one that is cancelled."""

    async def main():
        result = await anyio.run_process(["cat"], input=DATA[:100_000])
        assert result.stdout == DATA[:100_000]
        with pytest.raises(subprocess.CalledProcessError):
            await anyio.run_process(["false"])
        with anyio.move_on_after(0.05):
            await anyio.run_process(["sleep", "60"])
        async with await anyio.open_process(["cat"]) as process:
            await process.stdin.send(b"hello")
            assert await process.stdout.receive() == b"hello"
            await process.stdin.aclose()
            assert await process.wait() == 0

    run(main)


def test_threads(run):
    """To them and back, and from one that has no loop of its own."""

    async def double(number):
        await anyio.sleep(0)
        return number * 2

    def in_thread(number):
        return from_thread.run(double, number)

    async def main():
        results = {}

        async def call(number):
            call_it = functools.partial(to_thread.run_sync, in_thread)
            results[number] = await call_it(number)

        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(call, number)
        assert results == {i: i * 2 for i in range(50)}

    run(main)


def test_signals(run):
    async def main():
        with anyio.open_signal_receiver(signal.SIGUSR1) as signals:
            signal.raise_signal(signal.SIGUSR1)
            async for number in signals:
                assert number == signal.SIGUSR1
                break

    run(main)


def test_wait_readable_and_cancel(run):
    a, b = socket.socketpair()

    async def main():
        with anyio.move_on_after(0.01) as scope:
            await anyio.wait_readable(a)
        assert scope.cancelled_caught
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.wait_readable, a)
            await anyio.wait_writable(b)
            b.send(b"x")
        assert a.recv(1) == b"x"

    with a, b:
        run(main)


def test_blocking_portal(loop_kind):
    options = {"loop_factory": new_event_loop} if loop_kind == "speedups" else {}
    portal = from_thread.start_blocking_portal(backend_options=options)
    with portal as portal:
        assert portal.call(anyio.sleep, 0) is None
        futures = [portal.start_task_soon(anyio.sleep, 0.001) for _ in range(100)]
        assert all(future.result(100) is None for future in futures)

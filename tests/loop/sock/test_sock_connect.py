"""sock_accept and sock_connect, on asyncio and here."""

import asyncio
import errno
import os
import socket

import pytest
from ports import held_port
from sock_cases import CANCELLED, turns

from aiozmq_speedups.loop import Loop


def test_accept_and_connect(loop, listener):
    async def main():
        task = asyncio.create_task(loop.sock_accept(listener))
        await turns()
        with socket.socket() as client:
            client.setblocking(False)
            assert await loop.sock_connect(client, listener.getsockname()) is None
            conn, address = await task
            with conn:
                assert type(conn) is socket.socket
                assert address == client.getsockname()
                assert conn.gettimeout() == 0
                assert not os.get_inheritable(conn.fileno())
                assert (conn.family, conn.type, conn.proto) == (
                    listener.family,
                    listener.type,
                    listener.proto,
                )
                await loop.sock_sendall(client, b"abc")
                assert await loop.sock_recv(conn, 10) == b"abc"

    loop.run_until_complete(main())


def test_accept_of_a_unix_socket(loop, tmp_path):
    path = str(tmp_path / "socket")

    async def main():
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
            server.listen()
            server.setblocking(False)
            with socket.socket(socket.AF_UNIX) as client:
                client.setblocking(False)
                await loop.sock_connect(client, path)
                conn, address = await loop.sock_accept(server)
                with conn:
                    assert address == ""
                    assert conn.family == socket.AF_UNIX

    loop.run_until_complete(main())


def test_accept_and_connect_ipv6(loop):
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6")

    async def main():
        with server, socket.socket(socket.AF_INET6) as client:
            server.setblocking(False)
            client.setblocking(False)
            await loop.sock_connect(client, server.getsockname()[:2])
            conn, address = await loop.sock_accept(server)
            with conn:
                assert address == client.getsockname()
            with held_port("::1") as port, socket.socket(socket.AF_INET6) as other:
                other.setblocking(False)
                address = ("::1", port, 0, 0)
                with pytest.raises(ConnectionRefusedError) as caught:
                    await loop.sock_connect(other, address[:2])
                assert str(caught.value) == (
                    f"[Errno 111] Connect call failed {address}"
                )

    loop.run_until_complete(main())


def test_accept_with_a_default_timeout(loop, listener):
    async def main():
        with socket.create_connection(listener.getsockname()):
            socket.setdefaulttimeout(5)
            try:
                conn, _ = await loop.sock_accept(listener)
            finally:
                socket.setdefaulttimeout(None)
            with conn:
                assert conn.gettimeout() == 0

    loop.run_until_complete(main())


def test_refused_connections_say_where(loop):
    async def main():
        with held_port() as port, socket.socket() as client:
            address = ("127.0.0.1", port)
            client.setblocking(False)
            with pytest.raises(ConnectionRefusedError) as caught:
                await loop.sock_connect(client, address)
            assert caught.value.errno == errno.ECONNREFUSED
            assert str(caught.value) == f"[Errno 111] Connect call failed {address}"

    loop.run_until_complete(main())


def test_connect_resolves_names_through_the_loop(loop, listener, monkeypatch):
    calls = []

    async def resolve(address, **kwargs):
        await asyncio.sleep(0)
        calls.append((address, kwargs))
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", listener.getsockname())]

    monkeypatch.setattr(loop, "_ensure_resolved", resolve)

    async def main():
        with socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, ("name.invalid", 80))
            conn, _ = await loop.sock_accept(listener)
            conn.close()

    loop.run_until_complete(main())
    assert calls == [
        (
            ("name.invalid", 80),
            {
                "family": socket.AF_INET,
                "type": socket.SOCK_STREAM,
                "proto": 0,
                "loop": loop,
            },
        )
    ]


@pytest.mark.parametrize("result", [None, [], [(1, 2)], 5])
def test_connect_with_a_strange_resolver(loop, monkeypatch, result):
    async def resolve(address, **kwargs):
        return result

    monkeypatch.setattr(loop, "_ensure_resolved", resolve)

    async def main():
        with socket.socket() as client:
            client.setblocking(False)
            with pytest.raises((TypeError, IndexError, ValueError)):
                await loop.sock_connect(client, ("name.invalid", 80))

    loop.run_until_complete(main())


def test_connect_cancelled_while_it_resolves(loop, monkeypatch):
    log = []

    async def resolve(address, **kwargs):
        try:
            await asyncio.sleep(3600)
        except CANCELLED:
            log.append("cancelled")
            raise

    monkeypatch.setattr(loop, "_ensure_resolved", resolve)

    async def main():
        with socket.socket() as client:
            client.setblocking(False)
            task = asyncio.create_task(loop.sock_connect(client, ("name.invalid", 80)))
            await turns()
            task.cancel()
            with pytest.raises(CANCELLED):
                await task
            coro = loop.sock_connect(client, ("name.invalid", 80))
            coro.send(None)
            coro.close()

    loop.run_until_complete(main())
    assert log == ["cancelled"]


def test_a_resolver_that_survives_an_exception(loop, listener, monkeypatch):
    async def resolve(address, **kwargs):
        try:
            await asyncio.sleep(3600)
        except CANCELLED:
            await asyncio.sleep(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", listener.getsockname())]

    monkeypatch.setattr(loop, "_ensure_resolved", resolve)

    async def main():
        with socket.socket() as client:
            client.setblocking(False)
            task = asyncio.create_task(loop.sock_connect(client, ("name.invalid", 80)))
            await turns()
            task.cancel()
            await task
            conn, _ = await loop.sock_accept(listener)
            conn.close()

    loop.run_until_complete(main())


@pytest.mark.parametrize(
    "address",
    [
        ("127.0.0.1", 70000),
        ("127.0.0.1", -1),
        ("127.0.0.1",),
        ("127.0.0.1", 1, 2, 3, 4),
        "127.0.0.1",
        None,
        7,
        (None, 80),
        ("127.0.0.1\0", 80),
        ("127.0.0.1", "no such service"),
        ("\ud800", 80),
    ],
)
def test_connect_to_nonsense(address, listener):
    """The same exception as asyncio's, with the same words."""
    errors = []
    for make in (asyncio.SelectorEventLoop, Loop):
        loop = make()

        async def main(loop=loop):
            with socket.socket() as client:
                client.setblocking(False)
                with pytest.raises(Exception) as caught:
                    await loop.sock_connect(client, address)
                return type(caught.value), str(caught.value)

        errors.append(loop.run_until_complete(main()))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
    assert errors[0] == errors[1]


def test_connect_cancelled_and_tried_again(loop):
    async def main():
        with socket.socket() as server, socket.socket() as client:
            server.bind(("127.0.0.1", 0))
            client.setblocking(False)
            server.listen(8)
            server.setblocking(False)
            task = asyncio.create_task(loop.sock_connect(client, server.getsockname()))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(CANCELLED):
                await task
            # Goes on in the background.
            conn, _ = await loop.sock_accept(server)
            with conn:
                await loop.sock_sendall(client, b"abc")
                assert await loop.sock_recv(conn, 10) == b"abc"

    loop.run_until_complete(main())


def test_a_full_unix_backlog_is_not_success(loop, ours, tmp_path):
    """asyncio waits for a socket that is not connected, and reports success."""
    path = str(tmp_path / "socket")

    async def main():
        clients = []
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
            server.listen(0)
            with pytest.raises(BlockingIOError):
                for _ in range(10):
                    client = socket.socket(socket.AF_UNIX)
                    clients.append(client)
                    client.setblocking(False)
                    await loop.sock_connect(client, path)
        for client in clients:
            client.close()

    loop.run_until_complete(main())

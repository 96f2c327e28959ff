"""create_server()'s options and the Server's life, on asyncio's loop and on ours."""

import asyncio
import contextlib
import errno
import inspect
import os
import socket
import sys

import pytest
from ports import held_port

pytestmark = pytest.mark.loops("speedups", "asyncio")


needs_ipv6 = pytest.mark.skipif(
    not os.path.exists("/proc/net/if_inet6"), reason="there is no IPv6 here"
)


def takes(method, name):
    function = getattr(asyncio.SelectorEventLoop, method)
    return pytest.mark.skipif(
        name not in inspect.signature(function).parameters,
        reason="this Python does not know it",
    )


class Greeter(asyncio.Protocol):
    def connection_made(self, transport):
        transport.write(b"hello")
        transport.close()


@contextlib.asynccontextmanager
async def served(loop, factory=Greeter, *args, **kwargs):
    server = await loop.create_server(factory, *args, **kwargs)
    try:
        yield server
    finally:
        server.close()
        # Python 3.12 waits for connections, 3.11 does not.
        await asyncio.wait_for(server.wait_closed(), 100)


async def greeted(loop, address):
    """The other side of a connection that was accepted."""
    family = socket.AF_INET6 if len(address) == 4 else socket.AF_INET
    with socket.socket(family) as client:
        client.setblocking(False)
        await loop.sock_connect(client, address)
        return await asyncio.wait_for(loop.sock_recv(client, 10), 100) == b"hello"


def addresses(server):
    return [sock.getsockname() for sock in server.sockets]


# ---- where it listens


@pytest.mark.parametrize("host", [None, ""])
def test_every_interface(loop, host):
    """A socket for each family, each with its own port where that is 0."""

    async def main():
        async with served(loop, Greeter, host, 0) as server:
            families = [sock.family for sock in server.sockets]
            assert len(families) == len(set(families))
            assert socket.AF_INET in families
            for sock in server.sockets:
                wildcard, *rest = sock.getsockname()
                loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}[wildcard]
                assert await greeted(loop, (loopback, *rest))

    loop.run_until_complete(main())


@needs_ipv6
def test_hosts_of_both_families(loop):
    async def main():
        async with served(loop, Greeter, ["127.0.0.1", "::1"], 0) as server:
            assert {address[0] for address in addresses(server)} == {"127.0.0.1", "::1"}
            for sock in server.sockets:
                if sock.family == socket.AF_INET6:
                    assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
                assert await greeted(loop, sock.getsockname())

    loop.run_until_complete(main())


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no dual stack here")
def test_one_socket_for_both_families(loop):
    """The caller's own."""
    sock = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)

    async def main():
        async with served(loop, Greeter, sock=sock) as server:
            (address,) = addresses(server)
            assert await greeted(loop, ("127.0.0.1", address[1]))
            assert await greeted(loop, ("::1", address[1], 0, 0))

    loop.run_until_complete(main())


def test_a_host_twice_is_bound_once(loop):
    async def main():
        hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.1"]
        with held_port("0.0.0.0") as port:
            async with served(loop, Greeter, hosts, port) as server:
                assert sorted(addresses(server)) == [
                    ("127.0.0.1", port),
                    ("127.0.0.2", port),
                ]

    loop.run_until_complete(main())


def test_a_port_in_use(loop):
    """What was bound before it is given back."""

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as other:
            address = other.getsockname()
            with pytest.raises(OSError) as caught:
                await loop.create_server(
                    Greeter, ["127.0.0.2", "127.0.0.1"], address[1]
                )
            assert caught.value.errno == errno.EADDRINUSE
            assert f"bind on address {address}" in str(caught.value)

    loop.run_until_complete(main())


def test_an_address_that_is_not_ours(loop):
    async def main():
        with pytest.raises(OSError):
            await loop.create_server(Greeter, "192.0.2.1", 0)

    loop.run_until_complete(main())


def test_what_contradicts_itself(loop):
    async def main():
        with socket.socket() as sock, socket.socket(type=socket.SOCK_DGRAM) as datagram:
            with pytest.raises(ValueError, match="can not be specified"):
                await loop.create_server(Greeter, "127.0.0.1", 0, sock=sock)
            with pytest.raises(ValueError, match="Neither host/port nor sock"):
                await loop.create_server(Greeter)
            with pytest.raises(ValueError, match="Stream Socket was expected"):
                await loop.create_server(Greeter, sock=datagram)

    loop.run_until_complete(main())


# ---- options


def test_reuse_port(loop):
    """Two servers of one port, which shares out connections."""

    async def main():
        async with served(loop, Greeter, "127.0.0.1", 0, reuse_port=True) as one:
            (address,) = addresses(one)
            async with served(loop, Greeter, *address, reuse_port=True):
                for _ in range(10):
                    assert await greeted(loop, address)
            with pytest.raises(OSError) as caught:
                await loop.create_server(Greeter, *address)
            assert caught.value.errno == errno.EADDRINUSE

    loop.run_until_complete(main())


@pytest.mark.parametrize("reuse", [True, False])
def test_reuse_address(loop, reuse):
    async def main():
        async with served(loop, Greeter, "127.0.0.1", 0, reuse_address=reuse) as server:
            (sock,) = server.sockets
            value = sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
            assert bool(value) == reuse

    loop.run_until_complete(main())


@takes("create_server", "keep_alive")
@pytest.mark.parametrize("keep", [True, None])
def test_keep_alive(loop, keep):
    """Accepted connections have it from the listening socket, on Linux."""
    accepted = loop.create_future()

    class Protocol(Greeter):
        def connection_made(self, transport):
            accepted.set_result(option(transport.get_extra_info("socket")))
            super().connection_made(transport)

    def option(sock):
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    async def main():
        async with served(loop, Protocol, "127.0.0.1", 0, keep_alive=keep) as server:
            (sock,) = server.sockets
            assert option(sock) == bool(keep)
            assert await greeted(loop, sock.getsockname())
            assert await accepted == bool(keep)

    loop.run_until_complete(main())


def test_backlog(loop):
    class Socket(socket.socket):
        def listen(self, backlog):
            backlogs.append(backlog)
            super().listen(backlog)

    backlogs = []

    async def main():
        for backlog in ({}, {"backlog": 7}):
            sock = Socket()
            sock.bind(("127.0.0.1", 0))
            async with served(loop, Greeter, sock=sock, **backlog) as server:
                assert await greeted(loop, addresses(server)[0])

    loop.run_until_complete(main())
    assert backlogs == [100, 7]


@takes("create_unix_server", "cleanup_socket")
@pytest.mark.parametrize("cleanup", [True, False])
def test_cleanup_socket(loop, tmp_path, cleanup):
    path = tmp_path / "socket"

    async def main():
        server = await loop.create_unix_server(
            Greeter, str(path), cleanup_socket=cleanup
        )
        assert path.exists()
        server.close()
        await server.wait_closed()
        assert path.exists() != cleanup

    loop.run_until_complete(main())


# ---- its life


def test_not_started(loop):
    """Closed without ever having served."""

    async def main():
        with held_port() as port:
            server = await loop.create_server(
                Greeter, "127.0.0.1", port, start_serving=False
            )
            assert not server.is_serving()
            server.close()
            server.close()
            assert server.sockets == ()
            await server.wait_closed()
            with pytest.raises(ConnectionRefusedError):
                await greeted(loop, ("127.0.0.1", port))
        with pytest.raises(RuntimeError, match="is closed"):
            await server.serve_forever()

    loop.run_until_complete(main())


def test_async_with(loop):
    """It is closed at the end, whatever the end is."""

    async def main():
        server = await loop.create_server(Greeter, "127.0.0.1", 0)
        with pytest.raises(ZeroDivisionError):
            async with server as same:
                assert same is server
                assert await greeted(loop, addresses(server)[0])
                raise ZeroDivisionError
        assert not server.is_serving()
        assert server.sockets == ()

    loop.run_until_complete(main())


@pytest.mark.skipif(sys.version_info < (3, 12, 1), reason="it did not wait before")
@pytest.mark.parametrize("first", ["server", "client"])
def test_wait_closed(loop, first):
    """It waits for the server and for the connections, in whatever order they end."""
    events = []

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport
            made.set_result(self)

        def connection_lost(self, exc):
            events.append("connection_lost")

    made = loop.create_future()

    async def wait(server):
        await server.wait_closed()
        events.append("wait_closed")

    async def main():
        server = await loop.create_server(Protocol, "127.0.0.1", 0)
        waiting = loop.create_task(wait(server))
        with socket.create_connection(addresses(server)[0]):
            protocol = await asyncio.wait_for(made, 100)
            if first == "server":
                server.close()
            else:
                protocol.transport.close()
            await asyncio.sleep(0.001)
            assert "wait_closed" not in events
            if first == "server":
                protocol.transport.close()
            else:
                assert events == ["connection_lost"]
                server.close()
            await asyncio.wait_for(waiting, 100)
        await server.wait_closed()

    loop.run_until_complete(main())
    assert events == ["connection_lost", "wait_closed"]


@takes("create_server", "keep_alive")  # Python 3.13, as these
@pytest.mark.parametrize("how", ["close_clients", "abort_clients"])
def test_ending_clients_of_a_server_that_goes_on(loop, how):
    lost = loop.create_future()

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            transport.write(b"hello")

        def connection_lost(self, exc):
            if not lost.done():
                lost.set_result(exc)

    async def main():
        server = await loop.create_server(Protocol, "127.0.0.1", 0)
        getattr(server, how)()  # there are none
        (address,) = addresses(server)
        assert await greeted(loop, address)
        with socket.create_connection(address) as client:
            client.setblocking(False)
            assert await loop.sock_recv(client, 10) == b"hello"
            getattr(server, how)()
            getattr(server, how)()
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.wait_for(loop.sock_recv(client, 10), 100) == b""
            assert await asyncio.wait_for(lost, 100) is None
        assert await greeted(loop, address)
        server.close()
        getattr(server, how)()
        await asyncio.wait_for(server.wait_closed(), 100)

    loop.run_until_complete(main())


@pytest.mark.parametrize("how", ["host", "name", "unix"])
def test_cancelled_at_each_step(loop, monkeypatch, tmp_path, how):
    """No descriptor stays open, wherever it was."""

    async def getaddrinfo(host, port, *, family=0, type=0, proto=0, flags=0):
        await asyncio.sleep(0)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", port)),
        ]

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)

    async def start():
        # What create_server() has made nobody else can close.
        if how == "unix":
            path = str(tmp_path / "socket")
            server = await loop.create_unix_server(Greeter, path, start_serving=False)
        else:
            host = "127.0.0.1" if how == "host" else "name"
            server = await loop.create_server(Greeter, host, 0, start_serving=False)
        async with server:
            await server.serve_forever()

    async def main():
        for turns in range(10):
            task = loop.create_task(start())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.sleep(0.001)

    loop.run_until_complete(main())
    monkeypatch.undo()

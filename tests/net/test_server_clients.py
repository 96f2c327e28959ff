"""A Server's transports, and what accepted connections know of where they came in."""

import asyncio
import contextlib
import gc
import socket
import sys
import warnings
import weakref

import pytest
from waiting import until

from aiozmq_speedups import _ext

pytestmark = pytest.mark.loops("speedups", "asyncio")


ours = pytest.mark.loops("speedups")

#: asyncio's Server counts its transports before, and does not know them.
knows_clients = pytest.mark.skipif(
    sys.version_info < (3, 13), reason="Server.close_clients() is of Python 3.13"
)


class Accepted(asyncio.Protocol):
    made: list = []

    def connection_made(self, transport):
        self.transport = transport
        self.made.append(self)
        self.lost = False

    def connection_lost(self, exc):
        self.lost = True


@pytest.fixture
def made(monkeypatch):
    made = []
    monkeypatch.setattr(Accepted, "made", made)
    yield made
    made.clear()


@contextlib.asynccontextmanager
async def connected(server, made, count=3):
    """Clients of the server, accepted."""
    address = server.sockets[0].getsockname()
    family = server.sockets[0].family
    del server
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(count):
            sock = stack.enter_context(socket.socket(family))
            sock.connect(address)
            clients.append(sock)
        await until(lambda: len(made) == count)
        yield clients
    await until(lambda: all(protocol.lost for protocol in made))


@knows_clients
def test_who_is_there(loop, made):
    async def main():
        server = await loop.create_server(Accepted, "127.0.0.1", 0)
        async with connected(server, made):
            transports = {protocol.transport for protocol in made}
            assert set(server._clients) == set(server._clients.copy()) == transports
            assert len(server._clients) == 3
            first = made[0].transport
            assert first in server._clients
            first.abort()
            await until(lambda: made[0].lost)
            assert first not in server._clients
            assert set(server._clients) == transports - {first}
            server._clients.discard(first)
            server._clients.discard(server)  # not a transport at all
            assert server not in server._clients
            assert len(server._clients) == 2
        assert not server._clients and not list(server._clients)
        server.close()

    loop.run_until_complete(main())


@knows_clients
def test_others_are_kept_weakly(loop, made):
    """Transports that are not ours, as those of asyncio for a socket's stand-in."""

    class Other:
        pass

    async def main():
        server = await loop.create_server(Accepted, "127.0.0.1", 0)
        other = Other()
        server._attach(other)
        server._clients.add(other)
        async with connected(server, made, 1):
            assert set(server._clients) == {other, made[0].transport}
            assert len(server._clients) == 2 and other in server._clients
        server.close()
        waiting = loop.create_task(server.wait_closed())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        server._detach(other)
        await asyncio.wait_for(waiting, 100)
        server = await loop.create_server(Accepted, "127.0.0.1", 0)
        server._attach(other)
        del other
        gc.collect()
        assert not server._clients
        server.close()
        await asyncio.wait_for(server.wait_closed(), 100)

    loop.run_until_complete(main())


def test_waiting_for_the_last_one(loop, made):
    async def main():
        server = await loop.create_server(Accepted, "127.0.0.1", 0)
        async with connected(server, made) as clients:
            server.close()
            if sys.version_info >= (3, 12):
                waiting = loop.create_task(server.wait_closed())
                for client, protocol in zip(clients, made, strict=True):
                    await asyncio.sleep(0)
                    assert not waiting.done()
                    client.close()
                    await until(lambda protocol=protocol: protocol.lost)
                await asyncio.wait_for(waiting, 100)

    loop.run_until_complete(main())


@knows_clients
@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
def test_ended_from_inside_a_callback(loop, made, method):
    """While the transports are walked, each that is lost leaves."""

    class Ending(Accepted):
        def data_received(self, data):
            getattr(server, method)()
            server.close()

    async def main():
        nonlocal server
        server = await loop.create_server(Ending, "127.0.0.1", 0)
        async with connected(server, made) as clients:
            clients[0].sendall(b"end")
            await asyncio.wait_for(server.wait_closed(), 100)
            assert all(protocol.lost for protocol in made)

    server = None
    loop.run_until_complete(main())


@ours
def test_an_abandoned_transport_leaves(loop):
    """It is found by nobody, not even from inside its own ResourceWarning."""
    seen = []

    class Careless(asyncio.Protocol):
        def connection_made(self, transport):
            transport.pause_reading()

    def show(message, category, *args, **kwargs):
        seen.append(category)
        if hasattr(server, "close_clients"):
            server.close_clients()

    async def main():
        nonlocal server
        server = await loop.create_server(Careless, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        with socket.create_connection(address) as client:
            client.setblocking(False)
            closed = loop.create_task(loop.sock_recv(client, 1))
            while not closed.done():
                gc.collect()
                await asyncio.sleep(0.001)
            assert await closed == b""
        server.close()
        await asyncio.wait_for(server.wait_closed(), 100)

    server = None
    # Around the loop: filters may be a Context's.
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show
        loop.run_until_complete(main())
    assert seen == [ResourceWarning]


def test_a_server_that_is_forgotten(loop, made):
    """Its connections live on without it."""

    async def main():
        server = await loop.create_server(Accepted, "127.0.0.1", 0)
        async with connected(server, made):
            server.close()
            ref = weakref.ref(server)
            del server
            gc.collect()
            if isinstance(made[0].transport, _ext.core.StreamTransport):
                assert sys.version_info < (3, 13) or ref() is None
                assert made[0].transport._server is ref()

    loop.run_until_complete(main())


@ours
@knows_clients
def test_what_the_transport_says_of_its_server(loop, made):
    async def main():
        server = await loop.create_server(Accepted, "127.0.0.1", 0)
        async with connected(server, made, 1):
            assert made[0].transport._server is server
        assert made[0].transport._server is None
        server.close()

    loop.run_until_complete(main())


@knows_clients
def test_one_of_ours_that_came_before(loop, made):
    """Before the Server listened, that is: it leaves as the others do."""
    a, b = socket.socketpair()
    a.setblocking(False)

    async def main():
        server = await loop.create_server(Accepted, "127.0.0.1", 0, start_serving=False)
        transport = loop._make_socket_transport(a, Accepted(), server=server)
        await server.start_serving()
        assert transport in server._clients and len(server._clients) == 1
        server.close()
        transport.close()
        await asyncio.wait_for(server.wait_closed(), 100)
        assert transport not in server._clients

    with b:
        loop.run_until_complete(main())


@ours
@knows_clients
def test_of_two_servers_the_last(loop, made):
    async def main():
        first, second = [
            await loop.create_server(Accepted, "127.0.0.1", 0) for _ in range(2)
        ]
        async with connected(first, made, 2):
            transport = made[0].transport
            second._attach(transport)
            assert list(second._clients) == [transport]
            assert list(first._clients) == [made[1].transport]
            first._detach(transport)
            assert transport in second._clients
            second.close()
            waiting = loop.create_task(second.wait_closed())
        await asyncio.wait_for(waiting, 100)
        first.close()
        await asyncio.wait_for(first.wait_closed(), 100)

    loop.run_until_complete(main())


class WatchfulServer(asyncio.base_events.Server):
    """Asyncio's own, but for a method of its own."""

    attached = 0

    def _attach(self, *args):
        type(self).attached += 1
        super()._attach(*args)


def test_a_server_of_another_class_is_called(loop, made, monkeypatch):
    monkeypatch.setattr(asyncio.base_events, "Server", WatchfulServer)
    monkeypatch.setattr(WatchfulServer, "attached", 0)

    async def main():
        server = await loop.create_server(Accepted, "127.0.0.1", 0)
        assert type(server) is WatchfulServer
        async with connected(server, made, 2):
            assert WatchfulServer.attached == 2
        server.close()
        await asyncio.wait_for(server.wait_closed(), 100)

    loop.run_until_complete(main())


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_where_a_connection_came_in(loop, made, host):
    """Asked of the kernel where the listening socket has several addresses."""

    async def main():
        try:
            server = await loop.create_server(Accepted, host, 0)
        except OSError as exc:
            pytest.skip(f"no IPv6: {exc}")
        port = server.sockets[0].getsockname()[1]
        to = {"0.0.0.0": "127.0.0.2", "::": "::1"}.get(host, host)
        with socket.create_connection((to, port)) as client:
            await until(lambda: made)
            (protocol,) = made
            assert protocol.transport.get_extra_info("sockname") == client.getpeername()
            assert protocol.transport.get_extra_info("peername") == client.getsockname()
        await until(lambda: protocol.lost)
        assert protocol.transport.get_extra_info("sockname")[0] == to
        server.close()

    loop.run_until_complete(main())


@pytest.mark.parametrize("abstract", [False, True])
def test_where_a_connection_came_in_over_a_unix_socket(loop, made, tmp_path, abstract):
    path = f"\0azs-{id(made)}" if abstract else str(tmp_path / "socket")

    async def main():
        server = await loop.create_unix_server(Accepted, path)
        async with connected(server, made, 1) as clients:
            transport = made[0].transport
            assert transport.get_extra_info("sockname") == clients[0].getpeername()
            assert transport.get_extra_info("peername") == clients[0].getsockname()
            assert transport._extra["sockname"] == clients[0].getpeername()
        server.close()

    loop.run_until_complete(main())


@ours
@pytest.mark.parametrize("waiting", [False, True])
def test_a_factory_that_closes_the_server(loop, made, errors, waiting):
    """Its connection is nobody's: who waited for the last one has gone on."""

    def factory():
        server.close()
        return Accepted()

    async def main():
        nonlocal server
        server = await loop.create_server(factory, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        task = loop.create_task(server.wait_closed()) if waiting else None
        with socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, address)
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.wait_for(loop.sock_recv(client, 1), 100) == b""
        if waiting:
            await asyncio.wait_for(task, 100)
        await asyncio.wait_for(server.wait_closed(), 100)
        assert not made

    server = None
    loop.run_until_complete(main())

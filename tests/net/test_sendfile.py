"""loop.sendfile() over stream transports that end, or are given up, meanwhile."""

import asyncio
import os
import resource
import socket

import pytest

pytestmark = pytest.mark.loops("speedups", "asyncio")

#: asyncio waits for ever, leaves the descriptor in its selector, or the transport shut.
ours = pytest.mark.loops("speedups")


@pytest.fixture
def big_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"f" * (8 << 20))
    with path.open("rb") as file:
        yield file


async def connect(protocol=asyncio.Protocol):
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    transport, _ = await asyncio.get_running_loop().create_connection(protocol, sock=a)
    return transport, b


async def sent_some(loop, peer):
    """The other side waits for room now."""
    assert await loop.sock_recv(peer, 1)
    await asyncio.sleep(0)


def test_what_was_written_comes_first(loop, big_file, errors):
    async def main():
        transport, peer = await connect()
        with peer:
            transport.write(b"w" * 100_000)
            task = loop.create_task(loop.sendfile(transport, big_file))
            received = bytearray()
            while len(received) < 100_000 + (8 << 20):
                received += await loop.sock_recv(peer, 1 << 20)
            assert await task == 8 << 20
            assert received == b"w" * 100_000 + b"f" * (8 << 20)
            assert transport.is_reading()
            transport.write(b"after")
            assert await loop.sock_recv(peer, 10) == b"after"
            transport.close()

    loop.run_until_complete(main())


def test_the_peer_goes_away(loop, big_file):
    async def main():
        transport, peer = await connect()
        task = loop.create_task(loop.sendfile(transport, big_file))
        await sent_some(loop, peer)
        peer.close()
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(task, 100)
        transport.close()

    loop.run_until_complete(main())


@ours
@pytest.mark.parametrize("how", ["close", "abort"])
def test_the_transport_is_closed(loop, big_file, errors, how):
    """It ends with an error, and the next connection of that number is none the
    worse."""

    class Greeter(asyncio.Protocol):
        def connection_made(self, transport):
            fds.append(transport.get_extra_info("socket").fileno())
            transport.write(b"hello")
            transport.close()

    fds = []

    async def main():
        transport, peer = await connect()
        server = await loop.create_server(Greeter, "127.0.0.1", 0)
        client = socket.socket()
        client.setblocking(False)
        with peer, client:
            fd = transport.get_extra_info("socket").fileno()
            task = loop.create_task(loop.sendfile(transport, big_file))
            await sent_some(loop, peer)
            getattr(transport, how)()
            with pytest.raises(ConnectionError, match="closed by peer"):
                await asyncio.wait_for(task, 100)
            await loop.sock_connect(client, server.sockets[0].getsockname())
            assert await asyncio.wait_for(loop.sock_recv(client, 10), 100) == b"hello"
            assert fds == [fd]
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())


@ours
@pytest.mark.parametrize("how", ["close", "abort"])
def test_the_transport_is_closed_before_its_buffer_is_empty(
    loop, big_file, errors, how
):
    async def main():
        transport, peer = await connect()
        with peer:
            transport.write(b"w" * 1_000_000)
            task = loop.create_task(loop.sendfile(transport, big_file))
            await sent_some(loop, peer)
            getattr(transport, how)()
            while await loop.sock_recv(peer, 1 << 20):
                pass
            with pytest.raises(ConnectionError):
                await asyncio.wait_for(task, 100)

    loop.run_until_complete(main())


@ours
@pytest.mark.parametrize("written", [0, 1_000_000])
def test_cancelled(loop, big_file, errors, written):
    """The transport is as before: it reads, and may be written to."""

    class Protocol(asyncio.Protocol):
        def data_received(self, data):
            received.set_result(data)

    received = loop.create_future()

    async def main():
        transport, peer = await connect(Protocol)
        with peer:
            transport.write(b"w" * written)
            task = loop.create_task(loop.sendfile(transport, big_file))
            await sent_some(loop, peer)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert transport.is_reading()
            peer.send(b"ping")
            assert await asyncio.wait_for(received, 100) == b"ping"
            transport.write(b"the end")
            transport.close()
            data = b""
            while chunk := await loop.sock_recv(peer, 1 << 20):
                data = data[-10:] + chunk
            assert data.endswith(b"the end")

    loop.run_until_complete(main())
    assert loop._sendfiles == {}


@ours
def test_an_empty_waiter_that_is_done_already(loop, errors):
    """It is a Future: anybody may have ended it."""
    lost = loop.create_future()

    class Protocol(asyncio.Protocol):
        def connection_lost(self, exc):
            lost.set_result(exc)

    async def main():
        transport, peer = await connect(Protocol)
        with peer:
            transport.write(b"w" * 1_000_000)
            transport._make_empty_waiter().cancel()
            transport.close()
            while await loop.sock_recv(peer, 1 << 20):
                pass
            assert await asyncio.wait_for(lost, 100) is None

    loop.run_until_complete(main())


def test_reading_is_resumed_meanwhile(loop, big_file, errors):
    """By a stream reader that has room again, say."""
    received = loop.create_future()

    class Protocol(asyncio.Protocol):
        def data_received(self, data):
            received.set_result(data)

    async def main():
        transport, peer = await connect(Protocol)
        transport.pause_reading()
        with peer:
            task = loop.create_task(loop.sendfile(transport, big_file))
            await sent_some(loop, peer)
            transport.resume_reading()
            peer.send(b"ping")
            assert await asyncio.wait_for(received, 100) == b"ping"
            assert not task.done()
            size = 1
            while size < 8 << 20:
                size += len(await loop.sock_recv(peer, 1 << 20))
            assert await asyncio.wait_for(task, 100) == 8 << 20
            assert transport.is_reading()
            transport.close()

    loop.run_until_complete(main())


def test_reading_is_resumed_before_it_begins(loop, big_file, errors):
    """While it waits for what was written before."""
    received = loop.create_future()

    class Protocol(asyncio.Protocol):
        def data_received(self, data):
            received.set_result(data)

    async def main():
        transport, peer = await connect(Protocol)
        with peer:
            transport.write(b"w" * 1_000_000)
            task = loop.create_task(loop.sendfile(transport, big_file))
            await sent_some(loop, peer)
            transport.resume_reading()
            size = 1
            while size < 2_000_000:  # the file is on its way
                size += len(await loop.sock_recv(peer, 1 << 16))
            peer.send(b"ping")
            assert await asyncio.wait_for(received, 100) == b"ping"
            assert not task.done()
            while size < 1_000_000 + (8 << 20):
                size += len(await loop.sock_recv(peer, 1 << 20))
            assert await asyncio.wait_for(task, 100) == 8 << 20
            transport.close()

    loop.run_until_complete(main())


@ours
def test_without_descriptors(loop, big_file, errors):
    """It needs one, and does without."""

    async def main():
        transport, peer = await connect()
        with peer:
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            free = os.dup(0)
            os.close(free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
            try:
                with pytest.raises(asyncio.SendfileNotAvailableError):
                    await loop.sendfile(transport, big_file, fallback=False)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            task = loop.create_task(loop.sendfile(transport, big_file))
            size = 0
            while size < 8 << 20:
                size += len(await loop.sock_recv(peer, 1 << 20))
            assert await asyncio.wait_for(task, 100) == 8 << 20
            transport.close()

    loop.run_until_complete(main())

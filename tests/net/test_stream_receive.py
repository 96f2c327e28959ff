"""What data_received() gets: an object of its own, whoever keeps it."""

import asyncio
import random
import socket
import struct
import sys

import pytest

SIZES = (1, 100, 479, 480, 481, 1000, 4096, 8191, 8192, 20_000, 70_000, 262_144)


class Collector(asyncio.Protocol):
    """Keeps some of the objects it gets, hashes others, and forgets the rest."""

    def __init__(self, keep):
        self.keep = keep
        self.kept = []
        self.total = 0
        self.changed = asyncio.Event()
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        assert type(data) is bytes and len(data) > 0
        # A terminating zero belongs to every bytes object.
        assert sys.getsizeof(data) == sys.getsizeof(b"") + len(data)
        self.total += len(data)
        if self.keep(len(self.kept)):
            self.kept.append((data, bytes(bytearray(data)), hash(data)))
        else:
            self.kept.append((None, None, hash(data)))
        self.changed.set()

    def connection_lost(self, exc):
        self.lost.set_result(exc)

    async def wait_total(self, total):
        async with asyncio.timeout(100):
            while self.total < total:
                self.changed.clear()
                await self.changed.wait()


async def connected(protocol):
    loop = asyncio.get_running_loop()
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    transport, made = await loop.create_connection(protocol, sock=a)
    return transport, made, b


@pytest.mark.loops("speedups", "asyncio")
@pytest.mark.parametrize(
    "keep",
    [lambda n: True, lambda n: False, lambda n: n % 3 == 0],
    ids=["all", "none", "some"],
)
def test_data_stays_as_it_was(loop, keep):
    rng = random.Random(1)
    sizes = [rng.choice(SIZES) for _ in range(150)]

    async def main():
        tr, pr, peer = await connected(lambda: Collector(keep))
        total = 0
        with peer:
            for i, size in enumerate(sizes):
                payload = bytes([i % 251]) * size
                total += size
                await loop.sock_sendall(peer, payload)
                # Sometimes one piece arrives in several, sometimes several in one.
                if i % 2:
                    await pr.wait_total(total)
            await pr.wait_total(total)
            for data, copy, hashed in pr.kept:
                if data is not None:
                    assert data == copy
                    assert hash(data) == hashed == hash(copy)
            tr.close()
            await pr.lost

    loop.run_until_complete(main())


@pytest.mark.loops("speedups", "asyncio")
@pytest.mark.parametrize("size", [1000, 100_000])
def test_written_data_is_sent_before_an_exception_ends_it(loop, size):
    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))

    class Fails(Collector):
        def data_received(self, data):
            super().data_received(data)
            self.transport.write(data)
            raise ZeroDivisionError

    async def main():
        tr, pr, peer = await connected(lambda: Fails(lambda n: False))
        with peer:
            await loop.sock_sendall(peer, b"x" * size)
            exc = await pr.lost
            assert isinstance(exc, ZeroDivisionError)
            got = 0
            while chunk := await loop.sock_recv(peer, 1 << 20):
                got += len(chunk)
            assert got == pr.total > 0
        assert len(contexts) == 1 and contexts[0]["exception"] is exc

    loop.run_until_complete(main())


@pytest.mark.loops("speedups", "asyncio")
def test_callback_that_closes_while_its_data_is_queued(loop):
    """The queue holds the object that was received: it may not be used again."""

    class Closes(Collector):
        def data_received(self, data):
            super().data_received(data)
            self.transport.write(data)
            if self.total > 300_000 and not self.transport.is_closing():
                self.transport.close()

    async def main():
        tr, pr, peer = await connected(lambda: Closes(lambda n: False))
        tr.set_write_buffer_limits(high=1 << 24)
        with peer:
            sent = got = 0
            for i in range(20):
                # Nobody reads: the echo of most of it stays in the queue.
                piece = bytes([i]) * 20_000
                try:
                    await loop.sock_sendall(peer, piece)
                except ConnectionError:
                    break
                sent += len(piece)
                if sent <= 300_000:
                    await pr.wait_total(sent)
            while True:
                try:
                    chunk = await loop.sock_recv(peer, 1 << 20)
                except ConnectionResetError:
                    break
                if not chunk:
                    break
                assert all(
                    value == (got + k) // 20_000
                    for k, value in zip(
                        range(0, len(chunk), 997), chunk[::997], strict=True
                    )
                )
                got += len(chunk)
            assert got > 300_000
            assert await pr.lost is None

    loop.run_until_complete(main())


@pytest.mark.loops("speedups", "asyncio")
@pytest.mark.skipif(sys.version_info < (3, 12), reason="__buffer__ is new")
@pytest.mark.parametrize("input", ["data", "eof", "reset"])
@pytest.mark.parametrize("action", ["nothing", "close", "abort", "swap"])
def test_a_buffer_is_released_once(loop, input, action):
    """Before buffer_updated(), and whatever releasing it does."""

    class Buffer:
        def __init__(self, protocol):
            self.protocol = protocol
            self.memory = bytearray(10)

        def __len__(self):
            return len(self.memory)

        def __buffer__(self, flags):
            self.protocol.calls.append("get")
            return memoryview(self.memory)

        def __release_buffer__(self, view):
            self.protocol.calls.append("release")
            if action == "swap":
                self.protocol.transport.set_protocol(self.protocol)
            elif action != "nothing":
                getattr(self.protocol.transport, action)()

    class Protocol(asyncio.BufferedProtocol):
        def __init__(self):
            self.calls = []
            self.lost = loop.create_future()

        def connection_made(self, transport):
            self.transport = transport

        def get_buffer(self, sizehint):
            return Buffer(self)

        def buffer_updated(self, nbytes):
            self.calls.append(nbytes)
            self.transport.close()

        def connection_lost(self, exc):
            self.lost.set_result(exc)

    async def main():
        listener = socket.create_server(("127.0.0.1", 0))
        with listener:
            _, protocol = await loop.create_connection(
                Protocol, *listener.getsockname()
            )
            peer, _ = listener.accept()
        with peer:
            if input == "data":
                peer.send(b"data")
            elif input == "eof":
                peer.shutdown(socket.SHUT_WR)
            else:
                linger = struct.pack("ii", 1, 0)
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                peer.close()
            await asyncio.wait_for(protocol.lost, 100)
        expected = ["get", "release", 4] if input == "data" else ["get", "release"]
        assert protocol.calls == expected

    loop.run_until_complete(main())

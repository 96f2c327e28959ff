"""What hostile peers do: memory stays bounded, it is told of, others are served."""

import asyncio
import collections
import contextlib
import os
import socket

import pytest
import zmq
from children import Child
from helpers import Recorder, close, open_transport
from raw_peer import RawPeer, command, frame, greeting, ready

ANY = "tcp://127.0.0.1:*"
MIB = 1 << 20


class Counter(Recorder):
    """Counts events."""

    def __init__(self):
        super().__init__()
        self.counts = collections.Counter()

    def event_received(self, event):
        self.counts[event.event] += 1
        self._changed.set()


async def bound(kind, **options):
    transport, protocol = await open_transport(kind, Counter, linger=0, **options)
    await transport.enable_monitor()
    await transport.bind(ANY)
    return transport, protocol, next(iter(transport.bindings()))


def resident():
    if "libasan" in os.environ.get("LD_PRELOAD", ""):
        return 0  # it keeps what is freed
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Other:
    """A right peer of a PULL or a ROUTER, which must be served all the time."""

    @classmethod
    async def connect(cls, endpoint, protocol):
        other = cls()
        other.protocol = protocol
        other.peer = await RawPeer.connect(endpoint)
        await other.peer.shake(b"DEALER" if protocol.router else b"PUSH")
        return other

    async def is_served(self):
        count = len(self.protocol.messages)
        self.peer.write(frame(b"from the other"))
        await self.protocol.received(count + 1)
        assert self.protocol.messages[-1][-1] == b"from the other"


async def served(kind, **options):
    """The transport, its protocol and endpoint, and a right peer."""
    transport, protocol, endpoint = await bound(kind, **options)
    protocol.router = kind == zmq.ROUTER
    return transport, protocol, endpoint, await Other.connect(endpoint, protocol)


def hurry(transport, seconds):
    """A limit of the handshakes from now on: right peers' may take long."""
    transport.setsockopt(zmq.HANDSHAKE_IVL, int(seconds * 1000))


async def told(protocol, event, count=1):
    await protocol.until(lambda: protocol.counts[event] >= count)


def test_a_greeting_octet_by_octet_has_its_time_and_no_more(run):
    async def go():
        transport, protocol, endpoint, other = await served(zmq.PULL)
        hurry(transport, 0.3)
        slow = await RawPeer.connect(endpoint)

        async def trickle():
            for octet in greeting():
                slow.write(bytes([octet]))
                await asyncio.sleep(0.02)

        task = asyncio.ensure_future(trickle())
        await told(protocol, zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)
        await slow.at_end()
        await other.is_served()
        task.cancel()
        await asyncio.wait([task])
        await slow.close()
        await other.peer.close()
        await close(transport)

    run(go())


def test_a_message_without_an_end(run):
    async def go():
        transport, protocol, endpoint, other = await served(zmq.PULL)
        endless = await RawPeer.connect(endpoint)
        await endless.shake(b"PUSH")
        before = resident()
        frames = frame(b"", more=True) * 65536
        cut = asyncio.ensure_future(endless.at_end())
        with contextlib.suppress(ConnectionError):
            for _ in range(17):
                endless.write(frames)
                await endless.writer.drain()
                await other.is_served()
        await cut
        await told(protocol, zmq.EVENT_DISCONNECTED)
        assert resident() < before + 100 * MIB
        assert all(m == [b"from the other"] for m in protocol.messages)
        await other.is_served()
        await endless.close()
        await other.peer.close()
        await close(transport)

    run(go())


@pytest.mark.parametrize(
    "nested",
    [
        command(b"READY", ready(b"PUSH")),
        command(b"MESSAGE", frame(b"\7MESSAGE" + frame(b"inside"))),
        command(b"PING", b"\0\0" + command(b"PING", b"\0\0")),
        command(b"SUBSCRIBE", command(b"SUBSCRIBE", b"topic")),
        frame(b"\4PING", more=True, command=True) * 100,
        command(b"ERROR", b"\3400"),
        command(b"", b""),
        frame(b"", command=True),
    ],
)
def test_commands_inside_commands(run, nested):
    async def go():
        transport, protocol, endpoint, other = await served(zmq.PULL)
        peer = await RawPeer.connect(endpoint)
        await peer.shake(b"PUSH")
        peer.write(frame(b"first", more=True) + nested + frame(b"second"))
        await protocol.received(1)
        assert protocol.messages == [[b"first", b"second"]]
        await other.is_served()
        await peer.close()
        await other.peer.close()
        await close(transport)

    run(go())


@pytest.mark.parametrize("kind", [zmq.PUB, zmq.XPUB])
def test_a_flood_of_subscriptions(run, kind):
    """More than anybody takes are not read; what a peer has subscribed to ends
    with it."""

    async def go():
        transport, protocol, endpoint = await bound(kind, rcvhwm=1000)
        right = await RawPeer.connect(endpoint)
        await right.shake(b"SUB")
        right.write(frame(b"\1right"))
        if kind == zmq.XPUB:
            await protocol.received(1)
        transport.pause_reading()
        before = resident()
        flood = await RawPeer.connect(endpoint)
        await flood.shake(b"SUB")
        topic = b"topic" * 10
        pair = frame(b"\1" + topic) + frame(b"\0" + topic)
        pairs = 100_000

        async def write():
            for _ in range(pairs // 100):
                flood.write(pair * 100)
                await flood.writer.drain()

        task = asyncio.ensure_future(write())
        if kind == zmq.PUB:
            await task
        else:  # nobody takes them: the writer has to wait
            await asyncio.wait([task], timeout=0.5)
            assert not task.done()
        assert resident() < before + 40 * MIB
        transport.write([b"right"])
        assert await right.frame() == (0, b"right")
        transport.resume_reading()
        if kind == zmq.XPUB:
            await protocol.received(1 + 2 * pairs)
        await flood.close()
        await told(protocol, zmq.EVENT_DISCONNECTED)
        await right.close()
        await close(transport)

    run(go())


def test_many_topics_end_with_their_peer(run):
    async def go():
        transport, protocol, endpoint = await bound(zmq.PUB)
        used = []
        for _ in range(4):
            flood = await RawPeer.connect(endpoint)
            await flood.shake(b"SUB")
            for number in range(20):
                flood.write(
                    b"".join(
                        frame(b"\1%d %d" % (number, topic)) for topic in range(1000)
                    )
                )
                await flood.writer.drain()
            flood.write(frame(b"\1last"))
            data = (0, b"last")
            while True:
                transport.write([b"last"])
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        assert await flood.frame() == data
                        break
            await flood.close()
            await told(protocol, zmq.EVENT_DISCONNECTED, len(used) + 1)
            used.append(resident())
        assert used[-1] < used[0] + 5 * MIB
        await close(transport)

    run(go())


def test_a_peer_that_reads_an_octet_now_and_then(run):
    async def go():
        transport, protocol, endpoint, other = await served(
            zmq.ROUTER, sndhwm=10, rcvhwm=10
        )
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, (host, int(port)))
        await loop.sock_sendall(
            sock, greeting() + ready(b"DEALER", Identity=b"slow") + frame(b"hello")
        )
        await protocol.received(1)
        before = resident()
        for _ in range(200):
            transport.write([b"slow", b"x" * 100_000])
            await loop.sock_recv(sock, 1)
        assert transport.get_write_buffer_size() == 0
        assert resident() < before + 20 * MIB  # 10 messages, and what the kernel has
        await other.is_served()
        transport.write([protocol.messages[-1][0], b"answer"])
        assert await other.peer.frame() == (0, b"answer")
        sock.close()
        await told(protocol, zmq.EVENT_DISCONNECTED)
        await other.peer.close()
        await close(transport)

    run(go())


def test_each_of_an_identity_that_is_in_use_is_told_of(run):
    async def go():
        transport, protocol, endpoint, other = await served(zmq.ROUTER)
        first = await RawPeer.connect(endpoint)
        await first.shake(b"DEALER", Identity=b"me")
        for number in range(1, 51):
            second = await RawPeer.connect(endpoint)
            await second.shake(b"DEALER", Identity=b"me")
            await second.at_end()
            await second.close()
            await told(protocol, zmq.EVENT_DISCONNECTED, number)
        await other.is_served()
        transport.write([b"me", b"still"])
        assert await first.frame() == (0, b"still")
        await first.close()
        await other.peer.close()
        await close(transport)

    run(go())


CONNECTIONS = """
import socket, sys
host, port, count = sys.argv[1:]
socks = []
for number in range(int(count)):
    socks.append(socket.create_connection((host, int(port))))
    if number % 2:
        socks[-1].sendall(bytes.fromhex("ff00000000000000017f0301"))
    if number % 50 == 0:
        socks[-1].recv(1)  # a full backlog would cost a second
print("open", flush=True)
for sock in socks:
    while sock.recv(65536):
        pass
print("all closed", flush=True)
"""


@pytest.mark.parametrize("count", [300, pytest.param(9500, marks=pytest.mark.slow)])
def test_connections_that_never_finish_the_handshake(run, count):
    async def go():
        transport, protocol, endpoint, other = await served(zmq.PULL)
        hurry(transport, 1 if count < 1000 else 8)
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        before = resident()
        with Child(CONNECTIONS, host, port, count) as child:
            assert await child.line() == "open"
            await told(protocol, zmq.EVENT_ACCEPTED, count + 1)
            assert resident() < before + count * 4096 + 8 * MIB
            await other.is_served()
            assert await child.line() == "all closed"
            await told(protocol, zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, count)
            await other.is_served()
        await other.peer.close()
        await close(transport)

    run(go())

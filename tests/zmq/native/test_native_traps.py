"""What has broken other implementations of ZMTP, and what peers may do to us."""

import asyncio
import os
import struct

import pytest
import zmq
from helpers import close, open_transport, raw_socket
from raw_peer import RawPeer, RawServer, command, frame, greeting, ready

ANY = "tcp://127.0.0.1:*"
READY_DEALER = ready(b"DEALER", Identity=b"")
LONG = b"\2"  # the flags of a frame with eight octets of length


async def bound(kind, **options):
    transport, protocol = await open_transport(kind, bind=ANY, linger=0, **options)
    return transport, protocol, next(iter(transport.bindings()))


async def works(protocol, endpoint, text=b"fine"):
    """A right peer of a PULL."""
    before = len(protocol.messages)
    peer = await RawPeer.connect(endpoint)
    await peer.shake(b"PUSH")
    peer.write(frame(text))
    await protocol.received(before + 1)
    assert protocol.messages[-1] == [text]
    await peer.close()


# ---- greetings and handshakes ----


def test_a_greeting_split_at_every_octet(run):
    async def go():
        transport, protocol, endpoint = await bound(zmq.ROUTER)
        whole = greeting() + READY_DEALER
        for cut in range(1, len(whole)):
            peer = await RawPeer.connect(endpoint)
            peer.write(whole[:cut])
            await asyncio.sleep(0)
            # Our greeting is here at once: nobody waits for the other's.
            await peer.reader.readexactly(64)
            peer.write(whole[cut:])
            await peer.frame()
            peer.write(frame(b"%d" % cut))
            await protocol.received(cut)
            assert protocol.messages[-1][1] == b"%d" % cut
            await peer.close()
        await close(transport)

    run(go())


def test_greeting_ready_and_message_at_once(run):
    async def go():
        transport, protocol, endpoint = await bound(zmq.ROUTER)
        peer = await RawPeer.connect(endpoint)
        peer.write(greeting() + READY_DEALER + frame(b"a", more=True) + frame(b"b"))
        await protocol.received(1)
        assert protocol.messages[0][1:] == [b"a", b"b"]
        await peer.close()
        await close(transport)

    run(go())


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n" * 3,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(512),
        b"\x01\x00" * 100,  # ZMTP 1.0
        b"\xff" + bytes(8) + b"\x7f\x01\x06" + b"\0\0" * 40,  # 2.0
        greeting(b"CURVE"),
        greeting(b"null"),
        greeting() + ready(b"PUB"),
        greeting() + ready(b"NONSENSE"),
        greeting() + command(b"READY", b"\x05trunc"),
        greeting() + command(b"PING", b"\0\0"),
        greeting() + frame(b"too early"),
        greeting() + frame(b""),
        greeting() + LONG + b"\xff" * 8,
        greeting() + b"\6" + (1 << 31).to_bytes(8, "big"),
        bytes(range(255, -1, -1)),
    ],
)
def test_who_speaks_something_else_is_cut_and_heard_of(run, garbage):
    async def go():
        transport, protocol, endpoint = await bound(zmq.PULL)
        await transport.enable_monitor()
        peer = await RawPeer.connect(endpoint)
        peer.write(garbage)
        await peer.at_end()
        await peer.close()
        await protocol.until(
            lambda: any(e.event == zmq.EVENT_DISCONNECTED for e in protocol.events)
        )
        await works(protocol, endpoint)
        assert protocol.messages == [[b"fine"]]
        await close(transport)

    run(go())


def test_a_hundred_silent_connections(run):
    async def go():
        transport, protocol, endpoint = await bound(zmq.PULL)
        transport.setsockopt(zmq.HANDSHAKE_IVL, 300)
        silent = [await RawPeer.connect(endpoint) for _ in range(100)]
        for peer in silent[::2]:
            peer.write(greeting()[:40])
        transport.setsockopt(zmq.HANDSHAKE_IVL, 30_000)  # a right one's may take long
        await works(protocol, endpoint)
        for peer in silent:  # handshake_timeout ends them
            await peer.at_end()
            await peer.close()
        await works(protocol, endpoint)
        await close(transport)

    run(go())


def test_a_handshake_s_time_ends_with_it(run):
    async def go():
        transport, protocol, endpoint = await bound(zmq.PULL)
        for seconds in (0.05, 0.5, 5):
            transport.setsockopt(zmq.HANDSHAKE_IVL, int(seconds * 1000))
            peer = await RawPeer.connect(endpoint)
            try:
                await peer.shake(b"PUSH")
                break
            except (ConnectionError, EOFError):
                await peer.close()  # a busy machine: it was not done in that time
        silent = await RawPeer.connect(endpoint)
        await silent.at_end()  # its time is over, and so would be that of the first
        await silent.close()
        peer.write(frame(b"late"))
        await protocol.received(1)
        await peer.close()
        await close(transport)

    run(go())


def test_a_peer_of_another_kind_then_a_right_one_at_the_same_port(run):
    async def go():
        server = RawServer()
        endpoint = await server.listen()
        transport, _ = await open_transport(
            zmq.PUSH, connect=endpoint, linger=0, reconnect_interval=0.01
        )
        transport.write([b"kept"])
        for wrong in (greeting() + ready(b"PUB"), greeting(b"PLAIN"), b"\0" * 100):
            peer = await server.accept()
            peer.write(wrong)
            await peer.at_end()
            await peer.close()
        peer = await server.accept()
        await peer.shake(b"PULL")
        assert await peer.frame() == (0, b"kept")
        await peer.close()
        server.close()
        await close(transport)

    run(go())


@pytest.mark.parametrize("size", [1, 255])
def test_long_identities(run, size):
    async def go():
        transport, protocol, endpoint = await bound(zmq.ROUTER)
        name = b"i" * size
        with raw_socket(zmq.DEALER, identity=name) as sock:
            sock.connect(endpoint)
            sock.send(b"hello")
            await protocol.received(1)
            assert protocol.messages == [[name, b"hello"]]
            transport.write([name, b"there"])
            while not sock.poll(0):
                await asyncio.sleep(0.001)
            assert sock.recv() == b"there"
        await close(transport)

    run(go())


# ---- frames and commands ----


@pytest.mark.parametrize("size", [1 << 31, 1 << 32, 1 << 62, 1 << 63, (1 << 64) - 1])
def test_absurd_lengths_take_no_memory(run, size):
    async def go():
        transport, protocol, endpoint = await bound(zmq.PULL)
        peer = await RawPeer.connect(endpoint)
        await peer.shake(b"PUSH")
        peer.write(LONG + size.to_bytes(8, "big") + b"x" * 1000)
        with open("/proc/self/statm") as statm:
            before = int(statm.read().split()[0])
        await works(protocol, endpoint)
        with open("/proc/self/statm") as statm:
            grown = (int(statm.read().split()[0]) - before) * os.sysconf("SC_PAGE_SIZE")
        assert grown < 1 << 30
        await peer.close()
        await close(transport)

    run(go())


def test_max_message_size_is_of_a_frame_and_not_of_commands_before_it(run):
    async def go():
        transport, protocol, endpoint = await bound(zmq.PULL, max_message_size=10)
        peer = await RawPeer.connect(endpoint)
        await peer.shake(b"PUSH")
        peer.write(frame(b"x" * 10, more=True) + frame(b"y" * 10))
        await protocol.received(1)
        peer.write(frame(b"x" * 11))
        await peer.at_end()
        await peer.close()
        await works(protocol, endpoint)
        assert [b"x" * 11] not in protocol.messages
        await close(transport)

    run(go())


def test_commands_between_frames(run):
    async def go():
        transport, protocol, endpoint = await bound(zmq.ROUTER)
        peer = await RawPeer.connect(endpoint)
        await peer.shake(b"DEALER")
        noise = (
            command(b"NONSENSE", b"abc")
            + b"\4\0"  # an empty one
            + command(b"PING", b"\0\0ctx")
            + command(b"PONG")
            + command(b"PING", b"\0")  # too short
            + command(b"READY")
            + command(b"SUBSCRIBE", b"topic")
            + command(b"ERROR", b"\3400")
        )
        peer.write(noise + frame(b"a", more=True) + noise + frame(b"b") + noise)
        await protocol.received(1)
        for _ in range(3):
            assert await peer.frame() == (4, b"\4PONGctx")
        peer.write(frame(b"c"))
        await protocol.received(2)
        assert [m[1:] for m in protocol.messages] == [[b"a", b"b"], [b"c"]]
        await peer.close()
        await close(transport)

    run(go())


def test_pings_through_a_request_and_its_answer(run):
    async def go():
        server = RawServer()
        transport, protocol = await open_transport(
            zmq.REQ, connect=await server.listen(), linger=0
        )
        peer = await server.accept()
        await peer.shake(b"REP")
        ping = command(b"PING", b"\0\0")
        for number in range(3):
            peer.write(ping)
            transport.write([b"ask"])
            seen = [await peer.frame() for _ in range(3)]
            assert seen.count((4, b"\4PONG")) == 1
            data = [s for s in seen if s[0] != 4]
            assert data == [(1, b""), (0, b"ask")]
            peer.write(ping + frame(b"", more=True) + ping + frame(b"%d" % number))
            await protocol.received(number + 1)
            assert protocol.messages[-1] == [b"%d" % number]
            for _ in range(2):
                assert await peer.frame() == (4, b"\4PONG")
        await peer.close()
        server.close()
        await close(transport)

    run(go())


def test_the_pongs_of_who_does_not_read_take_no_memory(run):
    async def go():
        transport, protocol, endpoint = await bound(zmq.PULL)
        peer = await RawPeer.connect(endpoint)
        await peer.shake(b"PUSH")
        pings = command(b"PING", b"\0\0" + b"c" * 16) * 1000
        for _ in range(300):  # 7 MB; what comes back is not read
            peer.write(pings)
            await peer.writer.drain()
        peer.write(frame(b"after"))
        await protocol.received(1)
        await peer.close()
        await close(transport)

    run(go())


# ---- heartbeats ----


def test_a_peer_of_libzmq_with_heartbeats(run):
    async def go():
        transport, protocol, endpoint = await bound(zmq.PULL)
        # A busy machine may take its time to answer.
        beats = {"heartbeat_ivl": 50, "heartbeat_timeout": 2000, "heartbeat_ttl": 6000}
        with raw_socket(zmq.PUSH, **beats) as sock:
            sock.connect(endpoint)
            with sock.get_monitor_socket(zmq.EVENT_DISCONNECTED) as monitor:
                sock.send(b"first")
                await protocol.received(1)
                await asyncio.sleep(2.3)
                sock.send(b"second")
                await protocol.received(2)
                assert not monitor.poll(0)
                sock.disable_monitor()
        await close(transport)

    run(go())


def test_a_silent_peer_is_cut(run):
    async def go():
        transport, protocol, endpoint = await bound(
            zmq.PULL, heartbeat_interval=0.05, heartbeat_ttl=65.5
        )
        peer = await RawPeer.connect(endpoint)
        await peer.shake(b"PUSH")
        flags, body = await peer.frame()
        assert (flags, body[:5]) == (4, b"\4PING")
        assert struct.unpack(">H", body[5:]) == (655,)
        await peer.at_end()
        await peer.close()
        await works(protocol, endpoint)
        await close(transport)

    run(go())


def test_a_ttl_is_heeded_and_does_not_overflow(run):
    async def go():
        transport, protocol, endpoint = await bound(zmq.PULL)
        quick = await RawPeer.connect(endpoint)
        await quick.shake(b"PUSH")
        long = await RawPeer.connect(endpoint)
        await long.shake(b"PUSH")
        # 656 tenths of a second are 64 ms in 16 bits.
        long.write(command(b"PING", struct.pack(">H", 656)))
        quick.write(command(b"PING", struct.pack(">H", 2)))
        await quick.at_end()
        long.write(frame(b"here"))
        await protocol.received(1)
        await quick.close()
        await long.close()
        await close(transport)

    run(go())


def test_a_reader_that_pauses_cuts_nobody(run):
    async def go():
        transport, protocol, endpoint = await bound(
            zmq.PULL, rcvhwm=1, heartbeat_interval=0.05, heartbeat_timeout=2
        )
        with raw_socket(zmq.PUSH, heartbeat_ivl=50, heartbeat_timeout=60_000) as sock:
            sock.connect(endpoint)
            sock.send(b"first")
            await protocol.received(1)
            await transport.enable_monitor()
            transport.pause_reading()
            for i in range(50):
                sock.send(b"%d" % i)
            await asyncio.sleep(2.3)  # longer than heartbeat_timeout
            transport.resume_reading()
            await protocol.received(51)
            assert [m[0] for m in protocol.messages[1:]] == [
                b"%d" % i for i in range(50)
            ]
            assert not [e for e in protocol.events if e.event == zmq.EVENT_DISCONNECTED]
        await close(transport)

    run(go())


# ---- subscriptions ----


@pytest.mark.parametrize("minor", [0, 1])
@pytest.mark.parametrize(
    "size", [1, 244, 245, 246, 247, 253, 254, 255, 256, 257, 70000]
)
def test_topics_of_each_length_in_both_forms(run, minor, size):
    async def go():
        server = RawServer()
        transport, _ = await open_transport(
            zmq.SUB, connect=await server.listen(), linger=0
        )
        topic = b"t" * size
        transport.subscribe(topic)
        peer = await server.accept()
        await peer.shake(b"PUB", (3, minor))
        subscribe, cancel = (
            ((0, b"\1"), (0, b"\0"))
            if minor == 0
            else ((4, b"\x09SUBSCRIBE"), (4, b"\6CANCEL"))
        )
        assert await peer.frame() == (subscribe[0], subscribe[1] + topic)
        transport.unsubscribe(topic)
        assert await peer.frame() == (cancel[0], cancel[1] + topic)
        await peer.close()
        server.close()
        await close(transport)

    run(go())


@pytest.mark.parametrize("kind", [zmq.SUB, zmq.XSUB])
@pytest.mark.parametrize("minor", [0, 1])
def test_no_subscription_is_lost(run, kind, minor):
    """More than the high water mark, the batch and the kernel take; twice."""

    async def go():
        server = RawServer()
        transport, _ = await open_transport(
            kind,
            connect=await server.listen(),
            linger=0,
            sndhwm=10,
            reconnect_interval=0.01,
        )
        transport.setsockopt(zmq.SNDBUF, 4096)
        topics = {b"%05d" % i + b"x" * 200 for i in range(30_000)}

        def subscribe(topic):
            if kind == zmq.SUB:
                transport.subscribe(topic)
            else:
                transport.write([b"\1" + topic])

        for topic in topics:
            subscribe(topic)
        for _ in range(2):
            peer = await server.accept()
            await peer.shake(b"PUB", (3, minor))
            seen = set()
            while len(seen) < len(topics):
                _, body = await peer.frame()
                seen.add(body.removeprefix(b"\x09SUBSCRIBE").removeprefix(b"\1"))
            assert seen == topics
            await peer.close()
        # And while it is connected, to a peer that does not read for a time.
        peer = await server.accept()
        await peer.shake(b"PUB", (3, minor))
        while len(topics) < 60_000:
            topic = b"%05d" % len(topics) + b"x" * 200
            topics.add(topic)
            subscribe(topic)
        seen = set()
        while len(seen) < len(topics):
            _, body = await peer.frame()
            seen.add(body.removeprefix(b"\x09SUBSCRIBE").removeprefix(b"\1"))
        assert seen == topics
        await peer.close()
        server.close()
        await close(transport)

    run(go())


def test_a_topic_of_a_megabyte(run):
    async def go():
        transport, protocol, endpoint = await bound(zmq.XPUB)
        peer = await RawPeer.connect(endpoint)
        await peer.shake(b"SUB")
        topic = b"m" * 1_000_000
        peer.write(command(b"SUBSCRIBE", topic))
        peer.write(frame(b"\1" + topic[:-1]) + frame(b"\0" + topic[:-1]))
        peer.write(command(b"CANCEL", topic))
        await protocol.received(4)
        assert [m[0][:1] for m in protocol.messages] == [b"\1", b"\1", b"\0", b"\0"]
        await peer.close()
        await close(transport)

    run(go())

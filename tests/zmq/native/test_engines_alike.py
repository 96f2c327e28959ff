"""What options do, as libzmq does it: each test runs on both engines."""

import asyncio
import contextlib
import os
import socket
import struct

import pytest
import zmq
from helpers import close, open_transport, raw_socket
from raw_peer import RawPeer, RawServer, command, frame

pytestmark = pytest.mark.parametrize("engine", ["libzmq", "native"])

ANY = "tcp://127.0.0.1:*"


async def opened(engine, kind, options=(), **kwargs):
    """Without endpoints, so that options are set before there are any."""
    transport, protocol = await open_transport(kind, engine=engine, linger=0, **kwargs)
    for option, value in dict(options).items():
        transport.setsockopt(option, value)
    return transport, protocol


async def bound(engine, kind, options=(), **kwargs):
    transport, protocol = await opened(engine, kind, options, **kwargs)
    return transport, protocol, await transport.bind(ANY)


async def subscriber(endpoint):
    peer = await RawPeer.connect(endpoint)
    await peer.shake(b"SUB")
    return peer


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (None, [b"\1x", b"\0x", b"\1y", b"\0y"]),
        (zmq.XPUB_VERBOSE, [b"\1x", b"\1x", b"\0x", b"\1y", b"\0y"]),
        (zmq.XPUB_VERBOSER, [b"\1x", b"\1x", b"\0x", b"\0x", b"\1y", b"\0y"]),
    ],
)
def test_what_an_xpub_is_told(run, engine, option, told):
    async def go():
        xpub, protocol, endpoint = await bound(
            engine, zmq.XPUB, {} if option is None else {option: 1}
        )
        a, b, c = [await subscriber(endpoint) for _ in range(3)]
        steps = [(a, b"\1x"), (b, b"\1x"), (a, b"\0x"), (b, b"\0x"), (c, b"\1y")]
        for number, (peer, subscription) in enumerate(steps):
            # Each has come before the next: what it publishes next comes back.
            peer.write(frame(subscription) + frame(b"\1mark%d" % number))
            await protocol.until(
                lambda n=number: [b"\1mark%d" % n] in protocol.messages
            )
        await c.close()
        await protocol.until(lambda: [b"\0mark4"] in protocol.messages)
        await protocol.until(lambda: [b"\0y"] in protocol.messages)
        found = [m[0] for m in protocol.messages if b"mark" not in m[0]]
        assert found == told
        await a.close()
        await b.close()
        await close(xpub)

    run(go())


def test_a_welcome_comes_first(run, engine):
    async def go():
        xpub, _, endpoint = await bound(
            engine, zmq.XPUB, {zmq.XPUB_WELCOME_MSG: b"welcome"}
        )
        peer = await subscriber(endpoint)
        assert await peer.frame() == (0, b"welcome")
        xpub.setsockopt(zmq.XPUB_WELCOME_MSG, b"")
        other = await subscriber(endpoint)
        other.write(command(b"PING", b"\0\0"))
        assert await other.frame() == (4, b"\4PONG")
        await peer.close()
        await other.close()
        await close(xpub)

    run(go())


def test_a_probe_is_an_empty_message(run, engine):
    async def go():
        router, protocol, endpoint = await bound(engine, zmq.ROUTER)
        dealer, _ = await opened(
            engine, zmq.DEALER, {zmq.PROBE_ROUTER: 1, zmq.ROUTING_ID: b"me"}
        )
        await dealer.connect(endpoint)
        assert await protocol.received(1) == [[b"me", b""]]
        dealer.write([b"1"])
        assert await protocol.received(2) == [[b"me", b""], [b"me", b"1"]]
        await close(dealer, router)

    run(go())


def test_relaxed_requests(run, engine):
    """With CORRELATE only the last one's answer is taken; without, an answer that was
    there before the request was made is none of it."""

    async def go():
        server = RawServer()
        endpoint = await server.listen()
        req, protocol = await opened(
            engine, zmq.REQ, {zmq.REQ_RELAXED: 1, zmq.REQ_CORRELATE: 1}
        )
        await req.connect(endpoint)
        peer = await server.accept()
        await peer.shake(b"REP")
        ids = []
        for number in range(3):
            req.write([b"%d" % number])
            flags, request_id = await peer.frame()
            assert flags == 1
            assert len(request_id) == 4
            ids.append(struct.unpack("=I", request_id)[0])
            assert await peer.frame() == (1, b"")
            assert await peer.frame() == (0, b"%d" % number)
        assert ids == [ids[0], ids[0] + 1, ids[0] + 2]
        for number, one in enumerate(ids):
            head = frame(struct.pack("=I", one), more=True) + frame(b"", more=True)
            peer.write(head + frame(b"answer %d" % number))
        assert await protocol.received(1) == [[b"answer 2"]]
        await peer.close()
        server.close()
        await close(req)

        with raw_socket(zmq.REP) as rep:
            port = rep.bind_to_random_port("tcp://127.0.0.1")
            req, protocol = await opened(engine, zmq.REQ, {zmq.REQ_RELAXED: 1})
            await req.connect(f"tcp://127.0.0.1:{port}")
            req.pause_reading()
            req.write([b"1"])
            rep.send(await asyncio.to_thread(rep.recv))
            sock = req.get_extra_info("zmq_socket")
            while not sock.getsockopt(zmq.EVENTS) & zmq.POLLIN:
                await asyncio.sleep(0.001)
            req.write([b"2"])
            rep.send(await asyncio.to_thread(rep.recv))
            req.resume_reading()
            assert await protocol.received(1) == [[b"2"]]
            await close(req)

    run(go())


@contextlib.contextmanager
def by_descriptor(fd):
    with socket.socket(fileno=os.dup(fd)) as sock:
        yield sock


def test_options_of_connections(run, engine):
    options = {
        zmq.TOS: 0x28,
        zmq.TCP_KEEPALIVE: 1,
        zmq.TCP_KEEPALIVE_CNT: 3,
        zmq.TCP_KEEPALIVE_IDLE: 40,
        zmq.TCP_KEEPALIVE_INTVL: 5,
        zmq.BACKLOG: 17,
        zmq.SNDBUF: 30_000,
        zmq.RCVBUF: 40_000,
    }
    fds = {}

    async def go():
        pull, pull_p = await opened(engine, zmq.PULL, options)
        push, push_p = await opened(engine, zmq.PUSH, options)
        for transport in (pull, push):
            await transport.enable_monitor()
        endpoint = await pull.bind(ANY)
        await push.connect(endpoint)
        done = zmq.EVENT_HANDSHAKE_SUCCEEDED
        for protocol in (pull_p, push_p):
            await protocol.until(
                lambda p=protocol: any(e.event == done for e in p.events)
            )
            fds.update((e.event, e.value) for e in protocol.events)
        for event in (zmq.EVENT_ACCEPTED, zmq.EVENT_CONNECTED):
            with by_descriptor(fds[event]) as sock:
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                for name, value in (
                    (socket.TCP_NODELAY, 1),
                    (socket.TCP_KEEPCNT, 3),
                    (socket.TCP_KEEPIDLE, 40),
                    (socket.TCP_KEEPINTVL, 5),
                ):
                    assert sock.getsockopt(socket.IPPROTO_TCP, name) == value
                assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == 0x28
                # The kernel doubles them.
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 60_000
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 80_000
        with by_descriptor(fds[zmq.EVENT_LISTENING]) as sock:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
            assert struct.unpack_from("=I", info, 28) == (17,)  # tcpi_sacked
        await close(push, pull)

    run(go())


def test_a_connection_takes_so_long_at_most(run, engine):
    async def go():
        with contextlib.ExitStack() as stack:
            full = stack.enter_context(socket.socket())
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for _ in range(4):  # the queue is full: who knocks now is not answered
                knocking = stack.enter_context(socket.socket())
                knocking.setblocking(False)
                knocking.connect_ex(full.getsockname())
            push, protocol = await opened(
                engine, zmq.PUSH, {zmq.CONNECT_TIMEOUT: 50, zmq.RECONNECT_IVL: 10_000}
            )
            await push.enable_monitor()
            await push.connect(f"tcp://127.0.0.1:{full.getsockname()[1]}")
            await protocol.until(lambda: len(protocol.events) == 3)
            assert [e.event for e in protocol.events] == [
                zmq.EVENT_CONNECT_DELAYED,
                zmq.EVENT_CLOSED,
                zmq.EVENT_CONNECT_RETRIED,
            ]
            push.abort()
            await protocol.lost

    run(go())


@pytest.mark.parametrize("binds", [False, True])
def test_a_handshake_takes_so_long_at_most(run, engine, binds):
    async def go():
        server = RawServer()
        transport, protocol = await opened(
            engine, zmq.DEALER, {zmq.HANDSHAKE_IVL: 50, zmq.RECONNECT_IVL: 10_000}
        )
        await transport.enable_monitor(
            zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_DISCONNECTED
        )
        if binds:
            peer = await RawPeer.connect(await transport.bind(ANY))
        else:
            await transport.connect(await server.listen())
            peer = await server.accept()
        await peer.greet()  # and not a word more
        await peer.at_end()
        await protocol.until(lambda: len(protocol.events) == 2)
        assert [e.event for e in protocol.events] == [
            zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
            zmq.EVENT_DISCONNECTED,
        ]
        await peer.close()
        if not binds:
            server.close()
        transport.abort()
        await protocol.lost

    run(go())


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        (zmq.XPUB, zmq.XPUB_MANUAL, 1),
        (zmq.PUB, zmq.INVERT_MATCHING, 1),
        (zmq.PULL, zmq.CONFLATE, 1),
        (zmq.ROUTER, zmq.ROUTER_RAW, 1),
        (zmq.DEALER, zmq.SOCKS_PROXY, b"127.0.0.1:1"),
        (zmq.DEALER, zmq.BINDTODEVICE, b"lo"),
        (zmq.DEALER, zmq.TCP_MAXRT, 1000),
        (zmq.DEALER, zmq.MULTICAST_HOPS, 2),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_the_native_engine_has_not(run, engine, kind, option, value):
    async def go():
        transport, _ = await opened(engine, kind)
        if engine == "native":
            with pytest.raises(OSError, match=f'ZMQ_{option.name} .*engine="libzmq"'):
                transport.setsockopt(option, value)
        else:
            with contextlib.suppress(PermissionError):
                transport.setsockopt(option, value)
        await close(transport)

    run(go())

"""Servers that are told who may come in: `authenticate`."""

import asyncio
import socket

import pytest
import zmq
from helpers import close, open_transport, raw_socket
from raw_peer import RawPeer

from aiozmq_speedups import create_zmq_connection, new_event_loop, rpc, zmq_asyncio
from aiozmq_speedups._zmq.native_zap import Zap

SERVER, ALICE, MALLORY = (zmq.curve_keypair() for _ in range(3))
CURVE = {"curve_server": True, "curve_secretkey": SERVER[1]}
PLAIN = {"plain_server": True}
ENDS = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


def curve(pair):
    return {"curve_secretkey": pair[1], "curve_serverkey": SERVER[0]}


def plain(name, password):
    return {"plain_username": name, "plain_password": password}


async def served(authenticate, **options):
    server, protocol = await open_transport(
        zmq.PULL,
        bind="tcp://127.0.0.1:*",
        linger=0,
        authenticate=authenticate,
        **options,
    )
    return server, protocol


async def gets_in(server, engine, **options):
    """Is a PUSH let in by the server?"""
    client, protocol = await open_transport(
        zmq.PUSH, linger=0, engine=engine, reconnect_interval=1000, **options
    )
    await client.enable_monitor(ENDS)
    await client.connect(*server.bindings())
    await protocol.until(lambda: protocol.events)
    event = protocol.events[0]
    if event.event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
        count = len(server.get_protocol().messages) + 1
        client.write([b"hello"])
        await server.get_protocol().received(count)
    client.abort()
    await protocol.lost
    return event.event == zmq.EVENT_HANDSHAKE_SUCCEEDED


engines = pytest.mark.parametrize("engine", ["native", "libzmq"])


@engines
def test_a_dict_of_users(run, engine):
    async def go():
        server, _ = await served({"alice": "secret", "empty": ""}, **PLAIN)
        assert await gets_in(server, engine, **plain("alice", "secret"))
        assert not await gets_in(server, engine, **plain("alice", "secrets"))
        assert not await gets_in(server, engine, **plain("mallory", "secret"))
        await close(server)

    run(go())


@engines
@pytest.mark.parametrize("kind", [set, list, lambda keys: map(bytes.decode, keys)])
def test_a_collection_of_keys(run, engine, kind):
    async def go():
        server, _ = await served(kind([ALICE[0]]), **CURVE)
        assert await gets_in(server, engine, **curve(ALICE))
        assert not await gets_in(server, engine, **curve(MALLORY))
        await close(server)

    run(go())


@engines
@pytest.mark.parametrize("later", [False, True])
def test_a_function(run, engine, later):
    seen = []

    def check(peer):
        seen.append(peer)
        return peer.username == b"alice"

    async def check_later(peer):
        await asyncio.sleep(0)
        return check(peer)

    async def go():
        server, _ = await served(check_later if later else check, **PLAIN)
        assert await gets_in(server, engine, **plain("alice", "a"))
        assert not await gets_in(server, engine, **plain("mallory", "b"))
        await close(server)

    run(go())
    assert seen == [
        ("PLAIN", "127.0.0.1", b"alice", b"a", b""),
        ("PLAIN", "127.0.0.1", b"mallory", b"b", b""),
    ]


def test_a_function_is_shown_the_key(run):
    async def check(peer):
        assert peer.mechanism == "CURVE"
        assert peer.username == peer.password == b""
        return zmq.utils.z85.encode(peer.public_key) == ALICE[0]

    async def go():
        server, _ = await served(check, **CURVE)
        assert await gets_in(server, "libzmq", **curve(ALICE))
        assert not await gets_in(server, "libzmq", **curve(MALLORY))
        await close(server)

    run(go())


@pytest.mark.parametrize("later", [False, True])
def test_a_function_that_fails_lets_nobody_in(run, later):
    reported = []

    def check(peer):
        raise LookupError(peer.username)

    async def check_later(peer):
        check(peer)

    async def go():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, c: reported.append(c["exception"]))
        server, _ = await served(check_later if later else check, **PLAIN)
        assert not await gets_in(server, "native", **plain("alice", "a"))
        await close(server)

    run(go())
    assert [e.args for e in reported] == [(b"alice",)]


@pytest.mark.parametrize("answer", [1, "yes", None, object()])
def test_only_true_lets_in(run, answer):
    async def go():
        server, _ = await served(lambda peer: answer, **PLAIN)
        assert not await gets_in(server, "native", **plain("alice", "a"))
        await close(server)

    run(go())


def test_who_leaves_is_not_waited_for(run):
    asked, ended = asyncio.Event(), asyncio.Event()

    async def check(peer):
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def go():
        server, _ = await served(check, **PLAIN)
        with raw_socket(zmq.PUSH, plain_username=b"a", plain_password=b"b") as client:
            client.connect(*server.bindings())
            await asked.wait()
        await ended.wait()
        await close(server)

    run(go())


def test_an_rpc_service(run):
    async def go():
        class Handler(rpc.AttrHandler):
            @rpc.method
            def add(self, a, b):
                return a + b

        service = await rpc.serve_rpc(
            Handler(), bind="tcp://127.0.0.1:*", authenticate=[ALICE[0]], **CURVE
        )
        client = await rpc.connect_rpc(
            connect=service.transport.bindings(), **curve(ALICE)
        )
        assert await client.call.add(1, 2) == 3
        for end in (client, service):
            end.close()
            await end.wait_closed()

    run(go())


@pytest.mark.parametrize(
    ("authenticate", "options", "error", "text"),
    [
        ({}, {}, ValueError, "plain_server=True or curve_server=True"),
        (["x"], PLAIN, TypeError, "dict of passwords"),
        ({"a": b"b"}, PLAIN, TypeError, "must be str"),
        ({"a": "b"}, CURVE, TypeError, "collection of public keys"),
        (ALICE[0], CURVE, TypeError, "collection of public keys"),
        (["x"], CURVE, ValueError, "40 characters"),
        ({"a": "b"}, {"engine": "libzmq", **PLAIN}, ValueError, "native"),
    ],
)
def test_what_is_refused(run, authenticate, options, error, text):
    async def go():
        with pytest.raises(error, match=text):
            await served(authenticate, **options)

    run(go())


def test_on_another_engine_it_is_an_error():
    async def go():
        with pytest.raises(ValueError, match="served by the native engine"):
            await create_zmq_connection(
                zmq.PULL, zmq.PULL, authenticate={"a": "b"}, plain_server=True
            )

    loop = new_event_loop()
    loop.run_until_complete(go())
    loop.close()


def test_a_handler_that_is_there_is_not_looked_for_again(run, monkeypatch):
    """Looking is binding in its place for a moment."""
    handlers = []

    async def serve(context):
        handler = context.socket(zmq.ROUTER)
        handler.linger = 0
        while True:
            try:
                handler.bind("inproc://zeromq.zap.01")
                break
            except zmq.ZMQError as exc:  # who looked for one is closed by a thread
                assert exc.errno == zmq.EADDRINUSE
                await asyncio.sleep(0.001)
        handlers.append(handler)

        async def answer():
            while True:
                route, *request = await handler.recv_multipart()
                name = request[7]
                status = b"200" if name == b"alice" else b"400"
                await handler.send_multipart(
                    [route, b"", b"1.0", request[2], status, b"", b"", b""]
                )

        return asyncio.create_task(answer())

    async def go():
        context = zmq_asyncio.Context.shadow(zmq.Context.instance())
        probes = []
        real = Zap._has_handler
        monkeypatch.setattr(
            Zap, "_has_handler", lambda zap: probes.append(zap._line) or real(zap)
        )
        server, _ = await open_transport(
            zmq.PULL, bind="tcp://127.0.0.1:*", linger=0, **PLAIN
        )
        for _ in range(2):
            task = await serve(context)
            for _ in range(3):
                assert await gets_in(server, "native", **plain("alice", "a"))
            assert not await gets_in(server, "native", **plain("mallory", "a"))
            task.cancel()
            handlers.pop().close()
            # Its end is told by a thread of libzmq's.
            line = server.get_extra_info("zmq_socket")._zap_of_loop()._line
            while line.is_held():
                await asyncio.sleep(0.001)
            assert not await gets_in(server, "native", **plain("alice", "a"))
        await close(server)
        assert probes[0] is None
        assert len({id(line) for line in probes[1:4]}) == 1
        assert probes[1] is not None

    run(go())


def test_who_decides_receives_for_somebody_else(run):
    """The loop receives both into the same memory."""

    async def go():
        loop = asyncio.get_running_loop()
        x, y = socket.socketpair()
        x.setblocking(False)

        def decide(credentials):
            y.send(b"Z" * 1000)
            with pytest.raises(StopIteration):
                loop.sock_recv(x, 4096).send(None)
            return True

        server, protocol = await served(decide, **PLAIN)
        peer = await RawPeer.connect(*server.bindings())
        name = b"PLAIN".ljust(20, b"\0")
        commands = b"\5HELLO\1u\1p", b"\x08INITIATE\x0bSocket-Type\0\0\0\4PUSH"
        peer.write(
            b"\xff"
            + bytes(8)
            + b"\x7f\3\0"
            + name
            + bytes(32)
            # Nobody may send that before the server's answers, but they may.
            + b"".join(b"\4" + bytes([len(c)]) + c for c in commands)
            + b"\0\x20"
            + b"A" * 32
        )
        assert await protocol.received(1) == [[b"A" * 32]]
        await peer.close()
        await close(server)
        x.close()
        y.close()

    run(go())

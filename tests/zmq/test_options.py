"""The socket options of create_zmq_connection() and what is built on it."""

import asyncio
import math

import pytest
import zmq
from helpers import close, open_transport, raw_socket

from aiozmq_speedups import ZmqOptions, rpc
from aiozmq_speedups._zmq.options import _OPTIONS
from aiozmq_speedups.stream import create_zmq_stream

pytestmark = pytest.mark.usefixtures("errors", "transport_kind")

SERVER = zmq.curve_keypair()
CLIENT = zmq.curve_keypair()


@pytest.mark.parametrize(
    ("name", "value", "option", "expected"),
    [
        ("linger", 0, zmq.LINGER, 0),
        ("linger", 1.5, zmq.LINGER, 1500),
        ("linger", 0.1, zmq.LINGER, 100),
        ("linger", 1e-6, zmq.LINGER, 1),
        ("linger", math.inf, zmq.LINGER, -1),
        ("sndhwm", 7, zmq.SNDHWM, 7),
        ("rcvhwm", 0, zmq.RCVHWM, 0),
        ("max_message_size", 1 << 40, zmq.MAXMSGSIZE, 1 << 40),
        ("heartbeat_interval", 2, zmq.HEARTBEAT_IVL, 2000),
        ("reconnect_interval", 0.25, zmq.RECONNECT_IVL, 250),
        ("reconnect_interval", math.inf, zmq.RECONNECT_IVL, -1),
        ("reconnect_interval_max", 9, zmq.RECONNECT_IVL_MAX, 9000),
        ("connect_timeout", 3, zmq.CONNECT_TIMEOUT, 3000),
        ("connect_timeout", math.inf, zmq.CONNECT_TIMEOUT, 0),
        ("handshake_timeout", 3, zmq.HANDSHAKE_IVL, 3000),
        ("immediate", True, zmq.IMMEDIATE, 1),
        ("plain_server", True, zmq.PLAIN_SERVER, 1),
        ("zap_domain", "global", zmq.ZAP_DOMAIN, b"global"),
    ],
)
def test_option(run, name, value, option, expected):
    async def go():
        with raw_socket(zmq.DEALER) as sock:
            for kwargs in ({}, {"zmq_sock": sock}):
                tr, _ = await open_transport(zmq.DEALER, **kwargs, **{name: value})
                got = tr.getsockopt(option)
                if isinstance(got, bytes):
                    got = got.rstrip(b"\0")
                assert got == expected
                await close(tr)

    run(go())


def test_heartbeats_together(run):
    async def go():
        tr, _ = await open_transport(
            zmq.DEALER,
            heartbeat_interval=1,
            heartbeat_timeout=2.5,
            heartbeat_ttl=6553.5,
        )
        assert tr.getsockopt(zmq.HEARTBEAT_IVL) == 1000
        assert tr.getsockopt(zmq.HEARTBEAT_TIMEOUT) == 2500
        assert tr.getsockopt(zmq.HEARTBEAT_TTL) == 6_553_500
        await close(tr)

    run(go())


@pytest.mark.parametrize("given", ["str", "bytes", "raw"])
def test_curve_keys(run, given):
    from zmq.utils import z85

    convert = {"str": bytes.decode, "bytes": bytes, "raw": z85.decode}[given]

    async def go():
        server, server_p = await open_transport(
            zmq.ROUTER, curve_server=True, curve_secretkey=convert(SERVER[1])
        )
        assert server.getsockopt(zmq.MECHANISM) == zmq.CURVE
        assert server.getsockopt(zmq.CURVE_SERVER) == 1
        client, _ = await open_transport(
            zmq.DEALER,
            curve_server=False,
            curve_secretkey=convert(CLIENT[1]),
            curve_serverkey=convert(SERVER[0]),
        )
        assert client.getsockopt(zmq.MECHANISM) == zmq.CURVE
        assert client.getsockopt(zmq.CURVE_SERVER) == 0
        endpoint = await server.bind("tcp://127.0.0.1:*")
        await client.connect(endpoint)
        client.write([b"request"])
        assert (await server_p.received(1))[0][1:] == [b"request"]
        await close(server, client)

    run(go())


CURVE_SERVER = {"curve_server": True, "curve_secretkey": SERVER[1]}
WRONG = [
    ({"no_such_option": 1}, TypeError, "unexpected keyword argument 'no_such_option'"),
    ({"linger": "1"}, TypeError, "linger must be a number of seconds, not '1'"),
    ({"linger": None}, TypeError, "linger must be a number"),
    ({"linger": True}, TypeError, "linger must be a number"),
    ({"linger": -1}, ValueError, "linger must be between 0 and"),
    ({"linger": math.nan}, ValueError, "linger must be between 0 and"),
    ({"linger": 1e10}, ValueError, "linger must be between 0 and"),
    ({"heartbeat_interval": math.inf}, ValueError, "heartbeat_interval must be"),
    ({"heartbeat_timeout": 1}, ValueError, "needs heartbeat_interval"),
    ({"heartbeat_ttl": 1}, ValueError, "needs heartbeat_interval"),
    ({"heartbeat_interval": 1, "heartbeat_ttl": 6554}, ValueError, "heartbeat_ttl"),
    ({"heartbeat_interval": 1, "heartbeat_ttl": 0.05}, ValueError, "heartbeat_ttl"),
    ({"sndhwm": -1}, ValueError, "sndhwm"),
    ({"sndhwm": 1 << 31}, ValueError, "sndhwm"),
    ({"rcvhwm": 1.0}, TypeError, "rcvhwm must be an int"),
    ({"max_message_size": -1}, ValueError, "max_message_size"),
    ({"max_message_size": 1.5}, TypeError, "max_message_size"),
    ({"immediate": 1}, TypeError, "immediate must be a bool"),
    ({"zap_domain": b"x"}, TypeError, "zap_domain must be a str"),
    ({"zap_domain": ""}, ValueError, "zap_domain"),
    ({"plain_username": "x" * 256, "plain_password": "p"}, ValueError, "plain_user"),
    ({"plain_username": "u"}, ValueError, "go together"),
    ({"plain_password": "p"}, ValueError, "go together"),
    ({"plain_server": True, "plain_username": "u"}, ValueError, "for clients"),
    ({"curve_secretkey": 1}, TypeError, "curve_secretkey must be str or bytes"),
    ({"curve_secretkey": "x" * 39}, ValueError, "40 characters"),
    ({"curve_secretkey": "\u20ac" * 40}, ValueError, "curve_secretkey"),
    ({"curve_secretkey": "~" * 40}, ValueError, "not Z85"),
    ({"curve_secretkey": b"\xff" * 40}, ValueError, "not Z85"),
    ({"curve_secretkey": "#" * 40}, ValueError, "not Z85"),
    ({"curve_server": True}, ValueError, "needs curve_secretkey"),
    ({"curve_serverkey": SERVER[0]}, ValueError, "needs curve_secretkey"),
    ({"curve_secretkey": CLIENT[1]}, ValueError, "curve_serverkey in a client"),
    ({**CURVE_SERVER, "plain_server": True}, ValueError, "exclude each other"),
    ({**CURVE_SERVER, "curve_serverkey": "x"}, ValueError, "40 characters"),
    ({**CURVE_SERVER, "curve_serverkey": SERVER[0]}, ValueError, "for clients only"),
    ({**CURVE_SERVER, "curve_publickey": CLIENT[0]}, ValueError, "does not belong"),
]


@pytest.mark.parametrize(("options", "error", "text"), WRONG)
def test_wrong_options(run, options, error, text):
    with raw_socket(zmq.DEALER) as sock:
        for kwargs in ({}, {"zmq_sock": sock}):
            with pytest.raises(error, match=text) as info:
                run(open_transport(zmq.DEALER, **kwargs, **options))
            assert CLIENT[1].decode() not in str(info.value)
        assert not sock.closed
        assert sock.linger == 0


def test_all_are_typed():
    # These are no options of a socket.
    others = {"engine", "authenticate", "log_events"}
    assert ZmqOptions.__annotations__.keys() == _OPTIONS.keys() | others
    assert ZmqOptions.__total__ is False


# -- Linger --


def test_default_linger(run):
    """Bounded: a peer that never comes back must not keep the socket for ever."""

    async def go():
        tr, _ = await open_transport(zmq.DEALER)
        assert tr.getsockopt(zmq.LINGER) == 30_000
        await close(tr)
        # A zmq_sock is as its maker wants it.
        with zmq.Context.instance().socket(zmq.DEALER) as sock:
            tr, _ = await open_transport(zmq.DEALER, zmq_sock=sock)
            assert tr.getsockopt(zmq.LINGER) == -1
            await close(tr)

    run(go())


@pytest.mark.parametrize("linger", [-1, 0, 70])
def test_linger_of_the_context(run, monkeypatch, linger):
    async def go():
        with zmq.Context() as context:
            context.linger = linger
            monkeypatch.setattr(zmq.Context, "instance", lambda: context)
            tr, _ = await open_transport(zmq.DEALER)
            assert tr.getsockopt(zmq.LINGER) == linger
            await close(tr)
            tr, _ = await open_transport(zmq.DEALER, linger=1)
            assert tr.getsockopt(zmq.LINGER) == 1000
            await close(tr)

    run(go())


# -- Everywhere --


def test_streams_and_rpc_take_them(run):
    async def go():
        stream = await create_zmq_stream(zmq.DEALER, sndhwm=5)
        assert stream.transport.getsockopt(zmq.SNDHWM) == 5
        stream.close()
        with pytest.raises(TypeError, match="no_such"):
            await create_zmq_stream(zmq.DEALER, no_such=5)

        class Handler(rpc.AttrHandler):
            pass

        for connect, serve in [
            (rpc.connect_rpc, rpc.serve_rpc),
            (rpc.connect_pipeline, rpc.serve_pipeline),
            (rpc.connect_pubsub, rpc.serve_pubsub),
        ]:
            server = await serve(Handler(), bind="tcp://127.0.0.1:*", sndhwm=5)
            client = await connect(connect=server.transport.bindings(), sndhwm=6)
            assert server.transport.getsockopt(zmq.SNDHWM) == 5
            assert client.transport.getsockopt(zmq.SNDHWM) == 6
            for service in (client, server):
                service.close()
                await service.wait_closed()

    run(go())


# -- What they do --


def test_max_message_size(run):
    async def go():
        server, server_p = await open_transport(
            zmq.PULL, bind="tcp://127.0.0.1:*", max_message_size=1000
        )
        await server.enable_monitor(zmq.EVENT_DISCONNECTED)
        client, _ = await open_transport(
            zmq.PUSH, connect=list(server.bindings()), linger=0
        )
        client.write([b"x" * 1000])
        assert await server_p.received(1) == [[b"x" * 1000]]
        client.write([b"x" * 1001])
        await server_p.until(lambda: server_p.events)
        assert len(server_p.messages) == 1
        await close(client, server)

    run(go())


def test_heartbeats_find_a_dead_peer(run):
    """A peer whose TCP connection is up, but that is silent, is disconnected."""

    async def go():
        async def dead(reader, writer):
            # The greeting and the handshake of ZMTP 3.1 with NULL, then nothing.
            writer.write(b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(16 + 32))
            writer.write(b"\x04\x1a\x05READY\x0bSocket-Type\x00\x00\x00\x04PULL")
            while await reader.read(1000):
                pass
            writer.close()
            await writer.wait_closed()
            ended.set()

        ended = asyncio.Event()
        server = await asyncio.start_server(dead, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client, client_p = await open_transport(
            zmq.PUSH,
            heartbeat_interval=0.02,
            reconnect_interval=math.inf,
            linger=0,
        )
        await client.enable_monitor()
        await client.connect(f"tcp://127.0.0.1:{port}")

        def seen(event):
            return lambda: event in [e.event for e in client_p.events]

        await client_p.until(seen(zmq.EVENT_HANDSHAKE_SUCCEEDED))
        await client_p.until(seen(zmq.EVENT_DISCONNECTED))
        await close(client)
        await ended.wait()
        server.close()
        await server.wait_closed()

    run(go())

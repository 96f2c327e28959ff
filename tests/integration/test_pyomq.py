"""pyomq: ZMTP by others, in Rust, without libzmq; and this package's native engine."""

import asyncio
import errno
import itertools

import pytest
import zmq
from zmq.auth.asyncio import AsyncioAuthenticator

from aiozmq_speedups import ZmqProtocol, _ext, create_zmq_connection

pyomq = pytest.importorskip("pyomq")
pytestmark = [
    pytest.mark.loops("speedups"),
    pytest.mark.no_leak_guard("eventfds, which pyomq keeps"),
    pytest.mark.skipif(_ext.core is None, reason="needs the C extension"),
]

SIZES = (0, 1, 254, 255, 256, 257, 8191, 8193, 65535, 65537, 5_000_000)
MESSAGES = [
    *([bytes([size % 251]) * size] for size in SIZES),
    [b"a", b"b", b"c"],
    [b"x" * 255, b"", b"y" * 70000, b"z"],
]
# Ours and theirs; who speaks first is in front.
PAIRS = [
    ("REQ", "REP"),
    ("REQ", "ROUTER"),
    ("DEALER", "REP"),
    ("DEALER", "DEALER"),
    ("DEALER", "ROUTER"),
    ("PUSH", "PULL"),
    ("PAIR", "PAIR"),
    ("PUB", "SUB"),
    ("XPUB", "SUB"),
    ("PUB", "XSUB"),
    ("XPUB", "XSUB"),
]
SERVER, CLIENT = zmq.curve_keypair(), zmq.curve_keypair()


class Protocol(ZmqProtocol):
    def __init__(self):
        self.messages = asyncio.Queue()
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def msg_received(self, data):
        self.messages.put_nowait(data)

    def connection_lost(self, exc):
        self.lost.set_result(exc)


class Ours:
    async def open(self, kind, options):
        _, self.protocol = await create_zmq_connection(
            Protocol, getattr(zmq, kind), engine="native", linger=0
        )
        self.transport = self.protocol.transport
        for name, value in options.items():
            self.transport.setsockopt(getattr(zmq, name.upper()), value)

    async def bind(self):
        return await self.transport.bind("tcp://127.0.0.1:*")

    async def connect(self, endpoint):
        await self.transport.connect(endpoint)

    async def send(self, message):
        self.transport.write(message)

    async def recv(self):
        return await self.protocol.messages.get()

    async def close(self):
        self.transport.close()
        await self.protocol.lost


class Theirs:
    async def open(self, kind, options):
        self.socket = pyomq.Context.instance().socket(getattr(pyomq, kind))
        self.socket.linger = 0
        self.socket.rcvtimeo = self.socket.sndtimeo = 20_000
        for name, value in options.items():
            if name == "plain_server":
                self.socket.set_plain_auth([("alice", "secret")])
            self.socket.setsockopt(getattr(pyomq, name.upper()), value)

    async def bind(self):
        port = self.socket.bind_to_random_port("tcp://127.0.0.1")
        return f"tcp://127.0.0.1:{port}"

    async def connect(self, endpoint):
        self.socket.connect(endpoint)

    async def send(self, message):
        await asyncio.to_thread(self.socket.send_multipart, message)

    async def recv(self):
        return await asyncio.to_thread(self.socket.recv_multipart)

    async def close(self):
        self.socket.close()


def security(mechanism):
    """Of the server, and of the client."""
    if mechanism == "plain":
        client = {"plain_username": b"alice", "plain_password": b"secret"}
        return {"plain_server": 1}, client
    if mechanism == "curve":
        names = "curve_publickey", "curve_secretkey"
        server = {**dict(zip(names, SERVER, strict=True)), "curve_server": 1}
        client = dict(zip(names, CLIENT, strict=True))
        return server, {**client, "curve_serverkey": SERVER[0]}
    return {}, {}


async def authenticate():
    authenticator = AsyncioAuthenticator(zmq.Context.instance())
    while True:
        try:
            authenticator.start()
            break
        except zmq.ZMQError as exc:  # the last test's, whose end takes its time
            assert exc.errno == errno.EADDRINUSE
            authenticator.zap_socket.close()
        await asyncio.sleep(0.001)
    authenticator.configure_plain(passwords={"alice": "secret"})
    authenticator.configure_curve(location=zmq.auth.CURVE_ALLOW_ANY)
    return authenticator


async def exchange(kinds, sides, first_binds, mechanism):
    authenticator = await authenticate()
    first, second = sides[0](), sides[1]()
    server, client = (first, second) if first_binds else (second, first)
    options = dict(zip((server, client), security(mechanism), strict=True))
    try:
        for side, kind in (first, kinds[0]), (second, kinds[1]):
            if kind == "SUB":
                options[side] = {**options[side], "subscribe": b""}
            await side.open(kind, options[side])
        await client.connect(await server.bind())
        if kinds[1] == "XSUB":
            await second.send([b"\1"])
        if kinds[0] in ("PUB", "XPUB"):
            await subscribed(first, second)
        for message in MESSAGES:
            await meet(kinds, first, second, message)
    finally:
        await first.close()
        await second.close()
        authenticator.stop()


async def subscribed(first, second):
    """A subscription takes its time: until a first message arrives."""

    async def repeat():
        for number in itertools.count():
            await first.send([b"first", b"%d" % number])
            await asyncio.sleep(0.01)

    task = asyncio.ensure_future(repeat())
    await second.recv()
    task.cancel()
    await asyncio.wait([task])
    await first.send([b"last"])
    while await second.recv() != [b"last"]:
        pass


async def meet(kinds, first, second, message):
    """One message there, and one back where the types allow it."""
    there = [b"", *message] if kinds == ("DEALER", "REP") else message
    await first.send(there)
    got = await second.recv()
    envelope = 0
    if kinds[1] == "ROUTER":
        envelope = 2 if kinds[0] == "REQ" else 1
    assert got[envelope:] == message
    if kinds[0] not in ("PUSH", "PUB", "XPUB"):
        await second.send(got)
        assert await first.recv() == there


@pytest.mark.parametrize("mechanism", ["null", "plain", "curve"])
@pytest.mark.parametrize("first_binds", [True, False], ids=["binds", "connects"])
@pytest.mark.parametrize("ours_first", [True, False], ids=["ours", "theirs"])
@pytest.mark.parametrize("kinds", PAIRS, ids="-".join)
def test_each_pair(run, kinds, ours_first, first_binds, mechanism):
    if ours_first and kinds[1] == "SUB" and not first_binds:
        pytest.skip("its SUB that binds tells no publisher, libzmq's neither")
    sides = (Ours, Theirs) if ours_first else (Theirs, Ours)
    run(exchange(kinds, sides, first_binds, mechanism))

"""This package's native engine, and the same by others: who speaks ZMTP, too."""

import asyncio
import errno
import itertools

import zmq
from zmq.auth.asyncio import AsyncioAuthenticator

from aiozmq_speedups import ZmqProtocol, create_zmq_connection

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

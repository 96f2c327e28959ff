"""The native engine and libzmq: each pair of types, each way round, each message."""

import asyncio

import pytest
import zmq
from helpers import close, open_transport

SIZES = (0, 1, 254, 255, 256, 257, 8191, 8192, 8193, 65535, 65536, 65537)
MESSAGES = [
    *([bytes([size % 251]) * size] for size in SIZES),
    [b"a", b"b", b"c"],
    [b"", b"", b""],
    [b"x" * 255, b"", b"y" * 70000, b"z"],
    [b"L" * 5_000_000],
]
# Who sends first; who answers, perhaps.
PAIRS = [
    (zmq.REQ, zmq.REP),
    (zmq.REQ, zmq.ROUTER),
    (zmq.DEALER, zmq.REP),
    (zmq.DEALER, zmq.DEALER),
    (zmq.DEALER, zmq.ROUTER),
    (zmq.ROUTER, zmq.ROUTER),
    (zmq.PUB, zmq.SUB),
    (zmq.XPUB, zmq.SUB),
    (zmq.PUB, zmq.XSUB),
    (zmq.XPUB, zmq.XSUB),
    (zmq.PUSH, zmq.PULL),
    (zmq.PAIR, zmq.PAIR),
]
PUBLISHERS, SUBSCRIBERS = (zmq.PUB, zmq.XPUB), (zmq.SUB, zmq.XSUB)
SERVER_KEYS, CLIENT_KEYS = zmq.curve_keypair(), zmq.curve_keypair()


class LibzmqSide:
    """A socket of pyzmq, in this thread: libzmq's own thread speaks."""

    def __init__(self, context, kind):
        self.kind = kind
        self.socket = context.socket(kind)
        self.socket.linger = 0

    def set(self, option, value):
        self.socket.setsockopt(option, value)

    async def bind(self, endpoint):
        self.socket.bind(endpoint)
        return self.socket.getsockopt_string(zmq.LAST_ENDPOINT)

    async def connect(self, endpoint):
        self.socket.connect(endpoint)

    async def send(self, message):
        while True:
            try:
                return self.socket.send_multipart(message, zmq.DONTWAIT)
            except zmq.Again:
                await asyncio.sleep(0.001)

    async def recv(self):
        while True:
            try:
                return self.socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                await asyncio.sleep(0.001)

    async def close(self):
        self.socket.close()


class NativeSide:
    """A transport of the native engine."""

    transport = None

    def __init__(self, context, kind):
        self.kind = kind
        self.options = {}
        self.taken = 0

    def set(self, option, value):
        self.options[option] = value

    async def open(self):
        self.transport, self.protocol = await open_transport(self.kind, linger=0)
        for option, value in self.options.items():
            self.transport.setsockopt(option, value)

    async def bind(self, endpoint):
        await self.open()
        return await self.transport.bind(endpoint)

    async def connect(self, endpoint):
        await self.open()
        await self.transport.connect(endpoint)

    async def send(self, message):
        self.transport.write(message)

    async def recv(self):
        self.taken += 1
        await self.protocol.received(self.taken)
        return self.protocol.messages[self.taken - 1]

    async def close(self):
        if self.transport is not None:
            await close(self.transport)


def secure(server, client, mechanism):
    if mechanism == "curve":
        server.set(zmq.CURVE_SERVER, 1)
        for side, (public, secret) in ((server, SERVER_KEYS), (client, CLIENT_KEYS)):
            side.set(zmq.CURVE_PUBLICKEY, public)
            side.set(zmq.CURVE_SECRETKEY, secret)
        client.set(zmq.CURVE_SERVERKEY, SERVER_KEYS[0])


async def meet(sender, receiver, sides, message):
    """One message there, and one back where the types allow it."""
    kinds = sender.kind, receiver.kind
    if kinds == (zmq.ROUTER, zmq.ROUTER):
        await sender.send([b"receiver", *message])
        assert await receiver.recv() == [b"sender", *message]
        await receiver.send([b"sender", *message])
        assert await sender.recv() == [b"receiver", *message]
        return
    there = [b"", *message] if kinds == (zmq.DEALER, zmq.REP) else message
    await sender.send(there)
    got = await receiver.recv()
    if receiver.kind == zmq.ROUTER:
        envelope = 2 if sender.kind == zmq.REQ else 1
        assert got[envelope:] == message
        back = got
    else:
        assert got == message
        back = message
    if sender.kind in PUBLISHERS or sender.kind == zmq.PUSH:
        return
    await receiver.send(back)
    got = await sender.recv()
    assert got == (there if sender.kind == zmq.DEALER else message)


async def known(sender, receiver):
    """Until a first message arrives: subscriptions and ids have to."""
    kinds = sender.kind, receiver.kind
    if kinds == (zmq.ROUTER, zmq.ROUTER):
        first = [b"receiver", b"first"]
    elif sender.kind in PUBLISHERS:
        first = [b"first"]
    else:
        return

    async def repeat():
        while True:
            await sender.send(first)
            await asyncio.sleep(0.005)

    task = asyncio.ensure_future(repeat())
    await receiver.recv()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await sender.send([*first[:-1], b"last"])
    while (await receiver.recv())[-1] != b"last":
        pass


async def exchange(kinds, sides, first_binds, mechanism, scheme, path):
    context = zmq.Context()
    sender, receiver = (
        side(context, kind) for side, kind in zip(sides, kinds, strict=True)
    )
    try:
        server, client = (sender, receiver) if first_binds else (receiver, sender)
        secure(server, client, mechanism)
        if kinds == (zmq.ROUTER, zmq.ROUTER):
            sender.set(zmq.ROUTING_ID, b"sender")
            receiver.set(zmq.ROUTING_ID, b"receiver")
        if receiver.kind == zmq.SUB:
            receiver.set(zmq.SUBSCRIBE, b"")
        endpoint = "tcp://127.0.0.1:*" if scheme == "tcp" else f"ipc://{path}/socket"
        await client.connect(await server.bind(endpoint))
        if receiver.kind == zmq.XSUB:
            await receiver.send([b"\1"])
        await known(sender, receiver)  # libzmq's SUB speaks only when it is called
        if sender.kind == zmq.XPUB:
            assert await sender.recv() == [b"\1"]
        for message in MESSAGES:
            await meet(sender, receiver, sides, message)
    finally:
        await sender.close()
        await receiver.close()
        context.term()


@pytest.mark.parametrize("scheme", ["tcp", "ipc"])
@pytest.mark.parametrize("mechanism", ["null", "curve"])
@pytest.mark.parametrize("first_binds", [True, False], ids=["binds", "connects"])
@pytest.mark.parametrize(
    "sides",
    [
        (NativeSide, LibzmqSide),
        (LibzmqSide, NativeSide),
        (NativeSide, NativeSide),
    ],
    ids=["native-libzmq", "libzmq-native", "native-native"],
)
@pytest.mark.parametrize(
    "kinds", PAIRS, ids=lambda kinds: "-".join(zmq.SocketType(k).name for k in kinds)
)
def test_each_pair(run, tmp_path, kinds, sides, first_binds, mechanism, scheme):
    run(exchange(kinds, sides, first_binds, mechanism, scheme, tmp_path))

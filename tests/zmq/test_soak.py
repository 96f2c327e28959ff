"""A million messages later: the same counters and the same memory.

``AIOZMQ_SPEEDUPS_SOAK=10000000`` sets another number of messages. Other loops than
ours get a tenth, and pure Python a fiftieth: it takes as much longer.
"""

import asyncio
import gc
import os

import pytest
import zmq
from helpers import Recorder, pair
from measuring import live_objects, memory

from aiozmq_speedups.interface import ZmqProtocol
from aiozmq_speedups.stream import create_zmq_stream

MESSAGES = int(os.environ.get("AIOZMQ_SPEEDUPS_SOAK", 1_000_000))
ROUNDS = 10
MIB = 1 << 20

pytestmark = [
    pytest.mark.leaks,
    pytest.mark.slow,
    pytest.mark.timeout(max(600, MESSAGES // 5000)),
    pytest.mark.usefixtures("errors", "transport_kind"),
]


@pytest.fixture
def per_round(loop_kind, transport_kind):
    if transport_kind == "pure":
        return MESSAGES // ROUNDS // 50
    return MESSAGES // ROUNDS // (1 if loop_kind == "speedups" else 10)


async def assert_flat(one_round):
    """`one_round` leaves no object and no memory behind, whatever it is repeated.

    A leak of one small object a message would be 30 MiB after a million, one of a
    large frame far more.
    """
    for _ in range(2):
        await one_round()  # free lists, queues and caches reach their size
    gc.collect()
    objects, used = live_objects(), memory()
    for _ in range(ROUNDS):
        await one_round()
    gc.collect()
    now = live_objects()
    for name, count in objects.items():
        assert now[name] <= count + 10, (name, objects, now)
    assert memory() < used + 8 * MIB


class Echo(ZmqProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def msg_received(self, data):
        self.transport.write(data)


class Window(Recorder):
    """Keeps some requests in flight."""

    def begin(self, messages, window, message):
        self.message = message
        self.unsent = messages - window
        self.unanswered = messages
        for _ in range(window):
            self.transport.write(message)

    def msg_received(self, data):
        self.unanswered -= 1
        if self.unsent:
            self.unsent -= 1
            self.transport.write(self.message)
        elif not self.unanswered:
            self._changed.set()


def test_round_trips(run, per_round):
    async def go():
        async with pair(zmq.ROUTER, zmq.DEALER, factory1=Echo, factory2=Window) as (
            *_,
            client,
        ):

            async def one_round():
                client.begin(per_round, 64, [b"head", b"x" * 100])
                await client.until(lambda: not client.unanswered)

            await assert_flat(one_round)

    run(go())


def test_large_frames(run, per_round):
    """Those that are sent without a copy."""
    frames = [b"%d" % (i % 10) * 100_000 for i in range(10)]

    async def go():
        async with pair(zmq.ROUTER, zmq.DEALER, factory1=Echo, factory2=Window) as (
            *_,
            client,
        ):

            async def one_round():
                for frame in frames:
                    client.begin(max(per_round // 1000, 8), 4, [frame])
                    await client.until(lambda: not client.unanswered)

            await assert_flat(one_round)

    run(go())


def test_streams(run, per_round):
    async def go():
        pull = await create_zmq_stream(zmq.PULL, bind="tcp://127.0.0.1:*")
        push = await create_zmq_stream(
            zmq.PUSH, connect=list(pull.transport.bindings())
        )

        async def read(count):
            for _ in range(count):
                await pull.read()

        async def one_round():
            reader = asyncio.create_task(read(per_round))
            for i in range(per_round):
                push.write([b"head", b"%d" % i])
                await push.drain()
                if i % 64 == 0:
                    await asyncio.sleep(0)
            await reader

        await assert_flat(one_round)
        for stream in (push, pull):
            stream.close()

    run(go())

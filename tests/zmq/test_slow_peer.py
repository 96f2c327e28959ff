"""A peer that is slower than its sender: both sides' marks bound what waits.

What waits is in libzmq's queues of either side (SNDHWM, RCVHWM), in the kernel's
buffers, and in the transport's own, up to its high water mark.
"""

import asyncio
import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
import zmq
from children import Child
from helpers import Recorder, close, open_transport, raw_socket, size_of
from measuring import memory

from aiozmq_speedups import _ext, new_event_loop
from aiozmq_speedups.stream import create_zmq_stream

HWM = 1000
PAYLOAD = b"x" * 500
HIGH_WATER = 64 * 1024
MIB = 1 << 20

pytestmark = pytest.mark.usefixtures("errors", "transport_kind")

# Begins to read when it is told to, and then rests between messages.
PEER = f"""
import sys, time, zmq
sock = zmq.Context().socket(zmq.PULL)
sock.rcvhwm = {HWM}
sock.bind("tcp://127.0.0.1:*")
print(sock.last_endpoint.decode(), flush=True)
count = int(sys.stdin.readline())
for i in range(count):
    assert int(sock.recv_multipart()[0]) == i
    if i % 1000 == 0:
        time.sleep(0.001)
assert not sock.poll(10)
print("all in order", flush=True)
sys.stdin.readline()
"""


def assert_grown_little(before, after):
    # ASan keeps what was freed, to watch it.
    if getattr(_ext.core, "BUILD_FLAVOUR", None) != "asan":
        assert after < before + 16 * MIB


class Sender(Recorder):
    """Numbers its messages, and waits where it is told to pause."""

    paused = False
    most_memory = 0

    def pause_writing(self):
        super().pause_writing()
        self.paused = True
        self.most_memory = max(self.most_memory, memory())

    def resume_writing(self):
        super().resume_writing()
        self.paused = False

    async def resumed(self):
        await self.until(lambda: not self.paused)

    def send_until_paused(self, numbers):
        for i in numbers:
            self.transport.write([b"%d" % i, PAYLOAD])
            if self.paused:
                break
        assert self.transport.get_write_buffer_size() < HIGH_WATER + 1000


async def send_to_slow_peer(count):
    with Child(PEER) as peer:
        transport, sender = await open_transport(
            zmq.PUSH, Sender, connect=await peer.line(), sndhwm=HWM, linger=0
        )
        transport.set_write_buffer_limits(HIGH_WATER)
        numbers = iter(range(count))
        # Until nothing moves any more: the test is right where it moves later, too.
        while True:
            sender.send_until_paused(numbers)
            try:
                await asyncio.wait_for(sender.resumed(), 0.1)
            except TimeoutError:
                break
        sent = next(numbers)
        assert sent < count
        before = memory()
        peer.say(count)
        numbers = itertools.chain([sent], numbers)
        while True:
            await sender.resumed()
            sender.send_until_paused(numbers)
            if not sender.paused:
                break
        assert await peer.line() == "all in order"
        # All of them: count * 500 bytes.
        assert_grown_little(before, max(sender.most_memory, memory()))
        await close(transport)


def test_hundred_thousand_messages(run):
    run(send_to_slow_peer(100_000))


@pytest.mark.slow
@pytest.mark.loops("speedups")
@pytest.mark.parametrize("transport_kind", ["C"], indirect=True)
def test_a_million_messages(run):
    run(send_to_slow_peer(1_000_000))


def test_a_stream_that_drains(run):
    count = 100_000

    async def go():
        with Child(PEER) as peer:
            stream = await create_zmq_stream(
                zmq.PUSH,
                connect=await peer.line(),
                sndhwm=HWM,
                linger=0,
                high_write=HIGH_WATER,
            )
            peer.say(count)
            most = before = memory()
            for i in range(count):
                stream.write([b"%d" % i, PAYLOAD])
                await stream.drain()
                if i % 1000 == 0:
                    most = max(most, memory())
                    if i == 10_000:
                        before = most
            assert await peer.line() == "all in order"
            assert_grown_little(before, most)
            stream.close()

    run(go())


def test_how_much_waits(run):
    """Without a network between, it is exactly what the marks say."""

    async def go():
        transport, sender = await open_transport(
            zmq.PUSH, Sender, bind="inproc://slow-peer", sndhwm=HWM, linger=0
        )
        transport.set_write_buffer_limits(HIGH_WATER)
        with raw_socket(zmq.PULL, rcvhwm=HWM) as peer:
            peer.connect("inproc://slow-peer")
            numbers = iter(range(10 * HWM))
            sender.send_until_paused(numbers)
            sent = next(numbers)
            # Messages of the same length, once they have four digits.
            in_buffer = HIGH_WATER // size_of(b"1000", PAYLOAD) + 1
            assert sent == 2 * HWM + in_buffer
            await asyncio.sleep(0.01)
            assert sender.paused
            # Any time after, all of it comes.
            numbers = itertools.chain([sent], numbers)
            received = 0
            while received < 10 * HWM:
                try:
                    number, _ = peer.recv_multipart(zmq.DONTWAIT)
                except zmq.Again:
                    await sender.resumed()
                    sender.send_until_paused(numbers)
                    await asyncio.sleep(0.001)
                else:
                    assert int(number) == received
                    received += 1
            await close(transport)

    run(go())


def test_waiting_for_room_is_waiting():
    """Not turn upon turn until libzmq looks for its commands by itself."""
    loop = new_event_loop()

    async def go():
        with raw_socket(zmq.PULL, rcvhwm=5) as pull:
            port = pull.bind_to_random_port("tcp://127.0.0.1")

            def receive():
                return [pull.recv_multipart() for _ in range(3000)]

            with ThreadPoolExecutor() as executor:
                received = asyncio.wrap_future(executor.submit(receive))
                stream = await create_zmq_stream(
                    zmq.PUSH, connect=f"tcp://127.0.0.1:{port}", sndhwm=5
                )
                turns = loop.stats()["turns"]
                for i in range(3000):
                    stream.write([b"%d" % i, bytes(1000)])
                    await stream.drain()
                assert await received
                turns = loop.stats()["turns"] - turns
                stream.close()
                return turns

    turns = loop.run_until_complete(go())
    loop.close()
    assert turns < 30_000  # up to a million where it spins

"""Answers of an rpc server to clients that fetch them late, or never."""

import asyncio
import logging
import struct

import msgpack
import zmq
from raw_peer import RawPeer, frame

from aiozmq_speedups import rpc
from aiozmq_speedups.rpc import _server


class Handler(rpc.AttrHandler):
    @rpc.method
    def fill(self, size):
        return b"x" * size


async def served():
    service = await rpc.serve_rpc(Handler(), bind="tcp://127.0.0.1:*")
    service.transport.setsockopt(zmq.LINGER, 0)
    return service, next(iter(service.transport.bindings()))


def request(number, size):
    header = struct.pack("=HHLd", 1, 2, number, 0.0)
    frames = [header, b"fill", msgpack.packb((size,))]
    return b"".join(frame(f, more=True) for f in frames) + frame(b"\x80")


async def answer(peer):
    """(request id, result)."""
    _, header = await peer.frame()
    _, result = await peer.frame()
    return struct.unpack("=HHLd?", header)[2], msgpack.unpackb(result)


async def other_client_is_served(endpoint):
    client = await rpc.connect_rpc(connect=endpoint)
    assert await client.call.fill(10) == b"x" * 10
    client.close()
    await client.wait_closed()


def test_1500_answers_at_once_all_arrive(run):
    async def go():
        service, endpoint = await served()
        slow = await RawPeer.connect(endpoint)
        await slow.shake(b"DEALER")
        slow.write(b"".join(request(n, 10_000) for n in range(1500)))
        await other_client_is_served(endpoint)
        for number in range(1500):
            assert await answer(slow) == (number, b"x" * 10_000)
        await slow.close()
        service.close()
        await service.wait_closed()

    run(go())


def test_who_does_not_fetch_them_loses_its_own(run, monkeypatch, caplog):
    monkeypatch.setattr(_server, "_MAX_QUEUED", 1_000_000)

    async def go():
        service, endpoint = await served()
        slow = await RawPeer.connect(endpoint)
        await slow.shake(b"DEALER")
        count = 400  # far more than the kernel and the queue take
        slow.write(b"".join(request(n, 100_000) for n in range(count)))
        for _ in range(3):
            await other_client_is_served(endpoint)
        while not caplog.records:
            await asyncio.sleep(0)
        received = []
        # One more is asked for each time, until there is room for it.
        while not received or received[-1] < count:
            number, result = await answer(slow)
            assert len(result) == 100_000
            received.append(number)
            slow.write(request(count - 1 + len(received), 100_000))
        assert received == sorted(received)
        assert len([n for n in received if n < count]) < count
        await slow.close()
        service.close()
        await service.wait_closed()

    with caplog.at_level(logging.WARNING, "aiozmq_speedups"):
        run(go())
    (record,) = caplog.records
    assert "does not fetch them are dropped" in record.getMessage()

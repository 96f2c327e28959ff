"""What an XPUB is told of subscriptions, and by whom."""

import asyncio

import zmq
from helpers import close, open_transport, raw_socket
from raw_peer import RawPeer, frame

from aiozmq_speedups import rpc


async def subscriber(endpoint):
    peer = await RawPeer.connect(endpoint)
    await peer.shake(b"SUB")
    return peer


def test_who_subscribes_twice_counts_once(run):
    """And no more when it has unsubscribed, or has gone."""

    async def go():
        client = await rpc.connect_pubsub(bind="tcp://127.0.0.1:*")
        (bound,) = client.transport.bindings()

        async def until(topic, count):
            while client._proto.count_subscriptions(topic) != count:
                await asyncio.sleep(0.001)

        with (
            raw_socket(zmq.XSUB) as other,
            raw_socket(zmq.XSUB) as twice,
        ):
            other.connect(bound)
            twice.connect(bound)
            for topic in (b"a", b"a", b"b", b"b", b"ready"):
                twice.send(b"\1" + topic)
            await until(b"ready", 1)
            other.send(b"\1a")
            await until(b"a", 2)
            assert client._proto.count_subscriptions(b"b") == 1
            for _ in range(2):
                twice.send(b"\0a")
            await until(b"a", 1)
            twice.send(b"\1a")
            await until(b"a", 2)
            twice.close()
            await until(b"a", 1)
            await until(b"b", 0)
            other.send(b"\0a")
            await until(b"a", 0)
            await until(b"ready", 0)
            assert not client._proto.connections
        client.close()
        await client.wait_closed()

    run(go())


def test_a_flood_of_subscriptions_waits_in_the_kernel(run):
    """Until the XPUB reads again: then all of it is told, in its order."""
    topics = [b"%d" % n + bytes(100_000) for n in range(400)]

    async def go():
        publisher, protocol = await open_transport(
            zmq.XPUB, bind="tcp://127.0.0.1:*", linger=0
        )
        first = await subscriber(*publisher.bindings())
        second = await subscriber(*publisher.bindings())
        first.write(frame(b"\1first"))
        await protocol.received(1)
        publisher.pause_reading()
        for topic in topics:
            first.write(frame(b"\1" + topic))
        # As much as the kernel takes beside what is known.
        left, looks = first.writer.transport.get_write_buffer_size(), 0
        while looks < 20:
            await asyncio.sleep(0.001)
            now = first.writer.transport.get_write_buffer_size()
            left, looks = (now, 0) if now < left else (left, looks + 1)
        assert left > 0
        publisher.resume_reading()
        await protocol.received(1 + len(topics))
        assert [m[0][1:] for m in protocol.messages[1:]] == topics
        second.write(frame(b"\1second"))
        await protocol.received(2 + len(topics))
        publisher.write([topics[-1]])
        assert await first.frame() == (0, topics[-1])
        await first.close()
        await second.close()
        await close(publisher)

    run(go())

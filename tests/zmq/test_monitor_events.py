"""Decoding what a monitor says: in C and in Python, whatever it is."""

import asyncio
import random
import struct
import weakref

import pytest
import zmq
from helpers import Recorder, pair

from aiozmq_speedups._zmq.monitor import _EVENT_NAMES, SocketEvent, decode_event

pytestmark = pytest.mark.usefixtures("transport_kind")


class Events(Recorder):
    """The transport in C decodes messages itself, as those of a monitor."""

    def connection_made(self, transport):
        super().connection_made(transport)
        transport._receive_events(SocketEvent)

    def msg_received(self, data):
        assert type(self.transport).__name__ == "_PyZmqTransport"
        self.event_received(decode_event(data))


def events_pair():
    return pair(zmq.PAIR, zmq.PAIR, factory1=Events)


def head(kind, value):
    return struct.pack("=Hi", kind, value)


VALUES = (0, 1, -1, 2**31 - 1, -(2**31))


def test_every_event_and_value(run, errors):
    async def go():
        kinds = [kind for kind in _EVENT_NAMES if kind < 0x10000] + [0, 0xFFFF]
        expected = [
            SocketEvent(kind, value, "tcp://127.0.0.1:1")
            for kind in kinds
            for value in VALUES
        ]
        async with events_pair() as (_, receiver, sender, _):
            for event in expected:
                sender.write([head(*event[:2]), event.endpoint.encode()])
            await receiver.until(lambda: len(receiver.events) == len(expected))
            assert receiver.events == expected
            for event in receiver.events:
                assert type(event) is SocketEvent
                assert event.name == _EVENT_NAMES.get(event.event, hex(event.event))

    run(go())


@pytest.mark.parametrize(
    "endpoint", [b"", b"ipc:///tmp/\xc3\xa4", b"\xff\x00\xc3", b"x" * 100_000]
)
def test_endpoints(run, errors, endpoint):
    async def go():
        async with events_pair() as (_, receiver, sender, _):
            for _ in range(3):
                sender.write([head(1, 2), endpoint])
            await receiver.until(lambda: len(receiver.events) == 3)
            text = endpoint.decode("utf-8", "surrogateescape")
            assert receiver.events == [(1, 2, text)] * 3

    run(go())


def test_any_frames(run, errors):
    """What is no event is an error, and the next one is received all the same."""
    rng = random.Random(4)
    messages = []
    for _ in range(2000):
        sizes = [rng.choice((0, 1, 5, 6, 6, 6, 7, 100))]
        for _ in range(rng.choice((0, 1, 1, 1, 1, 2, 3))):
            sizes.append(rng.choice((0, 1, 6, 40, 40_000)))
        messages.append([rng.randbytes(size) for size in sizes])
    messages.append([head(1, 1), b"end"])

    async def go():
        events, failures = [], []
        for message in messages:
            try:
                events.append(decode_event(message))
            except RuntimeError as exc:
                failures.append(str(exc))
        assert len(events) > 300 and len(failures) > 300
        async with events_pair() as (transport, receiver, sender, _):
            for message in messages:
                sender.write(message)
            await receiver.until(lambda: "end" in [e[2] for e in receiver.events[-1:]])
            assert receiver.events == events
            assert [str(c["exception"]) for c in errors] == failures
            assert {type(c["exception"]) for c in errors} == {RuntimeError}
            assert not transport.is_closing()
        errors.clear()

    run(go())


def test_hostile_receivers(run, errors, transport_kind):
    """The type goes away as an event of it arrives; closing from inside."""
    if transport_kind == "pure":
        pytest.skip("of the C part")

    class Other(tuple):
        pass

    class Hostile(Events):
        def event_received(self, event):
            super().event_received(event)
            self.transport._receive_events(tuple)
            if len(self.events) == 3:
                self.transport.abort()

    async def go():
        nonlocal Other
        async with pair(zmq.PAIR, zmq.PAIR, factory1=Hostile) as (
            transport,
            receiver,
            sender,
            _,
        ):
            for wrong in (1, int, None, ()):
                with pytest.raises(TypeError):
                    transport._receive_events(wrong)
            transport._receive_events(Other)
            other = weakref.ref(Other)
            Other = None
            for i in range(5):
                sender.write([head(1, i), b"x"])
            assert await receiver.lost is None
            assert [e[1] for e in receiver.events] == [0, 1, 2]
            assert type(receiver.events[0]) is other()
            assert type(receiver.events[1]) is tuple

    run(go())


def test_protocol_that_does_not_take_events(run, errors, transport_kind):
    if transport_kind == "pure":
        pytest.skip("of the C part")

    async def go():
        async with events_pair() as (transport, receiver, sender, _):
            transport.set_protocol(object())
            sender.write([head(1, 1), b"x"])
            while not errors:
                await asyncio.sleep(0.001)
            assert type(errors.pop()["exception"]) is AttributeError
            transport.set_protocol(receiver)
            sender.write([head(1, 2), b"x"])
            await receiver.until(lambda: receiver.events)
            assert receiver.events == [(1, 2, "x")]

    run(go())

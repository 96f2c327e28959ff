"""Messages are decoded as their protocol takes them, into what it has finished with."""

import asyncio
import contextlib
import gc
import random

import pytest
import zmq
from helpers import Recorder, close, open_transport
from raw_peer import RawPeer, command, frame


@contextlib.asynccontextmanager
async def pull_and_push(factory=Recorder, **options):
    """A PULL, its protocol, and a peer by hand that pushes."""
    transport, protocol = await open_transport(
        zmq.PULL, factory, bind="tcp://127.0.0.1:*", linger=0, **options
    )
    peer = await RawPeer.connect(next(iter(transport.bindings())))
    await peer.shake(b"PUSH")
    try:
        yield transport, protocol, peer
    finally:
        await peer.close()
        await close(transport)


def message(*frames):
    return b"".join(frame(f, more=True) for f in frames[:-1]) + frame(frames[-1])


def test_what_is_kept_stays_as_it_was(run):
    rng = random.Random(1)
    sent = [
        [
            b"%c" % rng.randrange(256) * rng.choice([0, 1, 2, 3, 3, 3, 50, 3000, 5000])
            for _ in range(rng.randrange(1, 12))
        ]
        for _ in range(3000)
    ]
    kept, views = [], []

    class Keeper(Recorder):
        def msg_received(self, data):
            number = len(self.messages)
            self.messages.append(hash(tuple(data)))
            if number % 7 == 0:
                kept.append((number, data))
            elif number % 7 == 1:
                kept.extend((number, [*data[:-1], last]) for last in data[-1:])
            elif number % 7 == 2:
                views.append((number, [memoryview(f) for f in data]))
            elif number % 7 == 3:
                data.append(object())
            elif number % 7 == 4:
                data.clear()
            elif number % 7 == 5:
                kept.append((number, list(gc.get_referents(data))))
            self._changed.set()

    async def go():
        async with pull_and_push(Keeper) as (_, protocol, peer):
            for start in range(0, len(sent), 100):
                peer.write(b"".join(message(*m) for m in sent[start : start + 100]))
                await protocol.received(start + 100)
            assert protocol.messages == [hash(tuple(m)) for m in sent]
            for number, data in kept:
                assert sorted(data) == sorted(sent[number])
            for number, data in views:
                assert [bytes(f) for f in data] == sent[number]

    run(go())


def test_a_list_that_is_found_later_is_not_used_again(run):
    class Forgetter(Recorder):
        def msg_received(self, data):
            self.messages.append(any(data is one for one in found))
            self._changed.set()

    found = []

    async def go():
        async with pull_and_push(Forgetter) as (_, protocol, peer):
            for number in range(1, 4):
                peer.write(message(b"a", b"bb"))
                await protocol.received(number)
                found[:] = [o for o in gc.get_objects() if type(o) is list and not o]
            assert protocol.messages == [False] * 3

    run(go())


@pytest.mark.parametrize(
    "bad", [b"\2" + b"\xff" * 8, message(b"x" * 50)], ids=["2^64", "long"]
)
def test_what_came_before_the_fault_arrives(run, bad):
    async def go():
        options = {"max_message_size": 20}
        async with pull_and_push(**options) as (_, protocol, peer):
            peer.write(message(b"good") * 300 + bad + message(b"behind"))
            await peer.at_end()
            await protocol.received(300)
            assert protocol.messages == [[b"good"]] * 300

    run(go())


def test_who_pauses_gets_the_rest_later(run):
    class Pauser(Recorder):
        def msg_received(self, data):
            super().msg_received(data)
            if len(self.messages) % 10 == 1:
                self.transport.pause_reading()

    async def go():
        async with pull_and_push(Pauser) as (transport, protocol, peer):
            peer.write(b"".join(message(b"%d" % n) for n in range(95)))
            for number in range(1, 96, 10):
                await protocol.received(number)
                await asyncio.sleep(0)
                assert len(protocol.messages) == number
                transport.resume_reading()
            await protocol.received(95)
            assert protocol.messages == [[b"%d" % n] for n in range(95)]

    run(go())


def test_a_ping_behind_a_paused_message_is_answered(run):
    class Pauser(Recorder):
        def msg_received(self, data):
            super().msg_received(data)
            self.transport.pause_reading()

    async def go():
        async with pull_and_push(Pauser) as (_, protocol, peer):
            peer.write(message(b"x") * 3 + command(b"PING", b"\0\0"))
            assert await peer.frame() == (4, b"\4PONG")
            assert protocol.messages == [[b"x"]]

    run(go())


def test_who_raises_gets_the_rest(run):
    raised = []

    class Raiser(Recorder):
        def msg_received(self, data):
            super().msg_received(data)
            if len(self.messages) % 10 == 0:
                raise ValueError(len(self.messages))

    async def go():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, c: raised.append(c["exception"]))
        async with pull_and_push(Raiser) as (_, protocol, peer):
            peer.write(message(b"x") * 300)
            await protocol.received(300)

    run(go())
    assert [e.args[0] for e in raised] == list(range(10, 301, 10))


@pytest.mark.parametrize("how", ["close", "abort"])
def test_who_closes_gets_no_more(run, how):
    class Closer(Recorder):
        def msg_received(self, data):
            super().msg_received(data)
            if len(self.messages) == 5:
                getattr(self.transport, how)()

    async def go():
        async with pull_and_push(Closer) as (_, protocol, peer):
            peer.write(message(b"x") * 300)
            await peer.at_end()
            await protocol.lost
            assert len(protocol.messages) == 5

    run(go())

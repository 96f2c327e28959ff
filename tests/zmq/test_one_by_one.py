"""Messages that come one at a time, which leave the look for more to the next turn."""

import asyncio

import pytest
import zmq
from helpers import Recorder, pair

pytestmark = pytest.mark.usefixtures("errors", "transport_kind")


class Answering(Recorder):
    """Answers from a callback of the loop, as a task would."""

    def msg_received(self, data):
        super().msg_received(data)
        asyncio.get_running_loop().call_soon(self.transport.write, data)


class Pausing(Recorder):
    def msg_received(self, data):
        super().msg_received(data)
        self.transport.pause_reading()


@pytest.mark.parametrize("factory", [Recorder, Answering])
def test_several_after_single_ones(loop, factory):
    """None waits for an event that has been told of already."""

    async def go():
        async with pair(zmq.PAIR, zmq.PAIR, factory2=factory) as (tr1, pr1, tr2, pr2):
            count = 0
            for several in (1, 1, 1, 2, 1, 1, 3, 1, 200, 1, 1, 2):
                for _ in range(several):
                    tr1.write([b"%d" % count])
                    count += 1
                await pr2.until(lambda count=count: len(pr2.messages) == count)
                if factory is Answering:
                    await pr1.until(lambda count=count: len(pr1.messages) == count)
            assert pr2.messages == [[b"%d" % i] for i in range(count)]

    loop.run_until_complete(go())


def test_pausing_after_each(loop):
    async def go():
        async with pair(zmq.PAIR, zmq.PAIR, factory2=Pausing) as (tr1, _, tr2, pr2):
            for i in range(20):
                tr1.write([b"%d" % i])
                tr1.write([b"and"])
                for count in (2 * i + 1, 2 * i + 2):
                    await pr2.until(lambda count=count: len(pr2.messages) == count)
                    tr2.resume_reading()

    loop.run_until_complete(go())


@pytest.mark.loops("asyncio")
def test_no_memory_to_look_later(loop, errors, monkeypatch):
    """What came behind a message is not forgotten."""
    call_soon = loop.call_soon
    refused = []

    def refuse(callback, *args, **kwargs):
        if getattr(callback, "__self__", None) in refused:
            raise MemoryError
        return call_soon(callback, *args, **kwargs)

    monkeypatch.setattr(loop, "call_soon", refuse)

    async def go():
        async with pair(zmq.PAIR, zmq.PAIR) as (tr1, _, tr2, pr2):
            for i in range(3):
                tr1.write([b"%d" % i])
                await pr2.received(i + 1)
                await asyncio.sleep(0.001)
            refused.append(tr2)
            tr1.write([b"a"])
            tr1.write([b"b"])
            await asyncio.wait_for(pr2.received(5), 100)
            refused.clear()

    loop.run_until_complete(go())
    assert all(isinstance(c["exception"], MemoryError) for c in errors)
    errors.clear()

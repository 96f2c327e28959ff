"""A flood of messages on one socket leaves the rest of the loop its time."""

import asyncio
import contextlib

import pytest
import zmq
from helpers import Recorder, pair

# Turns of one transport end after this much: see csrc/zmq/transport_io.c.
BUDGET_MESSAGES = 128
BUDGET_BYTES = 1024 * 1024

pytestmark = pytest.mark.usefixtures("errors", "transport_kind")


class Flood(Recorder):
    """Sends back what it gets, so that there is always more."""

    count = 0
    enough = 0
    over = False
    dropped = 0

    def msg_received(self, data):
        if self.over:
            self.dropped += 1
            return
        self.transport.write(data)
        self.count += 1
        if self.count == self.enough:
            self._changed.set()


@contextlib.asynccontextmanager
async def flood(most, message):
    """Both ends, once messages go to and fro: `most` of them in a turn."""
    messages = 16 * most
    async with pair(zmq.PAIR, zmq.PAIR, factory1=Flood, factory2=Flood) as (
        transport,
        *protocols,
    ):
        ends = [protocols[0], protocols[2]]
        ends[0].enough = 10 * most
        for _ in range(messages):
            transport.write(message)
        await ends[0].until(lambda: ends[0].count >= ends[0].enough)
        yield ends
        # libzmq 4.3.5 may abort the process where a socket that does not linger is
        # closed, and the connection with it, inside a message of many frames.
        for end in ends:
            end.over = True
        async with asyncio.timeout(100):
            while sum(end.dropped for end in ends) < messages:
                await asyncio.sleep(0.001)


# A transport may run twice in a turn: for ZMQ_FD, and for the rest of the turn before.
# In messages, not in time: it is the same on any machine.
TURN = 2


@pytest.mark.parametrize(
    "message, most, rounds",
    [([b"x"], BUDGET_MESSAGES, 30), ([b"x" * 100_000], 11, 30), ([b""] * 500, 33, 5)],
    ids=["messages", "bytes", "frames"],
)
def test_a_flood_delays_a_timer_by_no_more_than_the_budget(run, message, most, rounds):
    """One that is due is called in the next turn, after what was ready before it."""

    async def go():
        loop = asyncio.get_running_loop()
        async with flood(most, message) as ends:
            for _ in range(rounds):
                before = [end.count for end in ends]
                fired = loop.create_future()
                loop.call_at(
                    loop.time(),
                    lambda: fired.set_result([end.count for end in ends]),
                )
                for count, start in zip(await fired, before, strict=True):
                    # The rest of this turn, and the next one.
                    assert count - start <= 2 * TURN * most

    run(go())
    assert 10 * 100_000 < BUDGET_BYTES <= 11 * 100_000


def test_a_flood_lets_callbacks_run(run):
    """call_soon() waits for one turn of each socket."""

    async def go():
        async with flood(BUDGET_MESSAGES, [b"x"]) as ends:
            for _ in range(200):
                before = [end.count for end in ends]
                await asyncio.sleep(0)
                for end, start in zip(ends, before, strict=True):
                    assert end.count - start <= TURN * BUDGET_MESSAGES

    run(go())

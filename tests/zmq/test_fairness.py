"""A flood of messages on one socket leaves the rest of the loop its time."""

import asyncio

import pytest
import zmq
from helpers import Recorder, pair

# Turns of one transport end after this much: see csrc/zmq/transport_io.c.
BUDGET_MESSAGES = 128
BUDGET_BYTES = 1024 * 1024

pytestmark = pytest.mark.usefixtures("errors", "transport_kind")


@pytest.fixture
def run(loop):
    return loop.run_until_complete


class Flood(Recorder):
    """Sends back what it gets, so that there is always more."""

    late = 0
    due = float("inf")

    def connection_made(self, transport):
        super().connection_made(transport)
        self.time = asyncio.get_running_loop().time

    def msg_received(self, data):
        self.transport.write(data)
        if self.time() >= self.due:
            self.late += 1


@pytest.mark.parametrize("size, most", [(1, BUDGET_MESSAGES), (100_000, 11)])
def test_a_flood_delays_a_timer_by_no_more_than_the_budget(run, loop_kind, size, most):
    if loop_kind == "uvloop":
        pytest.skip("its clock counts milliseconds, and its timers are that late")

    async def go():
        loop = asyncio.get_running_loop()
        async with pair(zmq.PAIR, zmq.PAIR, factory1=Flood, factory2=Flood) as (
            transport,
            *protocols,
        ):
            ends = [protocols[0], protocols[2]]
            for _ in range(max(60, 3 * most)):
                transport.write([b"x" * size])
            for _ in range(30):
                fired = loop.create_future()
                due = loop.time() + 0.005
                for end in ends:
                    end.due, end.late = due, 0
                loop.call_at(due, fired.set_result, None)
                await fired
                # It may come due just after the loop has looked at its timers, which
                # this one does every 250 us of work, and a transport may run twice in
                # a turn: for ZMQ_FD, and for the rest of the turn before.
                for end in ends:
                    assert end.late <= 8 * most + 1

    run(go())
    assert 10 * 100_000 < BUDGET_BYTES <= 11 * 100_000


def test_a_flood_lets_callbacks_run(run):
    """call_soon() waits for one budget of each socket."""

    async def go():
        async with pair(zmq.PAIR, zmq.PAIR, factory1=Flood, factory2=Flood) as (
            transport,
            *protocols,
        ):
            for _ in range(3 * BUDGET_MESSAGES):
                transport.write([b"x"])
            for _ in range(200):
                for end in (protocols[0], protocols[2]):
                    end.due, end.late = 0, 0
                await asyncio.sleep(0)
                assert protocols[0].late <= 2 * BUDGET_MESSAGES
                assert protocols[2].late <= 2 * BUDGET_MESSAGES

    run(go())

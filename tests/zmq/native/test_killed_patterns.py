"""kill -9 of a peer in another process: PUB and SUB, REQ and REP, PAIR, each engine
at each end. (PUSH, PULL, DEALER, ROUTER: test_killed_peers.py, test_native_killed.py.)
"""

import asyncio
from collections import defaultdict

import pytest
import zmq
from children import endpoint_of
from test_killed_peers import PAYLOAD, SOCKET, Load, kill
from test_native_killed import Peers
from waiting import until

PUB = (
    SOCKET
    + f"""
import os
me = b"%d" % os.getpid()
sock = socket(zmq.PUB)
for i in count():
    sock.send_multipart([me, {PAYLOAD!r}, b"%d" % i])
"""
)

SUB = (
    SOCKET
    + f"""
sock = socket(zmq.SUB)
sock.setsockopt(zmq.SUBSCRIBE, b"")
last = -1
for i in count():
    head, payload, number = sock.recv_multipart()
    assert payload == {PAYLOAD!r} and head == number
    assert int(number) > last
    last = int(number)
    if i % 200 == 0:
        say(last)
"""
)

REQ = (
    SOCKET
    + f"""
import os
sock = socket(zmq.REQ)
sock.setsockopt(zmq.REQ_CORRELATE, 1)  # what the one before has asked
for i in count():
    question = [b"%d" % os.getpid(), {PAYLOAD!r}, b"%d" % i]
    sock.send_multipart(question)
    assert sock.recv_multipart() == question
    if i % 100 == 0:
        say(i)
"""
)

REP = (
    SOCKET
    + """
sock = socket(zmq.REP)
while True:
    sock.send_multipart(sock.recv_multipart())
"""
)

PAIR = (
    SOCKET
    + f"""
import os
me = b"%d" % os.getpid()
sock = socket(zmq.PAIR)
while True:
    head, payload, number = sock.recv_multipart()
    assert payload == {PAYLOAD!r} and head == number
    sock.send_multipart([me, number])
"""
)

# Of ours and the children's; tcp or ipc; who binds.
CASES = [
    ((ours, theirs), *where)
    for ours in ("native", "libzmq")
    for theirs in ("libzmq", "native")
    for where in (("tcp", "theirs"), ("ipc", "ours"))
]


@pytest.fixture(
    params=[
        pytest.param(case, marks=pytest.mark.slow if number else ())
        for number, case in enumerate(CASES)
    ],
    ids=["-".join([*engines, *rest]) for engines, *rest in CASES],
)
def peers(request, run, tmp_path_factory):
    engines, protocol, who_binds = request.param
    with endpoint_of(protocol, tmp_path_factory) as endpoint:
        peers = Peers(engines, who_binds, endpoint)
        yield peers
        run(peers.close())


def test_publisher_killed(run, peers):
    """The subscriptions reach the next one; what comes is whole and in order."""

    async def go():
        for generation in range(3):
            child, end = await peers.start(PUB, zmq.SUB)
            if generation == 0:
                end.transport.subscribe(b"")
            with child:
                last = defaultdict(
                    lambda: -1
                )  # what the one before has left comes, too
                count = 0
                while count < 500:
                    who, payload, number = await end.receive()
                    assert payload == PAYLOAD
                    assert int(number) > last[who]
                    last[who] = int(number)
                    count += int(who) == child.process.pid
                kill(child)

    run(go(), 60)


def test_subscriber_killed(run, peers):
    """Nobody waits for it, nothing is kept for it, and the next one gets the rest."""

    async def go():
        load = None
        for _ in range(3):
            child, end = await peers.start(SUB, zmq.PUB)
            load = load or Load(end)
            with child:
                for _ in range(3):
                    await child.line()
                kill(child)
        await load.stop()
        assert end.transport.get_write_buffer_size() == 0

    run(go(), 60)


def test_who_asks_is_killed(run, peers):
    """Its answer is dropped: the next one is answered."""

    async def go():
        async def serve():
            while True:
                await end.send(await end.receive())

        server = None
        for _ in range(3):
            child, end = await peers.start(REQ, zmq.REP)
            server = server or asyncio.ensure_future(serve())
            with child:
                for _ in range(3):
                    await child.line()
                kill(child)
        server.cancel()
        assert end.transport.get_write_buffer_size() == 0

    run(go(), 60)


def test_who_answers_is_killed(run, peers):
    """The next question goes to the next one."""

    async def go():
        events = None
        for generation in range(3):
            child, end = await peers.start(REP, zmq.REQ)
            with child:
                if events is not None:
                    await anext(events)
                    end.transport.getsockopt(zmq.EVENTS)  # libzmq: who has gone
                for number in range(100):
                    question = [b"%d" % generation, b"%d" % number]
                    await end.send(question)
                    assert await end.receive() == question
                events = end.transport.monitor(zmq.EVENT_HANDSHAKE_SUCCEEDED)
                kill(child)

    run(go(), 60)


def test_pair_killed(run, peers):
    """The next one goes on after what the last one was sent, without a gap."""

    async def go():
        answers = defaultdict(list)  # of each of them
        load = None

        async def receive():
            while True:
                who, number = await end.receive()
                answers[int(who)].append(int(number))

        for _ in range(3):
            child, end = await peers.start(PAIR, zmq.PAIR)
            if load is None:
                load = Load(end)
                receiver = asyncio.ensure_future(receive())
            with child:
                mine = answers[child.process.pid]
                await until(lambda mine=mine: len(mine) >= 500)
                kill(child)
        await load.stop()
        receiver.cancel()
        for numbers in answers.values():
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        everything = [number for numbers in answers.values() for number in numbers]
        assert everything == sorted(set(everything))

    run(go(), 60)

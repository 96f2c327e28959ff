"""Random programs have the same history on pyzmq's sockets and on ours.

ZMQ_ASYNCIO_SCRIPTS (of the environment) is how many are run.
"""

import asyncio
import os
import random

import pytest
import zmq
import zmq.asyncio
from awaitable.conftest import sockets

SCRIPTS = int(os.environ.get("ZMQ_ASYNCIO_SCRIPTS", "40"))


def make_script(seed):
    rng = random.Random(seed)
    pair = rng.choice([(zmq.PULL, zmq.PUSH), (zmq.DEALER, zmq.DEALER)])
    steps = []
    for number in range(rng.randrange(5, 40)):
        step = rng.choice(
            ["send", "send", "send_multipart", "recv", "recv_multipart", "recv_frame"]
            + ["recv_string", "recv_into", "cancel", "timeout", "poll", "dont_wait"]
        )
        parts = [b"%d.%d" % (number, i) for i in range(rng.randrange(1, 4))]
        steps.append((step, parts, rng.random()))
    return pair, steps, rng.random() < 0.3


def outcome(future):
    if not future.done():
        return "pending"
    if future.cancelled():
        return "cancelled"
    if future.exception() is not None:
        return type(future.exception()).__name__
    result = future.result()
    if isinstance(result, list):
        return [bytes(part) for part in result]
    return bytes(result) if isinstance(result, zmq.Frame) else result


def frames_of(result):
    return len(result) if isinstance(result, list) else 1


async def play(module, script):
    """What somebody who looks after each step sees, in order."""
    types, steps, closes = script
    history = []
    with sockets(module, *types) as (receiver, sender):
        # Frames are counted: nothing is taken that has not come yet.
        there, waiting = 0, []
        for step, parts, chance in steps:
            if step.startswith("send"):
                if step == "send":
                    parts = parts[:1]
                    await sender.send(parts[0])
                else:
                    await sender.send_multipart(parts)
                there += len(parts)
                while waiting and there:
                    future = waiting.pop(0)
                    await asyncio.wait([future], timeout=100)
                    history.append(outcome(future))
                    there -= frames_of(future.result())
                if there:
                    assert await receiver.poll(100_000)
            elif step == "poll":
                history.append(await receiver.poll(0 if not there else 100_000))
            elif step == "dont_wait":
                future = receiver.recv(zmq.DONTWAIT) if not there else None
                history.append(future is not None and outcome(future))
            elif step in ("cancel", "timeout"):
                # Before anything came: what is cancelled later pyzmq loses.
                if step == "cancel" and waiting:
                    future = waiting.pop(int(chance * len(waiting)))
                    history.append(future.cancel())
                    await asyncio.wait([future])
                    history.append(outcome(future))
                elif not there and not waiting:
                    with pytest.raises(TimeoutError):
                        await asyncio.wait_for(receiver.recv(), 0.001)
            elif step == "recv_string" and not there:
                pass  # pyzmq logs an error where one that waits is cancelled
            else:
                buffer = bytearray(3)
                future = {
                    "recv": receiver.recv,
                    "recv_multipart": receiver.recv_multipart,
                    "recv_frame": lambda: receiver.recv(copy=False),
                    "recv_string": receiver.recv_string,
                    "recv_into": lambda: receiver.recv_into(buffer),
                }[step]()
                if not there:
                    history.append(future.done())
                    waiting.append(future)
                    continue
                await asyncio.wait([future], timeout=100)
                history.append((outcome(future), bytes(buffer)))
                history.append(receiver.get(zmq.RCVMORE))
                there -= frames_of(future.result())
        if closes:
            receiver.close()
            if waiting:
                await asyncio.wait(waiting)
            history += map(outcome, waiting)
            for method in receiver.recv, receiver.recv_multipart:
                try:
                    await method()
                except zmq.ZMQError as exc:
                    history.append(exc.errno)
        else:
            for future in waiting:
                future.cancel()
            if waiting:
                await asyncio.wait(waiting)
    return history


@pytest.mark.parametrize("seeds", range(4))
def test_random_scripts(loop, ours, seeds):
    for seed in range(seeds, SCRIPTS, 4):
        script = make_script(seed)

        async def main():
            theirs = await play(zmq.asyncio, script)
            assert await play(ours, script) == theirs, (seed, script)

        loop.run_until_complete(asyncio.wait_for(main(), 100))

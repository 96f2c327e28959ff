"""Operations and the collector: cycles by way of the loop; long chains."""

import asyncio
import gc
import subprocess
import sys
import weakref

import pytest
import zmq
from awaitable.conftest import sockets

from aiozmq_speedups import new_event_loop


class Marker:
    """Tells that what holds it is gone."""


@pytest.mark.parametrize("kind", ["sent", "received", "failed", "loaded"])
@pytest.mark.parametrize("make", [new_event_loop, asyncio.SelectorEventLoop])
def test_a_loop_that_keeps_what_nobody_looked_at(ours, make, kind):
    loop = make()
    loop.marker = Marker()
    gone = weakref.ref(loop.marker)

    async def main(loop):
        with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            await push.send(b"1")
            await pull.poll(100_000)
            if kind == "received":
                loop.kept = pull.recv()
            elif kind == "loaded":
                loop.kept = pull.recv_string()
            elif kind == "failed":
                loop.kept = push.recv()
                loop.kept.exception()
            else:
                loop.kept = push.send(b"1")

    loop.run_until_complete(main(loop))
    loop.close()
    del loop
    gc.collect()
    assert gone() is None


CHAIN = """
import asyncio, gc, sys
import zmq
from aiozmq_speedups import new_event_loop, zmq_asyncio

async def main():
    with zmq_asyncio.Context() as context, context.socket(zmq.PULL) as pull:
        pull.bind("inproc://chain")
        link = None
        gc.disable()
        for _ in range(200_000):
            future = pull.recv()
            future.set_result(link)
            link = future
        del future
        link = None

async def loaded():
    with zmq_asyncio.Context() as context, context.socket(zmq.PULL) as pull:
        with context.socket(zmq.PUSH) as push:
            pull.bind("inproc://chain")
            push.connect("inproc://chain")
            link = None
            for _ in range(200_000):
                await push.send(b"x")
                link = pull.recv_serialized(lambda frames, link=link: link)
            link = None

loop = new_event_loop() if sys.argv[2] == "speedups" else asyncio.new_event_loop()
loop.run_until_complete(loaded() if sys.argv[1] == "loaded" else main())
loop.close()
print("done")
"""


@pytest.mark.loops("speedups", "asyncio")
@pytest.mark.parametrize("kind", ["real", "loaded"])
def test_a_long_chain_of_results(ours, kind, loop_kind):
    """An operation is the result of the next: freed link by link."""
    ran = subprocess.run(
        [sys.executable, "-c", CHAIN, kind, loop_kind],
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert ran.stdout == "done\n", (ran.returncode, ran.stderr[-2000:])

"""The sweeps of nomemory_cases.py over zmq_asyncio's sockets; a process per case.

``python nomemory_awaitable.py CASE``. An operation that had no memory leaves its socket
usable, and no C object is left at the end. A message whose bytes there was no memory
for is gone: nothing could hold it.
"""

import asyncio
import collections
import warnings
from contextlib import suppress

import zmq
from nomemory_cases import ALLOCATIONS, Appendable, attempt, nothing, sweep
from nomemory_transports import BIG, checked, main

from aiozmq_speedups import zmq_asyncio

CASES = {}


def case(function):
    def with_sockets(alive, stack):
        context = stack.enter_context(zmq_asyncio.Context())
        asyncio._set_running_loop(alive.loop)
        stack.callback(asyncio._set_running_loop, None)
        pull, push = context.socket(zmq.PULL), context.socket(zmq.PUSH)
        for sock in pull, push:
            sock.linger = 0
            stack.callback(sock.close)
        pull.bind("inproc://sweep")
        push.connect("inproc://sweep")
        function(Pair(alive, pull, push))

    CASES[function.__name__] = checked(with_sockets)
    return function


class Pair:
    def __init__(self, alive, pull, push):
        self.alive, self.pull, self.push = alive, pull, push
        self.raw_pull = zmq.Socket.shadow(pull.underlying)
        self.raw_push = zmq.Socket.shadow(push.underlying)
        self.kept, self.awaits = Appendable(), []

    def turn(self):
        self.alive.loop.call_soon(nothing)
        self.alive.loop._run_once()

    def drain(self):
        for _ in range(3):
            self.turn()
        self.awaits.clear()
        while self.kept:
            self.kept.pop().cancel()
        self.turn()
        while True:
            future = self.pull.recv(zmq.DONTWAIT)
            if future.exception() is not None:
                break
            future.result()
        self.turn()
        self.alive.check()

    def keep(self, operation):
        return lambda: self.kept.append(operation())

    def sweep(self, operation, prepare=nothing):
        sweep(operation, prepare=prepare, check=self.drain)

    def sweep_turn(self, prepare):
        def something():
            self.alive.loop.call_soon(nothing)
            prepare()

        self.sweep(self.alive.loop._run_once, something)


@case
def sends(pair):
    for data in b"x", BIG, bytearray(b"x"):
        pair.sweep(lambda: pair.push.send(data))
    for parts in [b"x", b"y"], (b"x", BIG), [b"x"] * 20, [bytearray(b"x")]:
        pair.sweep(lambda: pair.push.send_multipart(parts))
    pair.sweep(lambda: pair.push.send(b"x", zmq.DONTWAIT))
    pair.sweep(pair.keep(lambda: pair.pull.send(b"x")))  # an error


@case
def receives(pair):
    for name in "recv", "recv_multipart":
        receive = getattr(pair.pull, name)
        for data in [b"x"], [b"x"] * 20, [BIG]:
            pair.sweep(receive, lambda: pair.raw_push.send_multipart(data))
        pair.sweep(pair.keep(receive))  # waits
    pair.sweep(
        lambda: pair.pull.recv_into(bytearray(5)), lambda: pair.raw_push.send(b"x")
    )


@case
def results(pair):
    def done():
        pair.raw_push.send(b"x")
        pair.kept.append(pair.pull.recv())

    pair.sweep(lambda: pair.kept[0].done(), done)
    pair.sweep(lambda: pair.kept[0].result(), done)
    pair.sweep(lambda: pair.kept[0].add_done_callback(nothing), done)
    pair.sweep(lambda: next(iter(pair.kept[0]), None), done)
    pair.sweep(lambda: pair.kept[0]._load(bytes), done)
    pair.sweep(lambda: pair.kept.clear(), done)  # goes back

    def waits():
        pair.kept.append(pair.pull.recv())

    pair.sweep(lambda: pair.kept[0].cancel(), waits)
    pair.sweep(lambda: pair.kept[0].set_result(1), waits)
    pair.sweep(lambda: next(iter(pair.kept[0])), waits)


@case
def turns(pair):
    def awaited(name):
        future = getattr(pair.pull, name)()
        pair.kept.append(future)
        pair.awaits.append(future.__await__())
        next(pair.awaits[0])
        pair.raw_push.send(b"x")

    for name in "recv", "recv_multipart":
        pair.sweep_turn(lambda: awaited(name))
        pair.sweep_turn(
            lambda: (
                pair.kept.append(getattr(pair.pull, name)()),
                pair.raw_push.send(b"x"),
            )
        )

    def polled():
        pair.kept.append(pair.pull.poll())
        pair.raw_push.send(b"x")

    pair.sweep_turn(polled)
    pair.sweep(pair.pull._io.looked, lambda: pair.kept.append(pair.pull.recv()))


@case
def siblings(pair):
    """Several sockets of one handle: those that wait at others are looked at, too."""
    others = []

    def copies():
        while others:
            others.pop()
        others.extend(type(pair.pull).from_socket(pair.raw_pull) for _ in range(3))
        pair.kept.extend(other.recv() for other in others)
        pair.raw_push.send(b"x")

    pair.sweep_turn(copies)
    pair.sweep(lambda: pair.pull.recv(), copies)
    pair.sweep(lambda: pair.pull.recv_multipart(zmq.DONTWAIT), copies)
    pair.sweep(lambda: pair.pull._io.looked, copies)
    others.clear()


@case
def callbacks_of_another_loop(pair):
    """Those of what waits there run at the end of the turn that has their messages."""
    foreign = asyncio.SelectorEventLoop()
    asyncio._set_running_loop(foreign)
    context = zmq_asyncio.Context()
    pull, push = context.socket(zmq.PULL), zmq.Socket.shadow(pair.push.underlying)
    pull.linger = 0
    pull.bind("tcp://127.0.0.1:*")
    push.connect(pull.last_endpoint)
    pair.push.disconnect("inproc://sweep")
    kept, called = [], [None]

    def waits():
        called[0] = collections.deque()  # it has room for a few
        for name in "recv", "recv_multipart":
            future = getattr(pull, name)()
            coroutine = future.__await__()
            waiter = next(coroutine)
            waiter.add_done_callback(called[0].append)
            kept.append((coroutine, waiter))
        for _ in kept:
            push.send(b"x")
        while not zmq.Socket.shadow(pull.underlying).poll(1000):
            pass

    def check():
        for _ in range(1000):
            if all(waiter in called[0] for _, waiter in kept):
                break
            pull._io._on_fd()
            foreign.call_later(0.001, foreign.stop)  # the second message may be late
            asyncio._set_running_loop(None)
            foreign.run_forever()
            asyncio._set_running_loop(foreign)
        for coroutine, waiter in kept:
            assert waiter in called[0], (coroutine, waiter)
            with suppress(StopIteration, MemoryError):
                next(coroutine)
        kept.clear()
        while zmq.Socket.shadow(pull.underlying).poll(10):
            zmq.Socket.shadow(pull.underlying).recv()

    # One allocation at a time: without any, asyncio's own Python code cannot run.
    for first in range(ALLOCATIONS):
        waits()
        attempt(pull._io._on_fd, first, first + 1, ())
        check()
    pull.close()
    asyncio._set_running_loop(None)
    foreign.call_soon(foreign.stop)
    foreign.run_forever()
    foreign.close()
    context.term()
    asyncio._set_running_loop(pair.alive.loop)


if __name__ == "__main__":
    warnings.simplefilter("ignore", RuntimeWarning)
    main(CASES)

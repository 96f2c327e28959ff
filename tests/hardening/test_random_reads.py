"""Readers that compete for one stream, at random, beside asyncio's.

The same script runs on both loops: reads of all kinds begin as tasks, in wait_for(),
timeout() and wait(), or driven by hand; they are cancelled, thrown into and closed,
between the arrival of data and their wake-up above all. After each operation, and in
each turn of the loop, what is buffered, who waits and what has come of each read must
be the same on both. For a long run say how many operations:

    export AIOZMQ_SPEEDUPS_RANDOM_READS=5000000
    make test T=tests/hardening/test_random_reads.py
"""

import asyncio
import contextlib
import gc
import os
import random
import socket
import types

import pytest

from aiozmq_speedups import _ext, new_event_loop

OPERATIONS = int(os.environ.get("AIOZMQ_SPEEDUPS_RANDOM_READS", "20000"))
FIRST_SEED = int(os.environ.get("AIOZMQ_SPEEDUPS_RANDOM_SEED", "0"))
OF_A_SCRIPT = 100

pytestmark = [
    pytest.mark.skipif(_ext.core is None, reason="needs the C extension"),
    pytest.mark.timeout(OPERATIONS / 500 + 300),
    # Tasks that are cancelled before their first step.
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
]


async def wait_for_data(self, name):
    """StreamReader._wait_for_data(), which is wrong in one thing: where another
    coroutine waits by the time that this one goes on, it forgets that for ever."""
    if self._waiter is not None:
        raise RuntimeError(
            f"{name}() called while another coroutine is already waiting for "
            "incoming data"
        )
    if self._paused:
        self._paused = False
        self._transport.resume_reading()
    self._waiter = waiter = self._loop.create_future()
    try:
        await waiter
    finally:
        if self._waiter is waiter:
            self._waiter = None


class Operation:
    """A read in a task, or driven by hand."""

    def __init__(self, run, coroutine, by_hand):
        self.run = run
        self.coroutine = coroutine
        self.by_hand = by_hand
        self.gate = self.timeout = self.waiter = self.outcome = None
        if by_hand:
            self.step(coroutine.send, None)
        else:
            self.task = run.loop.create_task(self.main(run.chance.randrange(7)))

    async def main(self, how):
        if how == 0:
            return await asyncio.wait_for(self.coroutine, 0)
        if how == 1:
            return await asyncio.wait_for(self.coroutine, 1000)
        if how == 2:
            try:
                async with asyncio.timeout(None) as self.timeout:
                    return await self.coroutine
            finally:
                self.timeout = None
        if how == 3:
            self.gate = self.run.loop.create_future()
            task = self.run.loop.create_task(self.coroutine)
            await asyncio.wait([task, self.gate], return_when="FIRST_COMPLETED")
            if not task.done():
                task.cancel()
            return await task
        return await self.coroutine

    def step(self, call, *args):
        try:
            self.waiter = call(*args)
        except StopIteration as exc:
            self.outcome = exc.value
        except BaseException as exc:
            self.outcome = repr(exc)
        else:
            if self.waiter is None:  # close()
                self.outcome = "closed"
            else:
                self.waiter._asyncio_future_blocking = False

    def disturb(self, chance):
        """Something that somebody else does to it."""
        if self.outcome is not None:
            return
        if self.by_hand:
            what = chance.randrange(6)
            if what == 0:
                self.step(self.coroutine.throw, asyncio.CancelledError("thrown"))
            elif what == 1:
                self.step(self.coroutine.close)
            elif what == 2:
                self.waiter.cancel()
            elif what == 3 or self.waiter.done():
                self.step(self.coroutine.send, None)
        elif self.gate is not None and not self.gate.done():
            self.gate.set_result(None)
        elif self.timeout is not None and not self.timeout.expired():
            with contextlib.suppress(RuntimeError):  # it is over
                self.timeout.reschedule(0)
        else:
            self.task.cancel(*chance.choice([(), ("why",)]))

    def state(self):
        if self.outcome is not None:
            return self.outcome
        if self.by_hand:
            return "woken" if self.waiter.done() else "waits"
        if not self.task.done():
            return "runs"
        if self.task.cancelled():
            self.outcome = "cancelled"
        else:
            exc = self.task.exception()
            self.outcome = self.task.result() if exc is None else repr(exc)
        return self.outcome


class Run:
    """One script on one loop; `events` says what was to be seen."""

    def __init__(self, loop, seed):
        self.loop = loop
        self.chance = random.Random(seed)
        self.events = []
        self.operations = []
        a, self.peer = socket.socketpair()
        a.setblocking(False)
        self.limit = self.chance.choice([4, 16, 1 << 16])
        opening = asyncio.open_connection(sock=a, limit=self.limit)
        self.reader, self.writer = loop.run_until_complete(opening)
        if isinstance(loop, asyncio.SelectorEventLoop) and _ext.core is not None:
            if not isinstance(loop, _ext.core.Loop):
                self.reader._wait_for_data = types.MethodType(
                    wait_for_data, self.reader
                )
        script = self.script()

        def turn():
            try:
                next(script)
            except StopIteration:
                loop.stop()
            else:
                loop.call_soon(turn)

        loop.call_soon(turn)
        loop.run_forever()

    def script(self):
        choices = [self.begin] * 4 + [self.disturb] * 4 + [self.turns] * 3
        choices += [self.send] * 4 + [self.feed]
        for _ in range(OF_A_SCRIPT):
            action = self.chance.choice(choices)
            if self.chance.random() < 0.005:
                action = self.chance.choice([self.end, self.fail])
            yield from action() or ()
            self.see(action.__name__)
        yield from self.settle()
        for operation in self.operations:
            if operation.by_hand:
                operation.coroutine.close()
            elif not operation.task.done():
                operation.task.cancel()
        yield from self.settle()
        self.see("over")
        self.peer.close()
        self.writer.transport.abort()
        yield from self.settle()

    def see(self, what):
        reader = self.reader
        self.operations = [op for op in self.operations if op.outcome is None]
        self.events.append(
            (
                what,
                bytes(reader._buffer),
                reader._waiter is None,
                reader._paused,
                reader.at_eof(),
                self.writer.transport.is_reading(),
                [operation.state() for operation in self.operations],
            )
        )

    def begin(self):
        reader, chance = self.reader, self.chance
        if len(self.operations) > 4:
            return
        coroutine = [
            lambda: reader.read(chance.choice([1, 3, 100])),
            lambda: reader.readexactly(chance.choice([1, 3, 6, 20])),
            lambda: reader.readuntil(chance.choice([b"\n", b"ab", b"bba"])),
            lambda: reader.readline(),
        ][chance.randrange(4)]()
        self.operations.append(Operation(self, coroutine, chance.random() < 0.4))

    def disturb(self):
        if self.operations:
            self.chance.choice(self.operations).disturb(self.chance)

    def data(self):
        size = self.chance.choice([1, 2, 3, 3, 6, 12, 40])
        return bytes(self.chance.choices(b"ab\n", [4, 4, 1], k=size))

    def send(self):
        """Data comes; what follows comes before anybody has been woken."""
        yield from self.settle()
        reader = self.reader
        if reader._paused or reader._eof:
            return
        before = len(reader._buffer)
        self.peer.send(self.data())
        while len(reader._buffer) == before:
            yield

    def feed(self):
        if not self.reader._eof:
            self.reader.feed_data(self.data())

    def turns(self):
        for _ in range(self.chance.randrange(1, 4)):
            self.see("turn")
            yield

    def settle(self):
        """Until nothing is left to be done in the loop."""
        for _ in range(8):
            yield

    def end(self):
        yield from self.settle()
        if self.reader._paused:
            return
        self.peer.shutdown(socket.SHUT_WR)
        while not self.reader._eof:
            yield

    def fail(self):
        self.reader.set_exception(ZeroDivisionError("mine"))
        self.reader._exception = None


def test_as_asyncio():
    loops = [new_event_loop(), asyncio.SelectorEventLoop()]
    for loop in loops:
        # Reads that fail and that nobody asks: the log would keep their loop.
        loop.set_exception_handler(lambda loop, context: None)
    # A collection inside a named tuple's __new__ drops coroutines that were never
    # awaited where CPython cannot warn (KeyError: '__import__'): not by itself, then.
    gc.disable()
    try:
        for seed in range(FIRST_SEED, FIRST_SEED + OPERATIONS // OF_A_SCRIPT):
            if seed % 100 == 0:
                gc.collect()
            ours, theirs = (Run(loop, seed).events for loop in loops)
            if ours != theirs:
                for one, other in zip(ours, theirs, strict=False):
                    print(one)
                    assert one == other, f"seed {seed}"
                pytest.fail(f"seed {seed}: {len(ours)} != {len(theirs)} events")
    finally:
        gc.enable()
        for loop in loops:
            loop.close()

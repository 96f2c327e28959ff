"""The rows of loop.py, and the program that runs them on one event loop.

    _loop_rows.py LOOP SECONDS [CORE]

Each line of stdin is the id of a row; the answer to it is a line with
``{"count": n, "seconds": s}`` or ``{"error": text}``.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:
    # A script's own folder comes first, and zmq.py in it would hide pyzmq.
    _here = Path(__file__).resolve().parent
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != _here]
    sys.path.insert(0, str(_here.parent))

from benchmarks import _common, _loops

Loop = asyncio.AbstractEventLoop
Measure = Callable[[Loop, int], float]

BATCH = 1000
"""Callbacks that are made ready before the loop goes on."""
TIMERS = 10_000
"""Timers that run at the same time, as in a server with many connections."""
FAR = 3600.0


@dataclass(frozen=True)
class Row:
    id: str
    title: str
    unit: str
    measure: Measure


ROWS: dict[str, Row] = {}


def row(id: str, title: str, unit: str = "callbacks/s") -> Callable[[Measure], Measure]:
    """Registers a function that does something n times and returns seconds."""

    def register(measure: Measure) -> Measure:
        ROWS[id] = Row(id, title, unit, measure)
        return measure

    return register


def in_task(work: Callable[[Loop, int], Coroutine[Any, Any, None]]) -> Measure:
    """Times a coroutine from inside, without starting and ending the loop."""

    @functools.wraps(work)
    def measure(loop: Loop, count: int) -> float:
        async def timed() -> float:
            start = time.perf_counter()
            await work(loop, count)
            return time.perf_counter() - start

        return loop.run_until_complete(timed())

    return measure


def until_stopped(loop: Loop, first: Callable[[], None]) -> float:
    loop.call_soon(first)
    start = time.perf_counter()
    loop.run_forever()
    return time.perf_counter() - start


def nothing(*args: object) -> None:
    pass


# --- callbacks ---------------------------------------------------------------


@row("call_soon_chain", "call_soon, each schedules the next")
def call_soon_chain(loop: Loop, count: int) -> float:
    left = count

    def step() -> None:
        nonlocal left
        left -= 1
        if left > 0:
            loop.call_soon(step)
        else:
            loop.stop()

    return until_stopped(loop, step)


def _batches(loop: Loop, count: int, fill: Callable[[int], None]) -> float:
    """Lets ``fill`` schedule BATCH things a turn until there were ``count``."""
    left = count

    def step() -> None:
        nonlocal left
        now = min(left, BATCH)
        left -= now
        fill(now)
        loop.call_soon(step if left else loop.stop)

    return until_stopped(loop, step)


@row("call_soon_0", "call_soon batch, no argument")
def call_soon_0(loop: Loop, count: int) -> float:
    call_soon = loop.call_soon

    def fill(number: int) -> None:
        for _ in range(number):
            call_soon(nothing)

    return _batches(loop, count, fill)


@row("call_soon_1", "call_soon batch, 1 argument")
def call_soon_1(loop: Loop, count: int) -> float:
    call_soon = loop.call_soon

    def fill(number: int) -> None:
        for _ in range(number):
            call_soon(nothing, None)

    return _batches(loop, count, fill)


@row("call_soon_3", "call_soon batch, 3 arguments")
def call_soon_3(loop: Loop, count: int) -> float:
    call_soon = loop.call_soon

    def fill(number: int) -> None:
        for _ in range(number):
            call_soon(nothing, None, None, None)

    return _batches(loop, count, fill)


@row("threadsafe_same", "call_soon_threadsafe, same thread")
def threadsafe_same(loop: Loop, count: int) -> float:
    call_soon_threadsafe = loop.call_soon_threadsafe

    def fill(number: int) -> None:
        for _ in range(number):
            call_soon_threadsafe(nothing)

    return _batches(loop, count, fill)


@row("threadsafe_other", "call_soon_threadsafe, another thread")
def threadsafe_other(loop: Loop, count: int) -> float:
    def schedule() -> None:
        for _ in range(count):
            loop.call_soon_threadsafe(nothing)
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=schedule)
    seconds = until_stopped(loop, thread.start)
    thread.join()
    return seconds


# --- timers ------------------------------------------------------------------


@row("timer_cancel", "call_later and cancel", "timers/s")
def timer_cancel(loop: Loop, count: int) -> float:
    call_later = loop.call_later

    def fill(number: int) -> None:
        for _ in range(number):
            call_later(FAR, nothing).cancel()

    return _batches(loop, count, fill)


@row("timer_fire", f"call_later, {TIMERS:,} at a time fire", "timers/s")
def timer_fire(loop: Loop, count: int) -> float:
    fired = 0
    left = count
    due = 0

    def fire() -> None:
        nonlocal fired
        fired += 1
        if fired == due:
            step()

    def step() -> None:
        nonlocal fired, left, due
        if not left:
            loop.stop()
            return
        due = min(left, TIMERS)
        left -= due
        fired = 0
        for i in range(due):
            # In no order, and within a millisecond: the work is the heap's,
            # not the waiting.
            loop.call_later(i * 7919 % TIMERS * 1e-7, fire)

    return until_stopped(loop, step)


# --- tasks and futures --------------------------------------------------------


@row("sleep_0", "await asyncio.sleep(0)", "turns/s")
@in_task
async def sleep_0(loop: Loop, count: int) -> None:
    sleep = asyncio.sleep
    for _ in range(count):
        await sleep(0)


@row("future", "a future wakes a task", "wake-ups/s")
@in_task
async def future(loop: Loop, count: int) -> None:
    for _ in range(count):
        waiter = loop.create_future()
        loop.call_soon(waiter.set_result, None)
        await waiter


@row("task", "create a task and await it", "tasks/s")
@in_task
async def task(loop: Loop, count: int) -> None:
    async def work() -> None:
        pass

    for _ in range(count):
        await loop.create_task(work())


@row("queue", "asyncio.Queue, two tasks", "items/s")
@in_task
async def queue(loop: Loop, count: int) -> None:
    items: asyncio.Queue[int] = asyncio.Queue(maxsize=1)

    async def produce() -> None:
        for number in range(count):
            await items.put(number)

    producer = loop.create_task(produce())
    for _ in range(count):
        await items.get()
    await producer


@row("timeout", "async with asyncio.timeout()", "blocks/s")
@in_task
async def timeout(loop: Loop, count: int) -> None:
    for _ in range(count):
        async with asyncio.timeout(FAR):
            pass


@row("executor", "run_in_executor", "calls/s")
@in_task
async def executor(loop: Loop, count: int) -> None:
    for _ in range(count):
        await loop.run_in_executor(None, nothing)


# --- I/O ---------------------------------------------------------------------


@row("sock", "sock_recv and sock_sendall ping-pong, 64 bytes", "round trips/s")
def sock(loop: Loop, count: int) -> float:
    async def trips(near: socket.socket, far: socket.socket) -> float:
        async def echo() -> None:
            while data := await loop.sock_recv(far, 64):
                await loop.sock_sendall(far, data)

        server = loop.create_task(echo())
        payload = b"\0" * 64
        start = time.perf_counter()
        for _ in range(count):
            await loop.sock_sendall(near, payload)
            await loop.sock_recv(near, 64)
        seconds = time.perf_counter() - start
        near.shutdown(socket.SHUT_WR)
        await server
        return seconds

    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        return loop.run_until_complete(trips(near, far))


class _UntilLost(asyncio.Protocol):
    def __init__(self, lost: asyncio.Future[None]) -> None:
        self.lost = lost

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)


@row("connect", "create_connection and close, TCP", "connections/s")
def connect(loop: Loop, count: int) -> float:
    async def connections() -> float:
        served: list[asyncio.Future[None]] = []

        def accept() -> _UntilLost:
            served.append(loop.create_future())
            return _UntilLost(served[-1])

        server = await loop.create_server(accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        start = time.perf_counter()
        for _ in range(count):
            transport, protocol = await loop.create_connection(
                lambda: _UntilLost(loop.create_future()), "127.0.0.1", port
            )
            transport.close()
            await protocol.lost
        await asyncio.gather(*served)
        seconds = time.perf_counter() - start
        server.close()
        await server.wait_closed()
        return seconds

    return loop.run_until_complete(connections())


@row("subprocess", "start a process and wait for it", "processes/s")
@in_task
async def subprocess(loop: Loop, count: int) -> None:
    for _ in range(count):
        process = await asyncio.create_subprocess_exec("/bin/true")
        await process.wait()


# --- the program -------------------------------------------------------------


def measure(one: Row, name: str, seconds: float) -> dict[str, Any]:
    """Runs a row on a loop of its own until it takes about ``seconds``."""
    loop = _loops.KINDS[name].create()
    asyncio.set_event_loop(loop)
    try:
        count, spent = 1, 0.0
        while spent < seconds / 8:
            count *= 2 if spent > seconds / 100 else 4
            spent = one.measure(loop, count)
        count = max(int(count * seconds / spent), 1)
        gc.collect()
        return {"count": count, "seconds": one.measure(loop, count)}
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        asyncio.set_event_loop(None)
        loop.close()


def main() -> int:
    name, seconds, *core = sys.argv[1:]
    if core:
        _common.pin(map(int, core))
    # The rows' own output, and that of their processes, goes to stderr.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # Not sys.stdin: its end must not reach the processes that a row starts.
    orders = os.fdopen(os.dup(0), encoding="utf-8")
    with open(os.devnull, "rb") as null:
        os.dup2(null.fileno(), 0)
    for line in orders:
        try:
            result = measure(ROWS[line.strip()], name, float(seconds))
        except Exception as exc:
            detail = f"{type(exc).__name__}: {exc}".strip().splitlines()[0]
            result = {"error": detail}
        answers.write(json.dumps(result) + "\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Loops in threads of one process, each with its own clients: n against one."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

if not __package__:
    # A script's own folder comes first, and zmq.py in it would hide pyzmq.
    _here = Path(__file__).resolve().parent
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != _here]
    sys.path.insert(0, str(_here.parent))

from benchmarks import _common, _loops
from benchmarks._loops import OURS

ROUNDS, SECONDS = 3, 1.0
MESSAGE = bytes(1024)
LOOPS = tuple(name for name in _loops.KINDS if name != "aiofastnet")


class Start:
    """All threads begin together and have the same end."""

    def __init__(self, threads: int, seconds: float) -> None:
        self._seconds = seconds
        self._barrier = threading.Barrier(threads, self._begin)
        self._end = 0.0

    def _begin(self) -> None:
        self._end = time.monotonic() + self._seconds

    def wait(self) -> float:
        """When the end is (time.monotonic)."""
        self._barrier.wait()
        return self._end

    def abort(self) -> None:
        self._barrier.abort()


# ---- what each thread does until the time is over; how often it did ----


class _Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class _Client(_Echo):
    def __init__(self, end: float, over: asyncio.Future[int]) -> None:
        self.count = 0
        self.end = end
        self.over = over

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.write(MESSAGE)

    def data_received(self, data: bytes) -> None:
        self.count += 1
        if self.count % 64 == 0 and time.monotonic() > self.end:
            self.over.set_result(self.count)
            self.transport.close()
        else:
            self.transport.write(data)


async def echo(start: Start) -> int:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Echo, "127.0.0.1", 0)
    over: asyncio.Future[int] = loop.create_future()
    client = _Client(start.wait(), over)
    await loop.create_connection(lambda: client, *server.sockets[0].getsockname())
    count = await over
    server.close()
    return count


async def rpc(start: Start) -> int:
    from aiozmq_speedups import rpc

    class Handler(rpc.AttrHandler):
        @rpc.method  # type: ignore[untyped-decorator, unused-ignore]
        def add(self, a: int, b: int) -> int:
            return a + b

    any_port = "tcp://127.0.0.1:*"
    server = await rpc.serve_rpc(Handler(), bind=any_port, engine="native")
    client = await rpc.connect_rpc(connect=server.transport.bindings(), engine="native")
    end, count = start.wait(), 0
    while time.monotonic() < end:
        for _ in range(16):
            await client.call.add(1, 2)
        count += 16
    for peer in (client, server):
        peer.close()
        await peer.wait_closed()
    return count


async def call_soon(start: Start) -> int:
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    count = 0
    end = start.wait()

    def step() -> None:
        nonlocal count
        count += 1
        if count % 64 == 0 and time.monotonic() > end:
            over.set_result(None)
        else:
            loop.call_soon(step)

    step()
    await over
    return count


ROWS: dict[str, Callable[[Start], Awaitable[int]]] = {
    "echo": echo,
    "rpc": rpc,
    "call_soon": call_soon,
}


def measure(row: str, loop: str, threads: int, seconds: float) -> float:
    """Operations a second, of all threads together."""
    start = Start(threads, seconds)
    counts: list[int] = []
    cores = _common.cores()

    def work(number: int) -> None:
        try:
            _common.pin([cores[number % len(cores)]])
            with asyncio.Runner(loop_factory=_loops.KINDS[loop].create) as runner:
                counts.append(runner.run(ROWS[row](start)))
        except BaseException:
            start.abort()
            raise

    workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if len(counts) < threads:
        raise SystemExit(f"{loop}, {row}: a thread failed")
    return sum(counts) / seconds


# ---- the runs ----


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("rows", nargs="*", metavar="row", help=", ".join(ROWS))
    parser.add_argument(
        "-l", "--loop", action="append", choices=LOOPS, metavar="LOOP", dest="loops",
        help=f"may be repeated; {OURS}, of {', '.join(LOOPS)}",
    )  # fmt: skip
    parser.add_argument(
        "-n", "--threads", type=int, default=2, help="threads; pinned in turn (2)"
    )
    parser.add_argument("-r", "--rounds", type=int, default=ROUNDS)
    parser.add_argument("-s", "--seconds", type=float, default=SECONDS)
    parser.add_argument("--json", metavar="FILE", help="where the samples go")
    args = parser.parse_args(argv)
    for row in args.rows:
        if row not in ROWS:
            parser.error(f"no row is called {row}; there are {', '.join(ROWS)}")
    return args


def main(argv: Sequence[str]) -> None:
    if argv and argv[0] == "--measure":
        row, loop, threads, seconds = argv[1:]
        print(measure(row, loop, int(threads), float(seconds)))
        return
    args = parse(argv)
    rows = args.rows or list(ROWS)
    cases = [
        (row, loop, threads)
        for row in rows
        for loop in args.loops or [OURS]
        if row != "rpc" or loop == OURS
        for threads in (1, args.threads)
    ]
    samples: dict[tuple[str, str, int], list[float]] = {case: [] for case in cases}
    report = _common.new_report("threads", vars(args), _loops.PACKAGES)
    for _ in range(args.rounds):
        for case in cases:
            command = [sys.executable, __file__, "--measure"]
            command += [*map(str, case), str(args.seconds)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr)
            samples[case].append(float(done.stdout))
    report["rows"] = []
    table = []
    for row, loop, threads in cases:
        rates = samples[row, loop, threads]
        report["rows"].append(
            {"row": row, "loop": loop, "threads": threads, "rates": rates}
        )
        rate = statistics.median(rates)
        one = statistics.median(samples[row, loop, 1])
        table.append(
            [row, loop, str(threads), _common.short(rate), f"{rate / one:.2f}"]
        )
    path = args.json or _common.result_path("threads")
    _common.write_json(report, path)
    print(_common.table(["row", "loop", "threads", "per second", "x one"], table))
    print(f"\nResults are in {path}")


if __name__ == "__main__":
    main(sys.argv[1:])

#!/usr/bin/env python3
"""Many peers of one socket: a ROUTER's with 10 and 1,000 peers, a PUB's with 100
subscribers, what an idle peer takes, and CURVE; the native engine and libzmq.

The peers of the first three are load/zmtp_load.c, the same for each row.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if not __package__:
    # A script's own folder comes first, and zmq.py in it would hide pyzmq.
    _here = Path(__file__).resolve().parent
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != _here]
    sys.path.insert(0, str(_here.parent))

import zmq

from benchmarks import _common, _load

ANY = "tcp://127.0.0.1:*"
ENGINES = ("native", "libzmq")
SUBSCRIBERS, PUBLISHED, SIZE = 100, 20_000, 100
IDLE = 1000
CURVE_SIZES = {100: 100_000, 1000: 100_000, 65536: 5_000}
SERVER, CLIENT = zmq.curve_keypair(), zmq.curve_keypair()


# ---- the measured end, a process of its own ----


class Echo:
    """A protocol of a ROUTER."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def msg_received(self, data: list[bytes]) -> None:
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        pass

    def pause_writing(self) -> None:
        pass

    resume_writing = pause_writing


class Subscribed(Echo):
    """A protocol of an XPUB."""

    def __init__(self) -> None:
        self.peers = 0
        self.changed = asyncio.Event()
        self.room = asyncio.Event()
        self.room.set()

    def msg_received(self, data: list[bytes]) -> None:
        self.peers += 1
        self.changed.set()

    def pause_writing(self) -> None:
        self.room.clear()

    def resume_writing(self) -> None:
        self.room.set()


class Count(Echo):
    """A protocol of a PULL."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.began = 0.0
        self.done = asyncio.get_running_loop().create_future()

    def msg_received(self, data: list[bytes]) -> None:
        if not self.began:
            self.began = time.perf_counter()
        self.left -= 1
        if not self.left:
            self.done.set_result(time.perf_counter() - self.began)


def resident() -> int:
    gc.collect()
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def at_end() -> None:
    """Waits for the end of stdin."""
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def serve(job: str, engine: str, *args: str) -> None:
    from aiozmq_speedups import create_zmq_connection

    if job in ("trip", "idle"):
        transport, _ = await create_zmq_connection(
            Echo, zmq.ROUTER, bind=ANY, engine=engine, linger=0
        )
        tell(transport)
        while job == "idle":
            loop = asyncio.get_running_loop()
            if not await loop.run_in_executor(None, sys.stdin.readline):
                return
            print(resident(), flush=True)
        await at_end()
    elif job == "drain":
        transport, protocol = await create_zmq_connection(
            Subscribed, zmq.XPUB, engine=engine, linger=0
        )
        transport.setsockopt(zmq.XPUB_NODROP, 1)
        transport.setsockopt(zmq.XPUB_VERBOSE, 1)
        await transport.bind(ANY)
        tell(transport)
        while protocol.peers < SUBSCRIBERS:
            protocol.changed.clear()
            await protocol.changed.wait()
        message = [bytes(SIZE)]
        for number in range(PUBLISHED):
            transport.write(message)
            if not protocol.room.is_set():
                await protocol.room.wait()
            elif number % 100 == 99:
                await asyncio.sleep(0)
        await at_end()
    elif job == "pull":
        transport, counter = await create_zmq_connection(
            lambda: Count(int(args[0])),
            zmq.PULL,
            engine=engine,
            linger=0,
            curve_server=True,
            curve_publickey=args[1],
            curve_secretkey=args[2],
        )
        await transport.bind(ANY)
        tell(transport)
        print(await counter.done, flush=True)


async def push(engine: str, port: str, count: int, size: int) -> None:
    from aiozmq_speedups import create_zmq_stream

    stream = await create_zmq_stream(
        zmq.PUSH,
        connect=f"tcp://127.0.0.1:{port}",
        engine=engine,
        curve_serverkey=SERVER[0],
        curve_publickey=CLIENT[0],
        curve_secretkey=CLIENT[1],
    )
    message = [bytes(size)]
    for number in range(count):
        stream.write(message)
        await stream.drain()
        if number % 64 == 63:
            await asyncio.sleep(0)
    stream.close()


def tell(transport: Any) -> None:
    print(next(iter(transport.bindings())).rpartition(":")[2], flush=True)


def run(coroutine: Any) -> None:
    from aiozmq_speedups import new_event_loop

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(coroutine)


# ---- the runs ----


@contextlib.contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            yield child
        finally:
            assert child.stdin is not None
            child.stdin.close()
            child.wait(30)


def line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    text = child.stdout.readline()
    if not text:
        raise RuntimeError(f"{child.args!r} has ended")
    return text.strip()


class Programs:
    def __init__(self, folder: str) -> None:
        compiler = _load.compiler()
        if compiler is None:
            raise SystemExit(_load.why_no_compiler())
        self.load = self._build(compiler, folder, "zmtp_load")
        self.pub = self._build(compiler, folder, "zmq_pub", "-lzmq")

    def _build(self, compiler: list[str], folder: str, name: str, *libs: str) -> str:
        program = os.path.join(folder, name)
        source = str(_common.HERE / "load" / f"{name}.c")
        subprocess.run(
            [*compiler, *_load.FLAGS, "-o", program, source, *libs], check=True
        )
        return program

    def server(self, *args: str) -> Any:
        return process(sys.executable, str(_common.HERE / "zmq_many.py"), *args)


def trips(programs: Programs, engine: str, peers: int, window: int) -> float:
    """Round trips a second."""
    with programs.server("trip", engine) as server:
        args = [line(server), str(peers), str(window), str(SIZE), "1"]
        with process(programs.load, "trip", *args) as load:
            line(load)
            return float(line(load))


def idle(programs: Programs, engine: str) -> float:
    """Octets a peer, of the second thousand: the first may use what was free."""
    sizes = []
    with programs.server("idle", engine) as server, contextlib.ExitStack() as stack:
        port = line(server)
        for _ in range(2):
            load = stack.enter_context(process(programs.load, "idle", port, str(IDLE)))
            line(load)
            assert server.stdin is not None
            server.stdin.write("now\n")
            server.stdin.flush()
            sizes.append(float(line(server)))
    return (sizes[1] - sizes[0]) / IDLE


def published(programs: Programs, engine: str) -> float:
    """Messages that arrive a second, at all subscribers together."""
    if engine == "C on libzmq":
        args = str(PUBLISHED), str(SIZE), str(SUBSCRIBERS)
        publisher = process(programs.pub, *args)
    else:
        publisher = programs.server("drain", engine)
    with publisher as server:
        args = line(server), str(SUBSCRIBERS), str(PUBLISHED * (SIZE + 2))
        with process(programs.load, "drain", *args) as load:
            line(load)
            return SUBSCRIBERS * PUBLISHED / float(line(load))


def sealed(programs: Programs, engine: str, size: int) -> float:
    """Messages a second."""
    count = CURVE_SIZES[size]
    with programs.server("pull", engine, str(count), *map(bytes.decode, SERVER)) as to:
        args = ("push", engine, line(to), str(count), str(size))
        keys = (SERVER[0], *CLIENT)
        with programs.server(*args, *map(bytes.decode, keys)):
            return count / float(line(to))


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] == "push":
        global SERVER, CLIENT
        engine, port, count, size, *keys = sys.argv[2:]
        SERVER, CLIENT = (keys[0].encode(), b""), (keys[1].encode(), keys[2].encode())
        return run(push(engine, port, int(count), int(size)))
    if len(sys.argv) > 1 and sys.argv[1][0] != "-":
        return run(serve(*sys.argv[1:]))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="rows whose name has this")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="zmq_many-") as folder:
        programs = Programs(folder)
        rows: dict[str, Any] = {}
        for engine in ENGINES:
            for peers, window in ((10, 1), (1000, 1), (10, 10), (1000, 10)):
                name = f"{engine}: ROUTER, {peers} peers, {window} in flight each"
                rows[name] = (trips, engine, peers, window)
            rows[f"{engine}: octets of an idle peer"] = (idle, engine)
            rows[f"{engine}: PUB to {SUBSCRIBERS}"] = (published, engine)
            for size in CURVE_SIZES:
                rows[f"{engine}: CURVE, {size} octets one way"] = (sealed, engine, size)
        rows[f"C on libzmq: PUB to {SUBSCRIBERS}"] = (published, "C on libzmq")
        rows = {name: row for name, row in rows.items() if args.only in name}
        results: dict[str, list[float]] = {name: [] for name in rows}
        for _ in range(args.rounds):
            for name, (measure, *rest) in rows.items():
                results[name].append(measure(programs, *rest))
    for name, values in results.items():
        print(f"{name:50} {statistics.median(values):14,.0f}  {min(values):14,.0f}")


if __name__ == "__main__":
    main()

"""One end of a zmq.py load, as a program of its own.

    _zmq_peers.py JSON

The JSON object has the fields of ``Job``. A server prints the endpoint it
bound; the end that measures prints ``{"seconds": s}``: the client of trip and
rpc and busy, the server of oneway and sub. Both stay until their stdin ends.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import resource
import select
import sys
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

import zmq
import zmq.asyncio

from benchmarks import _common

ANYWHERE = os.environ.get("ZMQ_BENCH_BIND", "tcp://127.0.0.1:*")
NAME = b"func"
BIG = 65536
"""From this size on, raw pyzmq hands frames over without a copy."""
BATCH = 256
"""A sender that is never told to pause lets its loop run this often."""
BUSY, IDLE = 10, 990
PUB_HWM = 100_000
"""More than a PUB writes before its I/O thread, on the same core, has its turn."""


@dataclass
class Job:
    role: str
    """server or client."""
    workload: str
    """trip, oneway, rpc, sub or busy."""
    api: str
    """raw, asyncio, zmq_asyncio, core, stream or rpc."""
    package: str | None
    loop: str | None
    cores: list[int]
    count: int
    warm_up: int
    size: int
    window: int
    hwm: int
    endpoint: str | None = None

    @property
    def total(self) -> int:
        return self.warm_up + self.count

    def socket_type(self) -> int:
        if self.workload == "oneway":
            return zmq.PULL if self.role == "server" else zmq.PUSH
        if self.workload == "sub":
            return zmq.SUB if self.role == "server" else zmq.PUB
        return zmq.ROUTER if self.role == "server" else zmq.DEALER

    def socket(self, context: Any) -> Any:
        sock = context.socket(self.socket_type())
        sock.set_hwm(self.hwm)
        if self.socket_type() == zmq.SUB:
            sock.subscribe(b"")
        elif self.socket_type() == zmq.PUB:
            sock.sndhwm = PUB_HWM
            sock.linger = 0
        return sock

    def source(self) -> dict[str, Any]:
        """A socket with the water marks; or, for another engine than libzmq, these."""
        if self.loop == "native":
            return {"sndhwm": self.hwm, "rcvhwm": self.hwm, "linger": 0}
        return {"zmq_sock": self.socket(zmq.Context.instance())}

    @property
    def copies(self) -> bool:
        return self.size < BIG

    def all_sockets(self, sock: Any) -> tuple[list[Any], list[Any]]:
        """Those that are busy and those that are idle, of which `sock` is one."""
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        sockets = [sock]
        while len(sockets) < BUSY + IDLE:
            sockets.append(self.socket(sock.context))
            sockets[-1].connect(self.endpoint)
        return sockets[:BUSY], sockets[BUSY:]

    def where(self) -> dict[str, str]:
        """bind= or connect= of create_zmq_connection and its relatives."""
        if self.endpoint is None:
            return {"bind": ANYWHERE}
        return {"connect": self.endpoint}

    def message(self) -> list[bytes]:
        payload = b"\0" * self.size
        return [payload] if self.workload in ("oneway", "sub") else [NAME, payload]


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def report(start: float) -> None:
    say(json.dumps({"seconds": time.perf_counter() - start}))


# --- pyzmq, blocking ---------------------------------------------------------


def raw(job: Job) -> None:
    with zmq.Context() as context:
        context.max_sockets = 2 * (BUSY + IDLE)
        with job.socket(context) as sock:
            raw_end(job, sock)


def raw_end(job: Job, sock: Any) -> None:
    if job.endpoint is None:
        sock.bind(ANYWHERE)
        say(sock.getsockopt_string(zmq.LAST_ENDPOINT))
    else:
        sock.connect(job.endpoint)
    {
        ("trip", "server"): raw_echo,
        ("trip", "client"): raw_trips,
        ("oneway", "server"): raw_pull,
        ("oneway", "client"): raw_push,
        ("sub", "server"): raw_pull,
        ("sub", "client"): raw_publish,
        ("busy", "server"): raw_echo,
        ("busy", "client"): raw_busy,
    }[job.workload, job.role](job, sock)
    sys.stdin.read()


# Where nothing is said of copies, as programs do, a call is at its cheapest.


def raw_echo(job: Job, sock: Any) -> None:
    if not job.copies:
        for _ in range(job.total):
            sock.send_multipart(sock.recv_multipart(copy=False), copy=False)
        return
    for _ in range(job.total):
        sock.send_multipart(sock.recv_multipart())


def raw_trips(job: Job, sock: Any) -> None:
    message = job.message()

    def big_trips(count: int) -> None:
        for _ in range(count):
            sock.send_multipart(message, copy=False)
            sock.recv_multipart(copy=False)

    def small_trips(count: int) -> None:
        sent = min(job.window, count)
        for _ in range(sent):
            sock.send_multipart(message)
        for _ in range(count - sent):
            sock.recv_multipart()
            sock.send_multipart(message)
        for _ in range(sent):
            sock.recv_multipart()

    trips = small_trips if job.copies else big_trips

    trips(job.warm_up)
    start = time.perf_counter()
    trips(job.count)
    report(start)


def raw_pull(job: Job, sock: Any) -> None:
    copy = job.size < BIG
    for _ in range(job.warm_up):
        sock.recv(copy=copy)
    start = time.perf_counter()
    for _ in range(job.count):
        sock.recv(copy=copy)
    report(start)


def raw_push(job: Job, sock: Any) -> None:
    (payload,) = job.message()
    copy = job.size < BIG
    for _ in range(job.total):
        sock.send(payload, copy=copy)


def raw_publish(job: Job, sock: Any) -> None:
    """Until nobody listens any more: a PUB drops what its SUB does not drink."""
    (payload,) = job.message()
    while not select.select([sys.stdin], [], [], 0)[0]:
        for _ in range(1000):
            sock.send(payload)


def raw_busy(job: Job, sock: Any) -> None:
    busy, idle = job.all_sockets(sock)
    poller = zmq.Poller()
    for each in busy + idle:
        poller.register(each, zmq.POLLIN)
    message = job.message()

    def trips(count: int) -> None:
        unsent = unanswered = count
        for each in busy[:count]:
            each.send_multipart(message)
            unsent -= 1
        while unanswered:
            for each, _ in poller.poll():
                each.recv_multipart()
                unanswered -= 1
                if unsent:
                    each.send_multipart(message)
                    unsent -= 1

    trips(job.warm_up)
    start = time.perf_counter()
    trips(job.count)
    report(start)
    for each in busy + idle:
        each.close()


# --- zmq.asyncio -------------------------------------------------------------


async def asyncio_end(job: Job, loop: asyncio.AbstractEventLoop) -> None:
    """zmq.asyncio, or this package's zmq_asyncio."""
    module = zmq.asyncio
    if job.package is not None:
        module = importlib.import_module(f"{job.package}.zmq_asyncio")
    with module.Context() as context:
        context.max_sockets = 2 * (BUSY + IDLE)
        with job.socket(context) as sock:
            if job.endpoint is None:
                sock.bind(ANYWHERE)
                say(sock.getsockopt_string(zmq.LAST_ENDPOINT))
            else:
                sock.connect(job.endpoint)
            await {
                ("trip", "server"): asyncio_echo,
                ("trip", "client"): asyncio_trips,
                ("oneway", "server"): asyncio_pull,
                ("oneway", "client"): asyncio_push,
                ("sub", "server"): asyncio_pull,
                ("busy", "client"): asyncio_busy,
            }[job.workload, job.role](job, sock)
            await stdin_closed(loop)


async def asyncio_echo(job: Job, sock: Any) -> None:
    if not job.copies:
        for _ in range(job.total):
            await sock.send_multipart(await sock.recv_multipart(copy=False), copy=False)
        return
    for _ in range(job.total):
        await sock.send_multipart(await sock.recv_multipart())


async def asyncio_trips(job: Job, sock: Any) -> None:
    message = job.message()

    async def big_trips(count: int) -> None:
        for _ in range(count):
            await sock.send_multipart(message, copy=False)
            await sock.recv_multipart(copy=False)

    async def small_trips(count: int) -> None:
        sent = min(job.window, count)
        for _ in range(sent):
            await sock.send_multipart(message)
        for _ in range(count - sent):
            await sock.recv_multipart()
            await sock.send_multipart(message)
        for _ in range(sent):
            await sock.recv_multipart()

    trips = small_trips if job.copies else big_trips

    await trips(job.warm_up)
    start = time.perf_counter()
    await trips(job.count)
    report(start)


async def asyncio_pull(job: Job, sock: Any) -> None:
    copy = job.size < BIG
    for _ in range(job.warm_up):
        await sock.recv(copy=copy)
    start = time.perf_counter()
    for _ in range(job.count):
        await sock.recv(copy=copy)
    report(start)


async def asyncio_busy(job: Job, sock: Any) -> None:
    busy, idle = job.all_sockets(sock)
    message = job.message()

    async def trips(sock: Any, count: int) -> None:
        for _ in range(count):
            await sock.send_multipart(message)
            await sock.recv_multipart()

    async def all_trips(count: int) -> None:
        share, rest = divmod(count, len(busy))
        await asyncio.gather(
            *(trips(each, share + (i < rest)) for i, each in enumerate(busy))
        )

    waiting = [asyncio.ensure_future(each.recv_multipart()) for each in idle]
    await all_trips(job.warm_up)
    start = time.perf_counter()
    await all_trips(job.count)
    report(start)
    for future in waiting:
        future.cancel()
    await asyncio.wait(waiting)
    for each in busy + idle:
        each.close()


async def asyncio_push(job: Job, sock: Any) -> None:
    (payload,) = job.message()
    copy = job.size < BIG
    for _ in range(job.total):
        await sock.send(payload, copy=copy)


# --- aiozmq's API: protocols --------------------------------------------------


class End:
    """What the protocols share; ZmqProtocol comes in from the package."""

    def __init__(self, job: Job, loop: asyncio.AbstractEventLoop) -> None:
        self.job = job
        self.loop = loop
        self.done: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(None)

    def start(self) -> None:
        """Called when the transport is bound or connected."""


class Echo(End):
    def start(self) -> None:
        self.done.set_result(None)

    def msg_received(self, msg: Any) -> None:
        self.transport.write(msg)


class Trips(End):
    def start(self) -> None:
        self.message = self.job.message()
        self.measuring = False
        self.begin(self.job.warm_up)

    def begin(self, count: int) -> None:
        self.started = time.perf_counter()
        self.unanswered = count
        self.unsent = count - min(self.job.window, count)
        for _ in range(count - self.unsent):
            self.transport.write(self.message)

    def msg_received(self, msg: Any) -> None:
        self.unanswered -= 1
        if self.unsent:
            self.unsent -= 1
            self.transport.write(self.message)
        elif not self.unanswered:
            if self.measuring:
                report(self.started)
                self.done.set_result(None)
            else:
                self.measuring = True
                self.begin(self.job.count)


class Pull(End):
    def start(self) -> None:
        self.measuring = False
        self.started = 0.0
        self.left = self.job.warm_up

    def msg_received(self, msg: Any) -> None:
        self.left -= 1
        if self.left:
            return
        if self.measuring:
            report(self.started)
            self.done.set_result(None)
        else:
            self.measuring = True
            self.started = time.perf_counter()
            self.left = self.job.count


class Push(End):
    def start(self) -> None:
        self.message = self.job.message()
        self.left = self.job.total
        self.paused = False
        self.pump()

    def pump(self) -> None:
        write = self.transport.write
        for _ in range(min(BATCH, self.left)):
            if self.paused:
                return
            self.left -= 1
            write(self.message)
        if self.left:
            self.loop.call_soon(self.pump)
        elif not self.done.done():
            self.done.set_result(None)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.loop.call_soon(self.pump)


async def core(job: Job, loop: asyncio.AbstractEventLoop) -> None:
    api = importlib.import_module(str(job.package))
    end = {
        ("trip", "server"): Echo,
        ("trip", "client"): Trips,
        ("oneway", "server"): Pull,
        ("oneway", "client"): Push,
    }[job.workload, job.role]
    kind: Any = type(end.__name__, (end, api.ZmqProtocol), {})
    transport, protocol = await api.create_zmq_connection(
        lambda: kind(job, loop),
        job.socket_type(),
        **job.source(),
        loop=loop,
        **job.where(),
    )
    if job.endpoint is None:
        say(next(iter(transport.bindings())))
    protocol.start()
    await protocol.done
    await stdin_closed(loop)
    transport.close()
    await protocol.closed


# --- aiozmq's API: streams ----------------------------------------------------


async def stream(job: Job, loop: asyncio.AbstractEventLoop) -> None:
    api = importlib.import_module(str(job.package))
    end = await api.create_zmq_stream(
        job.socket_type(),
        **job.source(),
        loop=loop,
        **job.where(),
    )
    if job.endpoint is None:
        say(next(iter(end.transport.bindings())))
    await {
        ("trip", "server"): stream_echo,
        ("trip", "client"): stream_trips,
        ("oneway", "server"): stream_pull,
        ("oneway", "client"): stream_push,
    }[job.workload, job.role](job, end)
    await stdin_closed(loop)
    end.close()
    try:
        await end.read()
    except api.ZmqStreamClosed:
        pass


async def stream_echo(job: Job, end: Any) -> None:
    for _ in range(job.total):
        end.write(await end.read())


async def stream_trips(job: Job, end: Any) -> None:
    message = job.message()

    async def trips(count: int) -> None:
        sent = min(job.window, count)
        for _ in range(sent):
            end.write(message)
        for _ in range(count - sent):
            await end.read()
            end.write(message)
        for _ in range(sent):
            await end.read()

    await trips(job.warm_up)
    start = time.perf_counter()
    await trips(job.count)
    report(start)


async def stream_pull(job: Job, end: Any) -> None:
    for _ in range(job.warm_up):
        await end.read()
    start = time.perf_counter()
    for _ in range(job.count):
        await end.read()
    report(start)


async def stream_push(job: Job, end: Any) -> None:
    message = job.message()
    for number in range(job.total):
        end.write(message)
        await end.drain()
        if number % BATCH == 0:
            # drain() of a stream that is not paused does not let the loop run.
            await asyncio.sleep(0)


# --- aiozmq's API: rpc --------------------------------------------------------


async def rpc(job: Job, loop: asyncio.AbstractEventLoop) -> None:
    module = importlib.import_module(f"{job.package}.rpc")
    if job.role == "server":
        await rpc_serve(job, loop, module)
    else:
        await rpc_call(job, loop, module)


async def rpc_serve(job: Job, loop: asyncio.AbstractEventLoop, module: Any) -> None:
    class Handler(module.AttrHandler):  # type: ignore[misc]
        @module.method  # type: ignore[untyped-decorator]
        def func(self, data: bytes) -> bytes:
            return data

    service = await module.serve_rpc(Handler(), loop=loop, **job.where())
    say(next(iter(service.transport.bindings())))
    await stdin_closed(loop)
    service.close()
    await service.wait_closed()


async def rpc_call(job: Job, loop: asyncio.AbstractEventLoop, module: Any) -> None:
    client = await module.connect_rpc(loop=loop, **job.where())
    payload = b"\0" * job.size

    async def calls(count: int) -> None:
        for _ in range(count):
            await client.call.func(payload)

    async def all_calls(count: int) -> None:
        if job.window == 1:
            await calls(count)
            return
        share, rest = divmod(count, job.window)
        await asyncio.gather(*(calls(share + (i < rest)) for i in range(job.window)))

    await all_calls(job.warm_up)
    start = time.perf_counter()
    await all_calls(job.count)
    report(start)
    await stdin_closed(loop)
    client.close()
    await client.wait_closed()


# --- the program -------------------------------------------------------------


async def stdin_closed(loop: asyncio.AbstractEventLoop) -> None:
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(0, ready.set_result, None)
    await ready
    loop.remove_reader(0)


def new_loop(job: Job) -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop
    if job.loop == "uvloop":
        loop = importlib.import_module("uvloop").new_event_loop()
    elif job.loop == "speedups":
        loop = importlib.import_module("aiozmq_speedups").new_event_loop()
    elif job.loop == "native":
        package = importlib.import_module(str(job.package))
        loop = package.new_event_loop(zmq_engine="native")
    elif job.loop == "own":
        loop = importlib.import_module(str(job.package)).ZmqEventLoop()
    else:
        loop = asyncio.SelectorEventLoop()
    return loop


def main() -> int:
    job = Job(**json.loads(sys.argv[1]))
    _common.pin(job.cores)
    if job.api == "raw":
        raw(job)
        return 0
    work: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
        "asyncio": asyncio_end,
        "zmq_asyncio": asyncio_end,
        "core": core,
        "stream": stream,
        "rpc": rpc,
    }
    loop = new_loop(job)
    try:
        asyncio.set_event_loop(None)
        loop.run_until_complete(work[job.api](job, loop))
    finally:
        loop.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

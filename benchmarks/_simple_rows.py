"""The rows of simple.py: one DEALER and one ROUTER in the same process.

Every row does the same work: ``count`` times a request of two frames (the
name ``func`` and 200 bytes) goes to the ROUTER and comes back before the next
one leaves. What differs is who moves the messages.
"""

from __future__ import annotations

import asyncio
import fnmatch
import gc
import importlib
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import zmq

PAYLOAD = b"\0" * 200
MESSAGE = (b"func", PAYLOAD)
ANY_PORT = "tcp://127.0.0.1:*"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    id: str
    title: str
    family: str
    """Who does the work: pyzmq, aiozmq, or this package in Python, C, its engine."""
    api: str
    """raw, core, stream or rpc: what it may be compared with."""
    loop: str | None
    """asyncio, uvloop, own, native (own, with that engine), or None for no loop."""
    package: str | None = None
    alias: str | None = None
    """The name this row has in aiozmq's own benchmark."""

    @property
    def pure(self) -> bool:
        return self.family == "speedups-python"

    @property
    def needs(self) -> list[str]:
        names = [self.package] if self.package else []
        return [*names, "uvloop"] if self.loop == "uvloop" else names

    @property
    def baseline(self) -> str | None:
        """The row of pure aiozmq that it is compared with."""
        if self.api == "raw":
            return None
        return "aiozmq-rpc-asyncio" if self.api == "rpc" else "aiozmq-core-asyncio"


RAW_BASELINE = "raw"

LOOPS_IN_C = {
    "native": "native engine",
    "own": "C, own loop",
    "uvloop": "C, uvloop",
    "asyncio": "C, asyncio",
}


def _all_rows() -> Iterator[Row]:
    pyzmq = [
        ("raw", "single thread raw zmq", "test_raw_zmq"),
        ("poller", "single thread zmq with poller", "test_zmq_with_poller"),
        ("threads", "zmq with threads", "test_zmq_with_thread"),
    ]
    for name, title, alias in pyzmq:
        yield Row(name, title, "pyzmq", "raw", None, alias=alias)
    aliases = {
        "aiozmq-core-asyncio": "test_core_aiozmq_loopless",
        "aiozmq-core-uvloop": "test_core_aiozmq_uvloop",
        "aiozmq-core-own": "test_core_aiozmq_legacy",
        "aiozmq-rpc-asyncio": "test_aiozmq_rpc",
    }
    for api, name in (("core", "core aiozmq"), ("rpc", "aiozmq.rpc")):
        for loop in ("asyncio", "uvloop", "own"):
            title = f"{name} ({loop} loop)" if loop == "own" else f"{name} ({loop})"
            row = f"aiozmq-{api}-{loop}"
            yield Row(row, title, "aiozmq", api, loop, "aiozmq", aliases.get(row))
    for api in ("core", "stream", "rpc"):
        for loop, label in LOOPS_IN_C.items():
            yield Row(
                f"c-{api}-{loop}",
                f"speedups {api} ({label})",
                "speedups-native" if loop == "native" else "speedups-c",
                api,
                loop,
                "aiozmq_speedups",
            )
        yield Row(
            f"python-{api}-asyncio",
            f"speedups {api} (pure Python, asyncio)",
            "speedups-python",
            api,
            "asyncio",
            "aiozmq_speedups",
        )


ROWS = {row.id: row for row in _all_rows()}


def select(names: list[str]) -> list[Row]:
    """Rows by id, by a pattern of ids, or by the name in aiozmq's benchmark.

    Raises KeyError with the name that means nothing.
    """
    if not names:
        return list(ROWS.values())
    chosen: dict[str, Row] = {}
    for name in names:
        found = [
            row
            for row in ROWS.values()
            if fnmatch.fnmatchcase(row.id, name) or name in (row.alias, row.title)
        ]
        if not found:
            raise KeyError(name)
        chosen.update((row.id, row) for row in found)
    return list(chosen.values())


# --- without an event loop ---------------------------------------------------


@contextmanager
def _measured() -> Iterator[list[float]]:
    """Times its block; nothing that was allocated before is collected in it."""
    result: list[float] = []
    gc.collect()
    start = time.perf_counter()
    yield result
    result.append(time.perf_counter() - start)


def _address(sock: zmq.Socket[bytes]) -> str:
    return sock.getsockopt_string(zmq.LAST_ENDPOINT)


@contextmanager
def _raw_pair() -> Iterator[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]]:
    with zmq.Context() as context:
        with context.socket(zmq.ROUTER) as router, context.socket(zmq.DEALER) as dealer:
            router.bind(ANY_PORT)
            dealer.connect(_address(router))
            yield dealer, router


def raw(count: int) -> float:
    with _raw_pair() as (dealer, router):
        with _measured() as result:
            for _ in range(count):
                dealer.send_multipart(MESSAGE)
                router.send_multipart(router.recv_multipart())
                dealer.recv_multipart()
    return result[0]


def poller(count: int) -> float:
    with _raw_pair() as (dealer, router):
        poll = zmq.Poller()
        poll.register(dealer, zmq.POLLIN)
        poll.register(router, zmq.POLLIN)

        def receive(expected: zmq.Socket[bytes]) -> list[bytes]:
            while True:
                for ready, _ in poll.poll():
                    if ready is expected:
                        frames: list[bytes] = expected.recv_multipart(zmq.DONTWAIT)
                        return frames

        with _measured() as result:
            for _ in range(count):
                dealer.send_multipart(MESSAGE, zmq.DONTWAIT)
                router.send_multipart(receive(router), zmq.DONTWAIT)
                receive(dealer)
    return result[0]


def threads(count: int) -> float:
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.bind(ANY_PORT)
        address = _address(dealer)

        def serve() -> None:
            with context.socket(zmq.ROUTER) as router:
                router.connect(address)
                for _ in range(count):
                    router.send_multipart(router.recv_multipart())

        server = threading.Thread(target=serve)
        server.start()
        with _measured() as result:
            for _ in range(count):
                dealer.send_multipart(MESSAGE)
                dealer.recv_multipart()
        server.join()
    return result[0]


# --- aiozmq's API: the same code for aiozmq and for this package --------------


class _Counting:
    """What both protocols below share; the base class comes from the package."""

    transport: Any = None

    def __init__(self, closed: asyncio.Future[None]) -> None:
        self.closed = closed

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None:
            self.closed.set_result(None)
        else:
            self.closed.set_exception(exc)


async def core(api: Any, loop: asyncio.AbstractEventLoop, count: int) -> float:
    class Router(_Counting, api.ZmqProtocol):  # type: ignore[misc]
        def msg_received(self, msg: Any) -> None:
            self.transport.write(msg)

    class Dealer(_Counting, api.ZmqProtocol):  # type: ignore[misc]
        left = count

        def msg_received(self, msg: Any) -> None:
            self.left -= 1
            if self.left:
                self.transport.write(msg)
            else:
                self.transport.close()

    router, router_protocol = await api.create_zmq_connection(
        lambda: Router(loop.create_future()), zmq.ROUTER, bind=ANY_PORT, loop=loop
    )
    dealer, dealer_protocol = await api.create_zmq_connection(
        lambda: Dealer(loop.create_future()),
        zmq.DEALER,
        connect=next(iter(router.bindings())),
        loop=loop,
    )
    with _measured() as result:
        dealer.write(MESSAGE)
        await dealer_protocol.closed
    router.close()
    await router_protocol.closed
    return result[0]


async def stream(api: Any, loop: asyncio.AbstractEventLoop, count: int) -> float:
    router = await api.create_zmq_stream(zmq.ROUTER, bind=ANY_PORT, loop=loop)
    dealer = await api.create_zmq_stream(
        zmq.DEALER, connect=next(iter(router.transport.bindings())), loop=loop
    )

    async def serve() -> None:
        try:
            while True:
                router.write(await router.read())
        except api.ZmqStreamClosed:
            pass

    server = loop.create_task(serve())
    with _measured() as result:
        for _ in range(count):
            dealer.write(MESSAGE)
            await dealer.read()
    dealer.close()
    try:
        await dealer.read()
    except api.ZmqStreamClosed:
        pass
    router.close()
    await server
    return result[0]


async def rpc(api: Any, loop: asyncio.AbstractEventLoop, count: int) -> float:
    module = importlib.import_module(f"{api.__name__}.rpc")

    class Handler(module.AttrHandler):  # type: ignore[misc, name-defined]
        @module.method  # type: ignore[untyped-decorator]
        def func(self, data: bytes) -> bytes:
            return data

    server = await module.serve_rpc(Handler(), bind=ANY_PORT, loop=loop)
    client = await module.connect_rpc(
        connect=next(iter(server.transport.bindings())), loop=loop
    )
    with _measured() as result:
        for _ in range(count):
            await client.call.func(PAYLOAD)
    for service in (server, client):
        service.close()
        await service.wait_closed()
    return result[0]


def new_loop(row: Row, api: Any) -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop
    if row.loop == "uvloop":
        loop = importlib.import_module("uvloop").new_event_loop()
    elif row.loop == "own":
        loop = api.ZmqEventLoop()
    elif row.loop == "native":
        loop = api.new_event_loop(zmq_engine="native")
    else:
        # Not asyncio.new_event_loop(): a policy may have been installed.
        loop = asyncio.SelectorEventLoop()
    return loop


def run(row: Row, count: int) -> float:
    """Seconds for ``count`` round trips of the row; everything is closed after."""
    if row.package is None:
        plain: Callable[[int], float] = globals()[row.id]
        return plain(count)
    api = importlib.import_module(row.package)
    work: Callable[..., Coroutine[Any, Any, float]] = globals()[row.api]
    loop = new_loop(row, api)
    try:
        asyncio.set_event_loop(None)
        return loop.run_until_complete(work(api, loop, count))
    finally:
        loop.close()

"""A user's program: test_types.py has mypy check it, strictly. It also runs."""

from __future__ import annotations

import asyncio
import selectors
import socket
import sys
from typing import assert_type

import zmq

import aiozmq_speedups
from aiozmq_speedups import (
    EpollSelector,
    Loop,
    ZmqProtocol,
    ZmqSelector,
    ZmqStream,
    ZmqTransport,
    create_zmq_connection,
    create_zmq_stream,
    new_event_loop,
    rpc,
)


class Collector(ZmqProtocol):
    def __init__(self) -> None:
        self.transport: ZmqTransport | None = None
        self.messages: asyncio.Queue[list[bytes]] = asyncio.Queue()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, ZmqTransport)
        self.transport = transport

    def connection_lost(self, exc: BaseException | None) -> None:
        self.transport = None

    def msg_received(self, data: list[bytes]) -> None:
        self.messages.put_nowait(data)

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


async def connections() -> None:
    router, collector = await create_zmq_connection(
        Collector, zmq.ROUTER, bind="tcp://127.0.0.1:*"
    )
    assert_type(router, ZmqTransport)
    assert_type(collector, Collector)
    endpoints: set[str] = set(router.bindings())
    dealer, _ = await create_zmq_connection(
        Collector, zmq.DEALER, connect=endpoints, loop=asyncio.get_running_loop()
    )
    dealer.write([b"hello", b"there"])
    identity, *rest = await collector.messages.get()
    assert rest == [b"hello", b"there"]
    router.set_write_buffer_limits(high=1000, low=10)
    size: int = router.get_write_buffer_size()
    assert size == 0
    router.setsockopt(zmq.LINGER, 0)
    router.pause_reading()
    router.resume_reading()
    sock: object = router.get_extra_info("zmq_socket", None)
    assert sock is not None
    endpoint: str = await router.bind("tcp://127.0.0.1:*")
    await router.unbind(endpoint)
    dealer.abort()
    router.close()


async def streams() -> None:
    server: ZmqStream = await create_zmq_stream(zmq.REP, bind="tcp://127.0.0.1:*")
    assert server.transport is not None
    (endpoint,) = server.transport.bindings()
    client = await create_zmq_stream(zmq.REQ, connect=endpoint)
    client.write([b"question"])
    await client.drain()
    question: list[bytes] = await server.read()
    server.write([*question, b"answer"])
    assert await client.read() == [b"question", b"answer"]
    client.close()
    server.close()
    ended: bool = client.at_closing()
    assert isinstance(ended, bool)


class Handler(rpc.AttrHandler):
    @rpc.method
    def add(self, a: int, b: int) -> int:
        return a + b

    @rpc.method
    async def slow(self) -> str:
        return "slow"


async def calls() -> None:
    service: rpc.Service = await rpc.serve_rpc(Handler(), bind="tcp://127.0.0.1:*")
    (endpoint,) = service.transport.bindings()
    client = await rpc.connect_rpc(connect=endpoint, timeout=10)
    assert await client.call.add(1, b=2) == 3
    assert await client.with_timeout(5).call.slow() == "slow"
    try:
        await client.call.missing()
    except rpc.NotFoundError as exc:
        assert "missing" in str(exc)
    for running in client, service:
        running.close()
        await running.wait_closed()


async def loops() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    assert loop.stats()["transports"] >= 0
    transport, collector = await loop.create_zmq_connection(Collector, zmq.DEALER)
    assert_type(collector, Collector)
    transport.close()
    handle: asyncio.Handle = loop.call_soon(str.upper, "soon")
    handle.cancel()
    timer: asyncio.TimerHandle = loop.call_later(1, str.upper, "later")
    timer.cancel()
    a, b = socket.socketpair()
    with a, b:
        for end in a, b:
            end.setblocking(False)
        await loop.sock_sendall(a, b"x")
        data: bytes = await loop.sock_recv(b, 10)
        assert data == b"x"


def selecting() -> None:
    a, b = socket.socketpair()
    with a, b, EpollSelector() as selector:
        key: selectors.SelectorKey = selector.register(a, selectors.EVENT_READ)
        assert key.fd == a.fileno()
        ready: list[tuple[selectors.SelectorKey, int]] = selector.select(0)
        assert len(ready) <= 1
    with ZmqSelector() as zmq_selector, zmq.Context() as context:
        with context.socket(zmq.PAIR) as pair:
            zmq_selector.register(pair, selectors.EVENT_READ)
            zmq_selector.unregister(pair)


async def main() -> int:
    await connections()
    await streams()
    await calls()
    await loops()
    return 0


def run() -> int:
    selecting()
    loop: Loop = new_event_loop()
    status = assert_type(loop.run_until_complete(main()), int)
    loop.close()
    version: str = aiozmq_speedups.version
    assert version
    return status or aiozmq_speedups.run(main(), debug=False)


if __name__ == "__main__":
    sys.exit(run())

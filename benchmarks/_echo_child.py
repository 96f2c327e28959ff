"""The Python side of echo.py: an echo server, or a client that only connects.

    _echo_child.py serve LOOP FAMILY STYLE ADDRESS [CERTIFICATE KEY]
    _echo_child.py connect LOOP HOST PORT CONNECTIONS SECONDS

The server prints ``{"address": "tcp:127.0.0.1:..."}`` when it listens; both run
until their standard input ends, and the client prints its rate.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import sys
import threading
import time
from pathlib import Path
from typing import Any

if not __package__:
    # A script's own folder comes first, and http.py in it would hide http.
    _here = Path(__file__).resolve().parent
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != _here]
    sys.path.insert(0, str(_here.parent))

from benchmarks import _loops

READ_SIZE = 100 * 1024
"""What the coroutines ask for at a time: the biggest message in one piece."""

BACKLOG = 1024
WARM_UP_SECONDS = 0.1

# glibc maps an allocation beyond 128 KiB afresh, at 20 us a time, until a bigger
# one has been freed (mallopt(3), M_MMAP_THRESHOLD). asyncio and others receive
# into 256 KiB; a program that has run for a while is past that, so these are too.
del bytearray(1 << 20)[:]

_shared = bytearray(256 * 1024)
_shared_view = memoryview(_shared)


def answer(**values: Any) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


# --- the ways to write an echo server ------------------------------------------


class EchoProtocol(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class EchoBufferedProtocol(asyncio.BufferedProtocol):
    """Every connection reads into the same buffer: it is used up at once."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> bytearray:
        return _shared

    def buffer_updated(self, nbytes: int) -> None:
        # A copy, since the transport may have to keep it.
        self.transport.write(bytes(_shared_view[:nbytes]))


class EchoDatagramProtocol(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(data, addr)


async def echo_streams(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        while data := await reader.read(READ_SIZE):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()


async def echo_sock(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    with sock:
        try:
            while data := await loop.sock_recv(sock, READ_SIZE):
                await loop.sock_sendall(sock, data)
        except ConnectionError:
            pass


async def accept_sock(loop: asyncio.AbstractEventLoop, listener: socket.socket) -> None:
    tasks = set()
    while True:
        sock, _ = await loop.sock_accept(listener)
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = loop.create_task(echo_sock(loop, sock))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


# --- serving -------------------------------------------------------------------


def bind(family: str, address: str) -> tuple[socket.socket, str]:
    """A bound socket and its address as the C programs write it."""
    if family == "unix":
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(address)
        name = f"unix:{address}"
    elif family == "udp":
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.bind((address, 0))
        name = f"udp:{address}:{sock.getsockname()[1]}"
    else:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        sock.bind((address, 0))
        name = f"tcp:{address}:{sock.getsockname()[1]}"
    sock.setblocking(False)
    return sock, name


async def serve(family: str, style: str, address: str, *pem: str) -> None:
    loop = asyncio.get_running_loop()
    sock, name = bind(family, address)
    options: dict[str, Any] = {"sock": sock, "backlog": BACKLOG}
    if family == "tls":
        options["ssl"] = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        options["ssl"].load_cert_chain(*pem)
    if family == "udp":
        await loop.create_datagram_endpoint(EchoDatagramProtocol, sock=sock)
    elif style == "streams":
        start = asyncio.start_unix_server if family == "unix" else asyncio.start_server
        await start(echo_streams, **options)
    elif style == "sock":
        sock.listen(BACKLOG)
        answer(address=name)
        await accept_sock(loop, sock)
    else:
        protocol = EchoProtocol if style == "protocol" else EchoBufferedProtocol
        create = loop.create_unix_server if family == "unix" else loop.create_server
        await create(protocol, **options)
    answer(address=name)
    await loop.create_future()


# --- connecting ----------------------------------------------------------------


class OneConnection(asyncio.Protocol):
    def __init__(self) -> None:
        self.closed = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)


async def connect(host: str, port: str, connections: str, seconds: str) -> None:
    """Opens and closes connections, several at a time; prints how many a second."""
    loop = asyncio.get_running_loop()
    count = 0
    stop = False

    async def repeat() -> None:
        nonlocal count
        while not stop:
            transport, protocol = await loop.create_connection(
                OneConnection, host, int(port)
            )
            transport.close()
            await protocol.closed
            count += 1

    tasks = [loop.create_task(repeat()) for _ in range(int(connections))]
    await asyncio.sleep(WARM_UP_SECONDS)
    start, before = time.perf_counter(), count
    cpu = time.thread_time()
    await asyncio.wait(tasks, timeout=float(seconds))
    elapsed, done = time.perf_counter() - start, count - before
    cpu = time.thread_time() - cpu
    stop = True
    await asyncio.gather(*tasks)
    answer(
        messages=done,
        seconds=elapsed,
        per_second=done / elapsed,
        server_cpu_us=cpu / max(done, 1) * 1e6,
    )


def main(job: str, loop_name: str, *arguments: str) -> int:
    # This thread only waits in read() without the GIL, so it costs nothing; it
    # leaves at once, since some loops cannot be stopped in every state.
    threading.Thread(
        target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True
    ).start()
    loop = _loops.ALL[loop_name].create()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete((serve if job == "serve" else connect)(*arguments))
    except NotImplementedError as exc:
        answer(error=f"not implemented{f': {exc}' if str(exc) else ''}")
    except Exception as exc:
        answer(error=f"{type(exc).__name__}: {exc}")
    # The parent reads the answer first: some loops crash on the way out.
    threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

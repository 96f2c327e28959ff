"""Loops in threads that share nothing but the process, all at work at once.

What one of them does must not meet the others': with a GIL nothing of it can, without
one ThreadSanitizer sees what does (`make tsan`). AZS_STRESS=100 makes each as long.
"""

import asyncio
import contextlib
import socket
import sys
import threading

import pytest
import zmq
from certificate import tls  # noqa: F401
from threads import LONG, in_threads

from aiozmq_speedups import Loop, ZmqProtocol, _ext, create_zmq_connection, rpc
from aiozmq_speedups._loop import tls as tls_choice

THREADS = 4
ANY_PORT = "tcp://127.0.0.1:*"
SERVER, ALICE = zmq.curve_keypair(), zmq.curve_keypair()

pytestmark = [
    pytest.mark.skipif(_ext.core is None, reason="the C extension was not built"),
    pytest.mark.timeout(300 + 60 * LONG),
]


class Inbox(ZmqProtocol):
    def __init__(self):
        self.messages = asyncio.Queue()
        self.lost = asyncio.get_running_loop().create_future()

    def msg_received(self, data):
        self.messages.put_nowait(data)

    def connection_lost(self, exc):
        self.lost.set_result(exc)


@contextlib.asynccontextmanager
async def pair(binds, connects, server=None, client=None):
    opened = []
    try:
        for zmq_type, options in ((binds, server or {}), (connects, client or {})):
            place = {"connect": opened[0].bindings()} if opened else {"bind": ANY_PORT}
            transport, _ = await create_zmq_connection(
                Inbox, zmq_type, **place, linger=0, **options
            )
            opened.append(transport)
        yield opened
    finally:
        for transport in opened:
            protocol = transport.get_protocol()
            transport.abort()
            await protocol.lost


async def get(transport):
    return await transport.get_protocol().messages.get()


# ---- what each loop does ----


async def push_and_pull():
    async with pair(zmq.PULL, zmq.PUSH) as (pull, push):
        for i in range(50):
            push.write([b"%d" % i, bytes(i * 100)])
        for i in range(50):
            assert await get(pull) == [b"%d" % i, bytes(i * 100)]


async def ask_and_answer():
    async with pair(zmq.ROUTER, zmq.DEALER) as (router, dealer):
        for i in range(20):
            dealer.write([b"question", b"%d" % i])
            name, *question = await get(router)
            router.write([name, *question, b"answer"])
            assert await get(dealer) == [b"question", b"%d" % i, b"answer"]


async def publish():
    async with pair(zmq.XPUB, zmq.SUB) as (xpub, sub):
        for topic in (b"a", b"b"):
            sub.subscribe(topic)
            assert await get(xpub) == [b"\x01" + topic]
        for i in range(20):
            xpub.write([b"c", b"lost"])
            xpub.write([b"ab"[i % 2 :][:1], b"%d" % i])
            assert await get(sub) == [b"ab"[i % 2 :][:1], b"%d" % i]


async def curve():
    server = {
        "engine": "native",
        "authenticate": {ALICE[0]},
        "curve_server": True,
        "curve_secretkey": SERVER[1],
    }
    client = {"curve_secretkey": ALICE[1], "curve_serverkey": SERVER[0]}
    async with pair(zmq.PULL, zmq.PUSH, server, client) as (pull, push):
        for size in (0, 1, 1000, 100_000):
            push.write([bytes(size)])
            assert await get(pull) == [bytes(size)]


class Handler(rpc.AttrHandler):
    @rpc.method
    def add(self, a: int, b: int) -> int:
        return a + b

    @rpc.method
    async def later(self, values):
        await asyncio.sleep(0)
        return values


async def calls():
    service = await rpc.serve_rpc(Handler(), bind=ANY_PORT)
    client = await rpc.connect_rpc(connect=service.transport.bindings())
    for i in range(20):
        later = client.call.later({"i": (i, "x" * i)})
        assert await client.call.add(i, 1) == i + 1
        assert await later == {"i": (i, "x" * i)}
    for peer in (client, service):
        peer.close()
        await peer.wait_closed()


async def talk(ssl_of_server=None, ssl_of_client=None):
    async def echo(reader, writer):
        while size := int(await reader.readline() or b"0"):
            writer.write(await reader.readexactly(size))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=ssl_of_server)
    async with server:
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(), ssl=ssl_of_client
        )
        for size in (1, 1000, 200_000):
            writer.write(b"%d\n" % size + bytes(size))
            await writer.drain()
            assert await reader.readexactly(size) == bytes(size)
        writer.write(b"0\n")
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def sockets():
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        server.setblocking(False)
        client.setblocking(False)
        accepted = asyncio.create_task(loop.sock_accept(server))
        await loop.sock_connect(client, server.getsockname())
        peer, _ = await accepted
        with peer:
            for size in (1, 1000, 200_000):
                sent = asyncio.create_task(loop.sock_sendall(client, bytes(size)))
                while size:
                    size -= len(await loop.sock_recv(peer, size))
                await sent


async def processes():
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec("cat", stdin=pipe, stdout=pipe)
    assert await process.communicate(bytes(100_000)) == (bytes(100_000), None)
    assert process.returncode == 0


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self):
        self.received = asyncio.Queue()
        self.lost = asyncio.get_running_loop().create_future()

    def datagram_received(self, data, addr):
        self.received.put_nowait((data, addr))

    def connection_lost(self, exc):
        self.lost.set_result(exc)


async def datagrams():
    loop = asyncio.get_running_loop()
    address = ("127.0.0.1", 0)
    transport, protocol = await loop.create_datagram_endpoint(
        Datagrams, local_addr=address
    )
    own = transport.get_extra_info("sockname")
    for size in range(1, 1000, 50):  # asyncio of 3.11 sends no empty ones
        transport.sendto(bytes(size), own)
        assert await protocol.received.get() == (bytes(size), own)
    transport.close()
    await protocol.lost


async def executors():
    loop = asyncio.get_running_loop()
    for i in range(20):
        assert await loop.run_in_executor(None, pow, 2, i) == 2**i
        await asyncio.sleep(i / 10_000)
        loop.call_later(1000, print).cancel()


def jobs_with_tls(contexts):
    return (lambda: talk(contexts.server, contexts.client),)


# Before 3.14 asyncio changes the process's warnings for a moment there.
PROCESSES = (processes,) if sys.version_info >= (3, 14) else ()

JOBS = {
    "patterns": (push_and_pull, ask_and_answer, publish),
    "curve": (curve,),
    "rpc": (calls,),
    "streams": (talk,),
    "tls": (),
    "sockets": (sockets, datagrams),
    "processes": (*PROCESSES, executors),
    "everything": (push_and_pull, ask_and_answer, publish, curve, calls, talk)
    + (sockets, datagrams, *PROCESSES, executors),
}


# ---- the loops ----


def make_loop(i):
    """Each second one serves ZeroMQ and TLS by other means."""
    kind = "aiofastnet" if tls_choice.load()[0] is not None else "asyncio"
    engine, code = [("native", kind), ("libzmq", "asyncio")][i % 2]
    return Loop(zmq_engine=engine, tls=code)


@pytest.mark.parametrize("what", JOBS)
def test_each_at_its_work(what, request):
    jobs = JOBS[what]
    if what in ("tls", "everything"):
        jobs += jobs_with_tls(request.getfixturevalue("tls"))

    async def main():
        async with asyncio.timeout(100):
            await asyncio.gather(*(job() for job in jobs))

    def run(i):
        for _ in range(2 * LONG):
            with asyncio.Runner(loop_factory=lambda: make_loop(i)) as runner:
                runner.run(main())

    in_threads(*(lambda i=i: run(i) for i in range(THREADS)))


def test_they_call_each_other():
    """Round a ring, by call_soon_threadsafe() and by coroutines sent over."""
    loops = [None] * THREADS
    ready = threading.Barrier(THREADS, timeout=100)
    over = threading.Barrier(THREADS, timeout=100)
    rounds = 50 * LONG

    async def double(i, number):
        assert asyncio.get_running_loop() is loops[i]
        await asyncio.sleep(0)
        return 2 * number

    async def main(i):
        loops[i] = loop = asyncio.get_running_loop()
        await asyncio.to_thread(ready.wait)
        there = (i + 1) % THREADS
        for number in range(rounds):
            future = asyncio.run_coroutine_threadsafe(
                double(there, number), loops[there]
            )
            assert await asyncio.wrap_future(future) == 2 * number
            heard = asyncio.Event()
            loops[there].call_soon_threadsafe(loop.call_soon_threadsafe, heard.set)
            await heard.wait()
        await asyncio.to_thread(over.wait)

    def run(i):
        with asyncio.Runner(loop_factory=lambda: make_loop(i)) as runner:
            runner.run(asyncio.wait_for(main(i), 100))

    in_threads(*(lambda i=i: run(i) for i in range(THREADS)))


def test_loops_made_and_closed_without_a_turn():
    def run(i):
        for _ in range(50 * LONG):
            loop = make_loop(i)
            loop.call_later(1000, print)
            loop.call_soon(print)
            loop.close()
            assert loop.is_closed()

    in_threads(*(lambda i=i: run(i) for i in range(THREADS)))

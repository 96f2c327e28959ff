"""What the collector ends in another thread than the loop's, with and without a GIL.

It may run in any thread, an executor's say. What nobody refers to any more ends there
without an error, and its loop cleans up after it.
"""

import asyncio
import contextlib
import gc
import inspect
import socket
import threading
import weakref

import pytest
from threads import LONG, in_threads

from aiozmq_speedups import zmq_asyncio
from aiozmq_speedups._ext import core

zmq = pytest.importorskip("zmq")

pytestmark = [
    pytest.mark.loops("speedups", "asyncio"),
    pytest.mark.timeout(300 + 60 * LONG),
    pytest.mark.skipif(core is None, reason="the C extension was not built"),
    pytest.mark.filterwarnings("ignore:.*nclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:.*is closed with .* message:RuntimeWarning"),
]


@pytest.fixture(autouse=True)
def nobody_else_collects():
    gc.disable()
    yield
    gc.enable()


async def in_a_thread(function):
    """With a turn for what that hands on, behind what is ready now: the thread may be
    faster than the await."""
    await asyncio.to_thread(function)
    for _ in range(2):
        await asyncio.sleep(0)


async def collect():
    await in_a_thread(gc.collect)


async def while_it_sleeps(awaited):
    """What `awaited` gives after another thread has collected: nothing else wakes the
    loop."""
    loop = asyncio.get_running_loop()
    begun = threading.Event()

    def work():
        assert begun.wait(100)
        gc.collect()

    slept_on = []
    alarm = loop.call_later(100, slept_on.append, True)
    thread = threading.Thread(target=work)
    thread.start()
    try:
        loop.call_soon(loop.call_soon, begun.set)
        result = await asyncio.wait_for(awaited, 200)
        await asyncio.sleep(0)  # the alarm comes behind what was ready before
        assert not slept_on
        return result
    finally:
        alarm.cancel()
        thread.join(100)


def in_a_cycle(thing):
    cycle = [thing]
    cycle.append(cycle)


class Forgotten:
    """Coroutines that are stepped by hand and end in cycles; `ended` has by what."""

    def __init__(self):
        self.ended = []

    async def _pass_on(self, awaitable, cycle):
        try:
            await awaitable
        except BaseException as exc:
            self.ended.append(type(exc))
            raise

    def step(self, awaitable):
        cycle = []
        cycle.append(self._pass_on(awaitable, cycle))
        with contextlib.suppress(StopIteration):
            cycle[0].send(None)


@contextlib.contextmanager
def asyncio_pair():
    """Two DEALERs of zmq_asyncio."""
    context = zmq_asyncio.Context()
    a, b = context.socket(zmq.DEALER), context.socket(zmq.DEALER)
    try:
        a.bind("tcp://127.0.0.1:*")
        b.connect(a.get(zmq.LAST_ENDPOINT).rstrip(b"\0").decode())
        yield a, b
    finally:
        context.destroy(linger=0)


# ---- coroutines ----

OPERATIONS = {
    "sock_recv": lambda loop, sock: loop.sock_recv(sock, 1),
    "sock_recv_into": lambda loop, sock: loop.sock_recv_into(sock, bytearray(1)),
    "sock_recvfrom": lambda loop, sock: loop.sock_recvfrom(sock, 1),
    "sock_sendall": lambda loop, sock: loop.sock_sendall(sock, bytes(10_000_000)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_on_a_socket(name, loop, pair):
    a, b = pair
    forgotten = Forgotten()

    async def main():
        forgotten.step(OPERATIONS[name](loop, a))
        await collect()
        assert forgotten.ended == [GeneratorExit]
        if name != "sock_sendall":
            await loop.sock_sendall(b, b"x")
            assert await asyncio.wait_for(loop.sock_recv(a, 1), 100) == b"x"

    loop.run_until_complete(main())


def test_an_operation_that_awaits_another(loop):
    """sock_connect(), while the host is looked up."""
    forgotten = Forgotten()
    looked_up = []

    async def getaddrinfo(*args, **kwargs):
        try:
            await loop.create_future()
        except GeneratorExit:
            looked_up.append(True)
            raise

    async def main():
        with socket.socket() as sock:
            sock.setblocking(False)
            forgotten.step(loop.sock_connect(sock, ("a.host", 1)))
            await collect()
        assert forgotten.ended == [GeneratorExit]
        assert looked_up == [True]

    loop.getaddrinfo = getaddrinfo
    loop.run_until_complete(main())


@pytest.mark.parametrize("step", [1, 2])
def test_a_connection_that_is_made(step, loop):
    """Before it is there, and when the transport is that nobody was given."""
    forgotten = Forgotten()
    lost = []

    class Client(asyncio.Protocol):
        def connection_lost(self, exc):
            lost.append(exc)

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as server:
            forgotten.step(loop.create_connection(Client, *server.getsockname()))
            await asyncio.sleep(0)
            await collect()
            assert forgotten.ended == [GeneratorExit]
            conn, _ = server.accept()
            conn.setblocking(False)
            with conn:
                assert await asyncio.wait_for(loop.sock_recv(conn, 1), 100) == b""

    loop.run_until_complete(main())


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("method", ["read", "readline", "readexactly"])
def test_a_read_of_a_stream(method, direct, loop, pair):
    """The next coroutine may read."""
    a, b = pair
    forgotten = Forgotten()

    async def main():
        reader, writer = await asyncio.open_connection(sock=a)
        args = () if method == "readline" else (2,)
        if direct:
            coro = getattr(reader, method)(*args)
            coro.send(None)
            in_a_cycle(coro)
            del coro
        else:
            forgotten.step(getattr(reader, method)(*args))
        await collect()
        await loop.sock_sendall(b, b"x\n")
        assert await asyncio.wait_for(reader.readline(), 100) == b"x\n"
        writer.close()
        await writer.wait_closed()

    loop.run_until_complete(main())


@pytest.mark.loops("speedups")
def test_a_coroutine_that_another_thread_closes(loop, pair):
    a, b = pair

    async def main():
        coro = loop.sock_recv(a, 1)
        coro.send(None)
        await in_a_thread(coro.close)
        assert inspect.getcoroutinestate(coro) == "CORO_CLOSED"
        await asyncio.to_thread(loop.sock_recv(a, 1).close)  # it has not begun
        await loop.sock_sendall(b, b"x")
        assert await asyncio.wait_for(loop.sock_recv(a, 1), 100) == b"x"

    loop.run_until_complete(main())


# ---- sockets of zmq_asyncio ----


def test_an_await_of_a_message(loop):
    """The coroutine ends as ever, and the socket goes on."""
    forgotten = Forgotten()

    async def main():
        with asyncio_pair() as (a, b):
            forgotten.step(a.recv())
            await collect()
            assert forgotten.ended == [GeneratorExit]
            await b.send(b"1")
            assert await asyncio.wait_for(a.recv(), 100) == b"1"

    loop.run_until_complete(main())


def test_an_iterator_of_an_await(loop):
    """The operation is somebody's still."""

    async def main():
        with asyncio_pair() as (a, b):
            received = a.recv()
            iterator = received.__await__()
            next(iterator)
            in_a_cycle(iterator)
            del iterator
            await collect()
            await b.send(b"1")
            assert await asyncio.wait_for(received, 100) == b"1"

    loop.run_until_complete(main())


def test_an_iterator_whose_message_has_come(loop):
    """The operation has it still."""

    async def main():
        with asyncio_pair() as (a, b):
            future = a.recv()
            waits = [future.__await__()]
            next(waits[0])
            await b.send(b"1")
            while not future.done():
                await asyncio.sleep(0)
            await asyncio.to_thread(waits.clear)
            await asyncio.sleep(0)
            assert await asyncio.wait_for(future, 60) == b"1"

    loop.run_until_complete(main())


def test_a_message_that_nobody_took(loop):
    """It goes back, and who waits for one gets it."""

    async def main():
        with asyncio_pair() as (a, b):
            for i in range(3):
                await b.send(b"%d" % i)
                future = a.recv()
                await asyncio.wait([future])
                in_a_cycle(future)
                del future
                if i == 0:
                    await collect()
                    assert await asyncio.wait_for(a.recv(), 100) == b"0"
                else:
                    assert await while_it_sleeps(a.recv()) == b"%d" % i

    loop.run_until_complete(main())


def test_a_message_whose_coroutine_is_forgotten(loop):
    forgotten = Forgotten()

    async def main():
        with asyncio_pair() as (a, b):
            received = a.recv()
            forgotten.step(received)
            await b.send(b"1")
            await asyncio.wait([received])
            del received
            assert await while_it_sleeps(a.recv()) == b"1"
            assert forgotten.ended == [GeneratorExit]

    loop.run_until_complete(main())


def test_a_socket(loop):
    async def main():
        with asyncio_pair() as (a, _):
            sock = a.context.socket(zmq.DEALER)
            sock.recv().cancel()
            collected = weakref.ref(sock)
            in_a_cycle(sock)
            del sock
            await collect()
            async with asyncio.timeout(100):
                while collected() is not None:
                    await asyncio.sleep(0)

    loop.run_until_complete(main())


# ---- transports ----


@pytest.mark.loops("speedups")  # asyncio's loop sleeps on, with a GIL
def test_a_writer(loop, pair):
    """The loop closes its connection, as where its own thread collects it."""

    async def main():
        a, b = pair
        a.settimeout(100)
        in_a_cycle(await asyncio.open_connection(sock=b))
        ended = loop.create_future()

        def wait_for_the_end():
            loop.call_soon_threadsafe(ended.set_result, a.recv(1))

        thread = threading.Thread(target=wait_for_the_end)
        thread.start()
        assert await while_it_sleeps(ended) == b""
        thread.join(100)

    loop.run_until_complete(main())


@pytest.mark.loops("speedups")  # asyncio's loop sleeps on, with a GIL
def test_the_last_connection_of_a_server(loop):
    """Its end ends the wait for that of the server."""
    made = []

    class Forgettable(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport
            transport.pause_reading()
            made.append(weakref.ref(transport))

    async def main():
        server = await loop.create_server(Forgettable, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()):
            while not made:
                await asyncio.sleep(0)
            server.close()
            await while_it_sleeps(server.wait_closed())
            async with asyncio.timeout(100):
                while made[0]() is not None:  # Python 3.15: until it is freed
                    await collect()

    loop.run_until_complete(main())


# ---- all of it at once ----


async def forget(loop, a, b, sockets):
    """One of each, some of which come to their end and some do not."""
    forgotten = Forgotten()
    c, d = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=c)
    forgotten.step(reader.read(1))
    coro = reader.readline()
    in_a_cycle(coro)
    coro.close()
    d.sendall(b"x")
    writer.transport.pause_reading()
    in_a_cycle((reader, writer.transport))
    for sock in (a, b):
        sock.setblocking(False)
        forgotten.step(loop.sock_recv(sock, 1))
    first, second = sockets
    await first.send(b"1")
    forgotten.step(second.recv())
    future = second.recv()
    in_a_cycle(future)
    iterator = second.recv().__await__()
    next(iterator, None)
    in_a_cycle(iterator)
    await asyncio.sleep(0)
    d.close()


@pytest.mark.loops("speedups")
def test_while_loops_come_and_go(make_loop):
    """Nothing is left: neither descriptors nor objects."""
    running = [True, True]

    def work():
        while any(running):
            gc.collect()

    def run(i):
        try:
            for _ in range(10 * LONG):
                loop = make_loop()
                with asyncio_pair() as sockets:
                    a, b = socket.socketpair()
                    with a, b:
                        for _ in range(3):
                            loop.run_until_complete(forget(loop, a, b, sockets))
                        loop.close()
        finally:
            running[i] = False

    in_threads(work, lambda: run(0), lambda: run(1))

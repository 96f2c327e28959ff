"""Objects that are used again, in loops that threads hand on, and dropped by others.

The same programs on asyncio's loop. AZS_STRESS=100 makes each as many times as long.
"""

import asyncio
import gc
import queue
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import zmq
from threads import LONG, in_threads

from aiozmq_speedups import Loop, zmq_asyncio

pytestmark = [
    pytest.mark.loops("speedups", "asyncio", closed_at_once=True),
    pytest.mark.timeout(60 + 60 * LONG),
]


def in_thread(function, *args):
    """One that ends with it: what it made is owned by no living thread then."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *args).result()


def pair():
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    return a, b


async def waits_of_sockets(loop, count, made):
    """Each waits, so that it has a waiter; `made` gets all of them."""
    a, b = pair()
    with a, b:
        for n in range(count):
            coro = loop.sock_recv(b, 1)
            made(coro)
            task = loop.create_task(coro)
            await asyncio.sleep(0)
            made(coro.cr_await)
            if n % 8 == 0:
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await loop.sock_sendall(a, b"x")
            assert await (loop.sock_recv(b, 1) if n % 8 == 0 else task) == b"x"


async def waits_of_streams(loop, count, made):
    a, b = pair()
    reader, writer = await asyncio.open_connection(sock=a)
    for _ in range(count):
        coro = reader.readexactly(1)
        made(coro)
        task = loop.create_task(coro)
        await asyncio.sleep(0)
        made(coro.cr_await)
        await loop.sock_sendall(b, b"x")
        assert await task == b"x"
        writer.write(b"y")
        await writer.drain()
        assert await loop.sock_recv(b, 1) == b"y"
    writer.close()
    await writer.wait_closed()
    b.close()


async def waits_of_zmq(loop, count, made):
    with zmq_asyncio.Context() as context:
        a, b = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        a.bind("inproc://here")
        b.connect("inproc://here")
        with a, b:
            for _ in range(count):
                received = b.recv()
                sent = a.send(b"x")
                made(received)
                made(sent)
                await sent
                assert await received == b"x"


class Shown:
    """The latest objects of a loop's thread, for others to look at.

    Without a GIL an object dies in the thread that made it, unless that has let go of
    it while another thread has a reference of its own: from here.
    """

    def __init__(self, tell):
        self.latest = []
        self.tell = tell

    def made(self, one):
        self.latest.append(one)
        if len(self.latest) == 40:
            del self.latest[:20]
            self.tell()


WAITS = [waits_of_sockets, waits_of_streams, waits_of_zmq]


@pytest.mark.parametrize("waits", WAITS)
def test_a_loop_that_threads_hand_on(loop, waits):
    """What one has made the next ones use again, and let go of."""
    kept = []

    def work():
        loop.run_until_complete(waits(loop, 20, kept.append))
        del kept[::2]

    for _ in range(5 * LONG):
        in_thread(work)
        work()


def test_a_wait_that_ends_in_the_next_thread(loop):
    a, b = pair()
    with a, b:
        for _ in range(50 * LONG):
            task = in_thread(loop.create_task, loop.sock_recv(b, 1))
            in_thread(loop.run_until_complete, asyncio.sleep(0))
            in_thread(a.send, b"x")
            assert in_thread(loop.run_until_complete, task) == b"x"


@pytest.mark.parametrize("waits", WAITS)
def test_dropped_in_another_thread(loop, waits):
    """While the loop makes more of them."""
    more = queue.SimpleQueue()
    shown = Shown(lambda: more.put(True))

    def hold_and_drop():
        while more.get():
            held = shown.latest[:]
        del held

    async def main():
        a, b = pair()
        with a, b:
            for _ in range(1000 * LONG):
                never = loop.sock_recv(a, 1)
                never.close()
                shown.made(never)
        await waits(loop, 300 * LONG, shown.made)

    with ThreadPoolExecutor(1) as pool:
        dropped = pool.submit(hold_and_drop)
        try:
            loop.run_until_complete(main())
        finally:
            more.put(False)
        dropped.result()
    shown.latest.clear()


@pytest.mark.parametrize("closer", ["its own thread", "another"])
def test_a_loop_ends_with_all_that_it_keeps(make_loop, closer):
    """More at a time than it keeps; some outlive the loop. The leak guard looks on."""
    kept = []

    async def many(loop):
        works = [waits(loop, 2, kept.append) for waits in WAITS[:2] for _ in range(200)]
        await asyncio.gather(*works)
        await waits_of_zmq(loop, 300, kept.append)

    def life():
        loop = make_loop()
        loop.run_until_complete(many(loop))
        if closer == "its own thread":
            loop.close()
        return loop

    loop = in_thread(life)
    loop.close()
    assert len(kept) > 1000
    del loop
    gc.collect()
    in_thread(kept.clear)


def test_loops_in_threads_keep_their_own(make_loop):
    """What one loop's thread has made dies in the turn of another loop."""
    shown = [Shown(None), Shown(None)]

    def run(me):
        loop = make_loop()
        held = []

        def hold_and_drop():
            held[:] = shown[1 - me].latest

        async def main():
            for waits in WAITS:
                await waits(loop, 300 * LONG, shown[me].made)

        shown[me].tell = hold_and_drop
        try:
            loop.run_until_complete(main())
        finally:
            loop.close()

    in_threads(lambda: run(0), lambda: run(1))


def test_others_look_at_what_is_used_again(loop):
    """A look from another thread may keep it alive for a moment."""
    if not isinstance(loop, Loop):
        pytest.skip("asyncio's Futures may not be touched by other threads")
    over = threading.Event()
    a, b = pair()
    reader = None

    def look():
        while not over.is_set():
            waiter = getattr(reader, "_waiter", None)  # and drops it
            del waiter

    async def main():
        nonlocal reader
        reader, writer = await asyncio.open_connection(sock=a)
        for _ in range(100 * LONG):
            task = loop.create_task(reader.readexactly(1))
            await asyncio.sleep(0)
            await loop.sock_sendall(b, b"x")
            assert await task == b"x"
        writer.close()

    with b, ThreadPoolExecutor(1) as pool:
        looked = pool.submit(look)
        try:
            loop.run_until_complete(main())
        finally:
            over.set()
        looked.result()
    reader = None

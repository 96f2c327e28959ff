"""Nothing is lost where sock_* are cancelled, or sockets go away under them."""

import asyncio
import errno
import gc
import os
import pathlib
import select
import socket
import weakref

import pytest
from sock_cases import CANCELLED, fill, pending, polls, turns

from aiozmq_speedups.loop import Loop


@pytest.mark.parametrize("delay", range(5))
def test_a_cancelled_recv_has_taken_nothing(loop, ours, pair, delay):
    """asyncio reads in the callback: a task cancelled right after loses that."""
    a, b = pair

    async def main():
        task = asyncio.create_task(loop.sock_recv(a, 100))
        await turns()
        b.send(b"abc")
        await turns(delay)
        if not task.done():
            task.cancel()
        try:
            got = await task
        except CANCELLED:
            got = await loop.sock_recv(a, 100)
        assert got == b"abc"

    loop.run_until_complete(main())


@pytest.mark.parametrize("seed", range(4))
def test_a_storm_of_cancelled_accepts_loses_no_connection(loop, ours, listener, seed):
    """asyncio accepts in the callback: python/cpython#153762."""
    count = 250

    async def main():
        address = listener.getsockname()
        clients = []
        accepted = []
        task = None
        for i in range(count):
            if task is None:
                task = asyncio.create_task(loop.sock_accept(listener))
            await turns((i + seed) % 3)
            client = socket.socket()
            clients.append(client)
            client.setblocking(False)
            client.connect_ex(address)
            await turns((i * 7 + seed) % 4)
            task.cancel()
            try:
                accepted.append(await task)
            except CANCELLED:
                pass
            task = None
        while len(accepted) < count:
            accepted.append(await asyncio.wait_for(loop.sock_accept(listener), 100))
        assert {address for _, address in accepted} == {
            client.getsockname() for client in clients
        }
        for sock, _ in accepted:
            sock.close()
        for client in clients:
            client.close()

    loop.run_until_complete(main())


def test_wait_for_that_times_out_leaves_the_data(loop, pair):
    a, b = pair

    async def main():
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(loop.sock_recv(a, 100), 0.001)
        b.send(b"abc")
        assert await asyncio.wait_for(loop.sock_recv(a, 100), 100) == b"abc"

    loop.run_until_complete(main())


def test_a_cancelled_sendall_stops(loop, pair):
    a, b = pair
    size = fill(a)

    async def main():
        task = asyncio.create_task(loop.sock_sendall(a, b"x" * 100_000))
        await turns()
        task.cancel()
        with pytest.raises(CANCELLED):
            await task
        got = 0
        while got < size:
            got += len(await loop.sock_recv(b, 65536))
        await loop.sock_sendall(a, b"abc")
        assert await loop.sock_recv(b, 100) == b"abc"

    loop.run_until_complete(main())


def test_tasks_pending_when_the_loop_closes(loop_kind):
    loop = Loop() if loop_kind == "speedups" else asyncio.SelectorEventLoop()
    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))
    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        fill(a)

        async def main():
            tasks = [
                asyncio.create_task(loop.sock_recv(a, 100)),
                asyncio.create_task(loop.sock_sendall(a, b"abc")),
            ]
            await turns()
            return tasks

        tasks = loop.run_until_complete(main())
        loop.close()
        for task in tasks:
            assert not task.done()
        coros = [task.get_coro() for task in tasks]
        del tasks, task
        gc.collect()
        for coro in coros:
            coro.close()


def test_a_socket_closed_while_it_is_waited_for(loop, pair):
    """As in asyncio the wait goes on for ever, and can be cancelled."""
    a, b = pair

    async def main():
        task = asyncio.create_task(loop.sock_recv(a, 100))
        await turns()
        a.close()
        b.close()
        await turns()
        task.cancel()
        with pytest.raises(CANCELLED):
            await task

    loop.run_until_complete(main())


def test_numbers_used_again(loop):
    """Sockets closed without a word, while waited for or not."""

    async def main():
        numbers = set()
        waiting = []
        for i in range(30):
            a, b = socket.socketpair()
            a.setblocking(False)
            numbers.add(a.fileno())
            for message in (b"one", b"two"):
                task = asyncio.create_task(loop.sock_recv(a, 100))
                await turns()
                b.send(message)
                assert await task == message
            # asyncio believes that the next socket of that number is registered.
            if i % 3 == 0 and isinstance(loop, Loop):
                waiting.append(asyncio.create_task(loop.sock_recv(a, 100)))
                await turns()
            a.close()
            b.close()
        assert len(numbers) < 20
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    loop.run_until_complete(main())


def test_a_duplicate_keeps_the_file_open(loop, pair):
    """The registration outlives the socket, and its number is used again."""
    a, b = pair

    async def main():
        task = asyncio.create_task(loop.sock_recv(a, 100))
        await turns()
        b.send(b"abc")
        assert await task == b"abc"
        number = a.fileno()
        with a.dup():
            a.close()
            c, d = socket.socketpair()
            with c, d:
                assert number in (c.fileno(), d.fileno())
                if d.fileno() == number:
                    c, d = d, c
                c.setblocking(False)
                task = asyncio.create_task(loop.sock_recv(c, 100))
                await turns()
                for _ in range(20):
                    b.send(b"to the duplicate")
                    await turns()
                assert not task.done()
                d.send(b"def")
                assert await task == b"def"

    loop.run_until_complete(main())


def registrations(fd):
    """The events for which `fd` is registered, in each epoll of this process."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}") != "anon_inode:[eventpoll]":
                continue
            info = pathlib.Path(f"/proc/self/fdinfo/{name}").read_text()
        except OSError:
            continue  # listdir's own
        for line in info.splitlines():
            words = line.split()
            if words[:2] == ["tfd:", str(fd)]:
                found.append(int(words[3], 16))
    return found


def test_an_unread_socket_does_not_keep_the_loop_busy(loop, ours, pair):
    """What is kept registered is edge-triggered, and goes where nobody waits."""
    a, b = pair

    async def main():
        task = asyncio.create_task(loop.sock_recv(a, 100))
        await turns()
        b.send(b"abc")
        assert await task == b"abc"
        (events,) = registrations(a.fileno())
        assert events & select.EPOLLET & 0xFFFFFFFF
        for _ in range(2):
            b.send(b"unread")
            await polls()
        assert registrations(a.fileno()) == []
        assert await loop.sock_recv(a, 100) == b"unread" * 2
        # It comes back.
        task = asyncio.create_task(loop.sock_recv(a, 100))
        await turns()
        b.send(b"def")
        assert await task == b"def"
        assert len(registrations(a.fileno())) == 1

    loop.run_until_complete(main())


def test_room_to_write_is_forgotten_where_nobody_waits(loop, ours):
    """A Unix socket would have an event for each message that its peer reads."""
    a, b = socket.socketpair()

    async def main():
        size = fill(a)
        task = asyncio.create_task(loop.sock_sendall(a, b"x" * 10))
        await pending(task)
        (events,) = registrations(a.fileno())
        assert events & select.EPOLLOUT
        left = size + 10
        while left:
            left -= len(await loop.sock_recv(b, 65536))
        await task
        await loop.sock_sendall(a, b"abc")
        assert await loop.sock_recv(b, 65536) == b"abc"
        await polls()
        assert not any(e & select.EPOLLOUT for e in registrations(a.fileno()))

    with a, b:
        a.setblocking(False)
        b.setblocking(False)
        loop.run_until_complete(main())


def test_a_descriptor_replaced_by_dup2(loop, pair):
    a, b = pair
    c, d = socket.socketpair()

    async def main():
        task = asyncio.create_task(loop.sock_recv(a, 100))
        await turns()
        b.send(b"abc")
        assert await task == b"abc"
        os.dup2(c.fileno(), a.fileno())
        task = asyncio.create_task(loop.sock_recv(a, 100))
        await turns()
        d.send(b"def")
        assert await task == b"def"

    with c, d:
        c.setblocking(False)
        loop.run_until_complete(main())


def test_a_socket_object_made_anew(loop, pair):
    a, b = pair

    async def main():
        task = asyncio.create_task(loop.sock_recv(a, 100))
        await turns()
        b.send(b"abc")
        assert await task == b"abc"
        c, d = socket.socketpair()
        with d:
            number = a.fileno()
            a.close()
            os.dup2(c.fileno(), number)
            c.close()
            a.__init__(fileno=number)
            a.setblocking(False)
            task = asyncio.create_task(loop.sock_recv(a, 100))
            await turns()
            d.send(b"def")
            assert await task == b"def"

    loop.run_until_complete(main())


def test_waiting_keeps_the_socket(loop):
    a, b = socket.socketpair()
    a.setblocking(False)
    ref = weakref.ref(a)

    async def main(a):
        task = asyncio.create_task(loop.sock_recv(a, 100))
        del a
        await turns()
        return task

    main = main(a)
    del a
    task = loop.run_until_complete(main)
    gc.collect()
    a = ref()
    b.send(b"abc")
    assert loop.run_until_complete(task) == b"abc"
    a.close()
    del a, task, main
    gc.collect()
    assert ref() is None
    b.close()


def test_a_closed_socket(loop):
    a = socket.socket()
    a.close()

    async def main():
        for coro in (
            loop.sock_recv(a, 10),
            loop.sock_recv_into(a, bytearray(10)),
            loop.sock_recvfrom(a, 10),
            loop.sock_recvfrom_into(a, bytearray(10)),
            loop.sock_sendall(a, b"abc"),
            loop.sock_sendto(a, b"abc", ("127.0.0.1", 9)),
            loop.sock_accept(a),
        ):
            with pytest.raises(OSError) as caught:
                await coro
            assert caught.value.errno == errno.EBADF

    loop.run_until_complete(main())

"""What the sock_* tests share."""

import asyncio
import socket

CANCELLED = asyncio.CancelledError


def tcp_pair():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        a = socket.create_connection(listener.getsockname())
        b = listener.accept()[0]
    return a, b


async def turns(n=3):
    for _ in range(n):
        await asyncio.sleep(0)


async def readable(sock):
    """Returns in the turn that a reader of the socket would run in."""
    loop = asyncio.get_running_loop()
    with sock.dup() as other:
        ready = loop.create_future()
        loop.add_reader(other, lambda: ready.done() or ready.set_result(None))
        try:
            await ready
        finally:
            loop.remove_reader(other)


async def polls(n=4):
    """Lets the loop ask the kernel `n` times: it does not do so every turn."""
    a, b = socket.socketpair()
    with a, b:
        b.setblocking(False)
        for _ in range(n):
            a.send(b"x")
            await readable(b)
            b.recv(1)


async def pending(task):
    await turns()
    assert not task.done()


def fill(sock):
    """Sends until it would block; the number of bytes."""
    sent = 0
    for size in (65536, 1024, 1):
        try:
            while True:
                sent += sock.send(bytes(size))
        except BlockingIOError:
            pass
    return sent

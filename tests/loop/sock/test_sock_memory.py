"""Every allocation of the sock_* operations fails once: MemoryError, no more."""

import asyncio
import socket

import pytest
from sock_cases import tcp_pair

testcapi = pytest.importorskip("_testcapi")


SWEEP = 60  # more allocations than any of the operations makes


def drive(coro):
    """The result, or None where it waits."""
    try:
        coro.send(None)
    except StopIteration as stop:
        return stop.value
    coro.close()
    return None


# Where there is no memory for StopIteration, an accepted socket is dropped.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("ready", [False, True])
@pytest.mark.parametrize(
    "name",
    ["recv", "recv big", "recv_into", "recvfrom", "recvfrom_into", "sendall"]
    + ["sendto", "accept", "connect"],
)
def test_the_nth_allocation_fails(loop, ours, name, ready):
    buf = bytearray(10)
    a, b = tcp_pair()
    u = socket.socket(type=socket.SOCK_DGRAM)
    u.bind(("127.0.0.1", 0))
    listener = socket.create_server(("127.0.0.1", 0), backlog=200)
    with a, b, u, listener:
        for sock in (a, b, u, listener):
            sock.setblocking(False)
        if not ready:
            try:
                while True:
                    a.send(bytes(65536))
            except BlockingIOError:
                pass
        address = u.getsockname()
        server = listener.getsockname()
        make = {
            "recv": lambda: loop.sock_recv(a, 10),
            "recv big": lambda: loop.sock_recv(a, 10**6),
            "recv_into": lambda: loop.sock_recv_into(a, buf),
            "recvfrom": lambda: loop.sock_recvfrom(u, 10),
            "recvfrom_into": lambda: loop.sock_recvfrom_into(u, buf),
            "sendall": lambda: loop.sock_sendall(a, b"abc"),
            "sendto": lambda: loop.sock_sendto(u, b"abc", address),
            "accept": lambda: loop.sock_accept(listener),
            "connect": lambda: loop.sock_connect(client, server),
        }[name]
        client = socket.socket()
        client.setblocking(False)
        drive(make())  # what is made once
        client.close()
        for n in range(SWEEP):
            client = socket.socket()
            client.setblocking(False)
            if ready:
                b.send(b"abc")
                u.sendto(b"abc", address)
                if name == "accept":
                    client.connect_ex(server)
            result = None
            testcapi.set_nomemory(n, n + 1)
            try:
                result = drive(make())
            except MemoryError:
                pass
            finally:
                testcapi.remove_mem_hooks()
            if name == "accept" and result:
                result[0].close()
            client.close()
        # It works still.
        if name == "recv":
            task = asyncio.ensure_future(make(), loop=loop)
            b.send(b"abc")
            assert loop.run_until_complete(task)

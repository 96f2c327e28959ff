"""sock_recvfrom, sock_recvfrom_into and sock_sendto, on asyncio and here."""

import asyncio
import socket

import pytest
from sockops_cases import pending, readable

pytestmark = pytest.mark.timeout(60)


def test_datagrams(loop, udp_pair):
    a, b = udp_pair

    async def main():
        buf = bytearray(10)
        for data in (b"abc", b"", b"x" * 1000):
            assert await loop.sock_sendto(a, data, b.getsockname()) == len(data)
            assert await loop.sock_recvfrom(b, 2000) == (data, a.getsockname())
        task = asyncio.create_task(loop.sock_recvfrom(b, 2))
        await pending(task)
        await loop.sock_sendto(a, b"abc", b.getsockname())
        assert await task == (b"ab", a.getsockname())
        task = asyncio.create_task(loop.sock_recvfrom_into(b, buf))
        await pending(task)
        await loop.sock_sendto(a, b"abc", b.getsockname())
        assert await task == (3, a.getsockname())
        assert buf == b"abc" + bytes(7)
        await loop.sock_sendto(a, b"def", b.getsockname())
        assert await loop.sock_recvfrom_into(b, buf, 2) == (2, a.getsockname())
        assert buf == b"dec" + bytes(7)
        # Two at once: one read does not tell about the other.
        task = asyncio.create_task(loop.sock_recv(b, 100))
        await pending(task)
        a.sendto(b"one", b.getsockname())
        a.sendto(b"two", b.getsockname())
        assert await task == b"one"
        assert await loop.sock_recv(b, 100) == b"two"

    loop.run_until_complete(main())


def test_datagrams_of_unix_sockets(loop, tmp_path):
    async def main():
        a, b = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
        with a, b:
            for sock, name in ((a, "a"), (b, "b")):
                sock.bind(str(tmp_path / name))
                sock.setblocking(False)
            path = b.getsockname()
            assert await loop.sock_sendto(a, b"abc", path) == 3
            assert await loop.sock_recvfrom(b, 100) == (b"abc", a.getsockname())
            sent = 0
            try:
                while True:
                    sent += a.sendto(b"x", path)
            except BlockingIOError:
                pass
            task = asyncio.create_task(loop.sock_sendto(a, b"last", path))
            await pending(task)
            for _ in range(sent):
                assert await loop.sock_recv(b, 10) == b"x"
            assert await task == 4
            assert await loop.sock_recv(b, 10) == b"last"

    loop.run_until_complete(main())


def test_no_peer_address_on_a_stream(loop, pair):
    a, b = pair

    async def main():
        b.send(b"abcdef")
        await readable(a)
        buf = bytearray(2)
        assert await loop.sock_recvfrom(a, 3) == (b"abc", None)
        assert await loop.sock_recvfrom_into(a, buf) == (2, None)

    if a.family == socket.AF_INET:
        loop.run_until_complete(main())

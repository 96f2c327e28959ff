"""sock_recvfrom, sock_recvfrom_into and sock_sendto, on asyncio and here."""

import array
import asyncio
import socket

import pytest
from sock_cases import pending, readable, turns


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


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 256 * 1024 + 1, 10**6])
def test_sizes(loop, udp_pair, size):
    a, b = udp_pair

    async def main():
        a.sendto(b"abc", b.getsockname())
        assert await loop.sock_recvfrom(b, size) == (b"abc"[:size], a.getsockname())

    loop.run_until_complete(main())


@pytest.mark.parametrize("nbytes", [0, 1, 2, 5])
@pytest.mark.parametrize("wrap", [bytearray, lambda n: memoryview(bytearray(n))])
def test_sizes_into(loop, udp_pair, wrap, nbytes):
    a, b = udp_pair

    async def main():
        for data in (b"abcdefgh", b"", b"ab"):
            buf = wrap(5)
            a.sendto(data, b.getsockname())
            expected = data[: nbytes or 5]
            got, address = await loop.sock_recvfrom_into(b, buf, nbytes)
            assert (got, address) == (len(expected), a.getsockname())
            assert bytes(buf) == expected + bytes(5 - len(expected))

    loop.run_until_complete(main())


def test_recvfrom_into_other_buffers(loop, udp_pair):
    """asyncio takes len(buf), a number of items, for the size."""
    a, b = udp_pair

    async def main():
        numbers = array.array("i", [0, 0])
        a.sendto(bytes([7, 7, 7]), b.getsockname())
        assert (await loop.sock_recvfrom_into(b, numbers))[0] == 2
        a.sendto(bytes([7, 7, 7]), b.getsockname())
        assert (await loop.sock_recvfrom_into(b, memoryview(numbers), 3))[0] == 3

    loop.run_until_complete(main())


def test_ipv6(loop):
    async def main():
        a, b = (socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(2))
        with a, b:
            try:
                b.bind(("::1", 0))
                a.bind(("::1", 0))
            except OSError:
                pytest.skip("no IPv6")
            a.setblocking(False)
            b.setblocking(False)
            for address in (b.getsockname(), b.getsockname()[:2]):
                await loop.sock_sendto(a, b"abc", address)
                assert await loop.sock_recvfrom(b, 10) == (b"abc", a.getsockname())

    loop.run_until_complete(main())


def test_names_and_other_forms_of_addresses(loop, udp_pair):
    a, b = udp_pair
    port = b.getsockname()[1]

    async def main():
        for host in ("localhost", b"127.0.0.1", bytearray(b"127.0.0.1")):
            assert await loop.sock_sendto(a, b"abc", (host, port)) == 3
            assert await loop.sock_recvfrom(b, 10) == (b"abc", a.getsockname())

    loop.run_until_complete(main())


def test_refused(loop, udp_pair):
    a, b = udp_pair
    address = b.getsockname()
    b.close()

    async def main():
        a.connect(address)
        await loop.sock_sendto(a, b"abc", address)
        with pytest.raises(ConnectionRefusedError):
            await loop.sock_recvfrom(a, 10)

    loop.run_until_complete(main())


def test_many_waiting(loop, udp_pair):
    a, b = udp_pair

    async def main():
        for i in range(100):
            task = asyncio.create_task(loop.sock_recvfrom(b, 10))
            await turns(i % 3)
            await loop.sock_sendto(a, b"%d" % i, b.getsockname())
            assert await task == (b"%d" % i, a.getsockname())

    loop.run_until_complete(main())

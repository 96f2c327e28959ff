"""sock_recv, sock_recv_into and sock_sendall: what they do, on asyncio and here."""

import array
import asyncio
import os
import socket
import sys

import pytest
from sock_cases import CANCELLED, fill, pending, readable, tcp_pair, turns


def test_recv_at_once_and_later(loop, pair):
    a, b = pair

    async def main():
        b.send(b"now")
        await readable(a)
        assert await loop.sock_recv(a, 100) == b"now"
        task = asyncio.create_task(loop.sock_recv(a, 100))
        await pending(task)
        b.send(b"later")
        assert await task == b"later"
        b.close()
        assert await loop.sock_recv(a, 100) == b""
        assert await loop.sock_recv(a, 100) == b""

    loop.run_until_complete(main())


def test_many_short_messages_with_every_timing(loop, pair):
    """A read that found all there was does not look again by itself."""
    a, b = pair

    async def reader():
        got = b""
        while not got.endswith(b"\n"):
            got += await loop.sock_recv(a, 100)
        return got

    async def main():
        task = asyncio.create_task(reader())
        expected = b""
        for i in range(400):
            for j in range(i % 4):
                message = b"%d.%d " % (i, j)
                expected += message
                b.send(message)
                await turns(i % 3)
            await turns(i % 5)
        b.send(b"\n")
        assert await task == expected + b"\n"

    loop.run_until_complete(main())


@pytest.mark.parametrize("how", ["close", "shutdown", "close before"])
def test_end_of_file_is_seen_after_a_short_read(loop, pair, how):
    a, b = pair

    async def main():
        task = asyncio.create_task(loop.sock_recv(a, 100))
        await turns()
        b.send(b"last")
        if how == "close before":
            b.close()
        assert await task == b"last"
        if how == "close":
            b.close()
        if how == "shutdown":
            b.shutdown(socket.SHUT_WR)
        assert await loop.sock_recv(a, 100) == b""

    loop.run_until_complete(main())


@pytest.mark.parametrize("when", ["before", "after"])
def test_reset_is_seen_after_a_short_read(loop, when):
    a, b = tcp_pair()

    async def main():
        task = asyncio.create_task(loop.sock_recv(a, 100))
        await turns()
        b.send(b"last")
        if when == "after":
            assert await task == b"last"
            task = asyncio.create_task(loop.sock_recv(a, 100))
            await turns()
        b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        b.close()
        with pytest.raises(ConnectionResetError):
            while await task:
                task = asyncio.create_task(loop.sock_recv(a, 100))

    with a, b:
        a.setblocking(False)
        loop.run_until_complete(main())


def test_urgent_data_does_not_hide_what_follows(loop):
    """recv(2) stops at the mark: that read is short, and yet there is more."""
    a, b = tcp_pair()

    async def main():
        task = asyncio.create_task(loop.sock_recv(a, 100))
        await turns()
        b.send(b"one")
        b.send(b"!", socket.MSG_OOB)
        b.send(b"two")
        got = await task
        while len(got) < 6:
            got += await loop.sock_recv(a, 100)
        assert got == b"onetwo"

    with a, b:
        a.setblocking(False)
        b.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop.run_until_complete(main())


def test_passed_descriptors_do_not_hide_what_follows(loop):
    """A read of a Unix socket ends at a message with descriptors."""
    a, b = socket.socketpair()

    async def main():
        task = asyncio.create_task(loop.sock_recv(a, 100))
        await turns()
        socket.send_fds(b, [b"one"], [b.fileno()])
        b.send(b"two")
        got = await task
        while len(got) < 6:
            got += await loop.sock_recv(a, 100)
        assert got == b"onetwo"

    with a, b:
        a.setblocking(False)
        loop.run_until_complete(main())


@pytest.mark.parametrize("size", [0, 1, 3, 100, 256 * 1024, 256 * 1024 + 1, 10**6])
def test_recv_sizes(loop, pair, size):
    a, b = pair

    async def main():
        b.send(b"abc")
        await readable(a)
        assert await loop.sock_recv(a, size) == b"abc"[:size]

    loop.run_until_complete(main())


def test_recv_into(loop, pair):
    a, b = pair
    buf = bytearray(4)

    async def main():
        b.send(b"abcdef")
        await readable(a)
        assert await loop.sock_recv_into(a, buf) == 4
        assert buf == b"abcd"
        assert await loop.sock_recv_into(a, memoryview(buf)[1:]) == 2
        assert buf == b"aefd"
        task = asyncio.create_task(loop.sock_recv_into(a, buf))
        await pending(task)
        buf.extend(b"....")  # is not held while it waits
        b.send(b"12345678")
        assert await task == 8
        assert buf == b"12345678"
        numbers = array.array("i", [0])
        b.send((7).to_bytes(4, sys.byteorder))
        await readable(a)
        assert await loop.sock_recv_into(a, bytearray()) == 0
        assert await loop.sock_recv_into(a, numbers) == 4
        assert numbers[0] == 7
        b.close()
        assert await loop.sock_recv_into(a, buf) == 0

    loop.run_until_complete(main())


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_sendall_more_than_the_kernel_takes(loop, pair, wrap):
    a, b = pair
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    payload = os.urandom(3_000_000)
    data = wrap(payload)

    async def slow_reader():
        got = bytearray()
        while len(got) < len(payload):
            got += await loop.sock_recv(b, 30_000)
            await asyncio.sleep(0)
        return got

    async def main():
        task = asyncio.create_task(loop.sock_sendall(a, data))
        await turns()
        assert not task.done()
        if wrap is bytearray:
            with pytest.raises(BufferError):
                data.append(0)
        assert await slow_reader() == payload
        assert await task is None
        if wrap is bytearray:
            data.append(0)

    loop.run_until_complete(main())


def test_sendall_of_nothing_and_of_other_items(loop, pair):
    a, b = pair

    async def main():
        assert await loop.sock_sendall(a, b"") is None
        assert await loop.sock_sendall(a, memoryview(b"abcdef")[1:3]) is None
        assert await loop.sock_recv(b, 100) == b"bc"

    loop.run_until_complete(main())


def test_sendall_counts_bytes_not_items(loop, pair, ours):
    """asyncio compares the bytes sent with len(data), and waits for ever."""
    a, b = pair

    async def main():
        await loop.sock_sendall(a, array.array("i", range(100)))
        assert len(await loop.sock_recv(b, 1000)) == 400

    loop.run_until_complete(main())


def test_reading_and_writing_wait_at_the_same_time(loop, pair):
    a, b = pair
    size = fill(a)

    async def main():
        read = asyncio.create_task(loop.sock_recv(a, 100))
        write = asyncio.create_task(loop.sock_sendall(a, b"x" * 100))
        await turns()
        assert not read.done() and not write.done()
        b.send(b"abc")
        assert await read == b"abc"
        assert not write.done()
        read = asyncio.create_task(loop.sock_recv(a, 100))
        left = size + 100
        while left:
            left -= len(await loop.sock_recv(b, 65536))
        await write
        b.send(b"def")
        assert await read == b"def"

    loop.run_until_complete(main())


def test_the_writer_waits_again_and_again(loop, pair):
    a, b = pair

    async def main():
        for _ in range(5):
            left = fill(a) + 10
            task = asyncio.create_task(loop.sock_sendall(a, b"x" * 10))
            await pending(task)
            while left:
                left -= len(await loop.sock_recv(b, 65536))
            await task

    loop.run_until_complete(main())


def test_a_second_reader_replaces_the_first(loop, pair):
    a, b = pair

    async def main():
        first = asyncio.create_task(loop.sock_recv(a, 100))
        await turns()
        second = asyncio.create_task(loop.sock_recv(a, 100))
        await turns()
        b.send(b"abc")
        assert await second == b"abc"
        await turns()
        assert not first.done()
        first.cancel()
        with pytest.raises(CANCELLED):
            await first
        third = asyncio.create_task(loop.sock_recv(a, 100))
        await turns()
        b.send(b"def")
        assert await third == b"def"

    loop.run_until_complete(main())


def test_cancelling_the_replaced_reader_leaves_the_second_alone(loop, pair):
    a, b = pair

    async def main():
        first = asyncio.create_task(loop.sock_recv(a, 100))
        await turns()
        second = asyncio.create_task(loop.sock_recv(a, 100))
        await turns()
        first.cancel()
        await turns()
        b.send(b"abc")
        assert await second == b"abc"

    loop.run_until_complete(main())


def test_add_reader_and_waits_replace_each_other(loop, pair):
    a, b = pair

    async def main():
        seen = loop.create_future()
        task = asyncio.create_task(loop.sock_recv(a, 100))
        await turns()
        loop.add_reader(a, lambda: seen.done() or seen.set_result(a.recv(100)))
        b.send(b"abc")
        assert await seen == b"abc"
        assert not task.done()
        task.cancel()
        # On asyncio, which goes by the number, that took the new reader away.
        task = asyncio.create_task(loop.sock_recv(a, 100))
        await turns()
        b.send(b"def")
        assert await task == b"def"
        assert not loop.remove_reader(a)
        task = asyncio.create_task(loop.sock_recv(a, 100))
        await turns()
        assert loop.remove_reader(a)
        b.send(b"ghi")
        await turns()
        assert not task.done()
        task.cancel()
        assert await loop.sock_recv(a, 100) == b"ghi"

    loop.run_until_complete(main())


def test_a_handle_of_the_other_direction(loop, pair):
    a, b = pair
    size = fill(a)

    async def main():
        writable = loop.create_future()
        loop.add_writer(a, lambda: writable.done() or writable.set_result(None))
        for message in (b"abc", b"def"):
            task = asyncio.create_task(loop.sock_recv(a, 100))
            await turns()
            b.send(message)
            assert await task == message
        assert not writable.done()
        left = size
        while left:
            left -= len(await loop.sock_recv(b, 65536))
        await writable
        task = asyncio.create_task(loop.sock_recv(a, 100))
        await turns()
        assert loop.remove_writer(a)
        b.send(b"ghi")
        assert await task == b"ghi"

    loop.run_until_complete(main())

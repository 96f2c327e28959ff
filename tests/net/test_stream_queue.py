"""What waits in a stream transport until the kernel takes it."""

import asyncio
import random
import socket

import pytest

pytestmark = pytest.mark.loops("speedups", "asyncio", closed_at_once=True)


class Writer(asyncio.Protocol):
    paused = False

    def pause_writing(self):
        self.paused = True

    def resume_writing(self):
        self.paused = False


class Reader(asyncio.Protocol):
    def __init__(self):
        self.chunks = []
        self.lost = asyncio.get_running_loop().create_future()

    def data_received(self, data):
        self.chunks.append(data)

    def connection_lost(self, exc):
        self.lost.set_result(b"".join(self.chunks))


async def connected():
    """A writing transport with little room in the kernel, its protocol, a reading
    transport and its protocol."""
    loop = asyncio.get_running_loop()
    a, b = socket.socketpair()
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1024)
    a.setblocking(False)
    b.setblocking(False)
    return (
        *await loop.create_connection(Writer, sock=a),
        *await loop.create_connection(Reader, sock=b),
    )


def test_a_queue_of_single_bytes_drains(loop):
    async def main():
        transport, writer, _, reader = await connected()
        transport.set_write_buffer_limits(high=8192, low=0)
        sent = turns = 0
        while not writer.paused:
            transport.write(b" ")
            sent += 1
        while writer.paused and turns < 200:
            transport.write(b" ")
            sent += 1
            await asyncio.sleep(0)
            turns += 1
        assert not writer.paused
        transport.close()
        assert await reader.lost == b" " * sent

    loop.run_until_complete(main())


def pieces(rnd):
    """Writes of all sizes and kinds."""
    for _ in range(rnd.randrange(60)):
        size = rnd.choice([1, 2, 10, 100, 1000, 1024, 1025, 3000, 4000, 9000])
        size = rnd.randrange(size) if rnd.random() < 0.5 else size
        data = rnd.randbytes(size)
        yield rnd.choice([bytes, bytes, bytearray, memoryview])(data)


@pytest.mark.parametrize("seed", range(8))
def test_the_order_is_kept(loop, seed):
    rnd = random.Random(seed)

    async def main():
        transport, _, reading, reader = await connected()
        reading.pause_reading()
        sent = bytearray()
        few = rnd.random()
        for piece in list(pieces(rnd)):
            if rnd.random() < 0.2:
                more = [piece] * rnd.randrange(10)
                transport.writelines(more)
                sent += bytes(piece) * len(more)
            else:
                transport.write(piece)
                sent += piece
            if rnd.random() < few:
                reading.resume_reading()
                await asyncio.sleep(0)
                reading.pause_reading()
        reading.resume_reading()
        transport.close()
        assert await reader.lost == sent

    loop.run_until_complete(main())

"""Pipe transports: the same behaviour on asyncio's loop and on ours."""

import asyncio
import os
import pty
import socket
import tty

import pytest
from recorder import Recorder
from waiting import until

from aiozmq_speedups.loop import Loop

pytestmark = pytest.mark.loops("speedups", "asyncio")


class Reader(Recorder):
    def connection_made(self, transport):
        super().connection_made(transport)
        self.events.append("made")


def ends(kind):
    """Two file objects: what is written into the second comes out of the first."""
    if kind == "fifo":
        r, w = os.pipe()
    else:
        a, b = socket.socketpair()
        r, w = a.detach(), b.detach()
    return open(r, "rb", 0), open(w, "wb", 0)


@pytest.mark.parametrize("kind", ["fifo", "socket"])
def test_from_one_end_to_the_other(loop, kind):
    async def main():
        r, w = ends(kind)
        reading, reader = await loop.connect_read_pipe(Reader, r)
        writing, writer = await loop.connect_write_pipe(Reader, w)
        assert isinstance(reading, asyncio.ReadTransport)
        assert isinstance(writing, asyncio.WriteTransport)
        assert reading.get_extra_info("pipe") is r
        assert writing.get_extra_info("pipe") is w
        big = os.urandom(1 << 20)
        writing.write(big)
        writing.write(bytearray(b"abc"))
        writing.writelines([b"d", memoryview(b"ef")])
        assert "pause" in writer.events
        await until(lambda: len(reader.data) == len(big) + 6)
        assert reader.data == big + b"abcdef"
        await until(lambda: "resume" in writer.events)
        reading.pause_reading()
        if type(reading).is_reading is not asyncio.ReadTransport.is_reading:  # 3.11.2
            assert not reading.is_reading()
        writing.write(b"held")
        await asyncio.sleep(0.005)
        assert reader.data.endswith(b"ef")
        reading.resume_reading()
        await until(lambda: reader.data.endswith(b"held"))
        assert writing.can_write_eof()
        writing.write_eof()
        assert await writer.lost is None
        assert await reader.lost is None
        assert reader.events == ["made", "eof", "lost"]
        assert r.closed and w.closed

    loop.run_until_complete(main())


@pytest.mark.parametrize("kind", ["fifo", "socket"])
@pytest.mark.parametrize("pending", [False, True])
def test_the_reader_goes_away(loop, kind, pending):
    async def main():
        r, w = ends(kind)
        writing, writer = await loop.connect_write_pipe(Reader, w)
        await asyncio.sleep(0)
        if pending:
            writing.write(b"x" * (4 << 20))
        r.close()
        exc = await asyncio.wait_for(writer.lost, 100)
        if pending:
            assert isinstance(exc, (BrokenPipeError, ConnectionResetError))
        else:
            assert exc is None
        for _ in range(8):
            writing.write(b"nobody listens")

    loop.run_until_complete(main())


def test_abort_drops_what_is_buffered(loop):
    async def main():
        r, w = ends("fifo")
        with r:
            writing, writer = await loop.connect_write_pipe(Reader, w)
            writing.write(b"x" * (4 << 20))
            writing.abort()
            assert await writer.lost is None
            assert w.closed

    loop.run_until_complete(main())


def test_close_flushes(loop):
    async def main():
        r, w = ends("fifo")
        writing, writer = await loop.connect_write_pipe(Reader, w)
        writing.write(b"x" * (1 << 20))
        writing.close()
        writing.close()
        with r:
            got = await loop.run_in_executor(None, r.readall)
        assert len(got) == 1 << 20
        assert await writer.lost is None

    loop.run_until_complete(main())


@pytest.mark.parametrize("same", [False, True])
def test_both_directions_of_a_terminal(loop, same):
    """One terminal, a transport for each direction, even on one descriptor."""

    async def main():
        master, slave = pty.openpty()
        tty.setraw(slave)
        r = open(master, "rb", 0, closefd=not same)
        w = open(master if same else os.dup(master), "wb", 0)
        with open(slave, "r+b", 0, closefd=False) as other:
            reading, reader = await loop.connect_read_pipe(Reader, r)
            writing, writer = await loop.connect_write_pipe(Reader, w)
            other.write(b"to us")
            await until(lambda: reader.data == b"to us")
            writing.write(b"to them")
            got = b""
            while len(got) < 7:
                got += await loop.run_in_executor(None, other.read, 7)
            assert got == b"to them"
            other.write(b"!")
            await until(lambda: reader.data == b"to us!")
        reading.close()
        assert await reader.lost is None
        writing.close()
        assert await writer.lost is None
        os.close(slave)

    loop.run_until_complete(main())


def test_a_terminal_that_hangs_up_is_an_end(loop):
    async def main():
        master, slave = pty.openpty()
        reading, reader = await loop.connect_read_pipe(Reader, open(master, "rb", 0))
        os.close(slave)
        exc = await asyncio.wait_for(reader.lost, 100)
        assert exc is None or isinstance(exc, OSError)

    loop.run_until_complete(main())


def test_a_buffered_protocol_is_not_asked_for_its_buffer(loop):
    """As data_received() is what pipes know, whenever the protocol comes."""

    class Buffered(asyncio.BufferedProtocol, Reader):
        def get_buffer(self, sizehint):
            raise AssertionError

        def buffer_updated(self, nbytes):
            raise AssertionError

    async def main():
        for first in (Reader, Buffered):
            r, w = ends("fifo")
            with w:
                transport, protocol = await loop.connect_read_pipe(first, r)
                if first is Reader:
                    protocol = Buffered()
                    transport.set_protocol(protocol)
                w.write(b"data")
                await until(lambda: protocol.data == b"data")
                transport.close()
                await protocol.lost

    loop.run_until_complete(main())


def test_files_are_refused(loop, tmp_path):
    async def main():
        path = tmp_path / "file"
        path.write_bytes(b"x")
        with open(path, "rb") as f, pytest.raises(ValueError, match="pipes"):
            await loop.connect_read_pipe(Reader, f)
        with open(path, "wb") as f, pytest.raises(ValueError, match="pipes"):
            await loop.connect_write_pipe(Reader, f)

    loop.run_until_complete(main())


@pytest.mark.parametrize("method", ["connect_read_pipe", "connect_write_pipe"])
@pytest.mark.loops("speedups")
def test_a_descriptor_alone_is_refused(loop, method):
    """As by asyncio, of which the transport's __del__ fails after that."""

    async def main():
        for pipe in ends("fifo"):
            with pipe, pytest.raises(AttributeError, match="fileno"):
                await getattr(loop, method)(Reader, pipe.fileno())

    loop.run_until_complete(main())


def test_a_device_that_epoll_does_not_know(loop):
    """Reported, and open for what can be done with it."""
    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))

    async def main():
        with open("/dev/null", "rb", 0) as device:
            transport, reader = await loop.connect_read_pipe(Reader, device)
            assert [type(c["exception"]) for c in contexts] == [PermissionError]
            assert not transport.is_closing()
            transport.pause_reading()
            with pytest.raises(PermissionError):
                transport.resume_reading()
            transport.close()
            assert await reader.lost is None
        with open("/dev/null", "wb", 0) as device:
            transport, writer = await loop.connect_write_pipe(Reader, device)
            transport.write(b"x" * 100_000)
            assert transport.get_write_buffer_size() == 0
            transport.close()
            assert await writer.lost is None
        assert len(contexts) == 1

    loop.run_until_complete(main())


def test_wrong_types_and_what_comes_after_close(loop):
    async def main():
        r, w = ends("fifo")
        with r:
            writing, writer = await loop.connect_write_pipe(Reader, w)
            with pytest.raises((TypeError, AssertionError)):
                writing.write("text")
            writing.close()
            writing.write(b"late")
            assert await writer.lost is None
            if isinstance(loop, Loop):
                writing.write(b"later")

    loop.run_until_complete(main())

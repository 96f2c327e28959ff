"""Reading streams: what coroutines in C do is what asyncio's do."""

import asyncio
import contextlib
import gc
import inspect
import random
import socket
import struct
import sys
import warnings
import weakref

import pytest
from waiting import until

from aiozmq_speedups._ext import core

pytestmark = pytest.mark.loops("speedups", "asyncio")

DATA = b"ab\n"
# Each takes just DATA where all of it is there.
READS = {
    "read": lambda reader: reader.read(3),
    "readexactly": lambda reader: reader.readexactly(3),
    "readuntil": lambda reader: reader.readuntil(b"b\n"),
    "readline": lambda reader: reader.readline(),
}
reads = pytest.mark.parametrize("read", READS.values(), ids=READS)


@contextlib.asynccontextmanager
async def connected(limit=2**16):
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=a, limit=limit)
    with b:
        yield reader, writer, b
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def buffered(reader, size):
    await until(lambda: len(reader._buffer) == size)


async def waiting(reader, coroutine):
    """A task that waits for the reader's data."""
    task = asyncio.ensure_future(coroutine)
    await until(lambda: reader._waiter is not None)
    return task


@reads
def test_data_is_there(loop, read):
    async def main():
        async with connected() as (reader, _, peer):
            peer.send(DATA + b"rest")
            await buffered(reader, 7)
            assert await read(reader) == DATA
            assert await reader.read(100) == b"rest"

    loop.run_until_complete(main())


@reads
def test_data_comes_later(loop, read):
    async def main():
        async with connected() as (reader, _, peer):
            task = await waiting(reader, read(reader))
            peer.send(DATA)
            assert await task == DATA
            task = await waiting(reader, read(reader))
            peer.send(DATA + b"rest")
            assert await task == DATA
            assert reader._waiter is None
            assert await reader.read(100) == b"rest"

    loop.run_until_complete(main())


@reads
def test_data_comes_in_pieces(loop, read):
    async def main():
        async with connected() as (reader, _, peer):
            task = await waiting(reader, read(reader))
            for byte in b"ab":
                peer.send(bytes([byte]))
                await asyncio.sleep(0.02)
            peer.send(b"\nrest")
            first = await task
            if read is READS["read"]:
                assert first == b"a"
                assert await reader.readexactly(2) == b"b\n"
            else:
                assert first == DATA
            assert await reader.readexactly(4) == b"rest"

    loop.run_until_complete(main())


@pytest.mark.parametrize("first", [True, False], ids=["waiting", "eof first"])
@reads
def test_eof(loop, read, first):
    async def main():
        async with connected() as (reader, _, peer):
            peer.send(b"a")
            await buffered(reader, 1)
            if first and read is not READS["read"]:
                task = await waiting(reader, read(reader))
                peer.close()
            else:
                peer.close()
                await until(lambda: reader._eof)
                task = asyncio.ensure_future(read(reader))
            if read in (READS["read"], READS["readline"]):
                assert await task == b"a"
                assert await read(reader) == b""
            else:
                for partial in b"a", b"":
                    with pytest.raises(asyncio.IncompleteReadError) as info:
                        await task
                    assert info.value.partial == partial
                    assert info.value.expected == (
                        3 if read is READS["readexactly"] else None
                    )
                    task = asyncio.ensure_future(read(reader))
                task.cancel()
            assert reader.at_eof()

    loop.run_until_complete(main())


@reads
def test_reset(loop, read):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as server:
            reader, writer = await asyncio.open_connection(*server.getsockname())
            peer, _ = server.accept()
            task = await waiting(reader, read(reader))
            peer.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            peer.close()
            for _ in range(2):
                with pytest.raises(ConnectionResetError):
                    await task
                task = asyncio.ensure_future(read(reader))
            with pytest.raises(ConnectionResetError):
                await task
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    loop.run_until_complete(main())


@pytest.mark.parametrize("first", [True, False], ids=["waiting", "data first"])
@pytest.mark.parametrize("ended", [True, False])
def test_limit_overrun(loop, ended, first):
    data = b"x" * 20 + (b"\nrest" if ended else b"")
    message = "Separator is " + (
        "found, but chunk is longer than limit"
        if ended
        else "not found, and chunk exceed the limit"
    )

    async def main():
        async with connected(limit=8) as (reader, writer, peer):
            if first:
                task = await waiting(reader, reader.readuntil(b"\n"))
                peer.send(data)
            else:
                peer.send(data)
                await buffered(reader, len(data))
                task = asyncio.ensure_future(reader.readuntil(b"\n"))
            with pytest.raises(asyncio.LimitOverrunError) as info:
                await task
            assert info.value.consumed == 20 and str(info.value) == message
            assert reader._buffer == data
            assert reader._paused and not writer.transport.is_reading()
            with pytest.raises(ValueError, match=message) as info:
                await reader.readline()
            assert type(info.value) is ValueError
            assert isinstance(info.value.__context__, asyncio.LimitOverrunError)
            assert reader._buffer == (b"rest" if ended else b"")
            assert not reader._paused and writer.transport.is_reading()
            peer.send(b"more\n")
            assert await reader.readline() == (b"rest" if ended else b"") + b"more\n"

    loop.run_until_complete(main())


@pytest.mark.parametrize("size", [7, 8, 9, 16, 17, 40])
@reads
def test_pausing_and_going_on(loop, read, size):
    """The transport stops beyond twice the limit and goes on at the limit."""

    async def main():
        async with connected(limit=8) as (reader, writer, peer):
            task = await waiting(reader, read(reader))
            data = DATA + b"x" * (size - 4) + b"\n"
            peer.send(data)
            got = await task
            assert got == DATA
            rest = size - 3
            assert reader._paused == (rest > 8 and size > 16)
            assert writer.transport.is_reading() != reader._paused
            assert got + await reader.readexactly(rest) == data
            assert not reader._paused and writer.transport.is_reading()
            await reader.read(0)
            peer.send(b"y" * 50)
            assert await reader.readexactly(50) == b"y" * 50

    loop.run_until_complete(main())


@reads
def test_cancelled_while_waiting(loop, read):
    async def main():
        async with connected() as (reader, _, peer):
            for message in None, "why":
                task = await waiting(reader, read(reader))
                assert task.cancel(*[message] if message else [])
                with pytest.raises(asyncio.CancelledError) as info:
                    await task
                assert info.value.args == (() if message is None else (message,))
                assert task.cancelled() and reader._waiter is None
            peer.send(DATA)
            assert await read(reader) == DATA

    loop.run_until_complete(main())


@reads
def test_cancelled_with_data_at_hand(loop, read):
    """Woken, but cancelled before it runs: nothing is lost, nothing moves."""
    data = DATA + b"rest"

    async def main():
        async with connected() as (reader, _, peer):
            task = await waiting(reader, read(reader))
            seen = []

            def watch():
                if reader._waiter is None:
                    seen.append(task.cancel())
                else:
                    loop.call_soon(watch)

            watch()
            peer.send(data)
            with pytest.raises(asyncio.CancelledError):
                await task
            assert seen == [True]
            assert await reader.read(2) == data[:2]
            assert await reader.readexactly(5) == data[2:]

    loop.run_until_complete(main())


@reads
def test_another_waits_when_the_first_is_cancelled(loop, read):
    """What the first was woken for is the second's."""

    async def main():
        async with connected() as (reader, _, peer):
            task = await waiting(reader, read(reader))
            other, waiter, got = reader.read(100), [], []

            def watch():
                if reader._waiter is not None:
                    loop.call_soon(watch)
                    return
                try:
                    waiter.append(other.send(None))
                except StopIteration as exc:
                    got.append(exc.value)
                task.cancel()

            watch()
            peer.send(DATA)
            with pytest.raises(asyncio.CancelledError):
                await task
            if waiter:
                assert waiter[0].done()
                with pytest.raises(StopIteration) as info:
                    other.send(None)
                got.append(info.value.value)
            assert got == [DATA]
            peer.send(b"more")
            assert await reader.read(100) == b"more"

    loop.run_until_complete(main())


@reads
def test_two_at_once(loop, read):
    async def main():
        async with connected() as (reader, _, peer):
            task = await waiting(reader, reader.read(1))
            name = next(k for k, v in READS.items() if v is read)
            called = "readuntil" if name == "readline" else name
            with pytest.raises(RuntimeError) as info:
                await read(reader)
            assert str(info.value) == (
                f"{called}() called while another coroutine is already waiting for "
                "incoming data"
            )
            peer.send(b"x" + DATA)
            assert await task == b"x"
            assert await read(reader) == DATA

    loop.run_until_complete(main())


@reads
def test_fed_by_hand(loop, read):
    async def main():
        async with connected() as (reader, _, peer):
            task = await waiting(reader, read(reader))
            reader.feed_data(DATA)
            peer.send(b"rest")
            assert await task == DATA
            assert await reader.read(100) == b"rest"
            reader.feed_data(DATA)
            assert await read(reader) == DATA
            # Somebody who does not wake it, but is before what comes then.
            task = await waiting(reader, reader.read(100))
            reader._buffer += b"a"
            peer.send(b"b")
            assert await task == b"ab"
            task = await waiting(reader, reader.read(100))
            reader.feed_eof()
            assert await task == b"" and reader.at_eof()

    loop.run_until_complete(main())


@reads
def test_exception_by_hand(loop, read):
    async def main():
        async with connected() as (reader, _, peer):
            task = await waiting(reader, read(reader))
            exc = ZeroDivisionError("mine")
            reader.set_exception(exc)
            with pytest.raises(ZeroDivisionError) as info:
                await task
            assert info.value is exc
            with pytest.raises(ZeroDivisionError) as info:
                await read(reader)
            assert info.value is exc
            peer.send(DATA)
            await buffered(reader, 3)
            reader._exception = None
            assert await read(reader) == DATA

    loop.run_until_complete(main())


def test_subclassed_reader(loop):
    class Reader(asyncio.StreamReader):
        async def read(self, n=-1):
            return b"<" + await super().read(n) + b">"

    async def main():
        a, b = socket.socketpair()
        a.setblocking(False)
        with b:
            reader = Reader(loop=loop)
            protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
            transport, _ = await loop.create_connection(lambda: protocol, sock=a)
            b.send(b"abcd")
            assert await reader.read(2) == b"<ab>"
            assert await reader.readexactly(2) == b"cd"
            transport.close()
            await until(lambda: reader.at_eof())

    loop.run_until_complete(main())


def test_replaced_methods(loop, monkeypatch):
    async def fake(self, *args):
        return "fake"

    async def main():
        with monkeypatch.context() as patch:
            patch.setattr(asyncio.StreamReader, "readline", fake)
            async with connected() as (reader, _, peer):
                assert await reader.readline() == "fake"
                peer.send(DATA)
                assert await reader.read(3) == DATA
        async with connected() as (reader, _, peer):
            with monkeypatch.context() as patch:
                patch.setattr(reader, "read", lambda n: fake(reader), raising=False)
                assert await reader.read(1) == "fake"
            peer.send(DATA)
            assert await reader.read(3) == DATA

    loop.run_until_complete(main())


@pytest.mark.parametrize("when", ["before", "after"])
@reads
def test_debug_mode(loop, read, when):
    async def main():
        loop.set_debug(when == "before")
        async with connected() as (reader, _, peer):
            loop.set_debug(True)
            task = await waiting(reader, read(reader))
            peer.send(DATA)
            assert await task == DATA
            coroutine = read(reader)
            assert inspect.iscoroutine(coroutine)
            coroutine.close()
            loop.set_debug(False)
            peer.send(DATA)
            assert await read(reader) == DATA

    loop.run_until_complete(main())


@reads
def test_wait_for(loop, read):
    async def main():
        async with connected() as (reader, _, peer):
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(read(reader), 0.001)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0):
                        await read(reader)
            peer.send(DATA)
            assert await asyncio.wait_for(read(reader), 100) == DATA

    loop.run_until_complete(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks: Python 3.12")
@reads
def test_eager_tasks(loop, read):
    async def main():
        loop.set_task_factory(asyncio.eager_task_factory)
        async with connected() as (reader, _, peer):
            peer.send(DATA)
            await buffered(reader, 3)
            task = asyncio.create_task(read(reader))
            assert task.done() and task.result() == DATA
            task = asyncio.create_task(read(reader))
            assert not task.done()
            peer.send(DATA)
            assert await task == DATA

    loop.run_until_complete(main())


@reads
def test_as_a_coroutine(loop, read):
    async def main():
        async with connected() as (reader, _, peer):
            coroutine = read(reader)
            assert inspect.isawaitable(coroutine) and asyncio.iscoroutine(coroutine)
            assert not asyncio.isfuture(coroutine)
            with pytest.raises(TypeError):
                coroutine.send(1)
            name = next(k for k, v in READS.items() if v is read)
            assert coroutine.__name__ == name
            assert coroutine.__qualname__ == f"StreamReader.{name}"
            waiter = coroutine.send(None)
            assert asyncio.isfuture(waiter) and not waiter.done()
            assert reader._waiter is not None
            coroutine.close()
            coroutine.close()
            assert reader._waiter is None
            with pytest.raises(RuntimeError, match="already awaited"):
                coroutine.send(None)
            with pytest.raises(RuntimeError, match="already awaited"):
                await coroutine
            coroutine = read(reader)
            coroutine.send(None)
            with pytest.raises(ZeroDivisionError):
                coroutine.throw(ZeroDivisionError("x"))
            assert reader._waiter is None
            coroutine = read(reader)
            with pytest.raises(ZeroDivisionError):
                coroutine.throw(ZeroDivisionError)
            peer.send(DATA)
            await buffered(reader, 3)
            with pytest.raises(StopIteration) as info:
                read(reader).send(None)
            assert info.value.value == DATA
            assert (await asyncio.gather(reader.read(0), asyncio.sleep(0, 1))) == [
                b"",
                1,
            ]

    loop.run_until_complete(main())


@reads
def test_never_awaited(loop, read):
    async def main():
        async with connected() as (reader, _, peer):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                read(reader)
                gc.collect()
            assert [w.category for w in caught] == [RuntimeWarning]
            assert "was never awaited" in str(caught[0].message)
            peer.send(DATA)
            assert await read(reader) == DATA

    loop.run_until_complete(main())


@reads
def test_reader_is_let_go_of(loop, read):
    async def main():
        ours, peer = socket.socketpair()
        ours.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=ours)
        ref = weakref.ref(reader)
        task = await waiting(reader, read(reader))
        del reader
        peer.send(DATA)
        assert await task == DATA
        writer._reader = None
        del task
        gc.collect()
        assert ref() is None
        peer.send(b"nobody reads that")
        await asyncio.sleep(0.01)
        peer.close()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    loop.run_until_complete(main())


@pytest.mark.parametrize("how", ["close", "abort"])
@reads
def test_closed_meanwhile(loop, read, how):
    async def main():
        async with connected() as (reader, writer, _):
            task = await waiting(reader, read(reader))
            getattr(writer.transport, how)()
            if read in (READS["read"], READS["readline"]):
                assert await task == b""
            else:
                with pytest.raises(asyncio.IncompleteReadError):
                    await task
            with pytest.raises(ConnectionResetError):
                await until(lambda: writer._protocol._connection_lost)
                await writer._protocol._drain_helper()

    loop.run_until_complete(main())


@reads
def test_loop_stops_meanwhile(loop, read):
    async def begin():
        a, b = socket.socketpair()
        b.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=a)
        return reader, writer, b, await waiting(reader, read(reader))

    reader, writer, peer, task = loop.run_until_complete(begin())
    with peer:
        peer.send(DATA)
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert loop.run_until_complete(task) == DATA
        task = loop.create_task(read(reader))
        loop.call_soon(loop.stop)
        loop.run_forever()
        peer.send(DATA)
        assert loop.run_until_complete(task) == DATA
        writer.close()
        loop.run_until_complete(writer.wait_closed())


def test_another_protocol_takes_over(loop):
    """The first reader gets nothing more, though it waits."""

    async def main():
        async with connected() as (reader, writer, peer):
            first = writer.transport.get_protocol()
            task = await waiting(reader, reader.read(100))
            second = asyncio.StreamReader(loop=loop)
            protocol = asyncio.StreamReaderProtocol(second, loop=loop)
            writer.transport.set_protocol(protocol)
            peer.send(b"for the second")
            assert await second.readexactly(14) == b"for the second"
            other = await waiting(second, second.read(100))
            assert not task.done()
            writer.transport.set_protocol(first)
            peer.send(b"for the first")
            assert await task == b"for the first"
            assert not other.done()
            second.feed_data(b"by hand")
            assert await other == b"by hand"
            peer.send(b"x")
            assert await reader.read(100) == b"x"

    loop.run_until_complete(main())


@pytest.mark.parametrize("n", [0, -1, 1.5, "x", None, 10**30])
@pytest.mark.parametrize("method", ["read", "readexactly"])
def test_odd_sizes(loop, method, n):
    async def main():
        async with connected() as (reader, _, peer):
            peer.send(DATA)
            await buffered(reader, 3)
            peer.close()
            try:
                result = await getattr(reader, method)(n)
            except Exception as exc:
                result = type(exc)
            expected = {
                ("read", 0): b"",
                ("read", -1): DATA,
                ("read", 1.5): TypeError,
                ("read", "x"): TypeError,
                ("read", None): TypeError,
                ("read", 10**30): DATA,
                ("readexactly", 0): b"",
                ("readexactly", -1): ValueError,
                ("readexactly", "x"): TypeError,
                ("readexactly", None): TypeError,
                ("readexactly", 10**30): asyncio.IncompleteReadError,
            }
            assert result == expected.get((method, n), result)

    loop.run_until_complete(main())


def test_keyword_arguments(loop):
    async def main():
        async with connected() as (reader, _, peer):
            peer.send(b"abcde;fgh\n")
            assert await reader.read(n=1) == b"a"
            assert await reader.readexactly(n=2) == b"bc"
            assert await reader.readuntil(separator=b";") == b"de;"
            assert await reader.readuntil() == b"fgh\n"
            with pytest.raises(ValueError, match=r"at least one.byte"):
                await reader.readuntil(b"")
            for call in (
                lambda: reader.readexactly(),
                lambda: reader.readline(1),
                lambda: reader.read(1, 2),
                lambda: reader.read(m=1),
            ):
                with pytest.raises(TypeError):
                    call()

    loop.run_until_complete(main())


def test_iteration_and_at_eof(loop):
    async def main():
        async with connected() as (reader, writer, peer):
            peer.send(b"a\nbb\n\nlast")
            await buffered(reader, 10)
            peer.close()
            assert [line async for line in reader] == [b"a\n", b"bb\n", b"\n", b"last"]
            assert reader.at_eof()

    loop.run_until_complete(main())


def test_drain(loop):
    async def main():
        async with connected() as (_, writer, peer):
            await writer.drain()
            writer.write(b"x" * (1 << 22))
            tasks = [asyncio.ensure_future(writer.drain()) for _ in range(2)]
            await asyncio.sleep(0)
            assert not any(task.done() for task in tasks)
            got = 0
            while got < 1 << 22:
                got += len(await loop.sock_recv(peer, 1 << 20))
            await asyncio.gather(*tasks)
            writer.write(b"x" * (1 << 22))
            task = asyncio.ensure_future(writer.drain())
            await asyncio.sleep(0)
            writer.transport.abort()
            await task  # it was not the peer's doing
            with pytest.raises(ConnectionResetError):
                await writer.drain()

    loop.run_until_complete(main())


def test_data_is_kept_as_it_was(loop):
    """Large reads are received into the object that is returned."""

    async def main():
        async with connected() as (reader, _, peer):
            kept = []
            for i in range(60):
                payload = bytes([i]) * (200 * (i + 1))
                sent = asyncio.ensure_future(loop.sock_sendall(peer, payload))
                got = await reader.read(1 << 20)
                while len(got) < len(payload):
                    got += await reader.readexactly(len(payload) - len(got))
                await sent
                kept.append((got, payload))
                assert sys.getsizeof(got) == sys.getsizeof(b"") + len(got)
            assert all(got == payload for got, payload in kept)

    loop.run_until_complete(main())


@pytest.mark.parametrize("seed", range(6))
def test_at_random(loop, seed):
    """Lines in pieces, read by any method, some cancelled: all there in order."""
    rng = random.Random(seed)
    lines = [
        bytes(rng.choices(b"abc", k=rng.randrange(40))) + b"\n" for _ in range(400)
    ]
    data = b"".join(lines)

    async def send(peer):
        at = 0
        while at < len(data):
            size = rng.choice((1, 2, 10, 50, 300))
            await loop.sock_sendall(peer, data[at : at + size])
            at += size
            for _ in range(rng.randrange(4)):
                await asyncio.sleep(0)

    async def main():
        async with connected(limit=rng.choice((50, 64, 4096))) as (reader, _, peer):
            sender = asyncio.ensure_future(send(peer))
            got = bytearray()
            while len(got) < len(data):
                left = len(data) - len(got)
                task = asyncio.ensure_future(
                    rng.choice(
                        (
                            lambda: reader.read(rng.choice((1, 7, 30, 1000))),
                            lambda: reader.readexactly(min(left, rng.randrange(1, 60))),
                            lambda: reader.readline(),
                            lambda: reader.readuntil(b"\n"),
                        )
                    )()
                )
                if rng.random() < 0.3:
                    for _ in range(rng.randrange(4)):
                        await asyncio.sleep(0)
                    task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    got += await task
            assert got == data
            await sender

    loop.run_until_complete(main())


@pytest.mark.skipif(core is None, reason="needs the C extension")
def test_references_stay_level(loop, loop_kind):
    if loop_kind == "asyncio":
        pytest.skip("CPython's own")
    counts = getattr(core, "_live_objects", dict)

    async def some(reader, writer, peer):
        for read in READS.values():
            task = await waiting(reader, read(reader))
            peer.send(DATA)
            assert await task == DATA
            task = await waiting(reader, read(reader))
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            read(reader).close()
            await writer.drain()

    async def main():
        async with connected() as streams:
            watched = [None, True, streams[0], streams[1].transport]
            for _ in range(20):
                await some(*streams)
            gc.collect()
            before, live = [sys.getrefcount(o) for o in watched[2:]], counts()
            for _ in range(50):
                await some(*streams)
            gc.collect()
            assert [sys.getrefcount(o) for o in watched[2:]] == before
            now = counts()
            for kind in "waiter", "readop":
                assert now.get(kind) == live.get(kind)

    loop.run_until_complete(main())

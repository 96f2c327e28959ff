"""StreamWriter.drain() on the side of the server, whose writer has it in C."""

import asyncio
import contextlib
import gc
import socket

import pytest

from aiozmq_speedups.loop import Loop

pytestmark = pytest.mark.loops("speedups", "asyncio")

BIG = 1 << 25  # more than the kernel takes


@contextlib.asynccontextmanager
async def accepted(wrap=lambda callback: callback):
    """The reader and writer of a server's connection, and the client's socket."""
    loop = asyncio.get_running_loop()
    made = loop.create_future()
    callback = wrap(lambda reader, writer: made.set_result((reader, writer)))
    server = await asyncio.start_server(callback, "127.0.0.1", 0)
    with socket.socket() as peer:
        peer.setblocking(False)
        await loop.sock_connect(peer, server.sockets[0].getsockname())
        reader, writer = await made
        try:
            yield reader, writer, peer
        finally:
            writer.transport.abort()
            server.close()
            await asyncio.sleep(0)


async def receive(peer, size):
    loop = asyncio.get_running_loop()
    while size > 0:
        size -= len(await loop.sock_recv(peer, 1 << 20))


def is_in_c(writer):
    return "drain" in vars(writer)


def test_nothing_to_wait_for(loop):
    async def main():
        async with accepted() as (_, writer, _peer):
            assert is_in_c(writer) == isinstance(loop, Loop)
            assert await writer.drain() is None
            assert await asyncio.wait_for(writer.drain(), 100) is None
            assert await asyncio.gather(writer.drain(), writer.drain()) == [None] * 2
            assert asyncio.iscoroutine(coro := writer.drain())
            assert await loop.create_task(coro) is None
            coro = writer.drain()
            with pytest.raises(StopIteration):
                coro.send(None)
            coro = writer.drain()
            with pytest.raises(KeyError):
                coro.throw(KeyError("thrown"))
            coro = writer.drain()
            coro.close()

    loop.run_until_complete(main())


def test_waits_for_the_peer(loop):
    async def main():
        async with accepted() as (_, writer, peer):
            writer.write(b"x" * BIG)
            tasks = [asyncio.ensure_future(writer.drain()) for _ in range(2)]
            await asyncio.sleep(0)
            assert not any(task.done() for task in tasks)
            await receive(peer, BIG)
            assert await asyncio.gather(*tasks) == [None] * 2
            await writer.drain()

    loop.run_until_complete(main())


def test_raises_what_the_reader_has(loop):
    async def main():
        async with accepted() as (reader, writer, _peer):
            reader.set_exception(KeyError("broken"))
            with pytest.raises(KeyError, match="broken"):
                await writer.drain()

    loop.run_until_complete(main())


def test_after_close(loop):
    async def main():
        async with accepted() as (_, writer, peer):
            writer.close()
            turns = []
            loop.call_soon(turns.append, 1)
            # It yields, so that a program that only writes hears of the end.
            with contextlib.suppress(ConnectionResetError):
                await writer.drain()
            assert turns == [1]
            await writer.wait_closed()
            with pytest.raises(ConnectionResetError):
                await writer.drain()

    loop.run_until_complete(main())


def test_of_another_protocol(loop):
    """As start_tls() does it: the writer goes on with another transport."""

    async def main():
        async with accepted() as (_, writer, _peer):
            writer.transport.set_protocol(asyncio.Protocol())
            assert not is_in_c(writer)
            await writer.drain()

    loop.run_until_complete(main())


def test_a_replaced_method_is_kept(loop, monkeypatch):
    calls = []

    async def drain(self):
        calls.append(self)

    monkeypatch.setattr(asyncio.StreamWriter, "drain", drain)

    async def main():
        async with accepted() as (_, writer, _peer):
            await writer.drain()
            assert calls == [writer]

    loop.run_until_complete(main())


def test_debug_mode_has_asyncios_own(loop):
    loop.set_debug(True)

    async def main():
        async with accepted() as (_, writer, _peer):
            assert not is_in_c(writer)
            await writer.drain()

    loop.run_until_complete(main())


def test_a_callback_that_fails(loop):
    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))

    def wrap(callback):
        def failing(reader, writer):
            callback(reader, writer)
            raise KeyError("in the callback")

        return failing

    async def main():
        async with accepted(wrap) as (_, writer, _peer):
            # Later versions of Python 3.14 close the transport then.
            with contextlib.suppress(ConnectionResetError):
                await writer.drain()

    loop.run_until_complete(main())
    assert [str(context["exception"]) for context in contexts] == ["'in the callback'"]


def test_the_callback_may_drop_and_collect(loop):
    """In the callback: nobody keeps the writer, and the collector runs."""
    closed = loop.create_future()

    def callback(reader, writer):
        loop.call_later(0.01, closed.set_result, None)
        writer.transport.abort()
        del reader, writer
        gc.collect()

    async def main():
        server = await asyncio.start_server(callback, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()):
            await closed
        server.close()

    loop.run_until_complete(main())


def test_a_method_outlives_its_writer(loop):
    async def main():
        async with accepted() as (reader, writer, peer):
            drain, transport = writer.drain, writer.transport
            transport.close()
            await asyncio.sleep(0.01)
            return drain, peer

    drain, _ = loop.run_until_complete(main())
    gc.collect()
    with pytest.raises((ConnectionResetError, ReferenceError)):
        loop.run_until_complete(asyncio.wait_for(call(drain), 100))


async def call(function):
    return await function()

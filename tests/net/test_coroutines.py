"""sock_recv() and StreamReader.read() are coroutines as asyncio's are."""

import asyncio
import inspect
import socket
import types
import weakref

import pytest

pytestmark = pytest.mark.loops("speedups", "asyncio")


async def make(kind, loop, pair):
    """A coroutine that reads one byte, and what ends it."""
    if kind == "sock_recv":
        return loop.sock_recv(pair[0], 1), None
    reader, writer = await asyncio.open_connection(sock=pair[0])
    return reader.read(1), writer


@pytest.fixture(params=["sock_recv", "read"])
def kind(request):
    return request.param


def test_in_a_generator_that_is_a_coroutine(loop, pair, kind):
    @types.coroutine
    def old_style(coroutine):
        return (yield from coroutine)

    async def main():
        coroutine, writer = await make(kind, loop, pair)
        loop.call_soon(pair[1].send, b"x")
        assert await old_style(coroutine) == b"x"
        if writer:
            writer.close()

    loop.run_until_complete(main())


def test_not_in_another_generator(loop, pair):
    def plain(coroutine):
        return (yield from coroutine)

    coroutine = loop.sock_recv(pair[0], 1)
    with pytest.raises(TypeError):
        next(plain(coroutine))
    coroutine.close()


def test_awaited_twice(loop, pair, kind):
    async def other(coroutine):
        await coroutine

    async def main():
        coroutine, writer = await make(kind, loop, pair)
        first = loop.create_task(other(coroutine))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match=r"^coroutine is being awaited already$"):
            await coroutine
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        with pytest.raises(RuntimeError, match=r"^cannot reuse already awaited corou"):
            await coroutine
        if writer:
            writer.close()

    loop.run_until_complete(main())


def test_inspected(loop, pair, kind):
    async def main():
        coroutine, writer = await make(kind, loop, pair)
        assert inspect.iscoroutine(coroutine) and asyncio.iscoroutine(coroutine)
        assert inspect.isawaitable(coroutine)
        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED
        task = asyncio.create_task(coroutine)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_SUSPENDED
        [frame] = task.get_stack()
        assert frame.f_code.co_name == kind
        pair[1].send(b"x")
        assert await task == b"x"
        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
        if writer:
            writer.close()

    loop.run_until_complete(main())


def test_never_awaited(loop, pair, kind):
    async def main():
        coroutine, writer = await make(kind, loop, pair)
        with pytest.warns(RuntimeWarning, match=f"{kind}' was never awaited"):
            del coroutine
        if writer:
            writer.close()

    loop.run_until_complete(main())


def test_the_keyword_of_sock_recv(loop, pair):
    pair[1].send(b"x")
    assert loop.run_until_complete(loop.sock_recv(sock=pair[0], n=1)) == b"x"


def test_what_comes_below_the_low_water_mark(loop):
    """A short read does not prove that nothing is left that a read would give."""

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            a = socket.create_connection(listener.getsockname())
            b, _ = listener.accept()
        with a, b:
            a.setblocking(False)
            a.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 10)
            waiting = asyncio.create_task(loop.sock_recv(a, 100))
            await asyncio.sleep(0)
            b.send(b"0123456789")
            assert await waiting == b"0123456789"
            b.send(b"abc")
            while not a.recv(100, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                pass
            assert await asyncio.wait_for(loop.sock_recv(a, 100), 100) == b"abc"

    loop.run_until_complete(main())


def test_what_has_come_since_a_short_read(loop, pair):
    """Is had without waiting: who has no time to wait gets it, too."""

    async def main():
        a, b = pair
        waiting = asyncio.create_task(loop.sock_recv(a, 100))
        await asyncio.sleep(0)
        b.send(b"x")
        assert await waiting == b"x"
        b.send(b"y")
        async with asyncio.timeout(0):
            assert await loop.sock_recv(a, 100) == b"y"

    loop.run_until_complete(main())


def test_nothing_is_kept_of_who_awaited(loop, pair):
    """The exception that brought the result is used again, without its traceback."""

    class Local:
        pass

    async def main():
        local = Local()
        ref = weakref.ref(local)
        coroutine = loop.sock_recv(pair[0], 1)
        try:
            coroutine.send(None)
        except StopIteration as exc:
            assert exc.value == b"x"
        return ref

    pair[1].send(b"x")
    assert loop.run_until_complete(main())() is None

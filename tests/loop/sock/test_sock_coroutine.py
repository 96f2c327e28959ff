"""What sock_* return is a coroutine to whoever drives it."""

import asyncio
import collections.abc
import errno
import gc
import inspect
import io
import sys
import weakref

import pytest
from sock_cases import CANCELLED, readable, turns


def test_what_it_is(loop, ours, pair):
    a, _ = pair
    coro = loop.sock_recv(a, 100)
    assert asyncio.iscoroutine(coro)
    assert inspect.isawaitable(coro)
    assert isinstance(coro, collections.abc.Coroutine)
    assert coro.__name__ == "sock_recv"
    assert coro.__qualname__ == "Loop.sock_recv"
    assert "Loop.sock_recv" in repr(coro)
    assert coro.__await__() is coro
    assert coro.cr_await is None
    assert not coro.cr_running
    coro.close()
    with pytest.raises(TypeError):
        type(coro)()

    async def main():
        task = asyncio.create_task(loop.sock_recv(a, 100))
        await turns()
        assert "Loop.sock_recv" in repr(task)
        task.print_stack(file=io.StringIO())
        task.cancel()

    loop.run_until_complete(main())


def test_everything_that_takes_a_coroutine(loop, pair):
    a, b = pair

    async def main():
        b.send(b"123456")
        await readable(a)
        got = [
            await loop.sock_recv(a, 1),
            await asyncio.create_task(loop.sock_recv(a, 1)),
            await asyncio.ensure_future(loop.sock_recv(a, 1)),
            await asyncio.wait_for(loop.sock_recv(a, 1), 100),
            *await asyncio.gather(loop.sock_recv(a, 1), loop.sock_recv(a, 1)),
        ]
        assert got == [b"1", b"2", b"3", b"4", b"5", b"6"]
        task = asyncio.ensure_future(asyncio.shield(loop.sock_recv(a, 1)))
        await turns()
        b.send(b"7")
        assert await task == b"7"
        if sys.version_info >= (3, 12):
            task = asyncio.eager_task_factory(loop, loop.sock_sendall(b, b"8"))
            assert task.done()
            assert await loop.sock_recv(a, 1) == b"8"
            task = asyncio.eager_task_factory(loop, loop.sock_recv(a, 1))
            assert not task.done()
            b.send(b"9")
            assert await task == b"9"

    loop.run_until_complete(main())
    b.send(b"8")
    assert loop.run_until_complete(loop.sock_recv(a, 1)) == b"8"
    assert asyncio.run_coroutine_threadsafe  # takes what iscoroutine() takes


def test_nothing_happens_before_it_is_awaited(loop, pair):
    a, b = pair
    coros = [loop.sock_sendall(a, b"abc"), loop.sock_recv(b, 10)]
    with pytest.raises(BlockingIOError):
        b.recv(10)
    for coro in coros:
        coro.close()
        with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
            coro.send(None)


def test_never_awaited_objects_do_nothing(loop, ours, pair):
    a, b = pair
    for _ in range(1000):
        loop.sock_recv(a, 100)
        loop.sock_sendall(a, b"abc")
        loop.sock_connect(a, ("127.0.0.1", 1))
    with pytest.raises(BlockingIOError):
        b.recv(10)


def test_driven_by_hand(loop, pair):
    a, _b = pair
    coro = loop.sock_recv(a, 100)
    with pytest.raises(TypeError, match="just-started"):
        coro.send(1)
    future = coro.send(None)
    assert asyncio.isfuture(future)
    assert future._asyncio_future_blocking
    assert future.get_loop() is loop
    with pytest.raises(RuntimeError, match="await wasn't used with future"):
        coro.send(None)
    with pytest.raises(RuntimeError, match="cannot reuse"):
        coro.send(None)
    with pytest.raises(RuntimeError, match="cannot reuse"):
        coro.throw(ValueError)
    assert coro.close() is None


def test_the_future_completed_by_somebody_else(loop, pair):
    a, b = pair
    coro = loop.sock_recv(a, 100)
    coro.send(None).set_exception(ValueError("mine"))
    with pytest.raises(ValueError, match="mine"):
        coro.send(None)
    coro = loop.sock_recv(a, 100)
    coro.send(None).cancel()
    with pytest.raises(CANCELLED):
        coro.send(None)
    b.send(b"abc")
    loop.run_until_complete(turns())
    assert loop.run_until_complete(loop.sock_recv(a, 100)) == b"abc"


def test_the_future_completed_too_early(loop, ours, pair):
    """asyncio returns what the future was given."""
    a, b = pair
    coro = loop.sock_recv(a, 100)
    future = coro.send(None)
    for _ in range(3):
        future.set_result(b"forged")
        future = coro.send(None)
    b.send(b"abc")
    loop.run_until_complete(future)
    with pytest.raises(StopIteration) as caught:
        coro.send(None)
    assert caught.value.value == b"abc"


def _thrown():
    """(arguments, expected): made anew, for an exception keeps what it saw."""

    class Odd(Exception):
        def __init__(self, *args):
            raise KeyError("no instance")

    class Strange(Exception):
        def __new__(cls, *args):
            return 5

    traceback = None
    try:
        raise ValueError
    except ValueError as exc:
        traceback = exc.__traceback__
    return [
        ((ValueError,), ValueError),
        ((ValueError("x"),), ValueError),
        ((ValueError, "x"), ValueError),
        ((ValueError, ("x", "y")), ValueError),
        ((ValueError, ValueError("x")), ValueError),
        ((ValueError, ValueError("x"), traceback), ValueError),
        ((ValueError, None, None), ValueError),
        ((KeyboardInterrupt,), KeyboardInterrupt),
        ((SystemExit(3),), SystemExit),
        ((GeneratorExit,), GeneratorExit),
        ((StopIteration(5),), (StopIteration, RuntimeError)),
        ((CANCELLED,), CANCELLED),
        ((Odd,), KeyError),
        ((Strange,), TypeError),
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("case", range(len(_thrown())))
def test_throw(loop, pair, started, case):
    a, b = pair
    args, expected = _thrown()[case]
    coro = loop.sock_recv(a, 100)
    if started:
        coro.send(None)
    with pytest.raises(expected):
        coro.throw(*args)
    with pytest.raises(RuntimeError, match="cannot reuse"):
        coro.send(None)
    b.send(b"abc")
    assert loop.run_until_complete(loop.sock_recv(a, 100)) == b"abc"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("case", range(7))
def test_throw_of_what_cannot_be_thrown(loop, pair, started, case):
    a, _ = pair
    args = [
        (),
        (1,),
        (None,),
        (int,),
        (ValueError(), 5),
        (ValueError, 1, 2),
        (1, 2, 3, 4),
    ][case]
    coro = loop.sock_recv(a, 100)
    if started:
        coro.send(None)
    with pytest.raises(TypeError):
        coro.throw(*args)
    coro.close()


def test_a_buffer_that_meddles(loop, ours, pair):
    """Python code that runs in the midst of a step."""
    if sys.version_info < (3, 12):
        pytest.skip("no __buffer__")
    a, b = pair
    log = []

    class Meddler:
        def __init__(self, do):
            self.do = do

        def __buffer__(self, flags):
            self.do()
            return memoryview(bytearray(10))

    def reenter():
        for call in (
            lambda: coro.send(None),
            lambda: coro.throw(ValueError),
            coro.close,
            lambda: next(coro),
        ):
            with pytest.raises(ValueError, match="already executing"):
                call()
        assert coro.cr_running
        log.append("reentered")

    b.send(b"abc")
    coro = loop.sock_recv_into(a, Meddler(reenter))
    loop.run_until_complete(coro)
    coro = loop.sock_sendall(a, Meddler(reenter))
    loop.run_until_complete(coro)
    assert log == ["reentered"] * 2
    for make in (loop.sock_recv_into, loop.sock_sendall):
        with pytest.raises(OSError) as caught:
            loop.run_until_complete(make(a, Meddler(a.close)))
        assert caught.value.errno == errno.EBADF

    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop.run_until_complete(loop.sock_sendall(b, Meddler(fail)))


def test_a_cycle_through_the_operation_is_collected(loop, ours, pair):
    a, _ = pair

    class Buffer(bytearray):
        pass

    buf = Buffer(10)
    buf.coro = loop.sock_recv_into(a, buf)
    ref = weakref.ref(buf)
    del buf
    gc.collect()
    assert ref() is None
    buf = Buffer(10)
    buf.coro = loop.sock_recv_into(a, buf)
    buf.coro.send(None)
    ref = weakref.ref(buf)
    del buf
    gc.collect()
    assert ref() is not None  # the loop waits for it
    ref().coro.close()
    gc.collect()
    assert ref() is None

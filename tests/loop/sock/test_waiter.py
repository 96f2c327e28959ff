"""What a sock_* coroutine waits for, taken out of it: as an asyncio.Future is."""

import asyncio
import contextvars

import pytest


@pytest.fixture
def waiting(loop, pair):
    """A coroutine that waits, and what it waits for: (coroutine, future, wake)."""
    a, b = pair

    async def make():
        coro = loop.sock_recv(a, 10)
        return coro, coro.send(None)

    coro, future = loop.run_until_complete(make())
    yield coro, future, lambda: b.send(b"x")
    coro.close()


def test_what_a_task_asks(loop, waiting):
    _, future, _ = waiting
    assert asyncio.isfuture(future)
    assert future.get_loop() is loop
    get_loop = future.get_loop
    assert get_loop() is loop
    assert future._asyncio_future_blocking is True
    future._asyncio_future_blocking = False
    assert future._asyncio_future_blocking is False
    assert not future.done() and not future.cancelled()
    with pytest.raises(asyncio.InvalidStateError):
        future.result()


def test_callbacks_get_what_they_wait_for(loop, waiting):
    _, future, wake = waiting
    got = []
    first = future.add_done_callback
    first(got.append)
    future.add_done_callback(got.append)
    wake()
    loop.run_until_complete(asyncio.sleep(0.01))
    assert got == [future, future]
    assert future.done() and not future.cancelled() and future.exception() is None
    # Over: called in the next turn.
    future.add_done_callback(got.append)
    assert len(got) == 2
    loop.run_until_complete(asyncio.sleep(0))
    assert got == [future] * 3


def test_a_callback_beside_a_task(loop, pair):
    a, b = pair
    got = []

    class Watched:
        """Awaits, and looks at what is yielded."""

        def __init__(self, coro):
            self.coro = coro

        def __await__(self):
            future = self.coro.send(None)
            future.add_done_callback(lambda arg: got.append(arg is future))
            yield future
            future.add_done_callback(lambda arg: got.append(arg is future))
            try:
                self.coro.send(None)
            except StopIteration as stop:
                return stop.value

    async def go():
        return await Watched(loop.sock_recv(a, 10))

    task = loop.create_task(go())
    loop.call_later(0.01, b.send, b"data")
    assert loop.run_until_complete(task) == b"data"
    loop.run_until_complete(asyncio.sleep(0))
    assert got == [True, True]


def test_context_of_callbacks(loop, waiting):
    _, future, wake = waiting
    var = contextvars.ContextVar("var", default="outer")
    context = contextvars.copy_context()
    context.run(var.set, "inner")
    got = []
    future.add_done_callback(lambda _: got.append(var.get()), context=context)
    future.add_done_callback(lambda _: got.append(var.get()))
    wake()
    loop.run_until_complete(asyncio.sleep(0.01))
    assert got == ["inner", "outer"]


def test_remove_done_callback(loop, waiting):
    _, future, wake = waiting
    got = []
    for callback in got.append, print, got.append:
        future.add_done_callback(callback)
    assert future.remove_done_callback(got.append) == 2
    assert future.remove_done_callback(print) == 1
    wake()
    loop.run_until_complete(asyncio.sleep(0.01))
    assert got == []


@pytest.mark.parametrize(
    "args, kwargs",
    [((), {"context": None}), ((print, print), {}), ((print,), {"other": 1})],
)
def test_wrong_arguments(waiting, args, kwargs):
    with pytest.raises(TypeError):
        waiting[1].add_done_callback(*args, **kwargs)


def test_a_message_of_cancel_reaches_the_task(loop, pair):
    async def go():
        task = loop.create_task(loop.sock_recv(pair[0], 10))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel("because")
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        return caught.value.args

    assert loop.run_until_complete(go()) == ("because",)


def test_a_python_task_is_woken(loop, pair):
    """asyncio's Task in Python takes it as the one in C does."""
    a, b = pair
    loop.call_later(0.01, b.send, b"data")

    async def go():
        return await loop.sock_recv(a, 10)

    task = asyncio.tasks._PyTask(go(), loop=loop)
    assert loop.run_until_complete(task) == b"data"

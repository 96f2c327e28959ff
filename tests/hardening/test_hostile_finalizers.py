"""Finalizers and reprs that use the loop where the loop does not expect it."""

import asyncio
import contextvars
import gc
import socket
import weakref

import pytest

from aiozmq_speedups import new_event_loop

pytestmark = pytest.mark.loops("speedups", "asyncio", closed_at_once=True)


def nothing(*args):
    pass


class Finalizer:
    def __init__(self, function, *args):
        self.call = function, args

    def __del__(self):
        function, args = self.call
        function(*args)


# ---- what ends while the loop looks how long it may sleep


@pytest.mark.parametrize("method", ["call_soon", "stop"])
def test_the_end_of_a_cancelled_timer_is_not_slept_over(method):
    """asyncio holds the timer while it sleeps, so that it ends after that."""
    loop = new_event_loop()
    variable = contextvars.ContextVar("variable")
    context = contextvars.Context()
    if method == "stop":
        end = Finalizer(loop.stop)
    else:
        end = Finalizer(loop.call_soon, loop.stop)
    context.run(variable.set, end)
    timer = loop.call_later(5, nothing, context=context)
    too_late = loop.call_later(10, loop.stop)
    del context, end
    timer.cancel()
    del timer
    loop.run_forever()
    assert loop.stats()["sleeps"] == 0
    too_late.cancel()
    loop.close()


# ---- debug mode: cancel() asks for the arguments' repr


class Repr:
    def __init__(self, function):
        self.function = function

    def __repr__(self):
        function, self.function = self.function, nothing
        function()
        return "hostile"


def test_repr_that_cancels_many_timers(loop):
    """Enough for the heap to be compacted while a timer is half cancelled."""
    loop.set_debug(True)
    others = []

    def cancel():
        for timer in others[:-1]:
            timer.cancel()

    timer = loop.call_later(1, nothing, Repr(cancel))
    others += [loop.call_later(1000 + i, nothing) for i in range(300)]
    timer.cancel()
    live = [timer for timer in loop._scheduled if not timer.cancelled()]
    assert live == others[-1:]
    others[-1].cancel()


def test_repr_that_takes_the_timer_off_the_heap(loop):
    loop.set_debug(True)
    timer = loop.call_later(
        1000, nothing, Repr(lambda: loop.call_later(2000, nothing).cancel())
    )
    timer.cancel()
    assert "cancelled" in repr(timer)
    if hasattr(loop, "stats"):
        assert loop.stats()["timers"] == 0
    for _ in range(300):
        loop.call_later(1000, nothing).cancel()
    assert all(timer.cancelled() for timer in loop._scheduled)


# ---- before Python 3.12 the collector runs in any allocation


@pytest.fixture
def during():
    """during(f, action): f(), with action() called by the collector in f's first
    allocation that it counts, which is none of those that free lists serve."""
    actions, drain = [], []

    def on_collection(phase, info):
        if phase == "start" and actions:
            actions.pop()()

    def call(function, action):
        gc.disable()
        gc.set_threshold(1, 1000, 1000)
        gc.collect()
        drain.extend({} for _ in range(100))
        drain.extend(contextvars.Context() for _ in range(300))
        drain.extend((object(), 1, i) for i in range(2100))
        drain.extend((object(), i) for i in range(2100))
        actions.append(action)
        gc.enable()
        try:
            return function()
        finally:
            gc.disable()
            gc.set_threshold(*threshold)
            actions.clear()
            drain.clear()
            gc.enable()

    threshold = gc.get_threshold()
    gc.callbacks.append(on_collection)
    yield call
    gc.callbacks.remove(on_collection)


def scheduled_twice(loop):
    """A handle whose Context is not the latest that the loop has seen."""
    variable = contextvars.ContextVar("variable")
    variable.set(1)
    handle = loop.call_soon(nothing)
    variable.set(2)
    loop.call_soon(nothing).cancel()
    return handle


def test_collector_cancels_the_handle_that_is_about_to_run(loop, during):
    for _ in range(3):
        handle = scheduled_twice(loop)
        during(handle._run, handle.cancel)


def test_collector_asks_for_a_handles_context(loop, during):
    if not hasattr(loop.call_soon(nothing), "get_context"):
        pytest.skip("since Python 3.12")
    for _ in range(3):
        contexts = []

        def get_context(contexts=contexts):
            contexts.append(handle.get_context())

        handle = scheduled_twice(loop)
        contexts.append(during(handle.get_context, get_context))
        assert all(context is handle.get_context() for context in contexts)

        contexts.clear()
        handle = scheduled_twice(loop)
        during(handle._run, get_context)
        assert all(context is handle.get_context() for context in contexts)


def test_collector_makes_a_future_in_create_future(during, make_loop):
    loop = make_loop()
    during(loop.create_future, loop.create_future)
    loop.close()
    ref = weakref.ref(loop)
    del loop
    gc.collect()
    assert ref() is None


def test_collector_removes_the_reader_that_is_looked_up(during):
    loop = new_event_loop()
    a, b = socket.socketpair()
    with a, b:
        for _ in range(3):
            loop.add_reader(a, nothing)
            watched, fd = loop._watched, a.fileno()
            found = during(lambda: watched(fd), lambda: loop.remove_reader(fd))
            assert found is None or "Handle" in repr(found)
            loop.remove_reader(a)
    loop.close()


def test_collector_ends_the_wait_that_gets_a_callback(loop, during):
    async def main():
        a, b = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=a)
        with b:
            coroutine = reader.read(1)
            future = coroutine.send(None)
            called = asyncio.Event()

            def callback(_):
                called.set()

            add, end = future.add_done_callback, future.set_result
            during(lambda: add(callback), lambda: end(None))
            if not future.done():
                end(None)  # 3.12: no collection in there
            await called.wait()
            coroutine.close()
            writer.close()

    loop.run_until_complete(main())

"""Callbacks that do what no callback should: the loop goes on, or says no."""

import asyncio
import contextvars
import gc
import socket
import weakref

import pytest
from waiting import run_ready

from aiozmq_speedups import new_event_loop

pytestmark = pytest.mark.loops("speedups", "asyncio", closed_at_once=True)


class Stop(BaseException):
    pass


# ---- handles


@pytest.mark.parametrize("how", ["call_soon", "call_later", "call_soon_threadsafe"])
def test_a_callback_cancels_its_own_handle(loop, how):
    seen = []

    def callback(x):
        seen.append(x)
        handle.cancel()
        seen.append(handle.cancelled())
        assert handle._args is None

    args = (0,) if how == "call_later" else ()
    handle = getattr(loop, how)(*args, callback, "x")
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    assert seen == ["x", True]


def test_a_handle_of_asyncio_that_is_cancelled_late(loop, contexts):
    """asyncio's code makes such handles, for signals."""
    seen = []
    handles = [asyncio.Handle(seen.append, (i,), loop) for i in range(2)]
    for handle in handles:
        loop._add_callback(handle)
    handles[0].cancel()
    run_ready(loop)
    assert seen == [1] and not contexts


def test_a_callback_cancels_its_successors(loop):
    seen = []
    handles = []

    def first():
        for handle in handles:
            handle.cancel()

    loop.call_soon(first)
    handles += [loop.call_soon(seen.append, i) for i in range(100)]
    handles += [loop.call_later(0, seen.append, i) for i in range(100)]
    run_ready(loop)
    assert seen == []


def test_arguments_that_die_late(loop):
    """Finalizers of a callback and its arguments use the loop and the handle."""
    seen = []

    class Arg:
        def __del__(self):
            seen.append("del")
            for handle in handles:
                handle.cancel()
            loop.call_soon(seen.append, "from del")

    def callback(arg):
        seen.append("ran")

    handles = [loop.call_soon(callback, Arg())]
    run_ready(loop)
    handles.clear()
    gc.collect()
    run_ready(loop)
    assert seen[0] == "ran" and seen.count("del") == 1 and "from del" in seen


def test_cancel_drops_arguments_that_cancel(loop):
    class Arg:
        def __del__(self):
            handle.cancel()
            repr(handle)
            loop.call_soon(print)

    handle = loop.call_soon(print, Arg(), Arg(), Arg(), Arg(), Arg())
    handle.cancel()
    timer = handle = loop.call_later(100, print, Arg())
    timer.cancel()
    assert timer.cancelled()


def test_a_callback_resurrected(loop):
    alive = []

    class Callback:
        def __call__(self):
            pass

        def __del__(self):
            alive.append(self)

    loop.call_soon(Callback())
    loop.call_later(0, Callback())
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    gc.collect()
    assert len(alive) == 2
    for callback in alive:
        loop.call_soon(callback)
    run_ready(loop)
    Callback.__del__ = lambda self: None
    alive.clear()


def test_a_handle_as_its_own_argument(loop):
    class Args:
        pass

    args = Args()
    args.handle = loop.call_soon(args.__init__, *[args] * 0)
    args.timer = loop.call_later(1000, print, args)
    args.later = loop.call_soon(print, args)
    args.later.cancel()
    gone = weakref.ref(args)
    args.timer.cancel()
    run_ready(loop)
    del args
    gc.collect()
    assert gone() is None


def test_handles_outlive_their_loop(loop):
    handles = [
        loop.call_soon(print, 1),
        loop.call_later(100, print, 1),
        loop.call_soon_threadsafe(print, 1),
    ]
    loop.close()
    for handle in handles:
        repr(handle)
        handle.cancel()
        handle.cancel()
        assert handle.cancelled()


@pytest.mark.parametrize("when", [float("nan"), float("inf"), -1e300, -1, 1e18])
def test_odd_times(loop, when):
    if when != when and type(loop) is asyncio.SelectorEventLoop:
        pytest.skip("asyncio's heap is undefined then")
    seen = []
    try:
        handle = loop.call_at(when, seen.append, 1)
    except (ValueError, OverflowError):
        handle = None
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    assert seen == ([1] if when < 0 else [])
    if handle is not None:
        handle.cancel()


def test_many_timers_cancelled_by_one_of_them(loop):
    handles = []

    def cancel_all():
        for handle in handles:
            handle.cancel()
        loop.call_soon(loop.stop)

    handles += [loop.call_later(0.001 * i, cancel_all) for i in range(1, 300)]
    loop.run_forever()
    assert all(handle.cancelled() for handle in handles)


# ---- the loop itself


def test_close_inside_a_callback_is_refused(loop):
    errors = []

    def callback():
        try:
            loop.close()
        except RuntimeError as exc:
            errors.append(str(exc))

    loop.call_soon(callback)
    run_ready(loop)
    assert errors == ["Cannot close a running event loop"]
    assert not loop.is_closed()


def test_nested_runs_are_refused(loop):
    errors = []

    def callback(run):
        try:
            run()
        except RuntimeError as exc:
            errors.append(str(exc))

    async def coroutine():
        pass

    def run_coroutine():
        c = coroutine()
        try:
            loop.run_until_complete(c)
        finally:
            c.close()

    loop.call_soon(callback, run_coroutine)
    # the last: after it asyncio 3.13.0 has forgotten that it runs
    loop.call_soon(callback, loop.run_forever)
    run_ready(loop)
    assert errors == ["This event loop is already running"] * 2


def test_another_loop_cannot_run_inside(loop):
    other = new_event_loop()
    errors = []

    def callback():
        try:
            other.run_forever()
        except RuntimeError as exc:
            errors.append(str(exc))

    loop.call_soon(callback)
    run_ready(loop)
    other.close()
    assert errors == ["Cannot run the event loop while another loop is running"]


def test_another_loop_runs_inside_where_it_is_told_so(loop):
    """As nest_asyncio and some debuggers do."""
    other = new_event_loop()
    seen = []

    def callback():
        asyncio._set_running_loop(None)
        other.call_soon(seen.append, "inner")
        run_ready(other)
        asyncio._set_running_loop(loop)

    loop.call_soon(callback)
    loop.call_soon(seen.append, "outer")
    run_ready(loop)
    other.close()
    assert seen == ["inner", "outer"]


def test_stop_runs_the_rest_of_the_turn_only(loop):
    seen = []

    def first():
        loop.stop()
        loop.call_soon(seen.append, "next turn")
        seen.append("first")

    loop.call_soon(first)
    loop.call_soon(seen.append, "same turn")
    loop.run_forever()
    assert seen == ["first", "same turn"]
    run_ready(loop)
    assert seen[2:] == ["next turn"]


def test_stop_before_run(loop):
    loop.stop()
    loop.run_forever()
    seen = []
    loop.call_soon(seen.append, 1)
    loop.stop()
    loop.stop()
    loop.run_forever()
    assert seen == [1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_leaves_the_loop(loop, error):
    """The rest of the turn is not lost."""
    seen = []

    def fail():
        raise error

    loop.call_soon(seen.append, 1)
    loop.call_soon(fail)
    loop.call_soon(seen.append, 2)
    with pytest.raises(error):
        loop.run_forever()
    assert seen == [1] and not loop.is_running()
    assert asyncio._get_running_loop() is None
    run_ready(loop)
    assert seen == [1, 2]


@pytest.mark.parametrize("error", [ZeroDivisionError, GeneratorExit, Stop])
def test_what_goes_to_the_exception_handler(loop, contexts, error):
    seen = []

    def fail(x):
        raise error("boom")

    handle = loop.call_soon(fail, 1)
    loop.call_soon(seen.append, 1)
    run_ready(loop)
    [context] = contexts
    assert isinstance(context["exception"], error)
    assert context["handle"] is handle
    assert context["message"].startswith("Exception in callback ")
    assert seen == [1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_exception_handler_that_leaves_the_loop(loop, error):
    def handler(loop, context):
        raise error

    loop.set_exception_handler(handler)
    loop.call_soon([].pop)
    with pytest.raises(error):
        loop.run_forever()
    loop.set_exception_handler(None)
    run_ready(loop)


def test_an_exception_handler_that_fails(loop, caplog):
    def handler(loop, context):
        raise ZeroDivisionError

    loop.set_exception_handler(handler)
    loop.call_soon([].pop)
    run_ready(loop)
    assert "Unhandled error in exception handler" in caplog.text
    caplog.clear()  # its records hold the handle
    loop.set_exception_handler(None)


def test_an_exception_handler_that_stops_and_schedules(loop):
    seen = []

    def handler(loop, context):
        loop.call_soon(seen.append, "handled")
        loop.stop()

    loop.set_exception_handler(handler)
    loop.call_soon([].pop)
    loop.run_forever()
    run_ready(loop)
    assert seen == ["handled"]
    loop.set_exception_handler(None)


def test_a_run_that_was_left_goes_on(loop):
    """A task cut off by KeyboardInterrupt in another callback goes on later."""

    def fail():
        raise KeyboardInterrupt

    async def main():
        await asyncio.sleep(0)
        loop.call_soon(fail)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return "done"

    task = loop.create_task(main())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    assert loop.run_until_complete(task) == "done"


def test_unusable_callbacks(loop, contexts):
    for call in (
        lambda: loop.call_soon(),
        lambda: loop.call_later(0),
        lambda: loop.call_later("x", print),
        lambda: loop.call_at(),
        lambda: loop.call_soon(print, nothing=1),
    ):
        with pytest.raises(TypeError):
            call()
    loop.call_soon(None)
    run_ready(loop)
    assert isinstance(contexts[0]["exception"], TypeError)


def test_context_that_is_entered_already(loop, caplog):
    context = contextvars.Context()
    context.run(run_ready, loop)
    seen = []
    loop.call_soon(seen.append, 1, context=context)
    # it is current while the loop runs: entering it again is an error
    context.run(run_ready, loop)
    assert seen == []
    assert "cannot enter context" in caplog.text


def test_a_deep_chain_of_callbacks(loop):
    """Each keeps the next alive: freeing the first must not recurse."""

    def callback(next):
        pass

    args = None
    for _ in range(100_000):
        args = (args,)
    handle = loop.call_soon(callback, args)
    del args
    chain = None
    for _ in range(20_000):
        chain = loop.call_later(1000, callback, chain)
    chain.cancel()
    handle.cancel()
    del handle, chain
    run_ready(loop)


def test_dropped_without_close(loop):
    a, b = socket.socketpair()
    with a, b:
        other = new_event_loop()
        other.add_reader(a, print)
        other.call_soon(other.stop)
        other.call_later(10, other.stop)
        other.me = other
        gone = weakref.ref(other)
        with pytest.warns(ResourceWarning, match="unclosed event loop"):
            del other
            gc.collect()
        # The warning held it until here; Python 3.15 clears weak references late.
        gc.collect()
        assert gone() is None


# ---- descriptors


def test_a_reader_removes_itself_and_others(loop, pair):
    a, b = pair
    seen = []

    def on_read():
        seen.append("read")
        loop.remove_reader(a)
        loop.remove_writer(a)

    def on_write():
        seen.append("write")

    b.send(b"x")
    loop.add_reader(a, on_read)
    loop.add_writer(a, on_write)
    for _ in range(3):
        run_ready(loop)
    assert seen == ["read"]


def test_a_reader_closes_its_descriptor(loop, pair):
    a, b = pair
    seen = []

    def on_read():
        seen.append("read")
        loop.remove_reader(a)
        a.close()
        loop.stop()

    b.send(b"x")
    loop.add_reader(a, on_read)
    loop.run_forever()
    run_ready(loop)
    assert seen == ["read"]


def test_closed_without_removal_and_used_again(loop):
    """The number comes back for another file: its own readers hear of it."""
    seen = []
    a, b = socket.socketpair()
    fd = a.fileno()
    loop.add_reader(fd, seen.append, "old")
    a.close()
    b.close()
    run_ready(loop)
    c, d = socket.socketpair()
    try:
        if c.fileno() != fd:
            pytest.skip("another number came back")
        try:
            loop.remove_reader(fd)
        except OSError:
            pass
        loop.add_reader(c, lambda: (seen.append("new"), loop.stop()))
        d.send(b"x")
        loop.run_forever()
        assert seen == ["new"]
        loop.remove_reader(c)
    finally:
        c.close()
        d.close()


def test_replacing_a_reader_in_its_own_callback(loop, pair):
    a, b = pair
    seen = []

    def second():
        seen.append(a.recv(10))
        loop.remove_reader(a)
        loop.stop()

    def first():
        seen.append("first")
        loop.add_reader(a, second)

    b.send(b"x")
    loop.add_reader(a, first)
    loop.run_forever()
    assert seen == ["first", b"x"]


def test_fileno_that_is_hostile(loop, pair):
    a, _ = pair

    class File:
        def __init__(self, fileno):
            self.fileno = fileno

    def closes():
        loop.close()
        return a.fileno()

    def fails():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop.add_reader(File(fails), print)
    with pytest.raises((RuntimeError, AttributeError)):
        loop.add_reader(File(closes), print)
    assert loop.is_closed()


def test_a_thousand_readers_remove_each_other(loop):
    pairs = [socket.socketpair() for _ in range(300)]
    ran = []

    def on_read(i):
        ran.append(i)
        for a, _ in pairs:
            loop.remove_reader(a)

    try:
        for i, (a, b) in enumerate(pairs):
            b.send(b"x")
            loop.add_reader(a, on_read, i)
        for _ in range(3):
            run_ready(loop)
        assert len(ran) == 1
    finally:
        for a, b in pairs:
            a.close()
            b.close()


# ---- tasks and factories


def test_task_factory_that_is_hostile(loop):
    async def coroutine():
        return 1

    def factory(loop, coro, **kwargs):
        coro.close()
        raise ZeroDivisionError

    loop.set_task_factory(factory)
    with pytest.raises(ZeroDivisionError):
        loop.create_task(coroutine())
    loop.set_task_factory(None)
    with pytest.raises(TypeError):
        loop.set_task_factory(1)
    assert loop.run_until_complete(coroutine()) == 1


def test_create_task_with_odd_arguments(loop):
    async def coroutine():
        return 1

    with pytest.raises(TypeError):
        loop.create_task(None)
    with pytest.raises(TypeError):
        loop.create_task()
    c = coroutine()
    with pytest.raises(TypeError):
        loop.create_task(c, nothing=1)
    c.close()
    task = loop.create_task(coroutine(), name="x")
    assert task.get_name() == "x"
    assert loop.run_until_complete(task) == 1


def test_a_task_that_swallows_everything(loop):
    async def stubborn():
        for _ in range(50):
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                pass
        return "out"

    async def main():
        task = asyncio.ensure_future(stubborn())
        for _ in range(100):
            await asyncio.sleep(0)
            task.cancel()
        return await task

    assert loop.run_until_complete(main()) == "out"

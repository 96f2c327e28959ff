"""Every callback has a Context of its own, as asyncio defines it: handles share
one only where nobody can tell. Each test runs on asyncio's loop too."""

import asyncio
import contextvars
import gc
import socket
import sys
import threading
import weakref

import pytest

from aiozmq_speedups.loop import new_event_loop

pytestmark = pytest.mark.loops("speedups", "asyncio", closed_at_once=True)


var = contextvars.ContextVar("var", default="unset")


@pytest.fixture(autouse=True)
def _own_context(request):
    """What a test sets ends with it."""
    token = var.set("base")
    yield
    var.reset(token)


def turns(loop, count=1):
    for _ in range(count):
        loop.call_soon(loop.stop)
        loop.run_forever()


def context_of(handle):
    """handle.get_context(), which asyncio's handles have since Python 3.12."""
    if isinstance(handle, asyncio.Handle) and not hasattr(handle, "get_context"):
        return handle._context
    return handle.get_context()


class Value:
    pass


def test_a_callback_sees_the_values_of_its_call(loop):
    seen = []
    loop.call_soon(lambda: seen.append(var.get()))
    var.set("later")
    loop.call_soon(lambda: seen.append(var.get()))
    loop.call_later(0, lambda: seen.append(var.get()))
    var.set("last")
    turns(loop, 2)
    assert seen == ["base", "later", "later"]


def test_what_a_callback_sets_stays_in_it(loop):
    seen = []

    def change(value):
        seen.append(var.get())
        var.set(value)

    for value in range(3):
        loop.call_soon(change, value)
    turns(loop)
    assert seen == ["base"] * 3
    assert var.get() == "base"


def test_what_a_callback_sets_is_what_it_hands_on(loop):
    seen = []

    def first():
        loop.call_soon(lambda: seen.append(var.get()))
        var.set("changed")
        loop.call_soon(lambda: seen.append(var.get()))
        loop.call_soon(lambda: seen.append(var.get()))

    loop.call_soon(first)
    loop.call_soon(lambda: seen.append(var.get()))
    turns(loop, 2)
    assert seen == ["base", "base", "changed", "changed"]


def test_set_and_reset_leave_no_trace(loop):
    seen = []

    def change():
        token = var.set("changed")
        var.reset(token)
        seen.append(var.get())

    for _ in range(3):
        loop.call_soon(change)
        loop.call_soon(lambda: seen.append(var.get()))
    turns(loop)
    assert seen == ["base"] * 6


def test_a_token_belongs_to_the_callback_that_got_it(loop):
    tokens, errors = [], []

    def reset():
        try:
            var.reset(tokens[0])
        except ValueError as exc:
            errors.append(str(exc))

    loop.call_soon(lambda: tokens.append(var.set("changed")))
    loop.call_soon(reset)
    turns(loop)
    assert len(errors) == 1 and "different Context" in errors[0]


def test_a_handle_has_one_context(loop):
    handle = loop.call_soon(var.set, "changed")
    context = context_of(handle)
    assert type(context) is contextvars.Context
    assert context_of(handle) is context
    assert context[var] == "base"
    other = loop.call_soon(var.get)
    assert context_of(other) is not context
    turns(loop)
    assert context_of(handle) is context
    assert context[var] == "changed"
    assert context_of(other)[var] == "base"


def test_the_context_of_a_handle_that_ran_has_what_it_set(loop):
    handle = loop.call_soon(var.set, "changed")
    quiet = loop.call_soon(var.get)
    turns(loop)
    assert context_of(handle)[var] == "changed"
    assert context_of(quiet)[var] == "base"


def test_the_context_of_a_running_handle_is_entered(loop):
    found = []

    def look():
        context = context_of(handle)
        found.append(context)
        with pytest.raises(RuntimeError, match="already entered"):
            context.run(found.append, None)
        var.set("changed")
        assert context[var] == "changed"

    handle = loop.call_soon(look)
    loop.call_soon(lambda: found.append(var.get()))
    turns(loop)
    assert found[0] is context_of(handle)
    assert found[1:] == ["base"]


def test_a_given_context_is_used_itself(loop):
    context = contextvars.copy_context()
    handle = loop.call_soon(var.set, "changed", context=context)
    assert context_of(handle) is context
    turns(loop)
    assert context[var] == "changed"
    loop.call_soon(loop.call_soon, var.set, "handed on", context=context)
    turns(loop, 2)
    assert context[var] == "changed"


def test_a_reader_keeps_its_context(loop):
    near, far = socket.socketpair()
    with near, far:
        seen, tokens = [], []

        def readable():
            far.recv(1)
            seen.append(var.get())
            if tokens:
                var.reset(tokens.pop())
            else:
                tokens.append(var.set(len(seen)))
            loop.stop()

        loop.add_reader(far, readable)
        for _ in range(4):
            near.send(b"x")
            loop.run_forever()
        loop.remove_reader(far)
    assert seen == ["base", 1, "base", 3]


def test_a_callback_within_a_callback(loop):
    seen = []
    inner = loop.call_soon(lambda: seen.append(var.get()))

    def outer():
        inner._run()
        var.set("changed")
        inner._run()
        seen.append(var.get())

    loop.call_soon(outer)
    loop.call_soon(lambda: seen.append(var.get()))
    turns(loop)
    assert seen == ["base", "base", "base", "changed", "base"]


def test_another_thread_has_values_of_its_own(loop):
    seen = []

    def schedule(value):
        if value is not None:
            var.set(value)
        for _ in range(3):
            loop.call_soon_threadsafe(lambda: seen.append(var.get()))

    for value in ("one", None, "two"):
        thread = threading.Thread(target=schedule, args=(value,))
        thread.start()
        thread.join()
    loop.call_soon(lambda: seen.append(var.get()))
    turns(loop)
    # Threads inherit values from 3.14 on, where the interpreter is told to.
    inherited = getattr(sys.flags, "thread_inherit_context", False)
    none_of_its_own = "base" if inherited else "unset"
    assert seen == ["one"] * 3 + [none_of_its_own] * 3 + ["two"] * 3 + ["base"]


def test_a_failure_is_reported_and_the_next_callback_unharmed(loop):
    reports, seen = [], []
    loop.set_exception_handler(lambda loop, report: reports.append(report))

    def fail():
        var.set("changed")
        raise ZeroDivisionError

    loop.call_soon(fail)
    loop.call_soon(lambda: seen.append(var.get()))
    turns(loop)
    assert seen == ["base"]
    assert context_of(reports[0]["handle"])[var] == "changed"
    reports.clear()


def test_values_end_with_a_timer_that_was_set_before_the_loop_ran(loop):
    value = Value()
    ref = weakref.ref(value)
    context = contextvars.Context()
    context.run(var.set, value)
    context.run(loop.call_later, 0, loop.stop)
    del value, context
    loop.run_forever()
    gc.collect()
    assert ref() is None


def test_values_live_no_longer_than_the_handles(loop):
    value = Value()
    ref = weakref.ref(value)

    def hand_on():
        loop.call_soon(lambda: None)

    def schedule():
        var.set(value)  # noqa: F821
        loop.call_soon(hand_on)
        loop.call_later(0, lambda: None)

    contextvars.copy_context().run(schedule)
    del value
    assert ref() is not None
    turns(loop, 3)
    gc.collect()
    assert ref() is None


def test_values_of_a_loop_that_is_closed_are_free(loop):
    value = Value()
    ref = weakref.ref(value)

    def schedule():
        var.set(value)  # noqa: F821
        for _ in range(3):
            loop.call_soon(lambda: None)

    contextvars.copy_context().run(schedule)
    del value
    loop.close()
    gc.collect()
    assert ref() is None


def test_finalizers_of_values_may_schedule(loop):
    seen = []

    class Evil:
        def __del__(self):
            loop.call_soon(seen.append, "scheduled")

    def schedule():
        var.set(Evil())
        loop.call_soon(lambda: None)

    contextvars.copy_context().run(schedule)
    loop.call_soon(lambda: None)
    turns(loop, 3)
    assert seen == ["scheduled"]


def test_garbage_with_a_snapshot_is_collected():
    loop = new_event_loop()
    refs = []

    class Value:
        handle = None

        def __del__(self):
            # The collector may have emptied the Context already.
            context = context_of(self.handle)
            context.run(lambda: None)
            self.handle._run()

    def schedule():
        value = Value()
        var.set(value)
        value.handle = loop.call_soon(lambda: None)
        value.handle.cancel()
        refs.append(weakref.ref(value))

    for _ in range(3):
        contextvars.copy_context().run(schedule)
    turns(loop)
    # What a finalizer has used stays for another round: seen by a weak reference
    # since Python 3.15, which clears those after the finalizers.
    gc.collect()
    gc.collect()
    assert [ref() for ref in refs] == [None] * 3
    loop.close()


def test_the_keyword_in_any_string(loop):
    """C code passes one tuple of names again and again, its strings not interned."""

    class Name(str):
        pass

    context = contextvars.copy_context()
    context.run(var.set, "own")
    seen = []

    def look():
        seen.append(var.get())

    for _ in range(3):
        for name in "context", "".join(["con", "text"]), Name("context"):
            loop.call_soon(look, **{name: context})
            loop.call_later(0, look, **{name: context})
            loop.call_soon_threadsafe(look, **{name: context})
            loop.call_soon(look, **{name: None})
        for name in "".join(["con", "texu"]), "contex", Name("contexts"), "callbacks":
            with pytest.raises(TypeError, match=name):
                loop.call_soon(look, **{name: context})
        with pytest.raises(TypeError):
            loop.call_soon(look, **{"".join(["con", "text"]): context, "x": 1})
        with pytest.raises(TypeError):
            loop.call_soon(**{"".join(["con", "text"]): context})
        future = loop.create_future()
        future.add_done_callback(lambda _: look(), context=context)
        future.set_result(None)
        turns(loop, 3)
        assert sorted(seen) == ["base"] * 3 + ["own"] * 10
        seen.clear()


def test_values_end_before_the_loop_sleeps(loop):
    """A timer that keeps other values keeps none of the callback that ran last."""
    value = Value()
    gone = threading.Event()
    weakref.finalize(value, gone.set)
    one, other = contextvars.Context(), contextvars.Context()
    one.run(var.set, value)
    other.run(var.set, 1)
    one.run(loop.call_soon, list)
    timer = other.run(loop.call_later, 1000, list)
    del one, value
    seen = []

    def watch():
        seen.append(gone.wait(100))
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=watch)
    thread.start()
    loop.run_forever()
    thread.join()
    timer.cancel()
    assert seen == [True]

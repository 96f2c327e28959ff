"""create_future() gives what asyncio.Future(loop=loop) gives."""

import asyncio
import gc
import sys

import pytest

pytestmark = pytest.mark.loops("speedups", "asyncio", closed_at_once=True)


def state_of(future):
    names = [name for name in dir(future) if name.startswith("_")]
    names = [name for name in names if not name.startswith("__")]
    state = {name: getattr(future, name) for name in names}
    return {name: value for name, value in state.items() if not callable(value)}


def test_a_new_one_is_as_its_class_makes_it(loop):
    loop.set_debug(False)
    for _ in range(3):  # the first shows how they look
        future = loop.create_future()
        other = asyncio.Future(loop=loop)
        assert type(future) is asyncio.Future
        assert future.get_loop() is loop
        assert state_of(future) == state_of(other)
        assert gc.is_tracked(future)
        assert gc.get_referents(future) == gc.get_referents(other)


def test_it_holds_the_loop_once(loop):
    loop.set_debug(False)
    loop.create_future()
    before = sys.getrefcount(loop)
    futures = [loop.create_future() for _ in range(100)]
    assert sys.getrefcount(loop) - before >= 100
    del futures
    assert sys.getrefcount(loop) == before


def test_debug_mode_shows_where_it_was_made(loop):
    loop.set_debug(False)
    assert loop.create_future()._source_traceback is None
    loop.set_debug(True)
    future = loop.create_future()
    assert __file__ in [frame.filename for frame in future._source_traceback]
    loop.set_debug(False)
    assert loop.create_future()._source_traceback is None


def test_its_error_is_told_of(loop):
    loop.set_debug(False)
    told = []
    loop.set_exception_handler(lambda loop, context: told.append(context))
    future = loop.create_future()
    future.set_exception(ValueError("x"))
    del future
    assert [str(context["exception"]) for context in told] == ["x"]
    loop.set_exception_handler(None)

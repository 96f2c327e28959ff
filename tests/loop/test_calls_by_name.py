"""Parameters given by name, and calls that lack some, as in asyncio."""

import contextvars
import socket

import pytest

pytestmark = pytest.mark.loops("speedups", "asyncio", closed_at_once=True)


@pytest.fixture
def sock():
    a, b = socket.socketpair()
    with a, b:
        yield a


def nothing(*args):
    pass


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("call_soon", {}),
        ("call_soon_threadsafe", {}),
        ("call_later", {"delay": 0}),
        ("call_at", {"when": 0}),
    ],
)
@pytest.mark.parametrize("with_context", [False, True])
def test_scheduling(loop, method, parameters, with_context):
    variable = contextvars.ContextVar("variable", default="outside")
    context = contextvars.copy_context()
    context.run(variable.set, "inside")
    seen = []
    keywords = {"context": context} if with_context else {}

    def callback(*args):
        seen.append((*args, variable.get()))

    call = getattr(loop, method)
    call(callback=callback, **keywords, **parameters)
    call(**parameters, **keywords, callback=callback)
    call(*parameters.values(), callback=callback, **keywords)
    call(*parameters.values(), callback, "argument", **keywords)
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    where = "inside" if with_context else "outside"
    assert seen == [(where,)] * 3 + [("argument", where)]


def test_readers_and_writers(loop, sock):
    loop.add_reader(fd=sock, callback=nothing)
    loop.add_writer(sock, callback=loop.stop)
    loop.run_forever()
    assert loop.remove_reader(fd=sock) is True
    assert loop.remove_writer(fd=sock) is True
    assert loop.remove_writer(fd=sock.fileno()) is False


@pytest.mark.parametrize(
    ("method", "args", "keywords", "error"),
    [
        ("call_soon", (), {}, "missing 1 required positional argument: 'callback'"),
        ("call_later", (1,), {}, "missing 1 required positional argument: 'callback'"),
        (
            "call_at",
            (),
            {},
            "missing 2 required positional arguments: 'when' and 'callback'",
        ),
        (
            "call_at",
            (),
            {"callback": nothing},
            "missing 1 required positional argument: 'when'",
        ),
        (
            "call_later",
            (),
            {"context": None},
            "missing 2 required positional arguments: 'delay' and 'callback'",
        ),
        (
            "call_soon",
            (nothing,),
            {"callback": nothing},
            "multiple values for argument",
        ),
        ("call_later", (1, 2, 3), {"delay": 1}, "multiple values for argument 'delay'"),
        ("call_soon", (), {"x": 1}, "got an unexpected keyword argument 'x'"),
        (
            "call_soon_threadsafe",
            (nothing,),
            {"x": 1},
            "got an unexpected keyword argument 'x'",
        ),
        ("call_soon", (nothing,), {"context": None, "x": 1}, "argument 'x'"),
        (
            "add_reader",
            (),
            {},
            "missing 2 required positional arguments: 'fd' and 'callback'",
        ),
        ("add_reader", (1,), {}, "missing 1 required positional argument: 'callback'"),
        ("add_writer", (1, nothing), {"x": 1}, "unexpected keyword argument 'x'"),
        ("add_writer", (1, nothing), {"fd": 1}, "multiple values for argument 'fd'"),
        ("remove_reader", (), {}, "missing"),
        ("remove_writer", (1, 2), {}, "positional argument"),
    ],
)
def test_wrong_calls(loop, method, args, keywords, error):
    with pytest.raises(TypeError, match=error):
        getattr(loop, method)(*args, **keywords)
    assert loop.remove_reader(1) is loop.remove_writer(1) is False


@pytest.mark.parametrize("more", [{}, {"name": "name"}])
@pytest.mark.parametrize("debug", [False, True])
def test_a_task_is_its_loops(loop, more, debug):
    """create_task() takes no other, and does not make as if."""

    async def coroutine():
        pass

    loop.set_debug(debug)
    with pytest.raises(TypeError, match="loop"):
        loop.create_task(awaitable := coroutine(), loop=loop, **more)
    with pytest.raises(TypeError, match="loop"):
        loop.create_task(awaitable, **more, **{"lo" + "op": None})
    awaitable.close()

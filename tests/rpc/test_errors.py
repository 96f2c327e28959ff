"""Every exception of Python and of asyncio comes back as itself."""

import asyncio
import builtins
import struct
import traceback

import msgpack
import pytest
import zmq

from aiozmq_speedups.rpc import _errors
from aiozmq_speedups.rpc.packer import _Packer

#: Those that end a program or a task, or that a Future refuses.
GENERIC = {"StopIteration"}

#: What one of a class is made of, if not of nothing.
ARGS = {
    "UnicodeDecodeError": ("utf-8", b"ab\xff", 2, 3, "invalid start byte"),
    "UnicodeEncodeError": ("ascii", "aé", 1, 2, "ordinal not in range"),
    "UnicodeTranslateError": ("aé", 1, 2, "no reason"),
    "ExceptionGroup": ("message", [ValueError(1), OSError(2, "no file", "name")]),
    "IncompleteReadError": (b"part", 10),
    "LimitOverrunError": ("too long", 5),
}


def standard_classes():
    return {
        value
        for module in (builtins, asyncio)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Exception)
    } | {getattr(asyncio, "QueueShutDown", asyncio.QueueEmpty)}


def with_attributes(exc, **attributes):
    for name, value in attributes.items():
        setattr(exc, name, value)
    return exc


def samples():
    for cls in sorted(standard_classes(), key=lambda cls: cls.__name__):
        args = ARGS.get(cls.__name__)
        if args is None:
            yield cls()
            yield cls("message")
            yield cls("message", 5, (None, b"x"))
        else:
            yield cls(*args)
        if issubclass(cls, OSError):
            yield cls(2, "text", "name")
            yield cls(17, "text", b"name", None, "other")
    details = ("file.py", 3, 7, "text of it", 4, 9)
    noted = ValueError("x")
    noted.add_note("a note")
    noted.add_note("ünother")
    group = ExceptionGroup("inner", [noted, asyncio.QueueFull()])
    yield from (
        noted,
        SyntaxError("message", details),
        with_attributes(IndentationError("message", details), lineno=77, msg="other"),
        ImportError("message", name="module", path="/path"),
        ModuleNotFoundError("message", name="module"),
        NameError("message", name="x"),
        AttributeError("message", name="x", obj={"not": "sent"}),
        with_attributes(OSError(2, "text"), filename="set later"),
        BlockingIOError(11, "text", 1234),
        with_attributes(UnicodeDecodeError(*ARGS["UnicodeDecodeError"]), reason="else"),
        KeyError("k"),
        StopAsyncIteration(5),
        ExceptionGroup("outer", [group, TimeoutError()]),
        with_attributes(asyncio.QueueEmpty(), __notes__=["note"]),
    )


def describe(exc):
    """All that is to be the same."""
    attributes = {
        name: getattr(exc, name, None)
        for name in dir(exc)
        if not callable(getattr(exc, name, None))
        and (not name.startswith("_") or name == "__notes__")
        and name not in ("obj", "exceptions", "name_from")
    }
    nested = getattr(exc, "exceptions", ())
    if nested:
        attributes.pop("args")
    return type(exc), attributes, [describe(one) for one in nested]


def through_the_wire(raised):
    packer = _Packer()
    sent = packer.unpackb(_errors.pack_error(packer.packb, raised))
    return _errors.make_error(_errors.default_error_table(), *sent)


def test_all_of_them():
    for raised in samples():
        answer = through_the_wire(raised)
        if type(raised).__name__ in GENERIC:
            assert answer.exc_type == f"builtins.{type(raised).__name__}"
        else:
            assert describe(answer) == describe(raised), repr(raised)
            assert str(answer) == str(raised)


@pytest.mark.parametrize("raised", list(samples()), ids=lambda exc: type(exc).__name__)
def test_what_aiozmq_makes_of_them(raised):
    """It makes ``table[name](*args)`` or a GenericError, and must not fail."""
    packer = _Packer()
    sent = packer.unpackb(_errors.pack_error(packer.packb, raised))
    assert len(sent) == 3
    name, args, _ = sent
    module, _, name = name.rpartition(".")
    # What its table has.
    found = vars({"builtins": builtins, "asyncio": asyncio}.get(module, zmq)).get(name)
    if isinstance(found, type) and issubclass(found, Exception):
        answer = found(*args)
        assert type(answer) is type(raised)
        assert answer.args == raised.args


class Wild(Exception):
    """One that fails to say what it is."""

    @property
    def args(self):
        raise GeneratorExit

    def __repr__(self):
        raise RuntimeError


class Deep(Exception):
    pass


def nested(depth):
    value = ()
    for _ in range(depth):
        value = (value,)
    return value


@pytest.mark.parametrize(
    "make",
    [Wild, lambda: Deep(nested(1020)), lambda: Deep(nested(5000)),
     lambda: ExceptionGroup("x", [Wild()]),
     lambda: ExceptionGroup("x", [Deep(object()), KeyError(object())])],
    ids=["wild", "deep", "too deep", "group of wild", "group of objects"],
)  # fmt: skip
def test_wild_exceptions_are_answered(ours, run, make):
    async def go():
        raised = make()

        @ours.rpc.method
        def func():
            raise raised

        @ours.rpc.method
        async def coro():
            raise raised

        async with ours.served("rpc", {"func": func, "coro": coro}) as (client, _):
            for call in (client.call.func, client.call.coro):
                answer = await asyncio.gather(call(), return_exceptions=True)
                if isinstance(answer[0], ExceptionGroup):
                    assert len(answer[0].exceptions) == len(raised.exceptions)
                else:
                    assert type(answer[0]) is ours.rpc.GenericError

    run(go())


HOSTILE = [
    # str() of these reads memory that is not theirs, up to Python 3.13.
    ("builtins.UnicodeDecodeError", ["utf-8", b"x", -(10**12), 1 - 10**12, "r"], ""),
    ("builtins.UnicodeEncodeError", ["utf-8", "x", -(10**12), 1 - 10**12, "r"], ""),
    ("builtins.UnicodeTranslateError", ["x", -(10**12), 1 - 10**12, "r"], ""),
    ("builtins.UnicodeDecodeError", ["utf-8", b"x", 0, 1, "r"],
     ["", {"start": -(10**12), "end": 1 - 10**12}]),
    # Showing it would import the module that the peer names.
    ("builtins.ImportError", ["no"], ["", {"name": "this", "name_from": "x"}]),
    ("builtins.ValueError", ["x"], ["", {"__class__": 1, "with_traceback": 2, 3: 4,
     "args": 5, "__traceback__": 6, "__dict__": {}, "__notes__": [1]}]),
    ("builtins.ValueError", ["x"], ["", None]),
    ("builtins.OSError", [2, "x"], ["", {"errno": [1], "characters_written": "x"}]),
    ("builtins.BaseExceptionGroup", ["m", []], ""),
    ("builtins.BaseExceptionGroup", ["m", [["builtins.KeyError", [1], ""]] * 3], ""),
    ("builtins.BaseExceptionGroup", ["m", ["abc", 5]], ""),
    ("builtins.SystemExit", [1], ""),
    ("builtins.KeyboardInterrupt", [], ""),
    ("asyncio.exceptions.CancelledError", [], ""),
    ("builtins.SyntaxError", ["m", [{}, [], "x", 1, -5, None]], ""),
]  # fmt: skip


@pytest.mark.parametrize("answer", HOSTILE, ids=lambda answer: answer[0])
def test_hostile_answers(ours, run, answer):
    async def go():
        async with ours.opened(zmq.ROUTER, bind="tcp://127.0.0.1:*") as peer:
            (endpoint,) = peer.transport.bindings()
            client = await ours.rpc.connect_rpc(connect=endpoint)
            call = client.call.func()
            identity, header, *_ = await peer.read()
            req_id = struct.unpack("=HHLd", header)[2]
            reply = struct.pack("=HHLd?", 1, 2, req_id, 3, True)
            peer.write([identity, reply, msgpack.packb(answer)])
            with pytest.raises(Exception) as caught:
                await call
            exc = caught.value
            str(exc), repr(exc)
            assert getattr(exc, "name_from", None) is None
            exc.with_traceback(None)
            if not isinstance(exc, SyntaxError):
                traceback.format_exception(exc)
            client.close()
            await client.wait_closed()

    run(go())

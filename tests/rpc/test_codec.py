"""What goes over the wire in C and in Python: the same bytes, the same objects."""

import asyncio
import random
import struct
from types import MappingProxyType

import msgpack
import pytest

from aiozmq_speedups import rpc
from aiozmq_speedups.rpc import _client, _fast, _server
from aiozmq_speedups.rpc.packer import _Packer

CLIENTS = {"pure": _client._ClientProtocol}
SERVERS = {"pure": _server._ServerProtocol}
if _fast.client_protocol is not _client._ClientProtocol:
    CLIENTS["C"] = _fast.client_protocol
    SERVERS["C"] = _fast.server_protocol

REQUEST = struct.Struct("=HHLd")
REPLY = struct.Struct("=HHLd?")


class Transport:
    """Keeps what is written."""

    def __init__(self):
        self.written = []

    def write(self, frames):
        self.written.append(list(frames))

    def close(self):
        pass


class Wire:
    """A client's and a server's protocol without sockets."""

    def __init__(self, kind, handler=None, **server):
        self.loop = asyncio.new_event_loop()
        self.client = CLIENTS[kind](self.loop)
        self.server = SERVERS[kind](self.loop, handler or {}, **server)
        self.sent, self.replied = Transport(), Transport()
        self.client.connection_made(self.sent)
        self.server.connection_made(self.replied)

    def request(self, *args, **kwargs):
        """The frames of a call."""
        call = self.client.send(b"func", args, kwargs, None)
        call.cancel()
        return self.sent.written.pop()

    def serve(self, name, bargs, bkwargs=b"\x80", route=(b"id",)):
        """The frames of the answer."""
        header = REQUEST.pack(1, 2, 3, 4.0)
        self.server.msg_received([*route, header, name, bargs, bkwargs])
        return self.replied.written.pop()

    def answer(self, packed):
        """The result of a call that is answered so."""
        call = self.client.send(b"func", (), {}, None)
        req_id = REQUEST.unpack(self.sent.written.pop()[0])[2]
        self.client.msg_received([REPLY.pack(1, 2, req_id, 4.0, False), packed])
        return call

    def close(self):
        self.client.connection_lost(None)
        self.server.connection_lost(None)
        self.loop.close()


@pytest.fixture(params=sorted(CLIENTS))
def wire(request):
    wires = []

    def make(handler=None, **server):
        wires.append(Wire(request.param, handler, **server))
        return wires[-1]

    yield make
    for each in wires:
        each.close()


def edges(*limits):
    return [limit + step for limit in limits for step in (-1, 0, 1)]


class Str(str):
    pass


class Dict(dict):
    pass


INTS = edges(0, 2**7, 2**8, 2**15, 2**16, 2**31, 2**32, 2**63)
INTS += edges(-(2**5), -(2**7), -(2**8), -(2**15), -(2**16), -(2**31), -(2**32))
INTS += [-(2**63), 2**64 - 1]
VALUES = [
    None, True, False, *INTS,
    0.0, -0.0, 1.5, 1e300, float("inf"), float("-inf"), 5e-324,
    *(b"x" * n for n in (0, 1, 255, 256, 65535, 65536)),
    *("x" * n for n in (0, 1, 31, 32, 255, 256, 65535, 65536)),
    "é" * 127, "é" * 128, "\U0001f600" * 20, "\0",
    *(tuple(range(n)) for n in (0, 1, 15, 16, 65535, 65536)),
    *(dict.fromkeys(map(str, range(n))) for n in (0, 1, 15, 16, 65535, 65536)),
    {"a": (1, {b"b": (None, (2.5,))})}, {b"k": 1}, {1: 2}, {None: 1}, {(1, 2): 3},
    [1, [2, [3]]], (1, [2, (3,)]),
    Str("sub"), Dict(a=1), bytearray(b"ba"), memoryview(b"mv"),
    msgpack.ExtType(5, b"ext"), msgpack.Timestamp(1, 2),
]  # fmt: skip


def nest(depth, value=1):
    for _ in range(depth):
        value = (value,)
    return value


VALUES += [nest(depth) for depth in (30, 31, 32, 33, 34, 400)]


def same(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(map(same, a.values(), b.values()))
    return repr(a) == repr(b)


def test_values_are_packed_as_msgpack_does(wire):
    table = {5: (complex, lambda v: b"c", lambda b: 1j)}
    end = wire({"func": rpc.method(lambda n: VALUES[n])}, translation_table=table)
    packb = _Packer().packb
    for number, value in enumerate(VALUES):
        expected = packb((value,))
        assert end.request(value)[2] == expected
        reply = end.serve(b"func", packb((number,)))
        assert reply[-1] == packb(value), repr(value)[:100]
    header, name, bargs, bkwargs = end.request(1, a="b")
    assert len(header) == 16 and name == b"func"
    assert bargs == packb((1,))
    assert bkwargs == packb({"a": "b"})
    assert end.request()[3] == b"\x80"


def test_values_are_unpacked_as_msgpack_does(wire):
    got = []
    end = wire({"func": rpc.method(lambda arg: got.append(arg))})
    packb, unpackb = _Packer().packb, _Packer().unpackb
    for value in VALUES:
        expected = unpackb(packb((value,)))
        end.serve(b"func", packb((value,)))
        assert same(got.pop(), expected[0]), repr(value)[:100]
        assert same(end.answer(packb(value)).result(), expected[0])
    # Forms that no packer makes: long heads for short values, short floats.
    for packed in (
        b"\xcf\0\0\0\0\0\0\0\x05", b"\xd3\0\0\0\0\0\0\0\x05", b"\xd0\x05", b"\xcc\x05",
        b"\xd9\x01a", b"\xda\0\x01a", b"\xdb\0\0\0\x01a", b"\xc6\0\0\0\x01a",
        b"\xdc\0\x01\x05", b"\xdd\0\0\0\x01\x05", b"\xde\0\x01\xa1a\x05",
        b"\xdf\0\0\0\x01\xa1a\x05", b"\xca\x3f\xc0\0\0", b"\xca\x7f\x80\0\0",
        b"\x82\xa1a\x01\xa1a\x02",
    ):  # fmt: skip
        assert same(end.answer(packed).result(), unpackb(packed))


def test_malformed_values(wire, rpc_log):
    """Every truncation, and tags and lengths that lie, are an error of the call."""
    end = wire()
    unpackb = _Packer().unpackb
    good = _Packer().packb({"a": (1, 2**40, "text", b"bytes", 1.5, [None, {"b": -7}])})
    rnd = random.Random(5)
    bad = [good[:n] for n in range(len(good))] + [good + b"\xc0", b"\xc1"]
    bad += [bytes([tag]) + b"\xff" * n for tag in range(0xC0, 0x100) for n in range(6)]
    for _ in range(500):
        changed = bytearray(good)
        for _ in range(rnd.randrange(1, 4)):
            changed[rnd.randrange(len(changed))] = rnd.randrange(256)
        bad.append(bytes(changed))
    for packed in bad:
        try:
            expected = unpackb(packed)
        except Exception:
            expected = None
            error = True
        else:
            error = False
        call = end.answer(packed)
        if error:
            assert type(call.exception()) is rpc.Error, packed
        else:
            assert same(call.result(), expected), packed


def test_ints_beyond_64_bits_and_surrogates(wire):
    end = wire()
    for value in (2**64, -(2**63) - 1, 10**100):
        with pytest.raises((OverflowError, TypeError)):
            end.request(value)
    for value in ("\ud800", {"\ud800": 1}):
        with pytest.raises(UnicodeEncodeError):
            end.request(value)
    loop: list = []
    loop.append(loop)
    for value in (loop, object(), nest(2000)):
        with pytest.raises((ValueError, TypeError)):
            end.request(value)
    assert not end.client.calls


# -- Look-ups --


def serve_value(end, name=b"func"):
    frames = end.serve(name, b"\x90")
    assert frames[0] == b"id"
    assert REPLY.unpack(frames[1])[2] == 3
    return REPLY.unpack(frames[1])[4], _Packer().unpackb(frames[2])


def test_handlers_may_change_at_any_time(wire):
    class Handler(rpc.AttrHandler):
        @rpc.method
        def func(self):
            return 1

    handler = Handler()
    end = wire(handler)
    assert [serve_value(end) for _ in range(3)] == [(False, 1)] * 3
    handler.func = rpc.method(lambda: 2)
    assert [serve_value(end) for _ in range(3)] == [(False, 2)] * 3
    handler.func = lambda: 3  # no method
    for _ in range(2):
        is_error, (name, args, _) = serve_value(end)
        assert is_error and name == "aiozmq.rpc.base.NotFoundError"
    del handler.func
    assert serve_value(end) == (False, 1)
    original = Handler.func
    Handler.func = rpc.method(staticmethod(lambda: 4).__func__)
    with pytest.raises(Exception, match="ParametersError"):
        is_error, (name, *_) = serve_value(end)  # it is given self now
        raise Exception(name)
    Handler.func = original
    assert serve_value(end) == (False, 1)
    rpc.method(original)  # marked again
    assert serve_value(end) == (False, 1)
    del original.__rpc__
    assert serve_value(end)[0]


def test_other_kinds_of_handlers(wire):
    func = rpc.method(lambda: 1)

    class Own:
        def __init__(self):
            self.asked = []

        def __getitem__(self, name):
            self.asked.append(name)
            return {"func": func, "ns": {"func": func}}[name]

    class Overridden(rpc.AttrHandler):
        def __getitem__(self, name):
            return {"func": func, "ns": {"func": func}}[name]

    own = Own()
    for handler in (
        own,
        Overridden(),
        {"func": func, "ns": {"func": func}},
        Dict(func=func, ns={"func": func}),
        MappingProxyType({"func": func, "ns": {"func": func}}),
    ):
        end = wire(handler)
        for _ in range(3):
            assert serve_value(end) == (False, 1)
            assert serve_value(end, b"ns.func") == (False, 1)
            assert serve_value(end, b"unknown")[0]
    assert own.asked == ["func", "ns", "unknown"] * 3


def test_look_ups_that_raise(wire):
    class Handler(rpc.AttrHandler):
        fails = None

        @property
        def func(self):
            if self.fails is not None:
                raise self.fails
            return rpc.method(lambda: 1)

    handler = Handler()
    end = wire(handler)
    for _ in range(2):
        handler.fails = None
        assert serve_value(end) == (False, 1)
        for fails, expected in (
            (AttributeError("x"), "aiozmq.rpc.base.NotFoundError"),
            (ValueError("x"), "builtins.ValueError"),
            (RuntimeError(), "builtins.RuntimeError"),
        ):
            handler.fails = fails
            is_error, (name, *_) = serve_value(end)
            assert is_error and name == expected
            fails.__traceback__ = None
        for fails in (KeyboardInterrupt, SystemExit):
            handler.fails = fails
            with pytest.raises(fails):
                end.serve(b"func", b"\x90")


def test_functions_that_close_reenter_or_raise(wire):
    calls = []

    @rpc.method
    def func(depth=0):
        calls.append(depth)
        if depth == 3:
            end.server.connection_lost(None)
        elif depth:
            end.server.msg_received(
                [REQUEST.pack(1, 2, 9, 0), b"func", bytes([0x91, depth + 1]), b"\x80"]
            )
        return depth

    @rpc.method
    def leave(number):
        raise (KeyboardInterrupt, SystemExit)[number]

    @rpc.method
    def refuse():
        raise GeneratorExit

    end = wire({"func": func, "leave": leave, "refuse": refuse})
    for number, error in enumerate((KeyboardInterrupt, SystemExit)):
        with pytest.raises(error):
            end.serve(b"leave", bytes([0x91, number]))
    assert serve_value(end, b"refuse")[0]
    end.server.msg_received(
        [b"id", REQUEST.pack(1, 2, 3, 4), b"func", b"\x91\1", b"\x80"]
    )
    assert calls == [1, 2, 3]
    assert not end.replied.written  # nobody can be told


def test_known_names_are_bounded(wire):
    func = rpc.method(lambda: 1)
    end = wire({f"f{i}": func for i in range(3000)})
    for i in range(3000):
        assert serve_value(end, b"f%d" % i) == (False, 1)
    assert serve_value(end, b"f0") == (False, 1)


def test_names_in_turn_and_one_that_gets_another_function(wire):
    handler = {f"f{i}": rpc.method(lambda i=i: i) for i in range(2)}
    end = wire(handler)
    for i in (0, 1, 0, 1, 1):
        assert serve_value(end, b"f%d" % i) == (False, i)
    handler["f1"] = rpc.method(lambda: "new")
    for value in ("new", "new"):
        assert serve_value(end, b"f1") == (False, value)
    assert serve_value(end, b"f0") == (False, 0)
    del handler["f0"].__rpc__
    assert serve_value(end, b"f0")[0]
    del handler["f1"]
    assert serve_value(end, b"f1")[0]


@pytest.mark.parametrize("length", [0, 1, 8, 9, 30])
def test_routes_of_any_length(wire, length):
    @rpc.method
    def fail():
        raise ValueError

    end = wire({"func": rpc.method(lambda: 1), "fail": fail})
    route = [b"hop%d" % i for i in range(length)]
    for name, is_error in ((b"func", False), (b"fail", True), (b"func", False)):
        *hops, header, _ = end.serve(name, b"\x90", route=route)
        assert hops == route and REPLY.unpack(header)[4] is is_error


# -- Odd messages --


def test_frames_of_another_type(wire, rpc_log):
    end = wire({"func": rpc.method(lambda: 1)})
    header = REQUEST.pack(1, 2, 3, 4)
    for data in (
        (b"id", header, b"func", b"\x90", b"\x80"),
        [b"id", bytearray(header), b"func", b"\x90", b"\x80"],
        [b"id", header, memoryview(b"func"), bytearray(b"\x90"), bytearray(b"\x80")],
        [bytearray(b"id"), header, b"func", b"\x90", b"\x80"],
    ):
        end.server.msg_received(data)
        frames = end.replied.written.pop()
        assert REPLY.unpack(frames[1])[4] is False and frames[2] == b"\x01"
    call = end.client.send(b"func", (), {}, None)
    req_id = REQUEST.unpack(end.sent.written.pop()[0])[2]
    end.client.msg_received((bytearray(REPLY.pack(1, 2, req_id, 4, False)), b"\x05"))
    assert call.result() == 5
    for data in ([], [b""], [header], [header, b"func", b"\x90"], ()):
        end.server.msg_received(data)
        end.client.msg_received(data)
    assert not end.replied.written
    assert len(rpc_log.records) == 10


def test_writes_that_fail(wire):
    end = wire({"func": rpc.method(lambda: 1)})

    def fail(frames):
        raise ValueError("write")

    end.client._write = end.server._write = fail
    with pytest.raises(ValueError, match="write"):
        end.client.send(b"func", (), {}, None)
    with pytest.raises(ValueError, match="write"):
        end.client.send(b"func", (), {"a": 1}, 5.0)
    assert not end.client.calls
    with pytest.raises(ValueError, match="write"):
        end.serve(b"func", b"\x90")


@pytest.mark.skipif("C" not in CLIENTS, reason="needs the C extension")
def test_uninitialised_objects():
    """Nothing that __init__ has not set is trusted."""
    client = _fast.client_protocol.__new__(_fast.client_protocol)
    server = _fast.server_protocol.__new__(_fast.server_protocol)
    with pytest.raises(Exception):  # noqa: B017
        client.send(b"func", (), {}, None)
    with pytest.raises(Exception):  # noqa: B017
        client.msg_received([b"x" * 17, b"\x80"])
    client._calls = {}
    client._write = print
    client.max_pending = None
    client._sweep_at = 10
    with pytest.raises(RuntimeError):
        client.send(b"func", (), {}, None)
    with pytest.raises(RuntimeError):
        client.send(b"func", (object(),), {}, None)
    with pytest.raises(TypeError):
        client.send(b"func", [], {}, None)
    with pytest.raises(TypeError):
        client.send(b"func")
    with pytest.raises(Exception):  # noqa: B017
        server.msg_received([b"x" * 16, b"func", b"\x90", b"\x80"])

"""A server under malformed requests: it says so and lives on."""

import asyncio
import logging
import pickle
import random
import struct

import msgpack
import pytest
import zmq

HEADER = struct.pack("=HHLd", 1, 2, 3, 4.0)
EMPTY = b"\x80"


def make_handler(rpc):
    class Handler(rpc.AttrHandler):
        @rpc.method
        def func(self, arg=None):
            return 1

        @rpc.method
        async def coro(self, arg=None):
            return 2

    return Handler()


def hostile_test(**server):
    """Runs a test coroutine with (ours, a raw DEALER stream, log)."""

    def decorate(test):
        def run_test(ours, run, rpc_log):
            async def go():
                handler = make_handler(ours.rpc)
                async with ours.served("rpc", handler, server=server) as pair:
                    client, service = pair
                    (endpoint,) = service.transport.bindings()
                    async with ours.opened(zmq.DEALER, connect=endpoint) as peer:
                        await test(ours, peer, rpc_log)
                        # Both who was hostile and another are served.
                        peer.write([HEADER, b"func", b"\x90", EMPTY])
                        header, answer = await peer.read()
                        assert struct.unpack("=HHLd?", header)[2] == 3
                        assert answer == b"\x01"
                    assert await client.call.coro() == 2
                    assert not service._proto.pending_waiters

            run(go())

        run_test.__name__ = test.__name__
        run_test.__doc__ = test.__doc__
        return run_test

    return decorate


async def error_of(peer):
    """(exception name, args) of the next answer, which is an error."""
    header, answer = await peer.read()
    assert struct.unpack("=HHLd?", header)[2:] == (3, pytest.approx(0, abs=1e12), True)
    name, args, _ = msgpack.unpackb(answer)
    return name, args


@hostile_test()
async def test_frames(ours, peer, log):
    for frames in (
        [b""],
        [b"", b"", b""],
        [HEADER],
        [HEADER, b"func"],
        [HEADER, b"func", b"\x90"],
        [b"", b"func", b"\x90", EMPTY],
        [HEADER[:-1], b"func", b"\x90", EMPTY],
        [HEADER + b"x", b"func", b"\x90", EMPTY],
        [HEADER, b"func", b"\x90", EMPTY, b""],
        [b"x"] * 1000,
        [b"x" * 10_000_000],
    ):
        peer.write(frames)
        record = await log.get()
        assert record.levelno == logging.CRITICAL
        assert record.msg == "Cannot unpack %r"
        # No line of megabytes.
        assert len(record.getMessage()) < 20_000
        assert record.exc_info is not None
    assert not log.records


@hostile_test()
async def test_more_routing_frames(ours, peer, log):
    """A request that came through a proxy has more of them."""
    for route in ([b"id"], [b"id1", b"", b"id2"]):
        peer.write([*route, HEADER, b"func", b"\x90", EMPTY])
        assert (await peer.read())[: len(route)] == route
    assert not log.records


@hostile_test()
async def test_bodies(ours, peer, log):
    for name, args, kwargs in (
        (b"\xff", b"\x90", EMPTY),
        (b"func\xed\xa0\x80", b"\x90", EMPTY),  # a surrogate
        (b"func", b"", EMPTY),
        (b"func", b"\x90", b""),
        (b"func", b"\x90\x90", EMPTY),
        (b"func", b"\xc1", EMPTY),
        (b"func", b"\x91\xa1\xff", EMPTY),  # text that is not UTF-8
        (b"func", b"\x90", b"\xdf\xff\xff\xff\xff"),
        (b"func", b"\xdd\x00\x10\x00\x00" * 100_000, EMPTY),
        (b"func", b"\x91" * 100_000, EMPTY),
    ):
        peer.write([HEADER, name, args, kwargs])
        # Who sent it waits for an answer.
        assert (await error_of(peer))[0] == "aiozmq.rpc.base.ParametersError"
        assert (await log.get()).msg == "Cannot unpack %r"
    assert not log.records


@hostile_test()
async def test_arguments_of_wrong_type(ours, peer, log):
    for name in (b"func", b"coro"):
        for args, kwargs in (
            (None, {}),
            (1, {}),
            ("ab", {}),
            ({}, {}),
            ((), None),
            ((), 1),
            ((), ()),
            ((), {1: 2}),
            ((), {b"arg": 2}),
            ((), {"unknown": 2}),
            ((1, 2), {}),
        ):
            peer.write([HEADER, name, msgpack.packb(args), msgpack.packb(kwargs)])
            error = (await error_of(peer))[0]
            assert error == "aiozmq.rpc.base.ParametersError"
    assert not log.records


@hostile_test(log_exceptions=True)
async def test_deep_arguments_are_logged(ours, peer, log):
    deep = b"\x91" * 900 + b"\xc0"
    # One argument too many: the arguments go to the log.
    peer.write([HEADER, b"func", b"\x92" + deep + deep, EMPTY])
    assert (await error_of(peer))[0] == "aiozmq.rpc.base.ParametersError"
    record = await log.get()
    assert record.args[1] == "func"
    record.getMessage()


@hostile_test()
async def test_names(ours, peer, log):
    for name in (
        "",
        ".",
        "..",
        "func.",
        ".func",
        "x" * 1_000_000,
        "a." * 100_000,
        "__class__.func",
        "__dict__.func",
        "__init__.__globals__.func",
        "func.__globals__.asyncio",
        "func.__func__",
        "_proto",
        "\0",
        "ünïcode",
    ):
        peer.write([HEADER, name.encode(), b"\x90", EMPTY])
        error, (said,) = await error_of(peer)
        assert error == "aiozmq.rpc.base.NotFoundError"
        assert said == name
    assert not log.records


ran = []


class Evil:
    def __reduce__(self):
        return ran.append, ("evil",)


@hostile_test()
async def test_pickles_do_not_run(ours, peer, log):
    for code in range(123, 128):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            ext = msgpack.ExtType(code, pickle.dumps(Evil(), protocol))
            for args, kwargs in (((ext,), {}), ((), {"arg": ext})):
                peer.write(
                    [HEADER, b"func", msgpack.packb(args), msgpack.packb(kwargs)]
                )
                error, (text,) = await error_of(peer)
                assert error == "aiozmq.rpc.base.ParametersError"
                await log.get()
    assert not ran


@hostile_test()
async def test_random_messages(ours, peer, log):
    rnd = random.Random(11)
    good = [HEADER, b"func", msgpack.packb((1,)), msgpack.packb({})]
    for _ in range(400):
        frames = [bytearray(frame) for frame in good]
        for _ in range(rnd.randrange(1, 4)):
            frame = rnd.choice(frames)
            if not frame or rnd.random() < 0.2:
                frame.extend(rnd.randbytes(rnd.randrange(5)))
            else:
                frame[rnd.randrange(len(frame))] = rnd.randrange(256)
        rnd.random() < 0.1 and frames.pop(rnd.randrange(len(frames)))
        peer.write([bytes(frame) for frame in frames])
    # A good one at last, which tells itself by its request id.
    peer.write([struct.pack("=HHLd", 1, 2, 77777, 4.0), *good[1:]])
    while struct.unpack("=HHLd?", (await peer.read())[0])[2] != 77777:
        pass
    for record in log.records:
        assert record.msg == "Cannot unpack %r"


def test_disconnected_callers(ours, run):
    """Peers that go away while their calls run leave nothing behind."""

    async def go():
        rpc = ours.rpc
        gate = asyncio.Event()
        started = 0
        all_started = asyncio.Event()

        @rpc.method
        async def wait():
            nonlocal started
            started += 1
            if started == 20:
                all_started.set()
            await gate.wait()
            return "x" * 1000

        async with ours.served("rpc", {"wait": wait}) as (client, service):
            (endpoint,) = service.transport.bindings()
            peers = [await rpc.connect_rpc(connect=endpoint) for _ in range(20)]
            calls = [peer.call.wait() for peer in peers]
            await all_started.wait()
            for peer in peers:
                peer.close()
                await peer.wait_closed()
            assert all(call.cancelled() for call in calls)
            gate.set()
            assert await client.call.wait() == "x" * 1000
            await asyncio.sleep(0)
            assert not service._proto.pending_waiters

    run(go())

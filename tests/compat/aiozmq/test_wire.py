"""The bytes on the wire are aiozmq's."""

import datetime
import os
import pickle
import struct
import time

import msgpack
import zmq

REQUEST = struct.Struct("=HHLd")
REPLY = struct.Struct("=HHLd?")


def test_rpc_client(impl, run):
    async def go():
        async with impl.opened(zmq.ROUTER, bind="tcp://127.0.0.1:*") as peer:
            (endpoint,) = peer.transport.bindings()
            client = await impl.rpc.connect_rpc(connect=endpoint)
            day = datetime.date(2020, 1, 2)
            before = time.time()
            calls = [
                client.call.ns.func(1, "x", [b"b", day]),
                client.call.func(k=1),
                client.call.ünïcode(),
            ]
            prefixes = set()
            packed_day = msgpack.ExtType(127, pickle.dumps(day, 5))
            for call, expected in zip(
                calls,
                (
                    [b"ns.func", [1, "x", [b"b", packed_day]], {}],
                    [b"func", [], {"k": 1}],
                    ["ünïcode".encode(), [], {}],
                ),
                strict=True,
            ):
                identity, header, name, args, kwargs = await peer.read()
                pid, rnd, req_id, sent = REQUEST.unpack(header)
                prefixes.add((pid, rnd))
                assert before <= sent <= time.time()
                assert [name, args, kwargs] == [
                    expected[0],
                    msgpack.packb(expected[1]),
                    msgpack.packb(expected[2]),
                ]
                reply = REPLY.pack(0, 0, req_id, 0, False)
                peer.write([identity, reply, msgpack.packb([req_id])])
                assert await call == (req_id,)
            ((pid, rnd),) = prefixes
            assert pid == os.getpid() % 65536
            client.close()
            await client.wait_closed()

    run(go())


def test_rpc_server(impl, run):
    async def go():
        rpc = impl.rpc

        @rpc.method
        def func(a, b=datetime.timedelta(1)):
            return [a, b]

        @rpc.method
        async def fail(*args):
            raise OSError(*args)

        async with impl.served("rpc", {"func": func, "fail": fail}) as (_, service):
            (endpoint,) = service.transport.bindings()
            async with impl.opened(zmq.DEALER, connect=endpoint) as peer:

                async def call(name, *args, **kwargs):
                    header = REQUEST.pack(1, 2, 0xFFFFFFFF, 5.5)
                    args, kwargs = msgpack.packb(args), msgpack.packb(kwargs)
                    before = time.time()
                    peer.write([b"route", header, name, args, kwargs])
                    route, header, answer = await peer.read()
                    pid, _, req_id, sent, is_error = REPLY.unpack(header)
                    assert route == b"route"
                    assert pid == os.getpid() % 65536
                    assert req_id == 0xFFFFFFFF
                    assert before <= sent <= time.time()
                    return is_error, answer

                delta = msgpack.ExtType(124, pickle.dumps(datetime.timedelta(1), 5))
                assert await call(b"func", 1) == (False, msgpack.packb([1, delta]))
                assert await call(b"func", {}, b=b"") == (
                    False,
                    msgpack.packb([{}, b""]),
                )
                for args, name, text in (
                    ((), "builtins.OSError", "OSError()"),
                    ((2, "x"), "builtins.FileNotFoundError",
                     "FileNotFoundError(2, 'x')"),
                ):  # fmt: skip
                    expected = [name, args, text]
                    assert await call(b"fail", *args) == (True, msgpack.packb(expected))
                assert await call(b"unknown") == (
                    True,
                    msgpack.packb([
                        "aiozmq.rpc.base.NotFoundError",
                        ["unknown"],
                        "NotFoundError('unknown')",
                    ]),
                )  # fmt: skip
                is_error, answer = await call(b"func")
                assert is_error
                text = """TypeError("missing a required argument: 'a'")"""
                assert msgpack.unpackb(answer)[:2] == [
                    "aiozmq.rpc.base.ParametersError",
                    [text],
                ]

    run(go())


def test_pipeline_client(impl, run):
    async def go():
        async with impl.opened(zmq.PULL, bind="tcp://127.0.0.1:*") as peer:
            (endpoint,) = peer.transport.bindings()
            client = await impl.rpc.connect_pipeline(connect=endpoint)
            await client.notify.ns.func(1, k="v")
            assert await peer.read() == [
                b"ns.func",
                msgpack.packb([1]),
                msgpack.packb({"k": "v"}),
            ]
            await client.notify.func()
            assert await peer.read() == [b"func", b"\x90", b"\x80"]
            client.close()
            await client.wait_closed()

    run(go())


def test_pubsub_client(impl, run):
    async def go():
        client = await impl.rpc.connect_pubsub(bind="tcp://127.0.0.1:*")
        (endpoint,) = client.transport.bindings()
        # A raw XSUB, which does not filter what it has not subscribed to.
        async with impl.opened(zmq.SUB, connect=endpoint) as peer:
            peer.transport.subscribe(b"")
            import asyncio

            first = asyncio.ensure_future(peer.read())
            while not first.done():
                await client.publish("first").func()
                await asyncio.sleep(0.001)
            for topic, expected in (
                (None, b""),
                ("ünïcode", "ünïcode".encode()),
                (b"\xff", b"\xff"),
            ):
                await client.publish(topic).ns.func(1, k="v")
                message = await peer.read()
                while message[0] == b"first":
                    message = await peer.read()
                assert message == [
                    expected,
                    b"ns.func",
                    msgpack.packb([1]),
                    msgpack.packb({"k": "v"}),
                ]
            client.close()
            await client.wait_closed()

    run(go())

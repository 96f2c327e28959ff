"""Objects of a loop that other threads use while it runs, without a GIL.

They raise RuntimeError there, or answer; and the loop's messages go on, all of them and
in order. With a GIL that guards them, and mostly lets them work.
"""

import asyncio
import contextlib
import functools
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

import aiozmq_speedups
from aiozmq_speedups._ext import core

zmq = pytest.importorskip("zmq")
rpc = pytest.importorskip("aiozmq_speedups.rpc")
zmq_asyncio = pytest.importorskip("aiozmq_speedups.zmq_asyncio")

pytestmark = [
    pytest.mark.skipif(
        core is None or getattr(sys, "_is_gil_enabled", lambda: True)(),
        reason="without a GIL",
    ),
    pytest.mark.loops("speedups", "asyncio"),
]

NOT_HERE = "Non-thread-safe operation"


async def misused(talk, refused, asked=()):
    """talk() goes on while two threads make the calls; those `refused` raise."""
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def misuse():
        loop.call_soon_threadsafe(begun.set)
        for _ in range(30):
            for call in refused:
                with pytest.raises(RuntimeError, match=NOT_HERE):
                    call()
            for call in asked:
                call()

    with ThreadPoolExecutor(2) as pool:
        threads = [loop.run_in_executor(pool, misuse) for _ in range(2)]
        await begun.wait()
        while not all(thread.done() for thread in threads):
            await talk()
        await asyncio.gather(*threads)


def step(function, *args):
    """The first step of a coroutine, which is closed then."""

    def call():
        coro = function(*args)
        try:
            coro.send(None)
        finally:
            coro.close()

    return call


def engines(loop):
    return ["libzmq", "native"] if hasattr(loop, "stats") else ["libzmq"]


async def stream_pair(engine):
    bound = await aiozmq_speedups.create_zmq_stream(
        zmq.DEALER, bind="tcp://127.0.0.1:*", engine=engine
    )
    (address,) = bound.transport.bindings()
    return bound, await aiozmq_speedups.create_zmq_stream(
        zmq.DEALER, connect=address, engine=engine
    )


async def talk(a, b):
    """Messages both ways, each in its order."""
    messages = [[b"%d" % i, b"x" * 50 * i] for i in range(10)]
    for message in messages:
        a.write(message)
        b.write(message)
    for stream in (a, b):
        assert [await stream.read() for _ in messages] == messages


def test_a_zmq_transport(loop):
    async def main(engine):
        a, b = await stream_pair(engine)
        transport = b.transport
        await misused(
            lambda: talk(a, b),
            [
                lambda: transport.write([b"not sent"]),
                lambda: b.write([b"not sent"]),
                transport.pause_reading,
                transport.resume_reading,
                lambda: transport.set_write_buffer_limits(1),
                lambda: transport.set_protocol(None),
                lambda: transport.getsockopt(zmq.EVENTS),
                lambda: transport.setsockopt(zmq.LINGER, 0),
                lambda: transport.bind("tcp://127.0.0.1:*"),
                lambda: transport.connect("tcp://127.0.0.1:1"),
                lambda: transport.disconnect("tcp://127.0.0.1:1"),
                step(transport.enable_monitor),
                step(b.read),
                step(b.drain),
                transport.close,
                transport.abort,
                b.close,
            ],
            [
                lambda: repr(b),
                lambda: transport.get_extra_info("zmq_socket"),
                transport.get_protocol,
                transport.is_closing,
                transport.get_write_buffer_size,
                lambda: list(transport.connections()),
            ],
        )
        a.close()
        b.close()

    for engine in engines(loop):
        loop.run_until_complete(main(engine))


@pytest.mark.loops("speedups")
def test_a_socket_of_the_native_engine(loop):
    async def main():
        a, b = await stream_pair("native")
        sock = b.transport.get_extra_info("zmq_socket")
        await misused(
            lambda: talk(a, b),
            [
                lambda: sock.getsockopt(zmq.EVENTS),
                lambda: sock.setsockopt(zmq.SNDHWM, 10),
                lambda: sock.bind("tcp://127.0.0.1:*"),
                lambda: sock.connect("tcp://127.0.0.1:1"),
                lambda: sock.disconnect("tcp://127.0.0.1:1"),
                sock.close,
            ],
            [lambda: repr(sock), lambda: sock.getsockopt(zmq.LINGER)],
        )
        a.close()
        b.close()

    loop.run_until_complete(main())


def test_zmq_transports_that_end_meanwhile(loop):
    """Other threads have them still: they ask, or are refused."""

    async def main(engine):
        a, b = await stream_pair(engine)
        (address,) = a.transport.bindings()
        current = [b.transport]

        def ask():
            transport = current[0]
            repr(transport)
            transport.get_protocol()
            transport.get_extra_info("zmq_socket")
            for call in (transport.pause_reading, transport.close, transport.abort):
                try:
                    call()
                except RuntimeError:
                    pass

        async def come_and_go():
            stream = await aiozmq_speedups.create_zmq_stream(
                zmq.DEALER, connect=address, engine=engine
            )
            current[0] = stream.transport
            await asyncio.sleep(0)
            stream.close()
            with pytest.raises(aiozmq_speedups.ZmqStreamClosed):
                await stream.read()

        await misused(come_and_go, [], [ask] * 10)
        a.close()
        b.close()

    for engine in engines(loop):
        loop.run_until_complete(main(engine))


def test_lists_that_other_threads_change(loop):
    """A message has the frames of one moment, all of them."""
    frames = [b"1"]

    def change():
        for count in range(1, 100, 3):
            frames[:] = [b"%d" % count for _ in range(count)]

    async def talk(send, receive):
        for _ in range(20):
            send(frames)
        for _ in range(20):
            message = await receive()
            assert message == message[:1] * int(message[0])

    async def main(engine):
        a, b = await stream_pair(engine)
        await misused(functools.partial(talk, b.write, a.read), [], [change] * 2)
        a.close()
        b.close()

    async def main_of_asyncio():
        with asyncio_pair() as (a, b):
            calls = b.send_multipart, a.recv_multipart
            await misused(functools.partial(talk, *calls), [], [change] * 2)

    for engine in engines(loop):
        loop.run_until_complete(main(engine))
    loop.run_until_complete(main_of_asyncio())


@contextlib.contextmanager
def asyncio_pair():
    """Two DEALERs of zmq_asyncio, the address of the first, and their context."""
    context = zmq_asyncio.Context()
    a, b = context.socket(zmq.DEALER), context.socket(zmq.DEALER)
    try:
        a.bind("tcp://127.0.0.1:*")
        b.connect(a.get(zmq.LAST_ENDPOINT).rstrip(b"\0").decode())
        yield a, b
    finally:
        context.destroy(linger=0)


async def talk_asyncio(a, b):
    messages = [[b"%d" % i, b"x" * 50 * i] for i in range(10)]
    for message in messages:
        await a.send_multipart(message)
        await b.send_multipart(message)
    for sock in (a, b):
        assert [await sock.recv_multipart() for _ in messages] == messages


def test_a_socket_of_zmq_asyncio(loop):
    async def main():
        with asyncio_pair() as (a, b):
            await talk_asyncio(a, b)
            idle = a.context.socket(zmq.DEALER)
            waiting = idle.recv()
            buffer = bytearray(10)
            await misused(
                lambda: talk_asyncio(b, a),
                [
                    lambda: a.send(b"not sent"),
                    lambda: a.send_multipart([b"not sent"]),
                    a.recv,
                    a.recv_multipart,
                    lambda: a.recv_into(buffer),
                    lambda: a.recv(zmq.DONTWAIT),
                    lambda: a.get(zmq.EVENTS),
                    lambda: a.setsockopt(zmq.LINGER, 0),
                    lambda: setattr(a, "linger", 0),
                    lambda: a.bind("tcp://127.0.0.1:*"),
                    lambda: a.connect("tcp://127.0.0.1:1"),
                    a.get_monitor_socket,
                    a.close,
                    lambda: waiting.done(),
                    waiting.cancel,
                    lambda: waiting.set_result(None),
                    lambda: next(waiting.__await__()),
                ],
                [lambda: repr(a), lambda: repr(waiting), lambda: a.closed],
            )
            waiting.cancel()
            idle.close()

    loop.run_until_complete(main())


def test_sockets_of_zmq_asyncio_that_end_meanwhile(loop):
    async def main():
        with asyncio_pair() as (a, _):
            address = a.get(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()
            current = [a]

            def ask():
                sock = current[0]
                for call in (
                    lambda: sock.get(zmq.EVENTS),
                    lambda: repr(sock),
                    lambda: sock.closed,
                    sock.recv,
                    sock.close,
                ):
                    try:
                        call()
                    except (RuntimeError, zmq.ZMQError):
                        pass

            async def come_and_go():
                sock = a.context.socket(zmq.DEALER)
                sock.connect(address)
                await sock.send(b"x")
                current[0] = sock
                await asyncio.sleep(0)
                sock.close()
                await a.recv_multipart()

            await talk_asyncio(a, _)
            await misused(come_and_go, [], [ask] * 10)

    loop.run_until_complete(main())


def test_a_close_that_was_refused_leaves_nothing_behind(loop):
    """Of two sockets with one handle, only the second has the loop that runs."""
    context = zmq_asyncio.Context()
    first = context.socket(zmq.PULL)
    first.bind("inproc://shared")
    second = zmq_asyncio.Socket.shadow(first)

    async def main():
        received = second.recv()
        with pytest.raises(RuntimeError, match=NOT_HERE):
            await loop.run_in_executor(None, first.close)
        with context.socket(zmq.PUSH) as sender:
            sender.connect("inproc://shared")
            await sender.send(b"1")
            assert await asyncio.wait_for(received, 100) == b"1"
            await sender.send(b"2")
            assert await asyncio.wait_for(first.recv(), 100) == b"2"
        second.close()
        first.close()

    try:
        loop.run_until_complete(main())
    finally:
        context.destroy(linger=0)


class Handler(rpc.AttrHandler):
    @rpc.method
    def add(self, a: int, b: int) -> int:
        return a + b

    @rpc.method
    def note(self, number: int) -> None:
        pass


@contextlib.asynccontextmanager
async def served(serve, connect, engine, **subscribe):
    server = await serve(
        Handler(), bind="tcp://127.0.0.1:*", engine=engine, **subscribe
    )
    (address,) = server.transport.bindings()
    async with server, await connect(connect=address, engine=engine) as client:
        yield server, client


def test_rpc(loop):
    async def main(engine, observer):
        connect = functools.partial(rpc.connect_rpc, observer=observer)
        async with served(rpc.serve_rpc, connect, engine) as (server, client):

            async def talk():
                answers = [client.call.add(i, i) for i in range(10)]
                assert await asyncio.gather(*answers) == list(range(0, 20, 2))

            await misused(
                talk,
                [
                    lambda: client.call.add(1, 2),
                    lambda: client.call.add(1, b=2),
                    lambda: client.with_timeout(1).call.add(1, 2),
                    lambda: client.transport.write([b"not sent"]),
                    client.close,
                    step(client.drain),
                    step(client.wait_closed),
                    step(client.shutdown),
                    server.close,
                    step(server.wait_closed),
                    step(server.shutdown),
                ],
                [lambda: repr(client), lambda: repr(server)],
            )

    for engine in engines(loop):
        loop.run_until_complete(main(engine, None))
        loop.run_until_complete(main(engine, rpc.Observer()))


def test_pipelines_and_publishers(loop):
    async def main():
        pipeline = served(rpc.serve_pipeline, rpc.connect_pipeline, "libzmq")
        pubsub = served(rpc.serve_pubsub, rpc.connect_pubsub, "libzmq", subscribe="t")
        async with pipeline as (_, pipe), pubsub as (subscriber, publisher):

            async def talk():
                await pipe.notify.note(1)
                await publisher.publish("t").note(1)

            await misused(
                talk,
                [
                    lambda: pipe.notify.note(1),
                    step(pipe.drain),
                    pipe.close,
                    lambda: publisher.publish("t").note(1),
                    step(publisher.wait_subscribed, "t"),
                    lambda: subscriber.subscribe("u"),
                    lambda: subscriber.unsubscribe("u"),
                    step(subscriber.wait_subscribed),
                    subscriber.close,
                ],
                [lambda: repr(pipe), lambda: repr(publisher)],
            )

    loop.run_until_complete(main())


@pytest.mark.loops("speedups")
def test_coroutines_that_wait(loop, pair):
    """Nobody else's step ends them: what they wait for comes to who awaits them."""

    async def main():
        a, b = pair
        reader, writer = await asyncio.open_connection(sock=b)
        waiting = []

        def refused(name, *args):
            return lambda: getattr(waiting[0], name)(*args)

        async def talk():
            for coro in (loop.sock_recv(a, 10), reader.readexactly(4)):
                waiting[:] = [coro]
                task = loop.create_task(pass_on(coro))
                await asyncio.sleep(0)
                if coro.__name__ == "sock_recv":
                    writer.write(b"data")
                else:
                    await loop.sock_sendall(a, b"data")
                assert await asyncio.wait_for(task, 100) == b"data"

        async def pass_on(coro):
            return await coro

        waiting.append(reader.read(1))
        kept = waiting[0]
        await misused(
            talk,
            [refused("send", None), refused("throw", ValueError)],
            [lambda: repr(waiting[0]), lambda: waiting[0].cr_await],
        )
        kept.close()
        writer.close()
        await writer.wait_closed()

    loop.run_until_complete(main())


@pytest.mark.loops("speedups")
def test_what_is_watched(loop, pair):
    """The reprs of asyncio's transports ask: there nothing is, for them."""
    sock = pair[0]

    def ask():
        with pytest.raises(KeyError, match="not registered"):
            loop._selector.get_key(sock)

    async def watch():
        for _ in range(20):
            loop.add_reader(sock, print)
            assert loop._selector.get_key(sock).fd == sock.fileno()
            loop.remove_reader(sock)
        loop.add_reader(sock, print)
        await asyncio.sleep(0)
        loop.remove_reader(sock)

    loop.run_until_complete(misused(watch, [], [ask] * 20))


@pytest.mark.loops("speedups")
def test_drain(loop):
    """Of a server's writer and of a client's, which end in between."""

    async def main():
        accepted = []

        async def serve(reader, writer):
            accepted.append(writer)
            writer.write(await reader.read(1))
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        current = []

        async def come_and_go():
            reader, writer = await asyncio.open_connection(
                *server.sockets[0].getsockname()
            )
            writer.write(b"x")
            assert await reader.read() == b"x"
            current[:] = [accepted.pop(), writer]
            await writer.drain()
            writer.close()
            await writer.wait_closed()

        def ask():  # one that is closing yields before it looks
            with contextlib.suppress(RuntimeError, ConnectionError):
                step(current[1].drain)()

        await come_and_go()
        await misused(come_and_go, [lambda: current[0].drain()] * 20, [ask] * 20)
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())

"""Objects of a loop that other threads use while it runs, without a GIL.

They raise RuntimeError there, or answer; and the loop's messages go on, all of them and
in order. With a GIL that guards them, and mostly lets them work.
"""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

import aiozmq_speedups
from aiozmq_speedups._ext import core

zmq = pytest.importorskip("zmq")

pytestmark = [
    pytest.mark.skipif(
        core is None or getattr(sys, "_is_gil_enabled", lambda: True)(),
        reason="without a GIL",
    ),
    pytest.mark.loops("speedups", "asyncio"),
    pytest.mark.timeout(60),
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

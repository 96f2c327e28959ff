"""Publish and subscribe, as aiozmq's documentation has it."""

import asyncio
import contextlib
import logging
import subprocess
import sys
from unittest import mock

import pytest
import zmq


def make_handler(rpc, queue):
    class Handler(rpc.AttrHandler):
        @rpc.method
        def start(self):
            queue.put_nowait("started")

        @rpc.method
        def func(self, arg, b=2):
            queue.put_nowait((arg, b))

        @rpc.method
        async def coro(self, arg):
            await asyncio.sleep(0)
            queue.put_nowait(arg)

        @rpc.method
        def func_error(self):
            raise ValueError("wrong")

        @rpc.method
        def suspicious(self, arg):
            return arg

        @rpc.method
        async def forever(self):
            queue.put_nowait("waiting")
            await asyncio.get_running_loop().create_future()

    return Handler()


@contextlib.asynccontextmanager
async def connected(impl, queue, topics, **server):
    """(client, service) once messages of the first topic arrive."""
    handler = make_handler(impl.rpc, queue)
    options = {"subscribe": topics, **server}
    async with impl.served("pubsub", handler, server=options) as (client, service):
        first = topics if isinstance(topics, (str, bytes)) else topics[0]
        # A subscription takes effect at some later time.
        while queue.empty():
            await client.publish(first).start()
            await asyncio.sleep(0.001)
        yield client, service


async def next_of(queue):
    """The next call, without those that made the connection known."""
    while (item := await queue.get()) == "started":
        pass
    return item


def pubsub_test(topics="my-topic", **server):
    """Runs a test coroutine with (impl, client, service, queue, log)."""

    def decorate(test):
        def run_test(impl, run, rpc_log):
            async def go():
                queue = asyncio.Queue()
                async with connected(impl, queue, topics, **server) as pair:
                    await test(impl, *pair, queue, rpc_log)

            run(go())

        run_test.__name__ = test.__name__
        run_test.__doc__ = test.__doc__
        return run_test

    return decorate


@pubsub_test()
async def test_calls(impl, client, service, queue, log):
    assert await client.publish("my-topic").func(1) is None
    assert await next_of(queue) == (1, 2)
    await client.publish(b"my-topic").func(1, b=[3])
    assert await next_of(queue) == (1, (3,))
    await client.publish("my-topic").coro("x")
    assert await next_of(queue) == "x"
    # Topics are prefixes.
    await client.publish("my-topic/more").func(4)
    assert await next_of(queue) == (4, 2)


@pubsub_test(topics=("topic1", b"topic2"))
async def test_several_topics(impl, client, service, queue, log):
    await client.publish("topic1").func(1)
    await client.publish("other").func(2)
    await client.publish(None).func(2)
    await client.publish("topic2").func(3)
    assert [await next_of(queue) for _ in range(2)] == [(1, 2), (3, 2)]


@pubsub_test(topics="")
async def test_all_topics(impl, client, service, queue, log):
    for topic in (None, "", b"", "topic", b"\xff"):
        await client.publish(topic).func(topic)
        assert await next_of(queue) == (topic, 2)


@pubsub_test()
async def test_subscribe_and_unsubscribe(impl, client, service, queue, log):
    for topic in ("second", b"third"):
        service.subscribe(topic)
    assert set(service.transport.subscriptions()) == {b"my-topic", b"second", b"third"}
    service.unsubscribe("second")
    service.unsubscribe(b"third")
    assert set(service.transport.subscriptions()) == {b"my-topic"}
    for topic in (1, None, ["topic"], bytearray(b"topic")):
        for call in (service.subscribe, service.unsubscribe):
            with pytest.raises(TypeError, match="topic should be str or bytes"):
                call(topic)


@pubsub_test()
async def test_topic_of_wrong_type(impl, client, service, queue, log):
    for topic in (1, ["topic"], {}):
        with pytest.raises(TypeError, match="should be None, str or bytes"):
            await client.publish(topic).func(1)


@pubsub_test()
async def test_empty_name(impl, client, service, queue, log):
    with pytest.raises(ValueError, match="PubSub method name is empty"):
        await client.publish("my-topic")(1)


@pubsub_test()
async def test_wrong_calls_are_logged(impl, client, service, queue, log):
    for name, error in (
        ("unknown", impl.rpc.NotFoundError),
        ("coro", impl.rpc.ParametersError),
    ):
        await getattr(client.publish("my-topic"), name)()
        record = await log.get()
        assert record.levelno == logging.ERROR
        assert record.msg == "Call to %r caused error: %r"
        assert record.args == (name, mock.ANY)
        assert record.exc_info[0] is error


@pubsub_test(log_exceptions=True)
async def test_exceptions_are_logged(impl, client, service, queue, log):
    await client.publish("my-topic").func_error()
    record = await log.get()
    assert record.levelno == logging.ERROR
    assert record.args == (mock.ANY, "func_error", "()", "{}")
    assert record.exc_info[0] is ValueError


@pubsub_test()
async def test_result_is_warned_of(impl, client, service, queue, log):
    await client.publish("my-topic").suspicious(1)
    record = await log.get()
    assert record.levelno == logging.WARNING
    assert record.msg == "PubSub handler %r returned not None"
    assert record.args == ("suspicious",)


@pubsub_test()
async def test_closed_services(impl, client, service, queue, log):
    client.close()
    await client.wait_closed()
    with pytest.raises(impl.rpc.ServiceClosedError):
        await client.publish("my-topic").func(1)
    service.close()
    await service.wait_closed()
    with pytest.raises(impl.rpc.ServiceClosedError):
        service.subscribe("topic")


@pubsub_test()
async def test_closing_the_server_cancels_handlers(impl, client, service, queue, log):
    await client.publish("my-topic").forever()
    assert await next_of(queue) == "waiting"
    (task,) = service._proto.pending_waiters
    service.close()
    await service.wait_closed()
    with pytest.raises(asyncio.CancelledError):
        await task


# -- What aiozmq does not do --


@pytest.mark.parametrize("subscribe", [1, object(), ["ok", 1], [None]])
def test_bad_subscription(ours, run, subscribe):
    async def go():
        with pytest.raises(TypeError):
            await ours.rpc.serve_pubsub(
                {}, bind="tcp://127.0.0.1:*", subscribe=subscribe
            )

    run(go())


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"", b"func", b"\x90"],
        [b"", b"func", b"\x90", b"\x80", b"more"],
        [b"", b"func", b"\x93", b"\x80"],
        [b"", b"\xff", b"\x90", b"\x80"],
    ],
)
def test_malformed_message(ours, run, rpc_log, frames):
    async def go():
        queue = asyncio.Queue()
        handler = make_handler(ours.rpc, queue)
        async with ours.opened(zmq.XPUB, bind="tcp://127.0.0.1:*") as peer:
            (endpoint,) = peer.transport.bindings()
            service = await ours.rpc.serve_pubsub(
                handler, connect=endpoint, subscribe=""
            )
            assert await peer.read() == [b"\x01"]
            peer.write(frames)
            record = await rpc_log.get()
            assert record.levelno == logging.CRITICAL
            assert record.getMessage() == f"Cannot unpack {frames!r}"
            peer.write([b"", b"start", b"\x90", b"\x80"])
            assert await queue.get() == "started"
            service.close()
            await service.wait_closed()

    run(go())


def test_topics_of_both_types_under_bb():
    """With -bb, str and bytes must not meet in one dict."""
    program = (
        "import asyncio, sys\n"
        "from aiozmq_speedups import rpc\n"
        "async def main():\n"
        "    client = await rpc.connect_pubsub(bind='tcp://127.0.0.1:*')\n"
        "    for topic in ('a', b'a', 'a'):\n"
        "        await client.publish(topic).func(topic)\n"
        "        assert client.publish(topic) is client.publish(topic)\n"
        "    client.close()\n"
        "    await client.wait_closed()\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-bb", "-c", program]
    subprocess.run(command, check=True, timeout=250)

"""Streams, as aiozmq's documentation has them."""

import asyncio
import random

import pytest
import zmq
from helpers import size_of
from parity import impl, ours, pytest_generate_tests

__all__ = ["impl", "ours", "pytest_generate_tests"]


def stream_test(zmq_type=zmq.DEALER, **kwargs):
    """Runs a test coroutine with (impl, a stream that is bound)."""

    def decorate(test):
        def run_test(impl, run):
            async def go():
                options = {"bind": "tcp://127.0.0.1:*", **kwargs}
                async with impl.opened(zmq_type, **options) as stream:
                    await test(impl, stream)

            run(go())

        run_test.__name__ = test.__name__
        run_test.__doc__ = test.__doc__
        return run_test

    return decorate


def pair_test(type1=zmq.ROUTER, type2=zmq.DEALER, **kwargs):
    """Runs a test coroutine with (impl, a bound stream, one connected to it)."""

    def decorate(test):
        @stream_test(type1, **kwargs)
        async def run_test(impl, stream1):
            (endpoint,) = stream1.transport.bindings()
            async with impl.opened(type2, connect=endpoint) as stream2:
                await test(impl, stream1, stream2)

        run_test.__name__ = test.__name__
        run_test.__doc__ = test.__doc__
        return run_test

    return decorate


async def waiting(coro):
    """A task that has run until it waits."""
    task = asyncio.ensure_future(coro)
    await asyncio.sleep(0)
    return task


@pair_test()
async def test_request_and_answer(impl, router, dealer):
    for i in range(10):
        dealer.write((b"data", b"ask", b"%d" % i))
        request = await router.read()
        assert request[1:] == [b"data", b"ask", b"%d" % i]
        router.write(request)
        assert await dealer.read() == [b"data", b"ask", b"%d" % i]


@pair_test()
async def test_close(impl, router, dealer):
    assert not router.at_closing()
    task = await waiting(router.read())
    event_task = await waiting(router.read_event())
    router.close()
    with pytest.raises(impl.stream.ZmqStreamClosed):
        await task
    with pytest.raises(impl.stream.ZmqStreamClosed):
        await event_task
    assert router.at_closing()
    assert router.transport is None
    for read in (router.read, router.read_event):
        for _ in range(2):
            with pytest.raises(impl.stream.ZmqStreamClosed):
                await read()
    with pytest.raises(ConnectionResetError):
        await router.drain()


@pytest.mark.libzmq("the socket is pyzmq's")
@stream_test()
async def test_information(impl, stream):
    assert isinstance(stream.transport, impl.interface.ZmqTransport)
    assert isinstance(stream.get_extra_info("zmq_socket"), zmq.Socket)
    assert stream.get_extra_info("zmq_type") == zmq.DEALER
    assert stream.get_extra_info("unknown") is None
    assert stream.get_extra_info("unknown", 5) == 5
    assert stream.exception() is None


@stream_test(zmq.PAIR, high_write=400, low_write=100, events_backlog=1)
async def test_options(impl, stream):
    assert stream.transport.get_write_buffer_limits() == (100, 400)
    assert stream._event_queue.maxlen == 1


@stream_test(events_backlog=None)
async def test_unlimited_events_backlog(impl, stream):
    for i in range(1000):
        stream.feed_event(i)
    assert [await stream.read_event() for _ in range(1000)] == list(range(1000))


@stream_test()
async def test_oldest_events_are_dropped(impl, stream):
    for i in range(150):
        stream.feed_event(i)
    assert [await stream.read_event() for _ in range(100)] == list(range(50, 150))


def test_uses_an_existing_socket(impl, run):
    async def go():
        sock = zmq.Context.instance().socket(zmq.DEALER)
        async with impl.opened(zmq.DEALER, zmq_sock=sock) as stream:
            assert stream.get_extra_info("zmq_socket") is sock
        assert sock.closed

    run(go())


# -- Water marks of reading --


@stream_test()
async def test_read_buffer_limits(impl, stream):
    def limits():
        return stream._low_water, stream._high_water

    assert limits() == (16 * 1024, 64 * 1024)
    stream.set_read_buffer_limits(low=10)
    assert limits() == (10, 40)
    stream.set_read_buffer_limits(high=60)
    assert limits() == (15, 60)
    stream.set_read_buffer_limits(high=60, low=0)
    assert limits() == (0, 60)
    for high, low in ((1, 2), (-1, None), (None, -1)):
        with pytest.raises(ValueError, match="must be >="):
            stream.set_read_buffer_limits(high=high, low=low)


@pair_test(high_read=20, low_read=5)
async def test_reading_pauses_at_the_high_mark(impl, router, dealer):
    for i in range(30):
        dealer.write([b"message %3d" % i])
    # Each message counts 16 bytes: 5 of the identity, 11 of the text.
    task = await waiting(router.read())
    got = [(await task)[1]]
    while not router._paused:
        await asyncio.sleep(0)
    queued = len(router._queue)
    assert queued in (1, 2)  # how many came before the reader ran
    # Nothing more comes in, however long it takes.
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(router._queue) == queued
    for _ in range(29):
        got.append((await router.read())[1])
    assert got == [b"message %3d" % i for i in range(30)]
    assert not router._paused


@pair_test()
async def test_raising_the_marks_resumes(impl, router, dealer):
    router.set_read_buffer_limits(high=5)
    dealer.write([b"request"])
    while not router._paused:
        await asyncio.sleep(0)
    router.set_read_buffer_limits(high=1000)
    assert not router._paused
    assert (await router.read())[1:] == [b"request"]


# -- Exceptions --


@stream_test()
async def test_set_exception(impl, stream):
    task = await waiting(stream.read())
    event_task = await waiting(stream.read_event())
    exc = RuntimeError("some exc")
    stream.set_exception(exc)
    assert stream.exception() is exc
    for t in (task, event_task):
        with pytest.raises(RuntimeError, match="some exc"):
            await t
    for call in (stream.read, stream.drain):
        with pytest.raises(RuntimeError, match="some exc"):
            await call()


@stream_test()
async def test_set_exception_with_cancelled_reader(impl, stream):
    task = await waiting(stream.read())
    task.cancel()
    stream.set_exception(RuntimeError("some exc"))
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(RuntimeError, match="some exc"):
        await stream.read()


def test_failed_write(impl, loop):
    async def go():
        async with impl.opened(zmq.PULL, bind="tcp://127.0.0.1:*") as stream:
            stream.write([b"a PULL cannot send"])
            for call in (stream.read, stream.drain):
                with pytest.raises(OSError) as exc:
                    await call()
                assert exc.value.errno == zmq.ENOTSUP

    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))
    loop.run_until_complete(go())
    (context,) = contexts
    assert context["exception"].errno == zmq.ENOTSUP


@stream_test()
async def test_second_reader_is_refused(impl, stream):
    for read in (stream.read, stream.read_event):
        task = await waiting(read())
        with pytest.raises(RuntimeError, match="while another coroutine"):
            await read()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@stream_test()
async def test_close_with_cancelled_reader(impl, stream):
    task = await waiting(stream.read())
    task.cancel()
    stream.close()
    with pytest.raises(asyncio.CancelledError):
        await task


@stream_test()
async def test_message_for_cancelled_reader_stays(impl, stream):
    task = await waiting(stream.read())
    task.cancel()
    stream.feed_msg([b"data"])
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stream._queue_len > 0
    assert await stream.read() == [b"data"]
    assert stream._queue_len == 0


@stream_test()
async def test_message_wakes_a_reader_that_is_then_cancelled(impl, stream):
    task = await waiting(stream.read())
    stream.feed_msg([b"data"])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await stream.read() == [b"data"]


# -- Writing --


@stream_test()
async def test_drain(impl, stream):
    await stream.drain()
    stream._protocol.pause_writing()
    task = await waiting(stream.drain())
    await asyncio.sleep(0)
    assert not task.done()
    stream._protocol.resume_writing()
    await task
    await stream.drain()


@stream_test()
async def test_drain_ends_with_the_stream(impl, stream):
    stream._protocol.pause_writing()
    task = await waiting(stream.drain())
    stream.close()
    await task


@stream_test()
async def test_drain_raises_what_ended_the_stream(impl, stream):
    stream._protocol.pause_writing()
    task = await waiting(stream.drain())
    exc = RuntimeError("exception")
    stream._protocol.connection_lost(exc)
    with pytest.raises(RuntimeError) as caught:
        await task
    assert caught.value is exc


def test_drain_waits_for_a_slow_peer(impl, run):
    async def go():
        sock = zmq.Context.instance().socket(zmq.PUSH)
        sock.sndhwm = 1
        async with impl.opened(
            zmq.PUSH,
            zmq_sock=sock,
            bind="tcp://127.0.0.1:*",
            high_write=1000,
            low_write=100,
        ) as push:
            (endpoint,) = push.transport.bindings()
            count = 0
            # Nobody takes them, so that they soon fill the marks.
            while push.transport.get_write_buffer_size() <= 1000:
                push.write([b"%-100d" % count])
                count += 1
            task = await waiting(push.drain())
            assert not task.done()
            async with impl.opened(zmq.PULL, connect=endpoint) as pull:
                for i in range(count):
                    assert await pull.read() == [b"%-100d" % i]
                await task
                assert push.transport.get_write_buffer_size() <= 100

    run(go())


# -- Monitor --


@pair_test()
async def test_monitor(impl, router, dealer):
    (endpoint,) = router.transport.bindings()
    async with impl.opened(zmq.DEALER) as stream:
        await stream.transport.enable_monitor()
        await stream.transport.connect(endpoint)
        wanted = {zmq.EVENT_CONNECT_DELAYED, zmq.EVENT_CONNECTED}
        while wanted:
            event = await stream.read_event()
            assert isinstance(event, impl.core.SocketEvent)
            wanted.discard(event.event)
        stream.write([b"request"])
        assert (await router.read())[1:] == [b"request"]


# -- Cancelling --


@pytest.mark.libzmq("inproc://")
def test_cancelled_reads_lose_nothing(impl, run):
    """20,000 messages, none lost and in order, under reads cancelled at random."""
    count = 20_000
    rnd = random.Random(7)

    async def go():
        async with (
            impl.opened(zmq.PULL, bind="inproc://test-cancelled-reads") as pull,
            impl.opened(zmq.PUSH, connect="inproc://test-cancelled-reads") as push,
        ):

            async def write():
                for i in range(count):
                    push.write([b"%d" % i])
                    if rnd.random() < 0.2:
                        await push.drain()
                        await asyncio.sleep(rnd.choice((0, 0, 0, 0.0001)))

            got = []

            async def read_one():
                # In one step with the read, so that a cancel cannot come between.
                got.append(await pull.read())

            writer = asyncio.ensure_future(write())
            cancelled = 0
            while len(got) < count:
                task = asyncio.ensure_future(read_one())
                how = rnd.randrange(5)
                if how == 0:
                    for _ in range(rnd.randrange(4)):
                        await asyncio.sleep(0)
                    task.cancel()
                elif how == 1:
                    timeout = rnd.choice((0, 1e-6, 1e-5, 1e-4))
                    try:
                        await asyncio.wait_for(task, timeout)
                    except TimeoutError:
                        pass
                try:
                    await task
                except asyncio.CancelledError:
                    cancelled += 1
            await writer
            assert got == [[b"%d" % i] for i in range(count)]
            assert cancelled > 100

    run(go())


# -- What aiozmq does not do --


@pytest.mark.libzmq("inproc://")
def test_empty_messages(ours, run):
    """aiozmq's read() does not see a message whose frames are all empty."""

    async def go():
        async with (
            ours.opened(
                zmq.PAIR, bind="inproc://empty", high_read=100 * size_of(b"", b"")
            ) as stream,
            ours.opened(zmq.PAIR, connect="inproc://empty") as peer,
        ):
            for _ in range(300):
                peer.write([b"", b""])
            # They count, so that a flood of them pauses reading.
            while not stream._paused:
                await asyncio.sleep(0)
            assert len(stream._queue) == 101
            for _ in range(300):
                assert await stream.read() == [b"", b""]
            assert stream._queue_len == 0

    run(go())


@pytest.mark.libzmq("inproc://")
def test_read_after_the_user_resumed_the_transport(ours, run):
    """The stream cannot resume it again; in aiozmq read() raises, losing a message."""

    async def go():
        async with (
            ours.opened(zmq.PAIR, bind="inproc://resumed", high_read=1) as stream,
            ours.opened(zmq.PAIR, connect="inproc://resumed") as peer,
        ):
            for i in range(20):
                peer.write([b"%2d" % i])
            for i in range(20):
                while not (stream._paused or i > 18):
                    await asyncio.sleep(0)
                if stream._paused:
                    stream.transport.resume_reading()
                assert await stream.read() == [b"%2d" % i]

    run(go())


def test_faster_reader(ours, run):
    """A message may be taken before the reader that it has woken runs."""

    async def go():
        async with ours.opened(zmq.DEALER, bind="tcp://127.0.0.1:*") as stream:
            for feed, read in (
                (lambda i: stream.feed_msg([i]), stream.read),
                (stream.feed_event, stream.read_event),
            ):
                task = await waiting(read())
                feed(b"1")
                assert await read() in ([b"1"], b"1")
                await asyncio.sleep(0)
                assert not task.done()
                feed(b"2")
                assert await task in ([b"2"], b"2")

                # It waits again, so that a third is refused.
                task = await waiting(read())
                feed(b"3")
                await read()
                third = asyncio.ensure_future(read())
                with pytest.raises(RuntimeError, match="while another coroutine"):
                    await third
                feed(b"4")
                assert await task in ([b"4"], b"4")

    run(go())


def test_cancelled_reader_may_read_again_at_once(ours, run):
    async def go():
        async with ours.opened(zmq.DEALER, bind="tcp://127.0.0.1:*") as stream:
            task = await waiting(stream.read())
            task.cancel()
            second = asyncio.ensure_future(stream.read())
            stream.feed_msg([b"data"])
            assert await second == [b"data"]
            assert task.cancelled()

    run(go())


def test_closed_stream(ours, run):
    async def go():
        async with ours.opened(zmq.DEALER, bind="tcp://127.0.0.1:*") as stream:
            stream.set_read_buffer_limits(high=1)
            stream.feed_msg([b"data"])
            assert stream._paused
            stream.close()
            while stream.transport is not None:
                await asyncio.sleep(0)
            stream.close()
            assert not stream.at_closing()  # a message is left
            for call in (
                lambda: stream.write([b"x"]),
                lambda: stream.get_extra_info("zmq_type"),
            ):
                with pytest.raises(ours.stream.ZmqStreamClosed):
                    call()
            stream.set_read_buffer_limits(high=1000)

    run(go())


def test_several_coroutines_may_drain(ours, run):
    async def go():
        async with ours.opened(zmq.DEALER, bind="tcp://127.0.0.1:*") as stream:
            stream._protocol.pause_writing()
            tasks = [await waiting(stream.drain()) for _ in range(3)]
            tasks[1].cancel()
            await asyncio.sleep(0)
            stream._protocol.resume_writing()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert results[0] is results[2] is None
            assert isinstance(results[1], asyncio.CancelledError)
            assert not stream._protocol._drain_waiters

    run(go())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"high_read": 1, "low_read": 2}, ValueError),
        ({"high_write": 1, "low_write": 2}, ValueError),
        ({"bind": "nonsense"}, OSError),
        ({"connect": 5}, (TypeError, ValueError)),
    ],
)
def test_failed_creation_leaves_nothing(ours, run, options, error):
    async def go():
        with pytest.raises(error):
            await ours.stream.create_zmq_stream(zmq.DEALER, **options)
        await asyncio.sleep(0)

    run(go())


def test_subclass_of_the_protocol(ours, run):
    """What a subclass overrides is called."""

    async def go():
        seen = []

        class Protocol(ours.stream.ZmqStreamProtocol):
            def msg_received(self, msg):
                seen.append(msg)
                super().msg_received(msg)

        stream = ours.stream.ZmqStream(loop=asyncio.get_running_loop())
        stream._protocol = Protocol(stream, stream._loop)
        transport, _ = await ours.core.create_zmq_connection(
            lambda: stream._protocol, zmq.DEALER, bind="tcp://127.0.0.1:*"
        )
        (endpoint,) = transport.bindings()
        async with ours.opened(zmq.DEALER, connect=endpoint) as peer:
            peer.write([b"data"])
            assert await stream.read() == [b"data"]
            assert seen == [[b"data"]]
        stream.close()
        while stream.transport is not None:
            await asyncio.sleep(0)

    run(go())

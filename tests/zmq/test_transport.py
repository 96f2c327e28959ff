"""The transport's contract, on every loop, with every transport."""

import asyncio
import contextlib
import contextvars
import errno
import gc
import logging
import weakref

import pytest
import zmq
from helpers import Recorder, close, open_transport, pair, raw_socket, size_of

from aiozmq_speedups import core
from aiozmq_speedups._zmq import connect
from aiozmq_speedups.interface import ZmqProtocol, ZmqTransport

pytestmark = pytest.mark.usefixtures("errors", "transport_kind")


# -- Messages --


INPROC = pytest.param(
    "inproc://aiozmq_speedups-test", marks=pytest.mark.libzmq("inproc://")
)


@pytest.mark.parametrize("address", ["tcp", "ipc", INPROC])
def test_dealer_router(run, address):
    async def go():
        async with pair(zmq.ROUTER, zmq.DEALER, transport=address) as (r, rp, d, dp):
            d.write([b"request"])
            identity, request = (await rp.received(1))[0]
            assert request == b"request"
            r.write([identity, b"answer", b""])
            assert await dp.received(1) == [[b"answer", b""]]
        assert rp.calls == dp.calls == ["connection_made", "connection_lost"]

    run(go())


def test_req_rep_alternate(run):
    async def go():
        async with pair(zmq.REP, zmq.REQ) as (rep, rep_p, req, req_p):
            for i in range(1, 6):
                req.write([b"question %d" % i])
                assert (await rep_p.received(i))[-1] == [b"question %d" % i]
                rep.write([b"answer %d" % i])
                assert (await req_p.received(i))[-1] == [b"answer %d" % i]

    run(go())


def test_pub_sub(run):
    async def go():
        # An XPUB hears of the subscription, so that nothing has to be retried.
        async with pair(zmq.XPUB, zmq.SUB) as (pub, pub_p, sub, sub_p):
            sub.subscribe(b"news")
            assert await pub_p.received(1) == [[b"\x01news"]]
            pub.write([b"weather", b"rain"])
            pub.write([b"news", b"none"])
            assert await sub_p.received(1) == [[b"news", b"none"]]
            sub.unsubscribe(b"news")
            assert (await pub_p.received(2))[1] == [b"\x00news"]

    run(go())


def test_push_pull_keeps_order(run):
    async def go():
        async with pair(zmq.PULL, zmq.PUSH) as (_, pull_p, push, _):
            for i in range(3000):
                push.write([b"%d" % i])
            assert await pull_p.received(3000) == [[b"%d" % i] for i in range(3000)]

    run(go())


def test_ping_pong_from_the_callback(run):
    class Echo(Recorder):
        def msg_received(self, data):
            self.transport.write(data)

    class Ping(Recorder):
        def msg_received(self, data):
            super().msg_received(data)
            if len(self.messages) < 300:
                self.transport.write(data)

    async def go():
        async with pair(zmq.ROUTER, zmq.DEALER, factory1=Echo, factory2=Ping) as (
            *_,
            d,
            dp,
        ):
            d.write([b"ball"])
            await dp.received(300)

    run(go())


def test_ping_pong_from_tasks(run):
    """Every write comes from outside the readiness callback."""

    async def go():
        async with pair(zmq.ROUTER, zmq.DEALER) as (r, rp, d, dp):

            async def serve():
                for i in range(1, 301):
                    r.write((await rp.received(i))[-1])

            server = asyncio.create_task(serve())
            for i in range(1, 301):
                d.write([b"%d" % i])
                assert (await dp.received(i))[-1] == [b"%d" % i]
            await server

    run(go())


FRAME_SIZES = [0, 1, 33, 34, 1000, 65535, 65536, 65537, 1 << 20]


def test_frames_of_all_sizes(run):
    async def go():
        async with pair(zmq.PAIR, zmq.PAIR) as (a, _, _, bp):
            messages = [[bytes([n % 251]) * n, b"end"] for n in FRAME_SIZES]
            messages.append([b"x" * n for n in FRAME_SIZES])
            messages.append([b"%d" % n for n in range(1000)])
            for message in messages:
                a.write(message)
            assert await bp.received(len(messages)) == messages

    run(go())


def test_messages_received_before_the_transport_was_made(run):
    sender, receiver = raw_socket(zmq.PAIR), raw_socket(zmq.PAIR)
    receiver.connect(f"tcp://127.0.0.1:{sender.bind_to_random_port('tcp://127.0.0.1')}")
    sender.send_multipart([b"early"])
    receiver.poll(100_000)
    receiver.getsockopt(zmq.EVENTS)  # ZMQ_FD is silent from now on

    async def go():
        tr, pr = await open_transport(zmq.PAIR, zmq_sock=receiver)
        assert await pr.received(1) == [[b"early"]]
        await close(tr)

    run(go())
    sender.close()


# -- write()'s argument --


@pytest.mark.parametrize(
    "data",
    [
        (b"a", b"b"),
        [bytearray(b"a"), memoryview(b"b")],
        iter([b"a", b"b"]),
        (p for p in (b"a", b"b")),
        {b"a": 1, b"b": 2},
        [memoryview(b"a-b-")[0:1], memoryview(b"bb")[::2]],
    ],
)
def test_write_takes_iterables_of_buffers(run, data):
    # A generator can be used once: not in another parameter's turn.
    if not isinstance(data, (tuple, list, dict)):
        data = iter([b"a", b"b"])

    async def go():
        async with pair(zmq.PAIR, zmq.PAIR) as (a, _, _, bp):
            a.write(data)
            assert await bp.received(1) == [[b"a", b"b"]]

    run(go())


@pytest.mark.parametrize("data", [None, [], (), b"", ""])
def test_write_nothing(run, data):
    async def go():
        async with pair(zmq.PAIR, zmq.PAIR) as (a, _, _, bp):
            a.write(data)
            a.write([b"after"])
            assert await bp.received(1) == [[b"after"]]

    run(go())


@pytest.mark.parametrize(
    "data", [1, [1], ["text"], [b"a", None], (b"a", 1), b"bytes", "text", [[b"a"]]]
)
def test_write_wrong_types(run, data):
    async def go():
        async with pair(zmq.PAIR, zmq.PAIR) as (a, _, _, bp):
            with pytest.raises(TypeError):
                a.write(data)
            a.write([b"after"])
            assert await bp.received(1) == [[b"after"]]

    run(go())


def test_queued_buffers_are_snapshots(run):
    async def go():
        # Without a peer a DEALER cannot send: the message waits.
        tr, _ = await open_transport(zmq.DEALER)
        frame = bytearray(b"before")
        message = [frame]
        tr.write(message)
        frame[:] = b"after!"
        message.append(b"more")
        peer, peer_p = await open_transport(zmq.DEALER, bind="tcp://127.0.0.1:*")
        await tr.connect(*peer.bindings())
        assert await peer_p.received(1) == [[b"before"]]
        await close(tr, peer)

    run(go())


# -- Flow control --


def test_write_buffer_and_water_marks(run):
    async def go():
        tr, pr = await open_transport(zmq.PUSH)
        high = size_of(b"12345", b"67890")
        tr.set_write_buffer_limits(high, low=4)
        assert tr.get_write_buffer_limits() == (4, high)
        tr.write([b"12345", b"67890"])
        assert tr.get_write_buffer_size() == high
        assert pr.calls == ["connection_made"]  # at the mark is not over it
        tr.write([b"1"])
        tr.write([b"1"])
        assert pr.calls[1:] == ["pause_writing"]
        assert tr.get_write_buffer_size() == high + 2 * size_of(b"1")
        peer, peer_p = await open_transport(zmq.PULL, bind="tcp://127.0.0.1:*")
        await tr.connect(*peer.bindings())
        assert await peer_p.received(3) == [[b"12345", b"67890"], [b"1"], [b"1"]]
        await pr.until(lambda: pr.calls[1:] == ["pause_writing", "resume_writing"])
        assert tr.get_write_buffer_size() == 0
        await close(tr, peer)

    run(go())


def test_set_write_buffer_limits(run):
    async def go():
        tr, pr = await open_transport(zmq.PUSH)
        assert tr.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
        tr.set_write_buffer_limits(low=10)
        assert tr.get_write_buffer_limits() == (10, 40)
        tr.set_write_buffer_limits(high=60)
        assert tr.get_write_buffer_limits() == (15, 60)
        for high, low in [(1, 2), (-1, None), (None, -1)]:
            with pytest.raises(ValueError):
                tr.set_write_buffer_limits(high=high, low=low)
        with pytest.raises(TypeError):
            tr.set_write_buffer_limits(high="x")
        assert tr.get_write_buffer_limits() == (15, 60)
        tr.set_write_buffer_limits(high=size_of(b"", b""))
        tr.write([b"", b""])
        assert "pause_writing" not in pr.calls
        tr.set_write_buffer_limits(high=size_of(b"", b"") - 1)
        assert "pause_writing" in pr.calls
        tr.abort()
        await pr.lost
        # The documented end of a paused protocol: nothing resumes it.
        assert pr.calls == ["connection_made", "pause_writing", "connection_lost"]

    run(go())


def test_failing_flow_control_callbacks_are_reported(run, errors):
    class Failing(Recorder):
        def pause_writing(self):
            raise RuntimeError("pause")

        def resume_writing(self):
            raise RuntimeError("resume")

    async def go():
        tr, pr = await open_transport(zmq.PUSH, Failing)
        tr.set_write_buffer_limits(high=0)
        tr.write([b"1"])
        peer, peer_p = await open_transport(zmq.PULL, bind="tcp://127.0.0.1:*")
        await tr.connect(*peer.bindings())
        await peer_p.received(1)
        tr.write([b"2"])
        await peer_p.received(2)
        assert [c["message"] for c in errors] == [
            "protocol.pause_writing() failed",
            "protocol.resume_writing() failed",
        ]
        assert all(c["transport"] is tr and c["protocol"] is pr for c in errors)
        errors.clear()
        await close(tr, peer)

    run(go())


def test_a_slow_peer_blocks_and_nothing_is_lost(run):
    async def go():
        # Small limits everywhere, so that the transport has to queue.
        pull = raw_socket(zmq.PULL, rcvhwm=10, rcvbuf=4096)
        port = pull.bind_to_random_port("tcp://127.0.0.1")
        push = raw_socket(zmq.PUSH, sndhwm=10, sndbuf=4096, linger=-1)
        tr, pr = await open_transport(
            zmq.PUSH, zmq_sock=push, connect=f"tcp://127.0.0.1:{port}"
        )
        frame, count = b"x" * 1000, 0
        while "pause_writing" not in pr.calls:
            tr.write([b"%d" % count, frame])
            count += 1
        assert tr.get_write_buffer_size() > 64 * 1024
        receiver, receiver_p = await open_transport(zmq.PULL, zmq_sock=pull)
        got = await receiver_p.received(count)
        assert got == [[b"%d" % i, frame] for i in range(count)]
        await pr.until(lambda: "resume_writing" in pr.calls)
        await close(tr, receiver)

    run(go())


def test_pause_and_resume_reading(run):
    async def go():
        async with pair(zmq.PAIR, zmq.PAIR) as (a, ap, b, bp):
            b.pause_reading()
            with pytest.raises(RuntimeError, match="Already paused"):
                b.pause_reading()
            for i in range(5):
                a.write([b"%d" % i])
            # The way back shows that the five have long arrived.
            b.write([b"ready"])
            await ap.received(1)
            assert bp.messages == []
            b.resume_reading()
            await bp.received(5)
            with pytest.raises(RuntimeError, match="Not paused"):
                b.resume_reading()
            b.close()
            with pytest.raises(RuntimeError, match="when closing"):
                b.pause_reading()

    run(go())


def test_pause_inside_the_callback(run):
    class OneAtATime(Recorder):
        def msg_received(self, data):
            super().msg_received(data)
            self.transport.pause_reading()

    async def go():
        async with pair(zmq.PULL, zmq.PUSH, factory1=OneAtATime) as (a, ap, b, _):
            for i in range(50):
                b.write([b"%d" % i])
            for i in range(1, 51):
                await ap.received(i)
                await asyncio.sleep(0)
                assert len(ap.messages) == i
                a.resume_reading()
            assert ap.messages == [[b"%d" % i] for i in range(50)]

    run(go())


# -- Closing --


def test_close_flushes_the_buffer(run):
    async def go():
        tr, pr = await open_transport(zmq.PUSH)
        tr.write([b"1"])
        tr.write([b"2"])
        tr.close()
        tr.close()
        assert tr.is_closing()
        assert not pr.lost.done()
        tr.write([b"3"])  # the buffer is still there: it is sent, too
        peer, peer_p = await open_transport(zmq.PULL, bind="tcp://127.0.0.1:*")
        await tr.connect(*peer.bindings())
        assert await peer_p.received(3) == [[b"1"], [b"2"], [b"3"]]
        assert await pr.lost is None
        assert pr.calls == ["connection_made", "connection_lost"]
        await close(peer)

    run(go())


@pytest.mark.parametrize("milliseconds", [0, 50])
def test_linger_bounds_close(run, caplog, milliseconds):
    """No peer takes what is in the buffer: close() ends all the same."""

    async def go():
        tr, pr = await open_transport(zmq.PUSH)
        tr.setsockopt(zmq.LINGER, milliseconds)
        tr.write([b"lost"])
        tr.close()
        assert tr.get_write_buffer_size() == size_of(b"lost")
        assert await asyncio.wait_for(pr.lost, 100) is None
        assert tr.get_write_buffer_size() == 0
        assert pr.calls == ["connection_made", "connection_lost"]

    run(go())
    (record,) = caplog.records
    assert "1 messages (4 bytes) that no peer took within the linger time" in (
        record.getMessage()
    )


def test_linger_after_the_peer_is_gone(run, caplog):
    """The water mark of libzmq is reached, then the peer dies for good."""

    async def go():
        peer, peer_p = await open_transport(zmq.PULL, bind="tcp://127.0.0.1:*")
        tr, pr = await open_transport(zmq.PUSH, connect=next(iter(peer.bindings())))
        tr.write([b"0"])
        await peer_p.received(1)
        await tr.enable_monitor(zmq.EVENT_DISCONNECTED)
        await close(peer)
        await pr.until(lambda: pr.events)
        while tr.get_write_buffer_size() < 100 * size_of(b"m"):
            tr.write([b"m"])
        tr.setsockopt(zmq.LINGER, 50)
        tr.close()
        assert await asyncio.wait_for(pr.lost, 100) is None

    run(go())
    assert "100 messages (100 bytes) that no peer took" in caplog.text


def test_linger_without_limit_waits(run):
    async def go():
        tr, pr = await open_transport(zmq.PUSH)
        tr.setsockopt(zmq.LINGER, -1)
        tr.write([b"kept"])
        tr.close()
        await asyncio.sleep(0.05)
        assert tr.get_write_buffer_size() == size_of(b"kept")
        assert not pr.lost.done()
        tr.abort()
        await pr.lost

    run(go())


def test_linger_ends_with_the_buffer(run, caplog):
    """Sent in time: nothing is said, and the timer does not keep the transport."""

    async def go():
        tr, pr = await open_transport(zmq.PUSH)
        tr.write([b"1"])
        tr.close()
        peer, peer_p = await open_transport(zmq.PULL, bind="tcp://127.0.0.1:*")
        await tr.connect(*peer.bindings())
        assert await pr.lost is None
        assert await peer_p.received(1) == [[b"1"]]
        gone = weakref.ref(tr)
        pr.transport = None
        del tr
        gc.collect()
        assert gone() is None
        await close(peer)

    run(go())
    assert not caplog.records


def test_abort_drops_the_buffer(run):
    async def go():
        tr, pr = await open_transport(zmq.PUSH)
        tr.write([b"1"])
        tr.close()
        tr.abort()
        tr.abort()
        assert tr.get_write_buffer_size() == 0
        assert await pr.lost is None
        assert pr.calls == ["connection_made", "connection_lost"]

    run(go())


def test_a_closed_transport(run):
    async def go():
        tr, pr = await open_transport(zmq.DEALER, bind="tcp://127.0.0.1:*")
        zmq_sock = tr.get_extra_info("zmq_socket")
        await close(tr)
        assert zmq_sock.closed
        assert tr._zmq_sock is None and tr._protocol is None and tr._loop is None
        tr.close()
        tr.abort()
        assert "DEALER" in repr(tr)
        for call in (
            lambda: tr.getsockopt(zmq.TYPE),
            lambda: tr.setsockopt(zmq.LINGER, 0),
        ):
            with pytest.raises(OSError) as info:
                call()
            assert info.value.errno == errno.ENOTSOCK
        for method in (tr.bind, tr.unbind, tr.connect, tr.disconnect):
            with pytest.raises(OSError) as info:
                await method("tcp://127.0.0.1:1")
            assert info.value.errno == errno.ENOTSOCK
        with pytest.raises(OSError):
            await tr.enable_monitor()
        await tr.disable_monitor()

    run(go())


def test_writes_to_a_closed_transport_are_logged(run, caplog):
    async def go():
        tr, pr = await open_transport(zmq.DEALER)
        tr.close()
        with caplog.at_level(logging.WARNING, logger="aiozmq_speedups"):
            for _ in range(4):
                tr.write([b"lost"])
            assert not caplog.records
            for _ in range(3):
                tr.write([b"lost"])
        assert [r.getMessage() for r in caplog.records] == [
            "write to closed ZMQ socket."
        ] * 3
        with pytest.raises(TypeError):
            tr.write([1])
        await pr.lost

    run(go())


def test_connection_lost_that_raises(run, errors):
    class Failing(ZmqProtocol):
        def connection_lost(self, exc):
            raise RuntimeError("lost")

    async def go():
        tr, _ = await open_transport(zmq.DEALER, Failing)
        zmq_sock = tr.get_extra_info("zmq_socket")
        tr.close()
        while not zmq_sock.closed:
            await asyncio.sleep(0)
        assert tr.get_protocol() is None
        assert str(errors.pop()["exception"]) == "lost"

    run(go())


@pytest.mark.parametrize("how", ["close", "abort"])
def test_closing_inside_the_callback(run, how):
    class Closing(Recorder):
        def msg_received(self, data):
            super().msg_received(data)
            getattr(self.transport, how)()

    async def go():
        async with pair(zmq.PULL, zmq.PUSH, factory1=Closing) as (_, ap, b, _):
            for _ in range(10):
                b.write([b"x"])
            assert await ap.lost is None
            assert len(ap.messages) == 1

    run(go())


def test_close_before_connection_made(run):
    """The factory's transport may be closed by what runs in between."""

    class Hasty(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.close()

    async def go():
        tr, pr = await open_transport(zmq.DEALER, Hasty)
        await pr.lost
        assert pr.calls == ["connection_made", "connection_lost"]

    run(go())


# -- Errors --


def test_an_exception_in_msg_received_is_reported_and_survived(run, errors):
    class Failing(Recorder):
        def msg_received(self, data):
            super().msg_received(data)
            if data == [b"bad"]:
                raise RuntimeError("bad message")

    async def go():
        async with pair(zmq.PULL, zmq.PUSH, factory1=Failing) as (_, ap, b, _):
            messages = [[b"bad"], [b"good"], [b"bad"], [b"bad"], [b"good"]]
            for message in messages:
                b.write(message)
            assert await ap.received(5) == messages
            await asyncio.sleep(0)
        assert [str(c["exception"]) for c in errors] == ["bad message"] * 3
        errors.clear()

    run(go())


def test_a_write_error_is_fatal(run, errors):
    async def go():
        tr, pr = await open_transport(zmq.PULL)
        tr.write([b"a PULL cannot send"])
        exc = await pr.lost
        assert isinstance(exc, OSError) and exc.errno == zmq.ENOTSUP
        (context,) = errors
        assert context["message"] == "Fatal write error on zmq socket transport"
        assert context["exception"] is exc
        assert context["transport"] is tr and context["protocol"] is pr
        errors.clear()

    run(go())


def test_socket_closed_underneath(run, errors):
    async def go():
        tr, pr = await open_transport(zmq.DEALER, bind="tcp://127.0.0.1:*")
        tr.get_extra_info("zmq_socket").close()
        tr.write([b"x"])
        tr.write([b"x"])
        exc = await pr.lost
        assert isinstance(exc, OSError) and exc.errno == zmq.ENOTSOCK
        assert [c["exception"] for c in errors] == [exc]
        errors.clear()

    run(go())


def test_socket_closed_inside_the_callback(run, errors):
    class Closing(Recorder):
        def msg_received(self, data):
            super().msg_received(data)
            self.transport.get_extra_info("zmq_socket").close()

    async def go():
        async with pair(zmq.PULL, zmq.PUSH, factory1=Closing) as (_, ap, b, _):
            for _ in range(10):
                b.write([b"x"])
            exc = await ap.lost
            assert isinstance(exc, OSError) and exc.errno == zmq.ENOTSOCK
            assert len(ap.messages) == 1
            assert [c["exception"] for c in errors] == [exc]
            errors.clear()

    run(go())


def test_socket_closed_underneath_then_close(run):
    async def go():
        tr, pr = await open_transport(zmq.DEALER)
        tr.get_extra_info("zmq_socket").close()
        assert "ZmqTransport" in repr(tr)
        tr.close()
        assert await pr.lost is None

    run(go())


def test_context_terminated(run, errors):
    async def go():
        context = zmq.Context()
        tr, pr = await open_transport(
            zmq.PULL, zmq_sock=context.socket(zmq.PULL), bind="tcp://127.0.0.1:*"
        )
        # It returns when the transport has closed its socket.
        terminated = asyncio.get_running_loop().run_in_executor(None, context.term)
        exc = await pr.lost
        assert isinstance(exc, OSError) and exc.errno == zmq.ETERM
        await terminated
        assert [c["message"] for c in errors] == [
            "Fatal read error on zmq socket transport"
        ]
        errors.clear()

    run(go())


# -- Options, endpoints, subscriptions --


def test_options(run):
    async def go():
        tr, _ = await open_transport(zmq.DEALER)
        assert tr.getsockopt(zmq.TYPE) == zmq.DEALER
        tr.setsockopt(zmq.IDENTITY, b"me")
        assert tr.getsockopt(zmq.IDENTITY) == b"me"
        tr.setsockopt(zmq.RCVHWM, 7)
        assert tr.getsockopt(zmq.RCVHWM) == 7
        endpoint = await tr.bind("tcp://127.0.0.1:*")
        assert tr.getsockopt(zmq.LAST_ENDPOINT) == endpoint
        with pytest.raises(OSError) as info:
            tr.setsockopt(zmq.RATE, -1)
        assert info.value.errno == errno.EINVAL
        assert not isinstance(info.value, zmq.ZMQError)
        await close(tr)

    run(go())


def test_bindings_and_connections(run):
    async def go():
        tr, _ = await open_transport(zmq.DEALER)
        one = await tr.bind("tcp://127.0.0.1:*")
        two = await tr.bind("tcp://127.0.0.1:*")
        assert one.startswith("tcp://127.0.0.1:") and "*" not in one
        bindings = tr.bindings()
        assert bindings == {one, two}
        assert repr(bindings) == "{" + ", ".join(sorted([one, two])) + "}"
        assert bindings | {"x"} == {one, two, "x"}
        await tr.unbind(one)
        assert bindings == {two}
        assert not hasattr(bindings, "add")
        other, _ = await open_transport(zmq.DEALER, connect=[one, two])
        assert other.connections() == {one, two}
        assert await other.disconnect(one) is None
        assert other.connections() == {two}
        await close(tr, other)

    run(go())


@pytest.mark.parametrize("method", ["bind", "unbind", "connect", "disconnect"])
def test_bad_endpoints(run, method):
    async def go():
        tr, _ = await open_transport(zmq.DEALER)
        with pytest.raises(TypeError, match="endpoint should be str, got 12"):
            await getattr(tr, method)(12)
        with pytest.raises(OSError) as info:
            await getattr(tr, method)("not an endpoint")
        assert info.value.errno in (errno.EINVAL, errno.ENOENT)
        assert not isinstance(info.value, zmq.ZMQError)
        assert not tr.bindings() and not tr.connections()
        await close(tr)

    run(go())


@pytest.mark.parametrize("method", ["bind", "connect"])
@pytest.mark.parametrize("endpoint", ["127.0.0.1:5555", "localhost", ""])
def test_endpoints_without_a_transport(run, method, endpoint):
    with pytest.raises(
        OSError, match="begins with its transport, as in tcp://"
    ) as info:
        run(open_transport(zmq.DEALER, **{method: endpoint}))
    assert info.value.errno == errno.EINVAL
    assert repr(endpoint) in str(info.value)


def test_subscriptions(run):
    async def go():
        tr, _ = await open_transport(zmq.SUB)
        tr.subscribe(b"a")
        tr.subscribe(b"a")
        tr.subscribe(b"b")
        assert tr.subscriptions() == {b"a", b"b"}
        assert repr(tr.subscriptions()) == "{b'a', b'b'}"
        tr.unsubscribe(b"a")
        tr.setsockopt(zmq.SUBSCRIBE, b"c")
        assert tr.subscriptions() == {b"b", b"c"}
        for value in ("text", bytearray(b"a"), None):
            with pytest.raises(TypeError):
                tr.subscribe(value)
            with pytest.raises(TypeError):
                tr.unsubscribe(value)
        await close(tr)
        other, _ = await open_transport(zmq.PUB)
        for call in (
            lambda: other.subscribe(b""),
            lambda: other.unsubscribe(b""),
            other.subscriptions,
        ):
            with pytest.raises(NotImplementedError):
                call()
        await close(other)

    run(go())


@pytest.mark.libzmq("the socket is pyzmq's")
def test_extra_info_and_repr(run, loop):
    async def go():
        tr, pr = await open_transport(zmq.ROUTER)
        zmq_sock = tr.get_extra_info("zmq_socket")
        assert isinstance(zmq_sock, zmq.Socket)
        assert tr.get_extra_info("zmq_type") == zmq.ROUTER
        assert tr.get_extra_info("nothing") is None
        assert tr.get_extra_info("nothing", 1) == 1
        assert tr._zmq_sock is zmq_sock
        assert isinstance(tr, ZmqTransport) and isinstance(tr, asyncio.BaseTransport)
        assert not tr.can_write_eof()
        assert tr.get_protocol() is pr
        text = repr(tr)
        assert text.startswith("<ZmqTransport sock=") and "type=ROUTER" in text
        assert "read=idle write=<polling, bufsize=0>" in text
        await close(tr)

    run(go())


def test_set_protocol(run):
    async def go():
        async with pair(zmq.PULL, zmq.PUSH) as (a, ap, b, _):
            b.write([b"1"])
            await ap.received(1)
            other = Recorder()
            a.set_protocol(other)
            assert a.get_protocol() is other
            b.write([b"2"])
            assert await other.received(1) == [[b"2"]]
            assert len(ap.messages) == 1
            a.set_protocol(ap)

    run(go())


@pytest.mark.libzmq("the socket is polled")
def test_reading_the_events_does_not_lose_the_wake_up(run):
    """ZMQ_FD is silent once somebody has read ZMQ_EVENTS."""

    async def go():
        async with pair(zmq.PAIR, zmq.PAIR) as (a, ap, b, _):
            for i in range(1, 50):
                b.write([b"%d" % i])
                zmq_sock = a.get_extra_info("zmq_socket")
                while not a.getsockopt(zmq.EVENTS) & zmq.POLLIN:
                    zmq_sock.poll(1)
                repr(a)
                await ap.received(i)

    run(go())


@pytest.mark.libzmq("the socket's events change while the loop stands still")
def test_reading_the_events_of_the_socket_itself(run):
    async def go():
        async with pair(zmq.PAIR, zmq.PAIR) as (a, ap, b, _):
            for i in range(1, 50):
                b.write([b"%d" % i])
                while not a._zmq_sock.getsockopt(zmq.EVENTS) & zmq.POLLIN:
                    pass
                await ap.received(i)

    run(go())


# -- create_zmq_connection --


def test_zmq_sock(run):
    async def go():
        zmq_sock = raw_socket(zmq.PUB)
        tr, pr = await open_transport(zmq.PUB, zmq_sock=zmq_sock)
        assert tr._zmq_sock is zmq_sock and not zmq_sock.closed
        await close(tr)
        assert zmq_sock.closed

    run(go())


def test_zmq_sock_of_another_type_stays_open(run):
    async def go():
        with raw_socket(zmq.PUB) as zmq_sock:
            with pytest.raises(ValueError, match="Invalid zmq_sock type"):
                await open_transport(zmq.SUB, zmq_sock=zmq_sock)
            assert not zmq_sock.closed

    run(go())


def test_zmq_sock_closed(run):
    async def go():
        zmq_sock = raw_socket(zmq.PUB)
        zmq_sock.close()
        with pytest.raises(OSError) as info:
            await open_transport(zmq.PUB, zmq_sock=zmq_sock)
        assert info.value.errno in (zmq.ENOTSUP, zmq.ENOTSOCK)

    run(go())


@pytest.mark.parametrize("name", ["bind", "connect"])
def test_invalid_endpoints_argument(run, name):
    async def go():
        with pytest.raises(ValueError, match=f"{name} should be str or iterable"):
            await open_transport(zmq.SUB, **{name: 2})
        with pytest.raises(TypeError):
            await open_transport(zmq.SUB, **{name: [b"tcp://127.0.0.1:1"]})
        with pytest.raises(OSError):
            await open_transport(zmq.SUB, **{name: "bad"})

    run(go())


@pytest.mark.parametrize(
    "name, ending",
    [
        ("localhost", "localhost"),
        ("localhost", "127.0.0.1"),
        ("127.0.0.1", "localhost"),
    ],
)
def test_unbind_by_another_name(run, name, ending):
    """libzmq looks names up: what it ends is forgotten, by whatever name it was."""

    async def go():
        tr, pr = await open_transport(zmq.DEALER)
        real = await tr.bind(f"tcp://{name}:*")
        port = real.rpartition(":")[2]
        assert real == f"tcp://127.0.0.1:{port}"
        other = await tr.bind("tcp://127.0.0.1:*")
        assert tr.bindings() == {real, other}
        await tr.unbind(f"tcp://{ending}:{port}")
        assert tr.bindings() == {other}
        with pytest.raises(OSError):
            await tr.unbind(real)
        await tr.unbind(other)
        assert not tr.bindings()
        tr.abort()
        await pr.lost

    run(go())


def test_disconnect_by_another_name(run):
    async def go():
        tr, pr = await open_transport(
            zmq.DEALER, connect=["tcp://127.0.0.1:1", "tcp://127.0.0.1:2"]
        )
        tr.setsockopt(zmq.LINGER, 0)
        await tr.disconnect("tcp://localhost:1")
        assert tr.connections() == {"tcp://127.0.0.1:2"}
        # One call in libzmq.
        await tr.unbind("tcp://127.0.0.1:2")
        assert not tr.connections()
        tr.abort()
        await pr.lost

    run(go())


def test_bind_twice(run):
    async def go():
        tr, _ = await open_transport(zmq.PULL, bind="tcp://127.0.0.1:*")
        made = []

        def factory():
            made.append(Recorder())
            return made[-1]

        with pytest.raises(OSError) as info:
            await open_transport(zmq.PULL, factory, bind=list(tr.bindings()))
        assert info.value.errno == errno.EADDRINUSE
        assert await made[0].lost is info.value
        await close(tr)

    run(go())


def test_a_failing_factory_leaks_nothing(run):
    def factory():
        raise ZeroDivisionError

    async def go():
        with pytest.raises(ZeroDivisionError):
            await open_transport(zmq.PULL, factory)
        with raw_socket(zmq.PULL) as zmq_sock:
            with pytest.raises(ZeroDivisionError):
                await open_transport(zmq.PULL, factory, zmq_sock=zmq_sock)
            assert not zmq_sock.closed

    run(go())


def test_cancelled_creation_leaks_nothing(run):
    async def go():
        made = []

        def factory():
            made.append(Recorder())
            return made[-1]

        task = asyncio.create_task(
            core.create_zmq_connection(factory, zmq.PULL, bind="tcp://127.0.0.1:*")
        )
        while not made:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await made[0].lost is None

    run(go())


def test_callbacks_run_in_the_creators_context(run):
    var = contextvars.ContextVar("var", default="none")

    class Reader(Recorder):
        def msg_received(self, data):
            super().msg_received(data)
            self.seen = var.get()

    async def go():
        var.set("creator")
        async with pair(zmq.PAIR, zmq.PAIR, factory1=Reader) as (_, ap, b, _):
            var.set("later")
            for i in range(1, 4):
                b.write([b"x"])
                await ap.received(i)
                assert ap.seen == "creator"

    run(go())


# -- The rest of the loop --


def test_a_flood_is_fair(run):
    """A timer and other callbacks run while a socket has always messages."""

    class Flood(Recorder):
        def msg_received(self, data):
            self.transport.write(data)  # to itself: it never ends

    async def go():
        async with pair(zmq.PAIR, zmq.PAIR, factory1=Flood, factory2=Flood) as (a, *_):
            for _ in range(500):
                a.write([b"x"])
            for _ in range(20):
                await asyncio.sleep(0)
            await asyncio.sleep(0.01)

    run(go())


def test_reading_while_writing_is_blocked(run):
    """A peer that sends before it reads: both queues are full, neither hangs."""

    async def go():
        def limited():
            return raw_socket(zmq.PAIR, sndhwm=2, rcvhwm=2, sndbuf=4096, rcvbuf=4096)

        a, ap = await open_transport(
            zmq.PAIR, zmq_sock=limited(), bind="tcp://127.0.0.1:*"
        )
        b, bp = await open_transport(
            zmq.PAIR, zmq_sock=limited(), connect=list(a.bindings())
        )
        a.pause_reading()
        b.pause_reading()
        message = [b"y" * 3000]
        for _ in range(300):
            a.write(message)
            b.write(message)
        assert a.get_write_buffer_size() and b.get_write_buffer_size()
        await asyncio.sleep(0)
        a.resume_reading()
        b.resume_reading()
        assert len(await ap.received(300)) == len(await bp.received(300)) == 300
        await close(a, b)

    run(go())


@pytest.mark.parametrize("option", [zmq.ROUTER_MANDATORY])
def test_router_that_refuses_is_retried(run, option):
    async def go():
        router = raw_socket(zmq.ROUTER, sndhwm=3, sndbuf=4096)
        router.setsockopt(option, 1)
        dealer = raw_socket(zmq.DEALER, rcvhwm=3, rcvbuf=4096, identity=b"d")
        a, ap = await open_transport(
            zmq.ROUTER, zmq_sock=router, bind="tcp://127.0.0.1:*"
        )
        dealer.connect(*a.bindings())
        dealer.send(b"hello")
        await ap.received(1)
        for i in range(200):
            a.write([b"d", b"%d" % i, b"z" * 2000])
        assert a.get_write_buffer_size() > 0
        b, bp = await open_transport(zmq.DEALER, zmq_sock=dealer)
        got = await bp.received(200)
        assert [m[0] for m in got] == [b"%d" % i for i in range(200)]
        await close(a, b)

    run(go())


def test_an_abandoned_transport(loop):
    """What closing the loop does to its transports."""

    async def go():
        tr, pr = await open_transport(zmq.DEALER)
        tr.write([b"waits"])
        return tr, pr

    tr, pr = loop.run_until_complete(go())
    zmq_sock = tr.get_extra_info("zmq_socket")
    tr._abandon()
    tr._abandon()
    assert zmq_sock.closed and tr.is_closing() and tr.get_write_buffer_size() == 0
    tr.write([b"dropped"])
    tr.close()
    tr.abort()
    loop.run_until_complete(asyncio.sleep(0))
    assert pr.calls == ["connection_made"]


def test_closed_after_the_loop(loop, loop_kind):
    """Nobody can be told any more, but the socket is closed, without an error."""

    async def go():
        idle, _ = await open_transport(zmq.DEALER)
        blocked, _ = await open_transport(zmq.DEALER)
        blocked.write([b"waits"])
        other, _ = await open_transport(zmq.DEALER)
        return idle, blocked, other

    transports = loop.run_until_complete(go())
    sockets = [tr.get_extra_info("zmq_socket") for tr in transports]
    loop.close()
    idle, blocked, other = transports
    idle.close()
    blocked.write([b"more"])
    blocked.abort()
    other.abort()
    assert all(zmq_sock.closed for zmq_sock in sockets)


def test_transports_closed_when_the_loop_is(loop, loop_kind):
    if loop_kind != "speedups":
        pytest.skip("a foreign loop does not know its transports")

    async def go():
        tr, _ = await open_transport(zmq.DEALER, bind="tcp://127.0.0.1:*")
        return tr.get_extra_info("zmq_socket")

    zmq_sock = loop.run_until_complete(go())
    loop.close()
    assert zmq_sock.closed


def test_explicit_loop_argument(loop, run):
    async def go():
        tr, pr = await open_transport(zmq.DEALER, loop=loop)
        await close(tr)

    run(go())


def test_failed_start_is_not_silent(run):
    async def go():
        with contextlib.closing(raw_socket(zmq.DEALER)) as zmq_sock:
            with pytest.raises(RuntimeError):
                connect.transport_class(
                    _ClosedLoop(), zmq.DEALER, zmq_sock, Recorder(), None
                )

    run(go())


class _ClosedLoop:
    def call_soon(self, *args, **kwargs):
        raise RuntimeError("Event loop is closed")

    def is_closed(self):
        return True

    def is_running(self):
        return False

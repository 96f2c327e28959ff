"""Messages that libzmq does not take: for themselves, or for want of room."""

import asyncio
import errno
from concurrent.futures import ThreadPoolExecutor

import pytest
import zmq
from helpers import close, open_transport, pair, raw_socket

from aiozmq_speedups._zmq import transport as zmq_transport

pytestmark = pytest.mark.usefixtures("errors", "transport_kind")


def check_refused(errors, transport, number, *messages):
    """The exception handler got each message that libzmq refused, with the reason."""
    assert [c["zmq_message"] for c in errors] == [list(m) for m in messages]
    for context in errors:
        assert context["exception"].errno == number
        assert context["transport"] is transport
        assert context["protocol"] is transport.get_protocol()
        assert len(repr(context["zmq_message"])) < 200
    errors.clear()
    assert not transport.is_closing()


def test_a_message_out_of_turn_is_refused(run, errors):
    async def go():
        async with pair(zmq.REP, zmq.REQ) as (rep, rep_p, req, req_p):
            req.write([b"1"])
            req.write([b"2"])
            check_refused(errors, req, zmq.EFSM, [b"2"])
            rep.write([b"answer", b"to nothing"])
            check_refused(errors, rep, zmq.EFSM, [b"answer", b"to nothing"])
            assert await rep_p.received(1) == [[b"1"]]
            rep.write([b"answer"])
            assert await req_p.received(1) == [[b"answer"]]

    run(go())


@pytest.mark.parametrize("zmq_type", [zmq.ROUTER, zmq.STREAM])
def test_a_message_to_a_peer_that_is_not_there_is_refused(run, errors, zmq_type):
    async def go():
        sock = raw_socket(zmq_type)
        if zmq_type == zmq.ROUTER:
            sock.router_mandatory = True
        tr, pr = await open_transport(zmq_type, zmq_sock=sock, bind="tcp://127.0.0.1:*")
        (endpoint,) = tr.bindings()
        with raw_socket(zmq.DEALER if zmq_type == zmq.ROUTER else zmq.STREAM) as peer:
            peer.connect(endpoint)
            if zmq_type == zmq.ROUTER:
                peer.send(b"hello")
            [(who, _), *_] = await pr.received(1)
            messages = [[b"nobody", b"x" * 1000], [b"\0none", b""]]
            for message in messages:
                tr.write(message)
                tr.write([who, b"after it"])
            check_refused(errors, tr, errno.EHOSTUNREACH, *messages)
            received = b""
            while received.count(b"after it") < 2:
                received += b"".join(peer.recv_multipart())
        await close(tr)

    run(go())


def test_a_refused_message_of_the_buffer(run, errors):
    """A peer leaves while messages to it wait; the others' messages are sent."""

    async def go():
        sock = raw_socket(zmq.ROUTER, sndhwm=5)
        sock.router_mandatory = True
        tr, pr = await open_transport(
            zmq.ROUTER, zmq_sock=sock, bind="inproc://refused-in-the-buffer"
        )
        slow, other = peers = [raw_socket(zmq.DEALER, rcvhwm=5) for _ in range(2)]
        for name, peer in zip([b"slow", b"other"], peers, strict=True):
            peer.routing_id = name
            peer.connect("inproc://refused-in-the-buffer")
            peer.send(b"hello")
        await pr.received(2)
        while tr.get_write_buffer_size() == 0:
            tr.write([b"slow", b"x"])
        tr.write([b"slow", b"y"])
        tr.write([b"other", b"z"])
        slow.close()
        while not other.poll(0):
            await asyncio.sleep(0.001)
        assert other.recv() == b"z"
        check_refused(errors, tr, errno.EHOSTUNREACH, [b"slow", b"x"], [b"slow", b"y"])
        assert tr.get_write_buffer_size() == 0
        other.close()
        await close(tr)

    run(go())


@pytest.mark.parametrize("case", ["PUB", "XPUB", "ROUTER", "paused ROUTER"])
def test_room_is_noticed_without_a_timer(run, errors, monkeypatch, case):
    """Of those whose ZMQ_EVENTS does not tell of it: seen where a send is refused."""
    monkeypatch.setattr(zmq_transport, "_RETRY_SECONDS", 3600)
    count = 3000

    async def go():
        kind = getattr(zmq, case.split()[-1])
        sock = raw_socket(kind, sndhwm=10)
        sock.setsockopt(
            zmq.ROUTER_MANDATORY if kind == zmq.ROUTER else zmq.XPUB_NODROP, 1
        )
        tr, _ = await open_transport(kind, zmq_sock=sock, bind="tcp://127.0.0.1:*")
        (endpoint,) = tr.bindings()
        peer = raw_socket(
            zmq.DEALER if kind == zmq.ROUTER else zmq.SUB, rcvhwm=10, rcvtimeo=10_000
        )
        with peer, ThreadPoolExecutor(1) as executor:
            if kind == zmq.ROUTER:
                peer.routing_id = b"peer"
            else:
                peer.subscribe(b"")
            peer.connect(endpoint)
            # Connected, and subscribed, when the first message gets through.
            while not peer.poll(0):
                tr.write([b"peer", b"begin"])
                await asyncio.sleep(0.001)
                errors.clear()
            if case in ("XPUB", "paused ROUTER"):
                tr.pause_reading()
            for i in range(count):
                tr.write([b"peer", b"%d" % i])

            def receive():
                while (last := peer.recv_multipart()[-1]) == b"begin":
                    pass
                for i in range(count):
                    assert last == b"%d" % i
                    if i < count - 1:
                        last = peer.recv_multipart()[-1]

            received = asyncio.get_running_loop().run_in_executor(executor, receive)
            await received
        tr.abort()
        await asyncio.sleep(0)

    run(go())

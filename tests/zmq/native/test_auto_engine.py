"""engine="auto" without endpoints: the first bind() or connect() decides."""

import asyncio
import os

import pytest
import zmq
from helpers import close, open_transport, raw_socket

from aiozmq_speedups._zmq.engine_native import NativeSocket

ANY = "tcp://127.0.0.1:*"


async def auto(kind, **options):
    return await open_transport(kind, engine="auto", **options)


def is_native(transport):
    sock = transport.get_extra_info("zmq_socket")
    return isinstance(sock, NativeSocket) and not hasattr(sock, "underlying")


async def exchange(name):
    """A PUSH and a PULL by an endpoint, made as programs do that bind later."""
    push, push_p = await auto(zmq.PUSH, sndhwm=7)
    asked = push.get_extra_info("zmq_socket")
    assert asked.getsockopt(zmq.SNDHWM) == 7
    asked.setsockopt(zmq.RCVHWM, 8)
    asked.linger = 5000
    push.setsockopt(zmq.SNDTIMEO, 9)
    push.write([b"before"])
    assert push.get_write_buffer_size() > 0
    with push.monitor() as events:
        endpoint = await push.bind(name)
        pull, pull_p = await auto(zmq.PULL)
        await pull.connect(endpoint)
        push.write([b"after"])
        assert await pull_p.received(2) == [[b"before"], [b"after"]]
        if not name.startswith("inproc"):
            event = await anext(events)
            assert event.event == zmq.EVENT_LISTENING
    for option, value in [
        (zmq.SNDHWM, 7),
        (zmq.RCVHWM, 8),
        (zmq.LINGER, 5000),
        (zmq.SNDTIMEO, 9),
    ]:
        for sock in (push, asked, push.get_extra_info("zmq_socket")):
            assert sock.getsockopt(option) == value
    assert asked.last_endpoint == endpoint.encode()
    assert not asked.closed
    native = is_native(push), is_native(pull)
    await close(pull, push)
    assert asked.closed
    return native


@pytest.mark.parametrize("name", [ANY, "ipc://*"])
def test_native_where_it_is_served(run, name):
    assert run(exchange(name)) == (True, True)


def test_libzmq_where_it_is_not(run):
    assert run(exchange("inproc://auto")) == (False, False)


def test_an_option_decides(run):
    async def go():
        transport, protocol = await auto(zmq.DEALER)
        sock = transport.get_extra_info("zmq_socket")
        transport.setsockopt(zmq.SNDHWM, 3)
        transport.setsockopt(zmq.SOCKS_PROXY, b"127.0.0.1:1")
        assert not is_native(transport)
        assert transport.getsockopt(zmq.SNDHWM) == 3
        assert sock.getsockopt(zmq.SOCKS_PROXY) == b"127.0.0.1:1"
        await transport.bind(ANY)
        await close(transport)

    run(go())


def test_subscriptions_are_set_again(run):
    async def go():
        sub, sub_p = await auto(zmq.SUB)
        sub.subscribe(b"a")
        sub.setsockopt(zmq.SUBSCRIBE, b"b")
        sub.subscribe(b"c")
        sub.unsubscribe(b"a")
        await sub.bind("inproc://auto-sub")
        pub, _ = await auto(zmq.XPUB)
        await pub.connect("inproc://auto-sub")
        assert await pub.get_protocol().received(2) == [[b"\1b"], [b"\1c"]]
        for topic in (b"a", b"b", b"c"):
            pub.write([topic])
        assert await sub_p.received(2) == [[b"b"], [b"c"]]
        await close(pub, sub)

    run(go())


def test_another_kind_of_endpoint_later_is_an_error(run):
    async def go():
        transport, _ = await auto(zmq.PULL)
        await transport.bind(ANY)
        with pytest.raises(OSError, match='use engine="libzmq"'):
            await transport.bind("inproc://later")
        await close(transport)
        transport, _ = await auto(zmq.PULL)
        await transport.bind("inproc://first")
        await transport.bind(ANY)  # libzmq has all of them
        await close(transport)

    run(go())


def test_an_endpoint_that_cannot_be_decides_nothing(run):
    async def go():
        transport, _ = await auto(zmq.PULL)
        with pytest.raises(OSError):
            await transport.connect("tcp://127.0.0.1:*")
        with pytest.raises(OSError):
            await transport.bind("tcp://127.0.0.1:99999999")
        await transport.bind("inproc://then")
        await close(transport)

    run(go())


def test_one_that_decides_never(run):
    async def go():
        transport, _ = await auto(zmq.DEALER, linger=0)
        transport.write([b"to nobody"])
        await close(transport)
        transport, _ = await auto(zmq.DEALER)
        transport.abort()
        await asyncio.sleep(0)
        with pytest.raises(OSError):
            await transport.bind("inproc://too-late")

    run(go())


def test_a_descriptor_that_another_transport_had(run):
    """libzmq gives the number of a socket that was closed to the next one."""

    async def go():
        dead, dead_p = await open_transport(zmq.PULL, bind=ANY, engine="libzmq")
        transport, protocol = await auto(zmq.PULL)
        sock = dead.get_extra_info("zmq_socket")
        number = sock.getsockopt(zmq.FD)
        sock.close(0)
        while os.path.exists(f"/proc/self/fd/{number}"):  # a thread of libzmq's does
            await asyncio.sleep(0.001)
        await transport.bind("inproc://number")
        push, _ = await open_transport(
            zmq.PUSH, connect="inproc://number", engine="libzmq"
        )
        push.write([b"message"])
        assert await protocol.received(1) == [[b"message"]]
        await close(push)
        await close(transport)
        dead.abort()
        await dead_p.lost

    run(go())


def test_a_descriptor_that_cannot_be_watched(run):
    """Then the socket is the native one as before."""

    async def go():
        transport, protocol = await auto(zmq.PULL)
        before = transport.get_extra_info("zmq_socket")
        with raw_socket(zmq.PULL) as sock:
            loop = asyncio.get_running_loop()
            loop.add_reader(sock.getsockopt(zmq.FD), int)
            with pytest.raises(RuntimeError, match="watched"):
                transport._replace_socket(sock)
            loop.remove_reader(sock.getsockopt(zmq.FD))
        assert transport.get_extra_info("zmq_socket") is before
        endpoint = await transport.bind(ANY)
        push, _ = await open_transport(zmq.PUSH, connect=endpoint)
        push.write([b"message"])
        assert await protocol.received(1) == [[b"message"]]
        await close(push)
        await close(transport)

    run(go())

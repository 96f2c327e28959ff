"""Which engine serves a socket, and what the native one says of what it does not."""

import asyncio
import errno

import pytest
import zmq
from helpers import Recorder, close, open_transport, raw_socket

from aiozmq_speedups import _ext, core, create_zmq_stream, new_event_loop, rpc
from aiozmq_speedups._zmq import connect, pure

if _ext.core is None:
    pytest.skip("the C extension was not built", allow_module_level=True)

ANY = "tcp://127.0.0.1:*"


@pytest.fixture
def run():
    loop = new_event_loop()
    yield loop.run_until_complete
    loop.close()


def is_native(transport):
    return type(transport.get_extra_info("zmq_socket")).__name__ == "NativeSocket"


async def opened(*args, **kwargs):
    transport, _ = await open_transport(*args, **kwargs)
    native = is_native(transport)
    await close(transport)
    return native


@pytest.mark.parametrize(
    ("engine", "native"),
    [(None, False), ("libzmq", False), ("native", True), ("auto", True)],
)
def test_each_way_to_choose(run, monkeypatch, engine, native):
    assert run(opened(zmq.PULL, bind=ANY, engine=engine)) == native
    loop = new_event_loop(zmq_engine=engine)
    assert loop.run_until_complete(opened(zmq.PULL, bind=ANY)) == native
    loop.close()
    if engine is not None:
        monkeypatch.setenv("AIOZMQ_SPEEDUPS_ENGINE", engine)
        assert run(opened(zmq.PULL, bind=ANY)) == native
        assert not run(opened(zmq.PULL, bind=ANY, engine="libzmq"))


@pytest.mark.parametrize(
    "kwargs",
    [
        {"bind": "inproc://a"},
        {"bind": [ANY, "inproc://a"]},
    ],
)
def test_auto_leaves_to_libzmq_what_is_not_served(run, kwargs):
    assert not run(opened(zmq.ROUTER, engine="auto", **kwargs))


def test_a_socket_or_context_of_the_user_s_is_libzmq_s(run):
    async def go():
        with raw_socket(zmq.PULL) as sock:
            assert not await opened(zmq.PULL, bind=ANY, zmq_sock=sock, engine="auto")
        with (
            raw_socket(zmq.PULL) as sock,
            pytest.raises(ValueError, match='use engine="libzmq"'),
        ):
            await open_transport(zmq.PULL, zmq_sock=sock, engine="native")

    run(go())
    with zmq.Context() as context:
        loop = new_event_loop(zmq_context=context, zmq_engine="native")
        assert not loop.run_until_complete(opened(zmq.PULL, bind=ANY))
        loop.close()


def test_another_loop_needs_libzmq():
    async def go():
        with pytest.raises(ValueError, match="a loop of aiozmq_speedups"):
            await open_transport(zmq.PULL, bind=ANY, engine="native")
        assert not await opened(zmq.PULL, bind=ANY, engine="auto")

    asyncio.run(go())


@pytest.mark.parametrize("wrong", ["", "zmq", 1, True])
def test_wrong_engines(run, wrong):
    with pytest.raises(ValueError, match="engine should be"):
        run(open_transport(zmq.PULL, bind=ANY, engine=wrong))
    with pytest.raises(ValueError, match="engine should be"):
        new_event_loop(zmq_engine=wrong)


def test_wrong_engine_of_the_environment(run, monkeypatch):
    monkeypatch.setenv("AIOZMQ_SPEEDUPS_ENGINE", "zmq")
    with pytest.raises(ValueError, match="not 'zmq'"):
        run(open_transport(zmq.PULL, bind=ANY))


@pytest.mark.parametrize(
    ("endpoint", "err"),
    [
        ("inproc://a", errno.EPROTONOSUPPORT),
        ("nonsense", errno.EINVAL),
        ("tcp://127.0.0.1", errno.EINVAL),
        ("tcp://127.0.0.1:70000", errno.EINVAL),
        ("tcp://no such host:1", errno.ENODEV),
    ],
)
def test_wrong_endpoints(run, endpoint, err):
    with pytest.raises(OSError) as raised:
        run(open_transport(zmq.PULL, bind=endpoint, engine="native"))
    assert raised.value.errno == err
    assert ("as in tcp://" in str(raised.value)) == (endpoint == "nonsense")


def test_the_socket_s_object(run):
    async def go():
        transport, protocol = await open_transport(
            zmq.ROUTER, bind=ANY, engine="native"
        )
        sock = transport.get_extra_info("zmq_socket")
        (endpoint,) = transport.bindings()
        assert sock.getsockopt(zmq.LAST_ENDPOINT) == endpoint.encode()
        assert transport.getsockopt(zmq.LAST_ENDPOINT) == endpoint
        assert sock.get(zmq.TYPE) == zmq.ROUTER
        assert not sock.closed
        sock.linger = 5
        assert sock.linger == sock.getsockopt(zmq.LINGER) == 5
        sock.set(zmq.ROUTER_MANDATORY, 1)
        assert transport.getsockopt(zmq.ROUTER_MANDATORY) == 1
        for use in (
            lambda: sock.poll,
            lambda: sock.getsockopt(zmq.FD),
            lambda: sock.setsockopt(zmq.CONFLATE, 1),
        ):
            with pytest.raises((AttributeError, zmq.ZMQError), match="libzmq"):
                use()
        with pytest.raises(OSError, match="use engine="):
            transport.setsockopt(zmq.CONFLATE, 1)
        with pytest.raises(zmq.ZMQError):
            sock.setsockopt(zmq.REQ_RELAXED, 1)
        transport.close()
        await protocol.lost
        assert sock.closed
        with pytest.raises(zmq.ZMQError):
            sock.getsockopt(zmq.LINGER)

    run(go())


def test_streams_and_rpc(run):
    class Handler(rpc.AttrHandler):
        @rpc.method
        async def double(self, n: int) -> int:
            return 2 * n

    async def go():
        server = await rpc.serve_rpc(Handler(), bind=ANY, engine="native")
        (endpoint,) = server.transport.bindings()
        for engine in "native", "libzmq":
            client = await rpc.connect_rpc(connect=endpoint, engine=engine)
            assert await asyncio.gather(
                *(client.call.double(i) for i in range(100))
            ) == [2 * i for i in range(100)]
            client.close()
            await client.wait_closed()
        server.close()
        await server.wait_closed()
        pull = await create_zmq_stream(zmq.PULL, bind=ANY, engine="native")
        (endpoint,) = pull.transport.bindings()
        push = await create_zmq_stream(zmq.PUSH, connect=endpoint, engine="native")
        push.write([b"1", b"2"])
        assert await pull.read() == [b"1", b"2"]
        push.close()
        pull.close()

    run(go())


def test_protocols_get_their_callbacks(run):
    async def go():
        a, ap = await open_transport(zmq.PAIR, bind=ANY, engine="native")
        (endpoint,) = a.bindings()
        b, bp = await open_transport(zmq.PAIR, connect=endpoint, engine="native")
        b.write([b"1"])
        assert await ap.received(1) == [[b"1"]]
        a.pause_reading()
        b.write([b"2"])
        await asyncio.sleep(0.05)
        assert len(ap.messages) == 1
        a.resume_reading()
        assert await ap.received(2) == [[b"1"], [b"2"]]
        await close(a, b)
        assert bp.calls == ["connection_made", "connection_lost"]

    run(go())


def test_the_transport_in_c_is_needed(run, monkeypatch):
    monkeypatch.setattr(connect, "transport_class", pure._PyZmqTransport)
    with pytest.raises(ValueError, match="the transport in C"):
        run(core.create_zmq_connection(Recorder, zmq.PULL, bind=ANY, engine="native"))

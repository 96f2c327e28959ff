"""A repr says what it is, where it leads, its state and what is queued."""

import asyncio
import socket

import pytest
import zmq

from aiozmq_speedups import _ext, create_zmq_stream, rpc, zmq_asyncio

pytestmark = pytest.mark.loops("speedups")


@pytest.fixture(params=["libzmq", "native"])
def engine(request):
    if request.param == "native" and _ext.core is None:
        pytest.skip("the native engine is in C")
    return request.param


@pytest.mark.skipif(_ext.core is None, reason="asyncio's own transports")
def test_streams_and_datagrams(loop):
    async def main():
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        transport, _ = await loop.create_connection(asyncio.Protocol, *address)
        fd = transport.get_extra_info("socket").fileno()
        start = f"<StreamTransport fd={fd} read=polling write=<idle, bufsize=0>"
        assert repr(transport) == f"{start} peer={address!r}>"
        reader, writer = await asyncio.open_connection(*address)
        for stream in (reader, writer):
            assert f"peer={address!r}" in repr(stream)
        writer.close()
        transport.close()
        assert repr(transport).startswith("<StreamTransport closing")
        server.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert repr(transport) == "<StreamTransport closed>"

        datagram, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
        )
        local = datagram.get_extra_info("sockname")
        assert repr(datagram).endswith(f" local={local!r}>")
        datagram.abort()

        a, b = socket.socketpair()
        with b:
            unix, _ = await loop.create_connection(asyncio.Protocol, sock=a)
            assert repr(unix).startswith("<StreamTransport fd=")
            unix.abort()

    loop.run_until_complete(main())


@pytest.mark.skipif(_ext.core is None, reason="asyncio's own transports")
def test_address_that_is_something_else(loop):
    """What a user's `extra` says is shown only if it looks like an address."""

    async def main():
        a, b = socket.socketpair()
        with b:
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=a)
            transport._extra["peername"] = object()
            assert "peer" not in repr(transport)
            transport.abort()

    loop.run_until_complete(main())


def test_zmq_transports_and_streams(loop, engine):
    async def main():
        stream = await create_zmq_stream(
            zmq.PULL, bind="tcp://127.0.0.1:*", engine=engine
        )
        (endpoint,) = stream.transport.bindings()
        text = repr(stream)
        assert text.startswith("<ZmqStream messages=0 <ZmqTransport sock=")
        assert "type=PULL" in text and f" bindings={{{endpoint}}}" in text
        sender = await create_zmq_stream(zmq.PUSH, connect=endpoint, engine=engine)
        assert f" connections={{{endpoint}}}" in repr(sender.transport)
        sender.write([b"x"])
        while "messages=1" not in repr(stream):
            await asyncio.sleep(0.001)
        for each in (sender, stream):
            transport = each.transport
            each.close()
            while each.transport is not None:
                await asyncio.sleep(0)
            assert repr(each).endswith(" closed>")
            assert repr(transport).endswith(" closed>")

    loop.run_until_complete(main())


def test_services(loop, engine):
    begun = asyncio.Event()

    class Handler(rpc.AttrHandler):
        @rpc.method
        async def forever(self):
            begun.set()
            await asyncio.get_running_loop().create_future()

    async def main():
        service = await rpc.serve_rpc(
            Handler(), bind="tcp://127.0.0.1:*", engine=engine
        )
        (endpoint,) = service.transport.bindings()
        client = await rpc.connect_rpc(connect=endpoint, engine=engine)
        assert repr(service).startswith("<Service running=0 <ZmqTransport ")
        call = client.call.forever()
        await begun.wait()
        assert repr(service).startswith("<Service running=1 <ZmqTransport ")
        text = repr(client)
        assert text.startswith("<RPCClient pending=1 <ZmqTransport ")
        assert f"connections={{{endpoint}}}" in text
        call.cancel()
        for each in (client, service):
            each.close()
            await each.wait_closed()
            assert repr(each).endswith(" closed>")
        pipe = await rpc.serve_pipeline({}, bind="tcp://127.0.0.1:*", engine=engine)
        assert repr(pipe).startswith("<Service running=0 <ZmqTransport ")
        pipe.close()
        await pipe.wait_closed()

    loop.run_until_complete(main())


@pytest.mark.skipif(
    _ext.core is None or not hasattr(zmq_asyncio.Socket, "_io"),
    reason="pyzmq's own sockets",
)
def test_zmq_asyncio(loop):
    async def main():
        with zmq_asyncio.Context() as context:
            sock = context.socket(zmq.PULL)
            assert repr(sock).endswith(" receives=0 sends=0>")
            waiting = sock.recv()
            assert repr(sock).endswith(" receives=1 sends=0>")
            waiting.cancel()
            sock.close()
            assert repr(sock).endswith(" closed>")

    loop.run_until_complete(main())

"""pyzmq's own asyncio sockets, zmq.asyncio, on each loop."""

import asyncio
import contextlib

import pytest
import zmq
import zmq.asyncio
from helpers import close, open_transport

pytestmark = pytest.mark.usefixtures("errors")


@contextlib.contextmanager
def sockets(type1, type2, **options):
    """A pair, of which the second connects."""
    with zmq.asyncio.Context() as context:
        context.linger = 0
        with context.socket(type1) as a, context.socket(type2) as b:
            for name, value in options.items():
                setattr(a, name, value)
                setattr(b, name, value)
            port = a.bind_to_random_port("tcp://127.0.0.1")
            b.connect(f"tcp://127.0.0.1:{port}")
            yield a, b


def test_round_trips(run):
    async def echo(router, count):
        for _ in range(count):
            await router.send_multipart(await router.recv_multipart())

    async def go():
        with sockets(zmq.ROUTER, zmq.DEALER) as (router, dealer):
            server = asyncio.ensure_future(echo(router, 300))
            for i in range(200):
                await dealer.send_multipart([b"head", b"%d" % i])
                assert await dealer.recv_multipart() == [b"head", b"%d" % i]
            for i in range(100):
                await dealer.send(b"%d" % i)
            assert [await dealer.recv() for _ in range(100)] == [
                b"%d" % i for i in range(100)
            ]
            await server

    run(go())


@pytest.mark.parametrize(
    "size, copy",
    [
        (10, True),
        (100_000, True),
        pytest.param(
            *(100_000, False),
            marks=pytest.mark.no_leak_guard("pyzmq's thread for uncopied frames"),
        ),
    ],
)
def test_one_way(run, size, copy):
    """More than the queues hold, in order."""

    async def go():
        with sockets(zmq.PULL, zmq.PUSH, sndhwm=10, rcvhwm=10) as (pull, push):

            async def send():
                for i in range(500):
                    await push.send((b"%d," % i).ljust(size), copy=copy)

            sender = asyncio.ensure_future(send())
            for i in range(500):
                frame = bytes(memoryview(await pull.recv(copy=copy)))
                assert frame == (b"%d," % i).ljust(size)
            await sender

    run(go())


def test_several_receivers(run):
    async def go():
        with sockets(zmq.PULL, zmq.PUSH) as (pull, push):
            receivers = [asyncio.ensure_future(pull.recv()) for _ in range(50)]
            await asyncio.sleep(0)
            for i in range(50):
                await push.send(b"%d" % i)
            got = await asyncio.gather(*receivers)
            assert got == [b"%d" % i for i in range(50)]

    run(go())


def test_cancelled_receive(run):
    async def go():
        with sockets(zmq.PULL, zmq.PUSH) as (pull, push):
            receiver = asyncio.ensure_future(pull.recv())
            await asyncio.sleep(0)
            receiver.cancel()
            with pytest.raises(asyncio.CancelledError):
                await receiver
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(pull.recv(), 0.01)
            await push.send(b"still there")
            assert await pull.recv() == b"still there"
            pull.rcvtimeo = 10
            with pytest.raises(zmq.Again):
                await pull.recv()

    run(go())


def test_polling(run):
    async def go():
        with sockets(zmq.PAIR, zmq.PAIR) as (a, b):
            assert await a.poll(1) == 0
            waiting = asyncio.ensure_future(a.poll())
            await b.send(b"x")
            assert await waiting == zmq.POLLIN
            poller = zmq.asyncio.Poller()
            poller.register(a, zmq.POLLIN)
            poller.register(b, zmq.POLLIN | zmq.POLLOUT)
            assert dict(await poller.poll()) == {a: zmq.POLLIN, b: zmq.POLLOUT}
            assert await a.recv() == b"x"

    run(go())


def test_close_while_waiting(run):
    async def go():
        with sockets(zmq.PULL, zmq.PUSH) as (pull, _):
            receivers = [asyncio.ensure_future(pull.recv()) for _ in range(2)]
            await asyncio.sleep(0)
            pull.close()
            for receiver in receivers:
                with pytest.raises(asyncio.CancelledError):
                    await receiver

    run(go())


class Reversing(zmq.Socket):
    """What a subclass does to messages is its own calls' business."""

    def recv(self, *args, **kwargs):
        return super().recv(*args, **kwargs)[::-1]

    def send(self, data, *args, **kwargs):
        return super().send(data[::-1], *args, **kwargs)


@pytest.mark.parametrize("cls", [zmq.asyncio.Socket, Reversing])
def test_under_a_transport(run, transport_kind, cls):
    """The transport uses the socket below: no future, nothing overridden, comes in."""

    async def go():
        context = zmq.Context.instance()
        server, server_p = await open_transport(
            zmq.ROUTER, zmq_sock=cls(context, zmq.ROUTER), bind="tcp://127.0.0.1:*"
        )
        client, client_p = await open_transport(
            zmq.DEALER,
            zmq_sock=cls(context, zmq.DEALER),
            connect=list(server.bindings()),
        )
        client.write([b"ques", b"tion"])
        ((identity, *question),) = await server_p.received(1)
        assert question == [b"ques", b"tion"]
        server.write([identity, b"answer"])
        assert await client_p.received(1) == [[b"answer"]]
        await close(server, client)

    run(go())


def test_beside_a_transport(run, transport_kind):
    """In one loop and one context, talking to each other."""

    async def go():
        context = zmq.asyncio.Context.shadow(zmq.Context.instance())
        with context.socket(zmq.DEALER) as dealer:
            dealer.linger = 0
            router, protocol = await open_transport(
                zmq.ROUTER, bind="tcp://127.0.0.1:*"
            )
            dealer.connect(*router.bindings())
            for i in range(200):
                await dealer.send(b"%d" % i)
                ((identity, _), *_) = await protocol.received(1)
                router.write([identity, b"answer", protocol.messages.pop()[1]])
                assert await dealer.recv_multipart() == [b"answer", b"%d" % i]
            router.abort()
            await protocol.lost

    run(go())

"""When the loop looks for input: a program cannot tell it from asyncio's, which looks
in each turn, unless somebody else wrote while callbacks kept the loop busy."""

import asyncio
import contextlib
import select
import socket

import pytest

pytestmark = pytest.mark.loops("speedups", "asyncio", closed_at_once=True)


TRIES = 50


class Counter(asyncio.DatagramProtocol, asyncio.Protocol):
    got = 0

    def data_received(self, data):
        self.got += len(data)

    def datagram_received(self, data, addr):
        self.got += len(data)


def connected(kind):
    """Two sockets, the second of which is connected to the first."""
    if kind != "datagram":
        a, b = socket.socketpair()
    else:
        a, b = (socket.socket(type=socket.SOCK_DGRAM) for _ in range(2))
        for sock in a, b:
            sock.bind(("127.0.0.1", 0))
        b.connect(a.getsockname())
    a.setblocking(False)
    b.setblocking(False)
    return a, b


@contextlib.asynccontextmanager
async def receiving(how):
    """Somebody who counts received bytes, and the socket of the peer."""
    loop = asyncio.get_running_loop()
    a, b = connected(how)
    counter = Counter()
    with a, b:
        if how == "add_reader":
            loop.add_reader(a, lambda: counter.data_received(a.recv(99)))
            yield counter, b
            loop.remove_reader(a)
        elif how in ("sock_recv", "stream"):
            if how == "stream":
                reader, writer = await asyncio.open_connection(sock=a)
                read = reader.read
            else:
                read = lambda n: loop.sock_recv(a, n)  # noqa: E731

            async def receive():
                while data := await read(99):
                    counter.data_received(data)

            task = asyncio.create_task(receive())
            await asyncio.sleep(0)
            yield counter, b
            task.cancel()
            await asyncio.wait([task])
            if how == "stream":
                writer.close()
        else:
            make = loop.create_connection
            if how == "datagram":
                make = loop.create_datagram_endpoint
            transport, _ = await make(lambda: counter, sock=a)
            yield counter, b
            transport.abort()


RECEIVERS = {
    # and the turns until it has got something, on asyncio
    "protocol": 2,
    "datagram": 2,
    "add_reader": 2,
    "sock_recv": 3,
    "stream": 3,
}


async def turns(count):
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("how", RECEIVERS)
@pytest.mark.parametrize("before", ["nothing", "timers"])
def test_what_a_peer_sent_comes_in_the_turns_it_takes_on_asyncio(loop, how, before):
    async def main():
        async with receiving(how) as (counter, peer):
            for i in range(TRIES):
                if before == "timers":
                    await asyncio.sleep(1e-5)
                peer.send(b"x")
                await turns(RECEIVERS[how])
                assert counter.got == i + 1

    loop.run_until_complete(main())


@pytest.mark.parametrize("how", ["transport", "sendto", "sock_sendall"])
def test_what_this_loop_sent_comes_as_soon_after_any_number_of_turns(loop, how):
    async def main():
        async with contextlib.AsyncExitStack() as stack:
            kind = "datagram" if how == "sendto" else "protocol"
            counter, peer = await stack.enter_async_context(receiving(kind))
            if how == "transport":
                transport, _ = await loop.create_connection(Counter, sock=peer)
                stack.callback(transport.abort)
            elif how == "sendto":
                transport, _ = await loop.create_datagram_endpoint(Counter, sock=peer)
                stack.callback(transport.abort)
            for i in range(TRIES):
                await turns(40)
                if how == "transport":
                    transport.write(b"x")
                elif how == "sendto":
                    transport.sendto(b"x")
                else:
                    await loop.sock_sendall(peer, b"x")
                await turns(2)
                assert counter.got == i + 1

    loop.run_until_complete(main())


def test_a_connection_is_seen_as_soon_after_any_number_of_turns(loop):
    async def main():
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        with listener:
            for _ in range(TRIES):
                accepting = asyncio.create_task(loop.sock_accept(listener))
                await turns(40)
                with socket.socket() as client:
                    client.setblocking(False)
                    await loop.sock_connect(client, listener.getsockname())
                    if not accepting.done():
                        select.select([listener], [], [])  # a busy kernel may be late
                    await turns(3)
                    assert accepting.done()
                    accepting.result()[0].close()

    loop.run_until_complete(main())


def test_what_is_newly_watched_is_looked_for_after_any_number_of_turns(loop):
    async def main():
        a, b = socket.socketpair()
        with a, b:
            b.send(b"x")
            for _ in range(TRIES):
                await turns(40)
                called = []
                loop.add_reader(a, called.append, 1)
                await turns(2)
                assert called
                loop.remove_reader(a)

    loop.run_until_complete(main())


def test_each_run_of_the_loop_looks(loop):
    async def main():
        return await turns(40)

    a, b = socket.socketpair()
    with a, b:
        for i in range(TRIES):
            called = []
            loop.add_reader(a, lambda: called.append(a.recv(9)))
            loop.run_until_complete(main())
            b.send(b"x")
            loop.run_until_complete(turns(2))
            assert called, i
            loop.remove_reader(a)

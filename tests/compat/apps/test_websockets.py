"""The `websockets` package, server and client, on both loops."""

import asyncio
import os

import pytest

websockets = pytest.importorskip("websockets")
from websockets.asyncio.client import connect  # noqa: E402
from websockets.asyncio.server import serve  # noqa: E402

MIB = 1 << 20


async def echo(connection):
    async for message in connection:
        await connection.send(message)


def address(server):
    return server.sockets[0].getsockname()


def url(server, scheme="ws"):
    return "{}://{}:{}".format(scheme, *address(server))


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
def test_echo(run, errors, secure, compression, request):
    tls = request.getfixturevalue("tls") if secure else None
    options = {"compression": compression, "max_size": 2 * MIB}

    async def main():
        async with serve(
            echo, "127.0.0.1", 0, ssl=tls and tls.server, **options
        ) as server:
            where = url(server, "wss" if secure else "ws")
            async with connect(where, ssl=tls and tls.client, **options) as client:
                for size in (0, 1, 125, 126, 65535, 65536, MIB, MIB):
                    message = os.urandom(size)
                    await client.send(message)
                    assert await client.recv() == message
                await client.send("text")
                assert await client.recv() == "text"
            assert client.close_code == 1000

    run(main())


def test_many_clients(run, errors):
    async def talk(where, number):
        async with connect(where) as client:
            for round_ in range(10):
                await client.send(f"{number} {round_}")
                assert await client.recv() == f"{number} {round_}"

    async def main():
        async with serve(echo, "127.0.0.1", 0) as server:
            async with asyncio.TaskGroup() as group:
                for number in range(30):
                    group.create_task(talk(url(server), number))

    run(main())


def test_many_messages_in_flight(run, errors):
    """Both sides write against flow control."""

    async def send(client, messages):
        for message in messages:
            await client.send(message)

    async def main():
        messages = [os.urandom(100_000) for _ in range(20)]
        async with (
            serve(echo, "127.0.0.1", 0, compression=None) as server,
            connect(url(server), compression=None) as client,
        ):
            sending = asyncio.create_task(send(client, messages))
            for message in messages:
                assert await client.recv() == message
            await sending

    run(main())


def test_fragments_and_pings(run, errors):
    async def main():
        async with (
            serve(echo, "127.0.0.1", 0) as server,
            connect(url(server)) as client,
        ):
            await client.send([b"one ", b"two ", b"three"])
            latency = await client.ping()
            assert await client.recv() == b"one two three"
            assert await latency >= 0

    run(main())


def test_server_closes(run, errors):
    """Clients are told that the server goes away."""

    async def main():
        server = await serve(echo, "127.0.0.1", 0)
        clients = [await connect(url(server)) for _ in range(5)]
        server.close()
        await server.wait_closed()
        for client in clients:
            with pytest.raises(websockets.ConnectionClosed):
                await client.recv()
            assert client.close_code == 1001
            await client.wait_closed()

    run(main())


def test_client_vanishes(run, errors):
    """A client that dies without a word ends its handler, and no other."""

    async def main():
        ended = asyncio.get_running_loop().create_future()

        async def handler(connection):
            try:
                await echo(connection)
            except websockets.ConnectionClosed as exc:
                ended.set_result(exc)
                raise

        async with serve(handler, "127.0.0.1", 0) as server:
            async with connect(url(server)) as other:
                client = await connect(url(server))
                await client.send("x")
                assert await client.recv() == "x"
                client.transport.abort()
                async with asyncio.timeout(100):
                    assert isinstance(await ended, websockets.ConnectionClosedError)
                await client.wait_closed()
                await other.send("still here")
                assert await other.recv() == "still here"

    run(main())

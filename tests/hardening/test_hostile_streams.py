"""Stream readers and writers with attributes that strike back."""

import asyncio
import contextlib
import socket

import pytest

pytestmark = pytest.mark.loops("speedups", "asyncio", closed_at_once=True)


#: Their methods in C are what is attacked.
ours = pytest.mark.loops("speedups", closed_at_once=True)


@contextlib.asynccontextmanager
async def accepted():
    """The reader and writer of a server's connection, and the client's socket."""
    loop = asyncio.get_running_loop()
    made = loop.create_future()
    server = await asyncio.start_server(
        lambda reader, writer: made.set_result([reader, writer]), "127.0.0.1", 0
    )
    with socket.socket() as peer:
        peer.setblocking(False)
        await loop.sock_connect(peer, server.sockets[0].getsockname())
        both = await made
        transport = both[1].transport
        try:
            yield *both, peer
        finally:
            transport.abort()
            server.close()
            await asyncio.sleep(0.001)


@ours
@pytest.mark.parametrize(
    ("method", "args"), [("readuntil", (b"\n",)), ("readline", ())]
)
def test_a_limit_that_empties_the_buffer(loop, method, args):
    """Asked for before the separator is looked for: not in what was there before."""

    class Limit:
        def __index__(self):
            if emptying:
                reader._buffer.clear()
            return 10

    async def main():
        nonlocal reader, emptying
        async with accepted() as (reader, writer, peer):
            await loop.sock_sendall(peer, b"x" * 50_000)
            async with asyncio.timeout(100):
                while len(reader._buffer) < 50_000:
                    await asyncio.sleep(0.001)
            reader._limit = Limit()
            emptying = True
            waiting = loop.create_task(getattr(reader, method)(*args))
            await asyncio.sleep(0.001)
            emptying = False
            await loop.sock_sendall(peer, b"line\n")
            assert await asyncio.wait_for(waiting, 100) == b"line\n"
            reader = None

    reader, emptying = None, False
    loop.run_until_complete(main())

"""What is wrong in asyncio's sslproto, and is mended on this loop."""

import asyncio
import contextlib
import gc
import os
import socket
import ssl
import sys
import weakref

import pytest
from waiting import until

mended_since = {
    "is_closing": (3, 14, 4),
    "shutdown timeout": (3, 14, 10),
    "no cycle": (3, 14, 10),
}


def skip_old_asyncio(loop_kind, what):
    if loop_kind == "asyncio" and sys.version_info < mended_since[what]:
        pytest.skip(f"asyncio has this fault before {mended_since[what]}")


def test_is_closing_at_once(loop_kind, run, connected):
    """Who asks before each write would go on writing until the next turn."""
    skip_old_asyncio(loop_kind, "is_closing")

    async def main():
        async with connected() as (_, server):
            sock = server.transport.get_extra_info("socket")
            with socket.socket(fileno=os.dup(sock.fileno())) as same:
                same.shutdown(socket.SHUT_WR)
            assert not server.transport.is_closing()
            server.transport.write(b"the kernel refuses it")
            assert server.transport.is_closing()
            assert isinstance(await server.lost, BrokenPipeError)

    run(main())


@pytest.mark.loops("speedups-asyncio", "asyncio")
def test_a_peer_that_has_ended_and_does_not_read(loop_kind, run, connected):
    """It is given the shutdown's timeout, no more."""
    skip_old_asyncio(loop_kind, "shutdown timeout")

    async def main():
        async with connected(ssl_shutdown_timeout=0.01) as (client, server):
            server.transport.pause_reading()
            client.transport.write(b"x" * 30_000_000)
            sock = server.transport.get_extra_info("socket")
            with socket.socket(fileno=os.dup(sock.fileno())) as same:
                same.shutdown(socket.SHUT_WR)
            assert isinstance(await client.lost, TimeoutError)

    run(main())


@pytest.mark.loops("speedups-asyncio", "speedups-aiofastnet")
def test_data_that_crosses_the_end(run, connected):
    """asyncio makes an SSLError of it for the one who has closed, in every version."""

    async def main():
        async with connected() as (client, server):
            server.transport.pause_reading()
            client.transport.close()
            for _ in range(5):
                await asyncio.sleep(0)
            server.transport.write(b"x" * 1000)
            server.transport.resume_reading()
            assert await client.lost is None
            assert client.data == b""

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 13), reason="sslproto has one of its own")
@pytest.mark.loops("speedups-asyncio", "asyncio")
def test_a_failed_start_tls_leaves_no_cycle(loop_kind, loop, run, tls):
    """The transport is gone with the exception, not with a collection."""
    skip_old_asyncio(loop_kind, "no cycle")

    async def failed(where):
        transport, protocol = await loop.create_connection(asyncio.Protocol, *where)
        gone = weakref.ref(transport)
        distrusting = ssl.create_default_context()
        with contextlib.suppress(ssl.SSLCertVerificationError):
            await loop.start_tls(
                transport, protocol, distrusting, server_hostname="localhost"
            )
        return gone

    async def main():
        server = await loop.create_server(
            asyncio.Protocol, "127.0.0.1", 0, ssl=tls.server
        )
        gc.disable()
        try:
            gone = await failed(server.sockets[0].getsockname())
            await until(lambda: gone() is None)
        finally:
            gc.enable()
        server.close()
        await server.wait_closed()

    run(main())

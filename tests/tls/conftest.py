"""Whose TLS: asyncio's on its own loop, asyncio's and aiofastnet's on ours."""

import asyncio
import contextlib

import pytest
from certificate import tls  # noqa: F401
from recorder import Recorder


@pytest.fixture
def run(loop):
    def run(coro):
        async def within():
            async with asyncio.timeout(100):
                return await coro

        return loop.run_until_complete(within())

    return run


@pytest.fixture
def connected(loop, tls):  # noqa: F811
    """Context manager: a client's and a server's protocol, connected by TLS."""

    @contextlib.asynccontextmanager
    async def connected(client=Recorder, server=Recorder, *, path=None, **options):
        accepted = loop.create_future()

        def accept():
            accepted.set_result(server())
            return accepted.result()

        # No test is to wait for them: one that does fails by its own limit.
        options = {"ssl_shutdown_timeout": 600, **options}
        name = options.pop("server_hostname", "localhost")
        context = options.pop("server_context", tls.server)
        if path is None:
            listener = await loop.create_server(
                accept, "127.0.0.1", 0, ssl=context, ssl_shutdown_timeout=600
            )
            where = listener.sockets[0].getsockname()
            connect = loop.create_connection
        else:
            listener = await loop.create_unix_server(
                accept, path, ssl=context, ssl_shutdown_timeout=600
            )
            where, connect = (path,), loop.create_unix_connection
        options.setdefault("ssl", tls.client)
        try:
            transport, a = await connect(
                client, *where, server_hostname=name, **options
            )
            b = await accepted
            await b.made
            try:
                yield a, b
            finally:
                for protocol in a, b:
                    protocol.transport.abort()
                    await protocol.lost
        finally:
            listener.close()
            await listener.wait_closed()

    return connected

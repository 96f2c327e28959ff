"""What an installed wheel must do at the least: for interpreters that are too slow, or
have too little beside them, for the tests. Prints what it ran on, or fails."""

import asyncio
import platform
import sys

import zmq

import aiozmq_speedups
from aiozmq_speedups import _ext, rpc

try:
    import ssl
except ImportError:
    ssl = None


class Handler(rpc.AttrHandler):
    @rpc.method
    def add(self, a, b):
        return a + b


async def timers():
    loop = asyncio.get_running_loop()
    before = loop.time()
    await asyncio.sleep(0.01)
    assert loop.time() - before >= 0.01
    assert await loop.run_in_executor(None, int, "7") == 7


def context(side):
    """Neither end has a certificate: TLS 1.2 can do without."""
    context = ssl.SSLContext(side)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AECDH-AES256-SHA:@SECLEVEL=0")
    return context


async def echo(server_ssl=None, client_ssl=None):
    async def serve(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_ssl)
    host, port = server.sockets[0].getsockname()
    reader, writer = await asyncio.open_connection(host, port, ssl=client_ssl)
    for size in 1, 1000, 1_000_000:
        writer.write(b"x" * size)
        assert await reader.readexactly(size) == b"x" * size
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()


async def messages(engine):
    create = aiozmq_speedups.create_zmq_stream
    server = await create(zmq.ROUTER, bind="tcp://127.0.0.1:*", engine=engine)
    (endpoint,) = server.transport.bindings()
    client = await create(zmq.DEALER, connect=endpoint, engine=engine)
    for size in 1, 1000, 1_000_000:
        client.write([b"", b"x" * size])
        server.write(await server.read())
        assert await client.read() == [b"", b"x" * size]
    client.close()
    server.close()


async def calls(engine):
    service = await rpc.serve_rpc(Handler(), bind="tcp://127.0.0.1:*", engine=engine)
    (endpoint,) = service.transport.bindings()
    client = await rpc.connect_rpc(connect=endpoint, engine=engine)
    results = await asyncio.gather(*(client.call.add(i, 1) for i in range(100)))
    assert results == list(range(1, 101))
    for end in client, service:
        end.close()
        await end.wait_closed()


async def main():
    assert isinstance(asyncio.get_running_loop(), aiozmq_speedups.Loop)
    await timers()
    await echo()
    if ssl is not None:
        await echo(context(ssl.PROTOCOL_TLS_SERVER), context(ssl.PROTOCOL_TLS_CLIENT))
    for engine in "libzmq", "native":
        await messages(engine)
        await calls(engine)


assert _ext.core is not None, _ext.reason
aiozmq_speedups.run(asyncio.wait_for(main(), 300))
gil = "on" if getattr(sys, "_is_gil_enabled", lambda: True)() else "off"
print(
    f"a loop, an echo, {f'TLS ({ssl.OPENSSL_VERSION})' if ssl else 'no TLS'}, zmq and "
    f"rpc on {sys.implementation._multiarch}, Python {platform.python_version()}, "
    f"GIL {gil}"
)

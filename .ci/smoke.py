"""What an installed wheel must do at the least: for interpreters that are too slow, or
have too little beside them, for the tests. Prints what it ran on, or fails."""

import asyncio
import platform

import aiozmq_speedups
from aiozmq_speedups import _ext, rpc


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


async def echo():
    async def serve(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    for size in 1, 1000, 1_000_000:
        writer.write(b"x" * size)
        assert await reader.readexactly(size) == b"x" * size
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()


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
    for engine in "libzmq", "native":
        await calls(engine)


assert _ext.core is not None, _ext.reason
aiozmq_speedups.run(asyncio.wait_for(main(), 300))
print(
    f"a loop, an echo and an rpc on {platform.machine()}, "
    f"Python {platform.python_version()}, {' '.join(platform.libc_ver())}"
)

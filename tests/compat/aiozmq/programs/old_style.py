"""As programs were written for aiozmq: its own loop, by policy and by hand."""

import asyncio
import warnings

import aiozmq
import aiozmq.rpc

warnings.simplefilter("ignore", DeprecationWarning)


class Handler(aiozmq.rpc.AttrHandler):
    @aiozmq.rpc.method
    async def double(self, n):
        return n * 2


async def go(loop):
    server = await aiozmq.rpc.serve_rpc(Handler(), bind="tcp://127.0.0.1:*", loop=loop)
    endpoint = next(iter(server.transport.bindings()))
    client = await aiozmq.rpc.connect_rpc(connect=endpoint, loop=loop, timeout=10)
    with client.with_timeout(5) as timed:
        print(await timed.call.double(21))
    server.close()
    client.close()
    await asyncio.gather(server.wait_closed(), client.wait_closed())


def by_hand():
    loop = aiozmq.ZmqEventLoop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(go(loop))
    loop.close()
    asyncio.set_event_loop(None)


def by_policy():
    asyncio.set_event_loop_policy(aiozmq.ZmqEventLoopPolicy())
    loop = asyncio.new_event_loop()
    print(isinstance(loop, aiozmq.ZmqEventLoop))
    asyncio.set_event_loop(loop)
    asyncio.get_event_loop().run_until_complete(go(None))
    loop.close()


print(aiozmq.version_info >= (0, 1), aiozmq.version.endswith(aiozmq.version[-5:]))
by_hand()
by_policy()
print("DONE")

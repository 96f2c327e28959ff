"""A remote procedure call."""

import asyncio

import aiozmq.rpc


class Handler(aiozmq.rpc.AttrHandler):
    @aiozmq.rpc.method
    def add(self, a: int, b: int) -> int:
        return a + b


async def go():
    server = await aiozmq.rpc.serve_rpc(Handler(), bind="tcp://127.0.0.1:*")
    endpoint = next(iter(server.transport.bindings()))
    client = await aiozmq.rpc.connect_rpc(connect=endpoint)
    print(await client.call.add(1, 2))
    server.close()
    await server.wait_closed()
    client.close()
    await client.wait_closed()


asyncio.run(go())
print("DONE")

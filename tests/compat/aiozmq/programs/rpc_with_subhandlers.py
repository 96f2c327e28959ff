"""Names with dots."""

import asyncio

import aiozmq.rpc


class SubHandler(aiozmq.rpc.AttrHandler):
    def __init__(self, ident):
        self.ident = ident

    @aiozmq.rpc.method
    def b(self):
        return (self.ident, "b")


class Handler(aiozmq.rpc.AttrHandler):
    def __init__(self, ident):
        self.ident = ident
        self.sub = SubHandler(ident + "-sub")

    @aiozmq.rpc.method
    def a(self):
        return (self.ident, "a")


async def go():
    server = await aiozmq.rpc.serve_rpc(Handler("id"), bind="tcp://127.0.0.1:*")
    endpoint = next(iter(server.transport.bindings()))
    client = await aiozmq.rpc.connect_rpc(connect=endpoint)
    print(await client.call.a())
    print(await client.call.sub.b())
    server.close()
    await server.wait_closed()
    client.close()
    await client.wait_closed()


asyncio.run(go())
print("DONE")

"""A handler that makes namespaces as they are asked for."""

import asyncio

import aiozmq.rpc


class Dynamic(aiozmq.rpc.AttrHandler):
    def __init__(self, namespace=()):
        self.namespace = namespace

    def __getitem__(self, key):
        try:
            return getattr(self, key)
        except AttributeError:
            return Dynamic(self.namespace + (key,))

    @aiozmq.rpc.method
    def func(self):
        return self.namespace


async def go():
    server = await aiozmq.rpc.serve_rpc(Dynamic(), bind="tcp://127.0.0.1:*")
    endpoint = next(iter(server.transport.bindings()))
    client = await aiozmq.rpc.connect_rpc(connect=endpoint)
    print(await client.call.func())
    print(await client.call.a.func())
    print(await client.call.a.b.func())
    server.close()
    await server.wait_closed()
    client.close()
    await client.wait_closed()


asyncio.run(go())
print("DONE")

"""A dict as the handler."""

import asyncio

import aiozmq.rpc


@aiozmq.rpc.method
def a():
    return "a"


@aiozmq.rpc.method
async def b():
    return "b"


async def go():
    server = await aiozmq.rpc.serve_rpc(
        {"a": a, "namespace": {"b": b}}, bind="tcp://127.0.0.1:*"
    )
    endpoint = next(iter(server.transport.bindings()))
    client = await aiozmq.rpc.connect_rpc(connect=endpoint)
    print(await client.call.a())
    print(await client.call.namespace.b())
    server.close()
    await server.wait_closed()
    client.close()
    await client.wait_closed()


asyncio.run(go())
print("DONE")

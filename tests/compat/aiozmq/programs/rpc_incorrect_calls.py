"""Calls that do not fit."""

import asyncio

import aiozmq.rpc


class Handler(aiozmq.rpc.AttrHandler):
    @aiozmq.rpc.method
    def func(self, a: int, b: int) -> int:
        return a + b


async def go():
    server = await aiozmq.rpc.serve_rpc(Handler(), bind="tcp://127.0.0.1:*")
    endpoint = next(iter(server.transport.bindings()))
    client = await aiozmq.rpc.connect_rpc(connect=endpoint)
    try:
        await client.call.unknown_function()
    except aiozmq.rpc.NotFoundError as exc:
        print("NotFoundError:", exc)
    for args, kwargs in (((), {"bad": 1}), ((1,), {}), ((1, 2, 3), {})):
        try:
            await client.call.func(*args, **kwargs)
        except aiozmq.rpc.ParametersError as exc:
            print("ParametersError:", exc)
    # Annotations are not looked at.
    print(await client.call.func("a", "b"))
    try:
        await client.call.func("a", 1)
    except TypeError as exc:
        print("TypeError:", exc)
    server.close()
    await server.wait_closed()
    client.close()
    await client.wait_closed()


asyncio.run(go())
print("DONE")

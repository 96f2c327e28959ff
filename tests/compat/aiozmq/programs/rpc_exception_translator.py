"""An exception of one's own comes back as itself."""

import asyncio

import aiozmq.rpc


class CustomError(Exception):
    def __init__(self, val):
        self.val = val
        super().__init__(val)


class UnknownError(Exception):
    pass


class Handler(aiozmq.rpc.AttrHandler):
    @aiozmq.rpc.method
    def known(self, val):
        raise CustomError(val)

    @aiozmq.rpc.method
    def unknown(self, val):
        raise UnknownError(val)


ERRORS = {CustomError.__module__ + "." + CustomError.__name__: CustomError}


async def go():
    server = await aiozmq.rpc.serve_rpc(Handler(), bind="tcp://127.0.0.1:*")
    endpoint = next(iter(server.transport.bindings()))
    client = await aiozmq.rpc.connect_rpc(connect=endpoint, error_table=ERRORS)
    try:
        await client.call.known("value")
    except CustomError as exc:
        print("custom", exc.val)
    try:
        await client.call.unknown("value")
    except aiozmq.rpc.GenericError as exc:
        print(exc.exc_type, exc.arguments)
        print(repr(exc))
    server.close()
    client.close()


asyncio.run(go())
print("DONE")

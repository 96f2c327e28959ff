"""Objects of one's own as arguments and results."""

import asyncio

import aiozmq.rpc
import msgpack


class Point:
    def __init__(self, x, y):
        self.x = x
        self.y = y

    def __eq__(self, other):
        return isinstance(other, Point) and (self.x, self.y) == (other.x, other.y)


translation_table = {
    0: (
        Point,
        lambda value: msgpack.packb((value.x, value.y)),
        lambda binary: Point(*msgpack.unpackb(binary)),
    ),
}


class Handler(aiozmq.rpc.AttrHandler):
    @aiozmq.rpc.method
    def swap(self, val):
        return Point(val.y, val.x)


async def go():
    server = await aiozmq.rpc.serve_rpc(
        Handler(), bind="tcp://127.0.0.1:*", translation_table=translation_table
    )
    endpoint = next(iter(server.transport.bindings()))
    client = await aiozmq.rpc.connect_rpc(
        connect=endpoint, translation_table=translation_table
    )
    print(await client.call.swap(Point(1, 2)) == Point(2, 1))
    server.close()
    await server.wait_closed()
    client.close()
    await client.wait_closed()


asyncio.run(go())
print("DONE")

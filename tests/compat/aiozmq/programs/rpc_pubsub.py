"""A publisher and a subscriber."""

import asyncio

import aiozmq.rpc


class Handler(aiozmq.rpc.AttrHandler):
    heard = None

    @aiozmq.rpc.method
    def func(self, step, a: int, b: int):
        self.heard = (a, b)


async def go():
    handler = Handler()
    subscriber = await aiozmq.rpc.serve_pubsub(
        handler, subscribe="topic", bind="tcp://127.0.0.1:*", log_exceptions=True
    )
    endpoint = next(iter(subscriber.transport.bindings()))
    publisher = await aiozmq.rpc.connect_pubsub(connect=endpoint)
    step = 0
    while handler.heard is None:
        await publisher.publish("topic").func(step, 1, 2)
        await asyncio.sleep(0.01)
        step += 1
    print("HANDLER", handler.heard)
    subscriber.close()
    await subscriber.wait_closed()
    publisher.close()
    await publisher.wait_closed()


asyncio.run(go())
print("DONE")

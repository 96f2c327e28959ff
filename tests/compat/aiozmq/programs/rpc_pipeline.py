"""A notifier that repeats itself until it is heard, in one loop with the handler."""

import asyncio
import itertools

import aiozmq.rpc


class Handler(aiozmq.rpc.AttrHandler):
    heard = False

    @aiozmq.rpc.method
    def func(self, step, a: int, b: int):
        if not self.heard:
            print("HANDLER", step, a, b)
        self.heard = True


async def go():
    handler = Handler()
    listener = await aiozmq.rpc.serve_pipeline(handler, bind="tcp://127.0.0.1:*")
    endpoint = next(iter(listener.transport.bindings()))
    notifier = await aiozmq.rpc.connect_pipeline(connect=endpoint)
    for step in itertools.count():
        await notifier.notify.func(step, 1, b=2)
        if handler.heard:
            break
        await asyncio.sleep(0.01)
    listener.close()
    await listener.wait_closed()
    notifier.close()
    await notifier.wait_closed()


asyncio.run(go())
print("DONE")

"""A DEALER and a ROUTER with streams."""

import asyncio

import aiozmq
import zmq


async def go():
    router = await aiozmq.create_zmq_stream(zmq.ROUTER, bind="tcp://127.0.0.1:*")
    endpoint = next(iter(router.transport.bindings()))
    dealer = await aiozmq.create_zmq_stream(zmq.DEALER, connect=endpoint)
    for i in range(3):
        dealer.write((b"data", b"ask", str(i).encode()))
        request = await router.read()
        router.write(request)
        print(await dealer.read())
    dealer.close()
    router.close()
    try:
        await dealer.read()
    except aiozmq.ZmqStreamClosed:
        print("closed")


asyncio.run(go())
print("DONE")

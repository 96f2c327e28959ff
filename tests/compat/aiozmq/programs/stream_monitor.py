"""Monitor events of a stream."""

import asyncio

import aiozmq
import zmq


async def monitor(stream, seen):
    try:
        while True:
            event, value, endpoint = await stream.read_event()
            seen.append(event)
    except aiozmq.ZmqStreamClosed:
        print("closed")


async def go():
    router = await aiozmq.create_zmq_stream(zmq.ROUTER, bind="tcp://127.0.0.1:*")
    endpoint = next(iter(router.transport.bindings()))
    dealer = await aiozmq.create_zmq_stream(zmq.DEALER)
    await dealer.transport.enable_monitor()
    seen = []
    task = asyncio.ensure_future(monitor(dealer, seen))
    await dealer.transport.connect(endpoint)
    for i in range(3):
        dealer.write((b"ask", str(i).encode()))
        request = await router.read()
        router.write(request)
        print(await dealer.read())
    while zmq.EVENT_CONNECTED not in seen:
        await asyncio.sleep(0.01)
    router.close()
    dealer.close()
    await task


asyncio.run(go())
print("DONE")

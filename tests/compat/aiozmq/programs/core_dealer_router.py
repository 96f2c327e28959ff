"""A DEALER and a ROUTER at the level of protocols."""

import asyncio

import aiozmq
import zmq


class Router(aiozmq.ZmqProtocol):
    def __init__(self, closed):
        self.closed = closed

    def connection_made(self, transport):
        self.transport = transport

    def msg_received(self, msg):
        self.transport.write(msg)

    def connection_lost(self, exc):
        self.closed.set_result(exc)


class Dealer(Router):
    def __init__(self, closed, answers):
        super().__init__(closed)
        self.answers = answers

    def msg_received(self, msg):
        self.answers.put_nowait(msg)


async def go():
    router_closed = asyncio.Future()
    dealer_closed = asyncio.Future()
    answers = asyncio.Queue()
    router, _ = await aiozmq.create_zmq_connection(
        lambda: Router(router_closed), zmq.ROUTER, bind="tcp://127.0.0.1:*"
    )
    endpoint = next(iter(router.bindings()))
    dealer, _ = await aiozmq.create_zmq_connection(
        lambda: Dealer(dealer_closed, answers), zmq.DEALER, connect=endpoint
    )
    for i in range(3):
        dealer.write((b"data", b"ask", str(i).encode()))
        print(await answers.get())
    dealer.close()
    await dealer_closed
    router.close()
    await router_closed


asyncio.run(go())
print("DONE")

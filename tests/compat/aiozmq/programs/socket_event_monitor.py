"""Monitor events at the level of protocols, while a socket comes and goes."""

import asyncio

import aiozmq
import zmq


class Protocol(aiozmq.ZmqProtocol):
    def __init__(self):
        self.answers = asyncio.Queue()
        self.events = asyncio.Queue()
        self.closed = asyncio.Future()

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, exc):
        self.closed.set_result(exc)

    def msg_received(self, data):
        if len(data) == 2:
            identity, msg = data
            assert msg == b"Hello"
            self.transport.write([identity, b"World"])
        else:
            self.answers.put_nowait(data)

    def event_received(self, event):
        self.events.put_nowait(event)


async def go():
    server, server_proto = await aiozmq.create_zmq_connection(
        Protocol, zmq.ROUTER, bind="tcp://127.0.0.1:*"
    )
    endpoint = next(iter(server.bindings()))
    client, client_proto = await aiozmq.create_zmq_connection(
        Protocol, zmq.DEALER, connect=endpoint
    )
    await client.enable_monitor()
    for _ in range(2):
        await client.disconnect(endpoint)
        await client.connect(endpoint)
        while (await client_proto.events.get()).event != zmq.EVENT_CONNECTED:
            pass
        client.write([b"Hello"])
        print(await client_proto.answers.get())
    client.close()
    await client_proto.closed
    server.close()
    await server_proto.closed


asyncio.run(go())
print("DONE")

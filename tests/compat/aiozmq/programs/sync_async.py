"""A blocking pyzmq client in a thread and a server with streams."""

import asyncio
import threading

import aiozmq
import zmq


def client(endpoint):
    ctx = zmq.Context()
    sock = ctx.socket(zmq.DEALER)
    sock.connect(endpoint)
    sock.send_multipart([b"some", b"phrase"])
    print("client read", sock.recv_multipart())
    sock.close()
    ctx.term()


async def go():
    router = await aiozmq.create_zmq_stream(zmq.ROUTER, bind="tcp://127.0.0.1:*")
    endpoint = next(iter(router.transport.bindings()))
    thread = threading.Thread(target=client, args=(endpoint,))
    thread.start()
    data = await router.read()
    print("server read", data[1:])
    router.write(data)
    while thread.is_alive():
        await asyncio.sleep(0.01)
    router.close()


asyncio.run(go())
print("DONE")

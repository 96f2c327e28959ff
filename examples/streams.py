"""Read and write messages with coroutines.

python examples/streams.py
"""

import asyncio

import zmq

import aiozmq_speedups


async def echo(router: aiozmq_speedups.ZmqStream) -> None:
    try:
        while True:
            identity, *frames = await router.read()
            router.write([identity, *reversed(frames)])
            await router.drain()
    except aiozmq_speedups.ZmqStreamClosed:
        print("the router is closed")


async def main() -> None:
    router = await aiozmq_speedups.create_zmq_stream(
        zmq.ROUTER, bind="tcp://127.0.0.1:*"
    )
    (endpoint,) = router.transport.bindings()
    dealer = await aiozmq_speedups.create_zmq_stream(zmq.DEALER, connect=endpoint)
    server = asyncio.create_task(echo(router))

    for i in range(3):
        dealer.write([b"message", b"%d" % i])
        print(await dealer.read())

    dealer.close()
    router.close()
    await server


if __name__ == "__main__":
    aiozmq_speedups.run(main())

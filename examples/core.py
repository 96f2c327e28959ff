"""Transports and protocols: the lowest level, and the fastest.

python examples/core.py
"""

import asyncio

import zmq

import aiozmq_speedups


class Echo(aiozmq_speedups.ZmqProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def msg_received(self, data):
        self.transport.write(data)


class Counter(aiozmq_speedups.ZmqProtocol):
    def __init__(self, count):
        self.count = count
        self.finished = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        transport.write([b"%d" % self.count])

    def msg_received(self, data):
        print("received", data)
        self.count -= 1
        if self.count:
            self.transport.write([b"%d" % self.count])
        else:
            self.transport.close()

    def connection_lost(self, exc):
        self.finished.set_result(exc)


async def main():
    router, _ = await aiozmq_speedups.create_zmq_connection(
        Echo, zmq.ROUTER, bind="tcp://127.0.0.1:*"
    )
    (endpoint,) = router.bindings()
    _, counter = await aiozmq_speedups.create_zmq_connection(
        lambda: Counter(3), zmq.DEALER, connect=endpoint
    )
    assert await counter.finished is None
    router.close()


if __name__ == "__main__":
    aiozmq_speedups.run(main())

"""Publish calls by topic to everybody who has subscribed.

python examples/pubsub.py
"""

import asyncio

import aiozmq_speedups
from aiozmq_speedups import rpc


class Subscriber(rpc.AttrHandler):
    def __init__(self) -> None:
        self.news = asyncio.Event()

    @rpc.method
    def report(self, city: str, *, degrees: int) -> None:
        print(f"{city}: {degrees} degrees")
        self.news.set()


async def main() -> None:
    publisher = await rpc.connect_pubsub(bind="tcp://127.0.0.1:*")
    (endpoint,) = publisher.transport.bindings()
    subscriber = Subscriber()
    server = await rpc.serve_pubsub(subscriber, subscribe="weather", connect=endpoint)

    # What is published before the subscription has reached the publisher is lost.
    # (The publisher may wait instead: publisher.wait_subscribed("weather").)
    await server.wait_subscribed()

    await publisher.publish("sports").report("nobody hears this", degrees=0)
    await publisher.publish("weather").report("Kyiv", degrees=25)
    await subscriber.news.wait()

    for service in (publisher, server):
        service.close()
        await service.wait_closed()


if __name__ == "__main__":
    aiozmq_speedups.run(main())

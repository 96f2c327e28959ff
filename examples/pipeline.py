"""Send notifications, which have no answer, to whoever takes them.

python examples/pipeline.py
"""

import asyncio

import aiozmq_speedups
from aiozmq_speedups import rpc


class Worker(rpc.AttrHandler):
    def __init__(self, count: int) -> None:
        self.count = count
        self.finished = asyncio.Event()

    @rpc.method
    async def work(self, number: int, *, text: str) -> None:
        print("job", number, "is", text)
        self.count -= 1
        if self.count == 0:
            self.finished.set()


async def main() -> None:
    worker = Worker(5)
    server = await rpc.serve_pipeline(
        worker, bind="tcp://127.0.0.1:*", log_exceptions=True
    )
    (endpoint,) = server.transport.bindings()
    client = await rpc.connect_pipeline(connect=endpoint)

    for number in range(5):
        # Sent at once. Waiting keeps the sender from running ahead of the peer.
        await client.notify.work(number, text="x" * number)
    await worker.finished.wait()

    for service in (client, server):
        service.close()
        await service.wait_closed()


if __name__ == "__main__":
    aiozmq_speedups.run(main())

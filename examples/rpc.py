"""Call functions of another process, and catch what they raise.

python examples/rpc.py
"""

import asyncio

import aiozmq_speedups
from aiozmq_speedups import rpc


class Calculator(rpc.AttrHandler):
    @rpc.method
    def divide(self, a: int, b: int) -> float:
        return a / b

    @rpc.method
    async def wait(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"


async def main() -> None:
    server = await rpc.serve_rpc(Calculator(), bind="tcp://127.0.0.1:*")
    (endpoint,) = server.transport.bindings()
    client = await rpc.connect_rpc(connect=endpoint)

    print("6 / 3 =", await client.call.divide(6, 3))
    print("1 / 2 =", await client.call.divide(1, b=2))
    try:
        await client.call.divide(1, 0)
    except ZeroDivisionError as exc:
        print("1 / 0 raises", repr(exc))
    try:
        await client.call.multiply(2, 3)
    except rpc.NotFoundError as exc:
        print("no such method:", exc)
    try:
        await client.with_timeout(0.01).call.wait(60)
    except TimeoutError:
        print("waited long enough")

    # Many calls may be in flight at once.
    calls = [client.call.divide(i, 4) for i in range(5)]
    print("quarters:", await asyncio.gather(*calls))

    for service in (client, server):
        service.close()
        await service.wait_closed()


if __name__ == "__main__":
    aiozmq_speedups.run(main())

"""Workers, each with a loop of its own, that listen on one port."""

import asyncio
import socket

import pytest
from children import Child

WORKER = """
import asyncio, os, sys
from aiozmq_speedups import new_event_loop

async def answer(reader, writer):
    assert await reader.readline() == b"who?\\n"
    writer.write(b"%d\\n" % os.getpid())
    writer.close()
    await writer.wait_closed()

async def main():
    server = await asyncio.start_server(
        answer, "127.0.0.1", int(sys.argv[1]), reuse_port=True
    )
    print(os.getpid(), flush=True)
    await server.serve_forever()

factory = new_event_loop if sys.argv[2] == "speedups" else None
with asyncio.Runner(loop_factory=factory) as runner:
    runner.run(main())
"""


def test_workers(run, loop_kind):
    """All of them answer; those that are left do when one has been killed."""

    async def ask(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"who?\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return int(answer)

    async def answers(port, pids):
        """Asks until all of `pids` have answered, and nobody else."""
        seen = set()
        while seen != pids:
            seen |= set(await asyncio.gather(*[ask(port) for _ in range(20)]))
            assert seen <= pids

    async def main():
        with socket.socket() as holder:
            # It does not listen: it keeps the port until the workers have it.
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.bind(("127.0.0.1", 0))
            port = holder.getsockname()[1]
            workers = [Child(WORKER, port, loop_kind) for _ in range(4)]
            try:
                pids = {int(await worker.line()) for worker in workers}
                await answers(port, pids)
                killed = workers.pop()
                killed.kill()
                await answers(port, pids - {killed.process.pid})
            finally:
                for worker in workers:
                    worker.kill()

    if not hasattr(socket, "SO_REUSEPORT"):
        pytest.skip("no SO_REUSEPORT")
    run(main())

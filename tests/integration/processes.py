"""Started by test_multiprocessing.py: processes that a program on a loop makes.

python processes.py START_METHOD LOOP_KIND
"""

import asyncio
import concurrent.futures
import multiprocessing
import os
import sys

from aiozmq_speedups import new_event_loop


def run(kind, main):
    factory = new_event_loop if kind == "speedups" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        # A busy machine's slow steps are no part of what is tested.
        runner.get_loop().slow_callback_duration = 100
        return runner.run(main)


async def echo_server(connection):
    """Says where it listens, and serves until it is told to end."""
    stop = asyncio.Event()

    async def echo(reader, writer):
        writer.write(await reader.readline())
        writer.close()

    loop = asyncio.get_running_loop()
    loop.add_reader(connection.fileno(), stop.set)
    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        connection.send(server.sockets[0].getsockname())
        await stop.wait()
    loop.remove_reader(connection.fileno())
    connection.send(connection.recv() + type(loop).__module__)


def serve(kind, connection):
    run(kind, echo_server(connection))


async def nothing():
    await asyncio.sleep(0)
    return os.getpid()


def job(kind, number):
    """In a pool's process, a loop for each."""
    return run(kind, nothing()), number * 2


async def received(connection):
    """What comes, while the loop goes on."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(connection.fileno(), ready.set)
    await ready.wait()
    loop.remove_reader(connection.fileno())
    return connection.recv()


async def processes(context, kind):
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(kind, theirs))
    process.start()
    theirs.close()
    address = await received(ours)
    for number in range(10):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"%d\n" % number)
        assert await reader.read() == b"%d\n" % number
        writer.close()
        await writer.wait_closed()
    ours.send("served by ")
    print(await received(ours))
    await asyncio.to_thread(process.join)
    assert process.exitcode == 0, process.exitcode
    process.close()
    ours.close()


async def pool(context, kind):
    loop = asyncio.get_running_loop()
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
        jobs = [loop.run_in_executor(executor, job, kind, i) for i in range(20)]
        results = await asyncio.gather(*jobs)
    assert [number for _, number in results] == [i * 2 for i in range(20)]
    assert os.getpid() not in {pid for pid, _ in results}


async def main(method, kind):
    context = multiprocessing.get_context(method)
    async with asyncio.timeout(100):
        await processes(context, kind)
        await pool(context, kind)
        await processes(context, kind)  # with the threads that the pool has left


if __name__ == "__main__":
    run(sys.argv[2], main(*sys.argv[1:]))

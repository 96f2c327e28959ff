"""Started by test_dask.py: a Dask cluster, and which loops it is on.

python cluster.py threads|processes|asynchronous
"""

import asyncio
import sys

import dask
from distributed import Client, LocalCluster


def loop_of(dask_worker):
    return type(dask_worker.loop.asyncio_loop).__module__


def double(number):
    return number * 2


def work(client):
    assert client.gather(client.map(double, range(100))) == [i * 2 for i in range(100)]
    (data,) = client.scatter([b"x" * 1_000_000])
    assert client.submit(len, data).result() == 1_000_000
    tree = dask.delayed(sum)([dask.delayed(double)(i) for i in range(20)])
    assert client.compute(tree).result() == 380


async def work_asynchronously(client):
    futures = client.map(double, range(100))
    assert await client.gather(futures) == [i * 2 for i in range(100)]
    (data,) = await client.scatter([b"x" * 1_000_000])
    assert await client.submit(len, data) == 1_000_000


async def asynchronous():
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    async with LocalCluster(asynchronous=True, processes=False, **options) as cluster:
        async with Client(cluster, asynchronous=True) as client:
            await work_asynchronously(client)
            loops = set((await client.run(loop_of)).values())
    print(*loops, type(asyncio.get_running_loop()).__module__)


def main(mode):
    if mode == "asynchronous":
        asyncio.run(asynchronous())
        return
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=2,
            processes=mode == "processes",
            dashboard_address=None,
        ) as cluster,
        Client(cluster) as client,
    ):
        work(client)
        loops = set(client.run(loop_of).values())
        print(*loops, type(client.loop.asyncio_loop).__module__)


if __name__ == "__main__":
    main(sys.argv[1])

"""The seed of this project: an RPC service over aiopg and redis-py."""

import asyncio
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from servers import PASSWORD, USER

from aiozmq_speedups import rpc

EXAMPLE = Path(__file__).parents[2] / "examples" / "database.py"
OUTPUT = """\
apples: 3
apples: 3 asked PostgreSQL
apples: 3 asked Redis
there are no 'pears'
pears: 4950
"""


@pytest.fixture
def urls(postgres, redis_server):
    """Of the database and the cache."""
    pytest.importorskip("aiopg")
    pytest.importorskip("redis")
    return (
        f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{postgres.port}/postgres",
        f"unix://{redis_server.path}?socket_timeout=60&socket_connect_timeout=60",
    )


def test_example(urls):
    ran = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            "-W",
            "always::ResourceWarning",
        ]
        + [str(EXAMPLE), *urls],
        capture_output=True,
        text=True,
        timeout=250,
    )
    # But for what says that the machine is busy.
    said = [line for line in ran.stderr.splitlines() if "Executing <" not in line]
    assert (ran.stdout, said) == (OUTPUT, [])


@pytest.fixture
def example():
    spec = importlib.util.spec_from_file_location("database", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_service(run, urls, example, transport_kind):
    """Calls at once, given up, and failed; then the service ends what was begun."""
    import psycopg2

    class Service(example.Stock):
        @rpc.method
        async def sleep(self, seconds: float) -> None:
            await self.query("SELECT pg_sleep(%s)", seconds)

        @rpc.method
        async def fail(self) -> None:
            await self.query("nonsense")

    async def main():
        async with (
            example.aiopg.create_pool(urls[0], minsize=1, maxsize=5) as database,
            example.redis.Redis.from_pool(
                example.redis.BlockingConnectionPool.from_url(urls[1])
            ) as cache,
        ):
            await cache.flushall()
            stock = Service(database, cache)
            await stock.query(example.TABLE + "; TRUNCATE stock; SELECT 0")
            server = await rpc.serve_rpc(
                stock, bind="tcp://127.0.0.1:*", log_exceptions=False
            )
            (endpoint,) = server.transport.bindings()
            clients = [await rpc.connect_rpc(connect=endpoint) for _ in range(3)]
            call = clients[0].call
            await asyncio.gather(
                *[clients[i % 3].call.add(f"thing {i % 7}", i) for i in range(300)]
            )
            counts = [call.count(f"thing {i % 7}") for i in range(70)]
            sums = [sum(range(i, 300, 7)) for i in range(7)]
            assert await asyncio.gather(*counts) == sums * 10
            with pytest.raises(TimeoutError):
                await clients[1].with_timeout(0.01).call.sleep(0.2)
            with pytest.raises(rpc.GenericError) as error:
                await call.fail()
            assert error.value.exc_type == "psycopg2.errors.SyntaxError"
            # A connection is lost: the pool makes another.
            query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            with pytest.raises(psycopg2.Error):
                await stock.query(query + " WHERE pid = pg_backend_pid()")
            last = asyncio.ensure_future(call.sleep(0.1))
            assert await call.count("thing 1") == sums[1]
            await server.shutdown(timeout=100)
            await last
            for client in clients:
                client.close()
                await client.wait_closed()

    run(main())

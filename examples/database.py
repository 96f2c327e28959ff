"""A service whose handlers ask Redis, and PostgreSQL where it does not know.

python examples/database.py postgresql://user@host/name redis://host
"""

import asyncio
import sys

import aiopg
import redis.asyncio as redis

import aiozmq_speedups
from aiozmq_speedups import rpc

TABLE = "CREATE TABLE IF NOT EXISTS stock (name text PRIMARY KEY, number int NOT NULL)"
ADD = """INSERT INTO stock VALUES (%s, %s)
    ON CONFLICT (name) DO UPDATE SET number = stock.number + excluded.number
    RETURNING number"""
COUNT = "SELECT number FROM stock WHERE name = %s"


class Stock(rpc.AttrHandler):
    """Handlers may wait: the server runs each call in a task of its own."""

    def __init__(self, database: aiopg.Pool, cache: redis.Redis) -> None:
        self.database = database
        self.cache = cache

    async def query(self, query: str, *values: object) -> int | None:
        async with self.database.acquire() as connection:
            async with connection.cursor() as cursor:
                await cursor.execute(query, values)
                row = await cursor.fetchone()
                return row and row[0]

    @rpc.method
    async def add(self, name: str, number: int) -> int:
        total = await self.query(ADD, name, number)
        await self.cache.delete(f"stock:{name}")
        return total

    @rpc.method
    async def count(self, name: str) -> int:
        cached = await self.cache.get(f"stock:{name}")
        if cached is not None:
            return int(cached)
        number = await self.query(COUNT, name)
        if number is None:
            raise KeyError(name)
        await self.cache.set(f"stock:{name}", number, ex=60)
        return number


async def main(postgres: str, redis_url: str) -> None:
    async with (
        aiopg.create_pool(postgres) as database,
        redis.Redis.from_pool(
            redis.BlockingConnectionPool.from_url(redis_url)
        ) as cache,
    ):
        stock = Stock(database, cache)
        await stock.query(TABLE + "; TRUNCATE stock; SELECT 0")
        server = await rpc.serve_rpc(stock, bind="tcp://127.0.0.1:*")
        (endpoint,) = server.transport.bindings()
        client = await rpc.connect_rpc(connect=endpoint)

        print("apples:", await client.call.add("apples", 3))
        print("apples:", await client.call.count("apples"), "asked PostgreSQL")
        print("apples:", await client.call.count("apples"), "asked Redis")
        try:
            await client.call.count("pears")
        except KeyError as exc:
            print("there are no", exc)
        # Many at once, over the few connections of the pool.
        await asyncio.gather(*[client.call.add("pears", i) for i in range(100)])
        print("pears:", await client.call.count("pears"))

        for service in (client, server):
            service.close()
            await service.wait_closed()


if __name__ == "__main__":
    aiozmq_speedups.run(main(*sys.argv[1:]))

"""aiopg with its pool: psycopg2 on the loop's readers and writers."""

import asyncio

import pytest

aiopg = pytest.importorskip("aiopg")
psycopg2 = pytest.importorskip("psycopg2")


def test_query(run, libpq, way):
    async def main():
        async with aiopg.connect(**libpq) as connection:
            async with connection.cursor() as cursor:
                await cursor.execute(
                    "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
                )
                assert await cursor.fetchone() == (way == "tls",)
                await cursor.execute("SELECT * FROM generate_series(1, %s)", [5000])
                assert [row async for row in cursor] == [(i,) for i in range(1, 5001)]

    run(main())


def test_megabytes(run, libpq):
    """More than the socket takes at once, and than it gives."""
    value = "x" * 5_000_000

    async def main():
        async with aiopg.connect(**libpq) as connection:
            async with connection.cursor() as cursor:
                await cursor.execute("SELECT %s::text", [value])
                assert await cursor.fetchone() == (value,)

    run(main())


def test_pool(run, libpq):
    async def double(pool, number):
        async with pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute("SELECT %s * 2", [number])
            return (await cursor.fetchone())[0]

    async def main():
        async with aiopg.create_pool(minsize=2, maxsize=5, **libpq) as pool:
            results = await asyncio.gather(*[double(pool, i) for i in range(200)])
            assert results == [i * 2 for i in range(200)]
            assert pool.size <= 5

    run(main())


def test_query_that_takes_too_long(run, libpq):
    """aiopg closes its connection; the pool makes another."""

    async def main():
        async with aiopg.create_pool(maxsize=1, **libpq) as pool:
            with pytest.raises(asyncio.TimeoutError):
                with await pool.cursor(timeout=0.1) as cursor:
                    await cursor.execute("SELECT pg_sleep(60)")
            with await pool.cursor() as cursor:
                await cursor.execute("SELECT 1")
                assert await cursor.fetchone() == (1,)

    run(main())


def test_notifications(run, libpq):
    async def main():
        async with (
            aiopg.connect(**libpq) as listener,
            aiopg.connect(**libpq) as sender,
            listener.cursor() as hear,
            sender.cursor() as say,
        ):
            await hear.execute("LISTEN news")
            for number in range(100):
                await say.execute("SELECT pg_notify('news', %s)", [str(number)])
            for number in range(100):
                assert (await listener.notifies.get()).payload == str(number)

    run(main())


def test_unreachable(run, libpq):
    async def main():
        for wrong in {"host": "/nowhere"}, {"password": "wrong"}:
            with pytest.raises(psycopg2.OperationalError):
                await aiopg.connect(**libpq | wrong)

    run(main())

"""asyncpg: a protocol of its own over the loop's transports."""

import asyncio
import io

import pytest

asyncpg = pytest.importorskip("asyncpg")


def test_query(run, asyncpg_options, way):
    async def main():
        connection = await asyncpg.connect(**asyncpg_options)
        query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert await connection.fetchval(query) == (way == "tls")
        rows = await connection.fetch(
            "SELECT i, i::text FROM generate_series(1, $1) i", 9
        )
        assert [tuple(row) for row in rows] == [(i, str(i)) for i in range(1, 10)]
        await connection.close()

    run(main())


def test_megabytes(run, asyncpg_options):
    """Through COPY both ways: the transport's water marks, and paused reading."""
    data = b"".join(b"%d\t%s\n" % (i, b"x" * 1000) for i in range(5000))

    async def main():
        connection = await asyncpg.connect(**asyncpg_options)
        await connection.execute("CREATE TEMPORARY TABLE t (i int, text text)")
        await connection.copy_to_table("t", source=io.BytesIO(data))
        out = io.BytesIO()
        await connection.copy_from_query("SELECT * FROM t ORDER BY i", output=out)
        assert out.getvalue() == data
        value = "y" * 5_000_000
        assert await connection.fetchval("SELECT $1::text", value) == value
        await connection.close()

    run(main())


def test_pool(run, asyncpg_options):
    async def double(pool, number):
        async with pool.acquire() as connection, connection.transaction():
            return await connection.fetchval("SELECT $1::int * 2", number)

    async def main():
        async with asyncpg.create_pool(
            min_size=2, max_size=5, **asyncpg_options
        ) as pool:
            numbers = range(200)
            results = await asyncio.gather(*[double(pool, i) for i in numbers])
            assert results == [i * 2 for i in numbers]

    run(main())


async def sleeping(connection, other):
    """A task of a query that has begun on the server."""
    task = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
    active = "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = $1"
    while not await other.fetchval(active, connection.get_server_pid()):
        pass
    return task


def test_cancelled_query(run, asyncpg_options):
    """asyncpg cancels it on the server, over a connection of its own."""

    async def main():
        connection = await asyncpg.connect(**asyncpg_options)
        other = await asyncpg.connect(**asyncpg_options)
        task = await sleeping(connection, other)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()
        await other.close()

    run(main())


def test_notifications(run, asyncpg_options):
    async def main():
        queue = asyncio.Queue()
        listener = await asyncpg.connect(**asyncpg_options)
        await listener.add_listener("news", lambda *args: queue.put_nowait(args[-1]))
        sender = await asyncpg.connect(**asyncpg_options)
        for number in range(100):
            await sender.execute("SELECT pg_notify('news', $1)", str(number))
        assert [await queue.get() for _ in range(100)] == [str(i) for i in range(100)]
        await listener.close()
        await sender.close()

    run(main())


def test_server_ends_a_connection(run, asyncpg_options):
    """Whose query fails; the pool makes another."""

    async def main():
        async with asyncpg.create_pool(
            min_size=1, max_size=2, **asyncpg_options
        ) as pool:
            async with pool.acquire() as victim, pool.acquire() as other:
                task = await sleeping(victim, other)
                pid = victim.get_server_pid()
                await other.execute("SELECT pg_terminate_backend($1)", pid)
                with pytest.raises(asyncpg.PostgresError):
                    await task
            for _ in range(3):
                assert await pool.fetchval("SELECT 1") == 1

    run(main())


def test_unreachable(run, asyncpg_options):
    async def main():
        with pytest.raises(OSError):
            await asyncpg.connect(**asyncpg_options | {"host": "/nowhere"})
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(**asyncpg_options | {"password": "wrong"})

    run(main())

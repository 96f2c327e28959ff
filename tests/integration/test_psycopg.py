"""psycopg 3: libpq on the loop's readers and writers."""

import asyncio

import pytest

psycopg = pytest.importorskip("psycopg")
psycopg_pool = pytest.importorskip("psycopg_pool")


@pytest.fixture
def conninfo(libpq):
    return psycopg.conninfo.make_conninfo(**libpq)


def test_query(run, conninfo, way):
    async def main():
        connect = psycopg.AsyncConnection.connect
        async with await connect(conninfo, autocommit=True) as connection:
            query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            cursor = await connection.execute(query)
            assert await cursor.fetchone() == (way == "tls",)
            query = "SELECT i, i::text FROM generate_series(1, %s) i"
            async with connection.cursor() as cursor:
                rows = [row async for row in cursor.stream(query, [9])]
            assert rows == [(i, str(i)) for i in range(1, 10)]

    run(main())


def test_megabytes(run, conninfo):
    """Through COPY both ways, while the socket is not always writable."""
    lines = [b"%d\t%s\n" % (i, b"x" * 1000) for i in range(5000)]

    async def main():
        async with await psycopg.AsyncConnection.connect(conninfo) as connection:
            cursor = connection.cursor()
            await cursor.execute("CREATE TEMPORARY TABLE t (i int, text text)")
            async with cursor.copy("COPY t FROM STDIN") as copy:
                await copy.write(b"".join(lines))
            query = "COPY (SELECT * FROM t ORDER BY i) TO STDOUT"
            async with cursor.copy(query) as copy:
                assert [bytes(row) async for row in copy] == lines

    run(main())


def test_pool_and_pipeline(run, conninfo):
    async def double(pool, number):
        async with pool.connection() as connection, connection.pipeline():
            first = await connection.execute("SELECT %s::int * 2", [number])
            second = await connection.execute("SELECT %s::int * 3", [number])
            return *await first.fetchone(), *await second.fetchone()

    async def main():
        pool = psycopg_pool.AsyncConnectionPool(
            conninfo, min_size=2, max_size=5, open=False
        )
        async with pool:
            results = await asyncio.gather(*[double(pool, i) for i in range(200)])
        assert results == [(i * 2, i * 3) for i in range(200)]

    run(main())


def test_cancelled_query(run, conninfo):
    """psycopg cancels it on the server; the connection can be used again."""

    async def main():
        connect = psycopg.AsyncConnection.connect
        async with (
            await connect(conninfo, autocommit=True) as connection,
            await connect(conninfo, autocommit=True) as other,
        ):
            task = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
            active = "SELECT wait_event FROM pg_stat_activity WHERE pid = %s"
            pid, event = connection.info.backend_pid, None
            while event != ("PgSleep",):
                event = await (await other.execute(active, [pid])).fetchone()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            cursor = await connection.execute("SELECT 1")
            assert await cursor.fetchone() == (1,)

    run(main())


def test_notifications(run, conninfo):
    async def main():
        connect = psycopg.AsyncConnection.connect
        async with (
            await connect(conninfo, autocommit=True) as listener,
            await connect(conninfo, autocommit=True) as sender,
        ):
            await listener.execute("LISTEN news")
            for number in range(100):
                await sender.execute("SELECT pg_notify('news', %s)", [str(number)])
            notices = [n.payload async for n in listener.notifies(stop_after=100)]
            assert notices == [str(number) for number in range(100)]

    run(main())


def test_unreachable(run, conninfo):
    async def main():
        for wrong in {"host": "/nowhere"}, {"password": "wrong"}:
            info = psycopg.conninfo.make_conninfo(conninfo, **wrong)
            with pytest.raises(psycopg.OperationalError):
                await psycopg.AsyncConnection.connect(info)

    run(main())

"""redis-py: over the loop's streams, which it reads in its own way."""

import asyncio

import pytest

redis = pytest.importorskip("redis.asyncio")
from redis.asyncio.retry import Retry  # noqa: E402
from redis.backoff import NoBackoff  # noqa: E402
from redis.exceptions import ConnectionError as RedisConnectionError  # noqa: E402


@pytest.fixture
def options(redis_server, way):
    """Arguments of Redis(). It repeats a command after its time, 5 seconds, which the
    server may have done already."""
    patient = {"socket_timeout": 60, "socket_connect_timeout": 60}
    if way == "unix":
        return {**patient, "unix_socket_path": str(redis_server.path)}
    patient["host"] = "127.0.0.1"
    if way == "tcp":
        return {**patient, "port": redis_server.port}
    cert = str(redis_server.cert)
    port = redis_server.tls_port
    return {**patient, "port": port, "ssl": True, "ssl_ca_certs": cert}


def test_commands(run, options):
    async def main():
        async with redis.Redis(**options) as client:
            await client.flushall()
            assert await client.set("key", b"value")
            assert await client.get("key") == b"value"
            assert await client.get("none") is None
            value = b"x" * 5_000_000
            await client.set("large", value)
            assert await client.get("large") == value
            async with client.pipeline() as pipe:
                for number in range(1000):
                    pipe.incrby("counter", number)
                assert (await pipe.execute())[-1] == sum(range(1000))

    run(main())


def test_pool(run, options):
    """Many tasks of few connections."""

    async def main():
        kind = redis.BlockingConnectionPool
        client = redis.Redis(**options)
        pool = client.connection_pool
        limited = kind(
            max_connections=5,
            timeout=None,
            connection_class=pool.connection_class,
            **pool.connection_kwargs,
        )
        await client.aclose()
        async with redis.Redis.from_pool(limited) as client:
            await client.delete("counter")
            increments = [client.incr("counter") for _ in range(500)]
            results = await asyncio.gather(*increments)
            assert sorted(results) == list(range(1, 501))

    run(main())


def test_pubsub(run, options):
    async def main():
        async with redis.Redis(**options) as client, client.pubsub() as pubsub:
            await pubsub.subscribe("news")
            await pubsub.psubscribe("other.*")
            kinds = [(await pubsub.get_message(timeout=None))["type"] for _ in range(2)]
            assert kinds == ["subscribe", "psubscribe"]
            for number in range(500):
                channel = "news" if number % 2 else "other.news"
                await client.publish(channel, number)
            listened = []
            async for message in pubsub.listen():
                listened.append(int(message["data"]))
                if len(listened) == 500:
                    break
            assert listened == list(range(500))
            assert await pubsub.get_message(timeout=0.01) is None

    run(main())


def test_blocking_pop(run, options):
    """One that is cancelled takes nothing from those after it."""

    async def main():
        async with redis.Redis(**options) as client:
            await client.delete("list")

            async def blocked():
                while (await client.info("clients"))["blocked_clients"] != 1:
                    pass

            task = asyncio.create_task(client.blpop(["list"]))
            await blocked()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            while (await client.info("clients"))["blocked_clients"]:
                pass
            task = asyncio.create_task(client.blpop(["list"]))
            await blocked()
            await client.rpush("list", "value")
            assert await task == (b"list", b"value")

    run(main())


def test_server_ends_a_connection(run, options):
    """The next command makes another."""

    async def main():
        async with (
            redis.Redis(**options, single_connection_client=True) as client,
            redis.Redis(**options) as other,
        ):
            number = await client.client_id()
            await other.client_kill_filter(_id=number)
            assert await client.ping()
            assert await client.client_id() != number

    run(main())


def test_unreachable(run):
    async def main():
        no_retry = Retry(NoBackoff(), 0)
        async with redis.Redis(unix_socket_path="/nowhere", retry=no_retry) as client:
            with pytest.raises(RedisConnectionError):
                await client.ping()

    run(main())

"""Translation tables on the way to a server and back."""

import msgpack
import pytest


class Point:
    def __init__(self, x, y):
        self.x = x
        self.y = y

    def __eq__(self, other):
        return (self.x, self.y) == (other.x, other.y)

    __hash__ = None


def refuse(*args):
    raise OSError("refused")


TABLE = {
    0: (
        Point,
        lambda value: msgpack.packb((value.x, value.y)),
        lambda binary: Point(*msgpack.unpackb(binary)),
    ),
}


def echo(rpc):
    @rpc.method
    def func(value):
        return value

    @rpc.method
    async def coro(value):
        return value

    return {"func": func, "coro": coro}


def test_there_and_back(impl, run):
    async def go():
        options = {"translation_table": TABLE}
        async with impl.served(
            "rpc", echo(impl.rpc), server=options, client=options
        ) as (client, _):
            for call in (client.call.func, client.call.coro):
                assert await call(Point(1, 2)) == Point(1, 2)
                assert await call({"k": [Point(1, 2)]}) == {"k": (Point(1, 2),)}

    run(go())


def test_server_without_the_table(impl, run):
    async def go():
        options = {"translation_table": TABLE}
        async with impl.served("rpc", echo(impl.rpc), client=options) as (client, _):
            # It returns the ExtType that it got.
            assert await client.call.func(Point(1, 2)) == Point(1, 2)

    run(go())


def test_refused_at_the_client(impl, run):
    async def go():
        options = {"translation_table": {0: (Point, refuse, refuse)}}
        async with impl.served("rpc", echo(impl.rpc), client=options) as (client, _):
            with pytest.raises(OSError, match="refused"):
                await client.call.func(Point(1, 2))
            assert await client.call.func(1) == 1

    run(go())


def test_refused_by_the_unpacker_of_the_server(ours, run, rpc_log):
    # aiozmq logs it; the caller waits for ever.
    async def go():
        async with ours.served(
            "rpc",
            echo(ours.rpc),
            client={"translation_table": TABLE},
            server={"translation_table": {0: (Point, refuse, refuse)}},
        ) as (client, _):
            with pytest.raises(ours.rpc.ParametersError, match="refused"):
                await client.call.func(Point(1, 2))
            record = await rpc_log.get()
            assert record.msg == "Cannot unpack %r"
            assert record.exc_info[0] is OSError

    run(go())


def test_refused_by_the_unpacker_of_the_client(ours, run, rpc_log):
    async def go():
        table = {0: (Point, TABLE[0][1], refuse)}
        async with ours.served(
            "rpc",
            echo(ours.rpc),
            client={"translation_table": table},
        ) as (client, _):
            with pytest.raises(ours.rpc.Error, match="Cannot unpack") as exc:
                await client.call.func(Point(1, 2))
            assert isinstance(exc.value.__cause__, OSError)
            assert (await rpc_log.get()).msg == "Cannot unpack %r"
            assert not client._proto.calls
            assert await client.call.func(1) == 1

    run(go())


def test_refused_by_the_packer_of_the_server(ours, run):
    async def go():
        table = {0: (Point, refuse, TABLE[0][2])}
        async with ours.served(
            "rpc",
            echo(ours.rpc),
            client={"translation_table": TABLE},
            server={"translation_table": table},
        ) as (client, _):
            for call in (client.call.func, client.call.coro):
                with pytest.raises(OSError, match="refused"):
                    await call(Point(1, 2))

    run(go())

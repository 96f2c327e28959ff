"""Whatever a handler gives that can be awaited is awaited."""

import asyncio
import functools
import types

import pytest


def handlers(rpc):
    async def coro(arg):
        await asyncio.sleep(0)
        if arg == "raise":
            raise ValueError(arg)
        return ("awaited", arg)

    @types.coroutine
    def old_style(arg):
        return (yield from coro(arg).__await__())

    class Waits:
        def __init__(self, arg):
            self.arg = arg

        def __await__(self):
            return coro(self.arg).__await__()

    class AsyncCall:
        async def __call__(self, arg):
            return await coro(arg)

    class Returns:
        def __call__(self, arg):
            return coro(arg)

    functions = {
        "returns_coroutine": lambda arg: coro(arg),
        "returns_task": lambda arg: asyncio.ensure_future(coro(arg)),
        "returns_generator": lambda arg: old_style(arg),
        "returns_object": Waits,
        "async_call": AsyncCall(),
        "call_returns_coroutine": Returns(),
        "partial": functools.partial(coro),
        "partial_of_object": functools.partial(AsyncCall()),
    }

    def marked(func):
        if isinstance(func, type):
            return rpc.method(lambda arg: func(arg))
        return rpc.method(func)

    return {name: marked(func) for name, func in functions.items()}


NAMES = sorted(handlers(types.SimpleNamespace(method=lambda func: func)))


@pytest.mark.parametrize("name", NAMES)
def test_rpc(ours, run, name):
    async def go():
        async with ours.served("rpc", handlers(ours.rpc)) as (client, service):
            call = getattr(client.call, name)
            for _ in range(2):  # the second time the function is known
                assert await call(1) == ("awaited", 1)
                assert await call(arg=2) == ("awaited", 2)
                with pytest.raises(ValueError, match="raise"):
                    await call("raise")
            assert not service._proto.pending_waiters

    run(go())


def test_the_timeout_holds(ours, run):
    async def go():
        @ours.rpc.method
        def wait():
            return asyncio.Event().wait()

        async with ours.served("rpc", {"wait": wait}, server={"timeout": 0.01}) as pair:
            for _ in range(2):
                with pytest.raises(TimeoutError):
                    await pair[0].call.wait()

    run(go())


def test_notifications(ours, run):
    async def go():
        queue = asyncio.Queue()

        @ours.rpc.method
        def put(item):
            return queue.put(item)

        async with ours.served("pipeline", {"put": put}) as (client, _):
            for i in range(3):
                await client.notify.put(i)
            assert [await queue.get() for _ in range(3)] == [0, 1, 2]

    run(go())


def test_what_only_looks_like_it_is_refused(ours, run):
    async def go():
        @ours.rpc.method
        def generator():
            return (i for i in ())

        @ours.rpc.method
        async def async_generator():
            yield

        functions = {"generator": generator, "async_generator": async_generator}
        async with ours.served("rpc", functions) as (client, _):
            for name in functions:
                for _ in range(2):
                    with pytest.raises(TypeError, match="Unknown type"):
                        await getattr(client.call, name)()

    run(go())

"""Thousands of calls of every kind leave no object behind."""

import asyncio
import gc


def test_calls_leave_nothing(ours, run):
    async def go():
        rpc = ours.rpc
        gate = asyncio.Event()

        @rpc.method
        def func(*args, **kwargs):
            return args

        @rpc.method
        async def coro(arg):
            await asyncio.sleep(0)
            return arg

        @rpc.method
        def exc():
            raise ValueError("x", object())

        @rpc.method
        async def wait():
            await gate.wait()

        handler = {"func": func, "coro": coro, "exc": exc, "wait": wait}

        async def every_kind(client):
            call = client.call
            gate.clear()
            forgotten = [call.wait() for _ in range(3)]
            timed = client.with_timeout(0).call.wait()
            calls = [
                call.func(),
                call.func(1, {"k": [2]}, b=b"x" * 1000),
                call.coro("x"),
                call.exc(),
                call.unknown(),
                call.coro(1, 2),
                client.with_timeout(60).call.func(1),
                client.with_timeout(60).call.coro(1),
            ]
            await asyncio.gather(*calls, timed, return_exceptions=True)
            for waiting in forgotten:
                waiting.cancel()
            gate.set()
            # The answers that nobody waits for come in the order of the calls.
            await call.wait()
            await call.func()

        async with ours.served("rpc", handler) as (client, service):
            counts = []
            for _ in range(4):
                for _ in range(60):
                    await every_kind(client)
                gc.collect()
                counts.append(len(gc.get_objects()))
            assert not client._proto.calls
            assert not client._proto._forgotten
            assert not service._proto.pending_waiters
            # The first round fills caches.
            assert max(counts[1:]) - min(counts[1:]) < 60, counts

    run(go())

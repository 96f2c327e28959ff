"""Handlers that take long are told of by the name that was called."""

import asyncio
import time

import pytest
from parity import Implementation, _use_pure_rpc

from aiozmq_speedups import _ext, new_event_loop, rpc

pytestmark = pytest.mark.skipif(_ext.core is None, reason="no extension")

LONG = 0.1


def block():
    time.sleep(LONG)
    stuck = asyncio.get_running_loop()._stuck
    while not stuck()[2]:  # until the ticker had a processor, too
        time.sleep(0.001)


class Handler(rpc.AttrHandler):
    @rpc.method
    def func(self):
        block()

    @rpc.method
    async def coro(self):
        block()

    @rpc.method
    async def coro_later(self):
        await asyncio.sleep(0)
        block()


@pytest.fixture
def told():
    return []


@pytest.fixture
def loop(told):
    def tell(slow):
        if slow.seconds >= LONG:
            told.append(str(slow))

    loop = new_event_loop(slow_callback_ms=20, on_slow_callback=tell)
    yield loop
    loop.close()


@pytest.mark.parametrize("kind", ["rpc", "pure rpc", "pipeline"])
def test_names(loop, told, monkeypatch, kind):
    if kind == "pure rpc":
        _use_pure_rpc(monkeypatch)
    served = Implementation("aiozmq_speedups").served
    names = [name for name in vars(Handler) if name[0] != "_"]
    assert len(names) == 3

    async def main():
        async with served(kind.split()[-1], Handler()) as (client, _):
            remote = client.call if "rpc" in kind else client.notify
            for name in names:
                await getattr(remote, name)()
                # On a busy machine anything else may be told of, too.
                while not any(f"={name!r}" in text for text in told):
                    await asyncio.sleep(0.001)

    loop.run_until_complete(main())


def test_in_debug_mode(loop, caplog):
    loop.set_debug(True)
    served = Implementation("aiozmq_speedups").served

    async def main():
        async with served("rpc", Handler()) as (client, _):
            await client.call.func()
            await client.call.coro_later()

    loop.run_until_complete(main())
    told = [r.getMessage() for r in caplog.records if r.name == "asyncio"]
    for name in "func", "coro_later":
        assert any(f"={name!r}" in text for text in told), told

"""Observers of services: told of each call at both sides, and of what became of it."""

import asyncio
import contextlib
import importlib

import pytest
from parity import Implementation

from aiozmq_speedups import rpc
from aiozmq_speedups.rpc import ObservedCall, Observer

pytestmark = pytest.mark.loops("speedups")

KINDS = ("rpc", "pipeline", "pubsub")


class Recorder(Observer):
    def __init__(self):
        self.started = []
        self.ended = []

    def call_started(self, call):
        assert type(call) is ObservedCall and call.seconds is None
        self.started.append(call)
        call.state = "mine"

    def call_ended(self, call):
        assert call in self.started and call not in self.ended
        assert call.seconds >= 0 and call.state == "mine"
        self.ended.append(call)

    async def all_ended(self, count):
        while len(self.ended) < count:
            await asyncio.sleep(0.001)
        assert len(self.started) == len(self.ended) == count
        return self.ended


class Handler(rpc.AttrHandler):
    def __init__(self):
        self.begun = asyncio.Event()

    @rpc.method
    def func(self):
        self.begun.set()

    @rpc.method
    async def coro(self):
        await asyncio.sleep(0)

    @rpc.method
    def fails(self):
        raise LookupError("no")

    @rpc.method
    async def coro_fails(self):
        await asyncio.sleep(0)
        raise LookupError("no")

    @rpc.method
    def gives_awaitable(self):
        return asyncio.sleep(0)

    @rpc.method
    async def forever(self):
        self.begun.set()
        await asyncio.get_running_loop().create_future()


@pytest.fixture
def served():
    return Implementation("aiozmq_speedups").served


class Watched:
    """A service and its client, each with a recorder."""

    def __init__(self, served, kind="rpc", **server):
        self.handler = Handler()
        self.at_server, self.at_client = Recorder(), Recorder()
        self._served = served(
            kind,
            self.handler,
            server={"observer": self.at_server, **server},
            client={"observer": self.at_client},
        )

    async def __aenter__(self):
        self.client, self.service = await self._served.__aenter__()
        return self

    async def __aexit__(self, *exc):
        return await self._served.__aexit__(*exc)


CALLS = {
    "func": None,
    "coro": None,
    "gives_awaitable": None,
    "fails": LookupError,
    "coro_fails": LookupError,
    "nothing": rpc.NotFoundError,
}


@pytest.mark.parametrize("name", CALLS)
def test_rpc(loop, served, name):
    raises = CALLS[name]

    async def main():
        async with Watched(served) as watched:
            outcome = (
                contextlib.nullcontext() if raises is None else pytest.raises(raises)
            )
            with outcome:
                await getattr(watched.client.call, name)()
            [at_client] = await watched.at_client.all_ended(1)
            [at_server] = await watched.at_server.all_ended(1)
            assert (at_client.side, at_server.side) == ("client", "server")
            for call in (at_client, at_server):
                assert (call.kind, call.name) == ("rpc", name)
                assert type(call.error) is (raises or type(None))
                call.error = None  # its traceback holds the service

    loop.run_until_complete(main())


@pytest.mark.parametrize("kind", ["pipeline", "pubsub"])
def test_one_way(loop, served, kind, caplog):
    async def main():
        options = {"subscribe": "topic"} if kind == "pubsub" else {}
        async with Watched(served, kind, **options) as watched:
            if kind == "pipeline":
                notify = watched.client.notify
            else:
                await watched.client.wait_subscribed("topic")
                notify = watched.client.publish("topic")
            for name in CALLS:
                await getattr(notify, name)()
            ended = await watched.at_server.all_ended(len(CALLS))
            errors = {call.name: type(call.error) for call in ended}
            assert errors == {name: e or type(None) for name, e in CALLS.items()}
            sent = await watched.at_client.all_ended(len(CALLS))
            assert [call.name for call in sent] == list(CALLS)
            for call in (*ended, *sent):
                assert call.kind == kind
                call.error = None

    loop.run_until_complete(main())
    caplog.clear()  # tracebacks hold the loop


def test_call_that_is_cancelled(loop, served):
    async def main():
        async with Watched(served) as watched:
            waiting = watched.client.call.forever()
            await watched.handler.begun.wait()
            waiting.cancel()
            [call] = await watched.at_client.all_ended(1)
            assert type(call.error) is asyncio.CancelledError
            assert not watched.at_server.ended
            watched.service.close()
            [call] = await watched.at_server.all_ended(1)
            assert type(call.error) is asyncio.CancelledError

    loop.run_until_complete(main())


def test_call_that_cannot_be_sent(loop, served):
    async def main():
        async with Watched(served) as watched:
            with pytest.raises(TypeError):
                await watched.client.call.func(object())
            [call] = await watched.at_client.all_ended(1)
            assert type(call.error) is TypeError
            call.error = None
            assert not watched.at_server.started

    loop.run_until_complete(main())


def test_observer_that_raises(loop, served):
    class Broken(Observer):
        def call_started(self, call):
            raise ZeroDivisionError

        call_ended = call_started

    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))

    async def main():
        broken = {"observer": Broken()}
        async with served("rpc", Handler(), server=broken, client=broken) as (
            client,
            _,
        ):
            assert await client.call.func() is None
            while len(contexts) < 4:
                await asyncio.sleep(0.001)

    loop.run_until_complete(main())
    assert {context["message"] for context in contexts} == {
        "Exception in an rpc observer"
    }
    contexts.clear()


class Carries(Recorder):
    def call_started(self, call):
        super().call_started(call)
        if call.side == "client":
            call.carrier["key"] = "välue"


def test_what_a_call_carries(loop, served):
    async def main():
        at_client, at_server = Carries(), Recorder()
        async with served(
            "rpc",
            Handler(),
            server={"observer": at_server},
            client={"observer": at_client},
        ) as (client, _):
            for name in ("func", "coro"):
                await getattr(client.call, name)()
            with pytest.raises(LookupError):
                await client.call.fails()
            for call in await at_server.all_ended(3):
                assert call.carrier == {"key": "välue"}
                call.error = None
            for call in at_client.ended:
                call.error = None

    loop.run_until_complete(main())


@pytest.mark.parametrize("package", ["aiozmq", "aiozmq_speedups"])
def test_peers_that_know_nothing_of_it(loop, package):
    """The extra frame is part of the route, which each server sends back."""
    other = Implementation(package).rpc

    class Adder(other.AttrHandler):
        @other.method
        def add(self, a, b=1):
            return a + b

        @other.method
        async def fails(self):
            raise LookupError("no")

    async def main():
        service = await other.serve_rpc(Adder(), bind="tcp://127.0.0.1:*")
        (endpoint,) = service.transport.bindings()
        observer = Carries()
        client = await rpc.connect_rpc(connect=endpoint, observer=observer)
        assert await client.call.add(1, b=2) == 3
        with pytest.raises(LookupError):
            await client.call.fails()
        for call in await observer.all_ended(2):
            call.error = None
        client.close()
        service.close()

        observer = Recorder()
        service = await rpc.serve_rpc(
            Handler(), bind="tcp://127.0.0.1:*", observer=observer
        )
        (endpoint,) = service.transport.bindings()
        client = await other.connect_rpc(connect=endpoint)
        assert await client.call.func() is None
        [call] = await observer.all_ended(1)
        assert call.carrier == {}
        client.close()
        service.close()
        await client.wait_closed()
        await service.wait_closed()

    if package == "aiozmq":
        loop = importlib.import_module("aiozmq").ZmqEventLoop()
    loop.run_until_complete(main())
    if package == "aiozmq":
        loop.close()


@pytest.mark.parametrize(
    "frame",
    [b"", b"x", b"\0aiozmq_speedups.carrier\0", b"\0aiozmq_speedups.carrier\0\xc1"],
)
def test_frames_that_are_no_carrier(frame):
    from aiozmq_speedups.rpc._observe import _carrier_in

    assert _carrier_in(frame) == {}

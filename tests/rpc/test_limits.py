"""Bounds: calls that wait, handlers that run, and waiting for room."""

import asyncio

import pytest
import zmq


def make_handler(rpc):
    class Handler(rpc.AttrHandler):
        def __init__(self):
            self.gate = asyncio.Event()
            self.running = self.most = self.started = 0

        @rpc.method
        def func(self, arg=None):
            return arg

        @rpc.method
        async def wait(self, arg=None):
            self.started += 1
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                await self.gate.wait()
            finally:
                self.running -= 1
            return arg

    return Handler()


def limits_test(kind="rpc", **options):
    """Runs a test coroutine with (rpc, client, service, handler)."""

    def decorate(test):
        def run_test(ours, run):
            async def go():
                handler = make_handler(ours.rpc)
                async with ours.served(kind, handler, **options) as pair:
                    await test(ours.rpc, *pair, handler)
                    handler.gate.set()

            run(go())

        run_test.__name__ = test.__name__
        run_test.__doc__ = test.__doc__
        return run_test

    return decorate


@pytest.mark.parametrize("limit", [0, -1, "5", 1.5])
def test_limits_are_checked(ours, run, limit):
    error = ValueError if isinstance(limit, int) else TypeError
    rpc = ours.rpc

    async def go():
        with pytest.raises(error):
            await rpc.connect_rpc(connect="inproc://x", max_pending=limit)
        for serve in (rpc.serve_rpc, rpc.serve_pipeline, rpc.serve_pubsub):
            with pytest.raises(error):
                await serve({}, bind="inproc://x", max_concurrency=limit)

    run(go())


@limits_test(client={"max_pending": 3})
async def test_max_pending(rpc, client, service, handler):
    calls = [client.call.wait(i) for i in range(3)]
    for _ in range(2):
        with pytest.raises(rpc.TooManyCallsError) as exc:
            client.call.func()
        assert exc.value.args == (3,)
        assert isinstance(exc.value, rpc.Error)
    # It holds for the client with another timeout, too.
    with pytest.raises(rpc.TooManyCallsError):
        client.with_timeout(60).call.func()
    # Cancelled calls wait no longer.
    calls.pop().cancel()
    calls.append(client.call.wait(2))
    handler.gate.set()
    assert await asyncio.gather(*calls) == [0, 1, 2]
    assert await client.call.func(5) == 5


@limits_test(client={"max_pending": 1})
async def test_max_pending_of_one(rpc, client, service, handler):
    for i in range(300):
        assert await client.call.func(i) == i
        await client.drain()
    with pytest.raises(TimeoutError):
        await client.with_timeout(0.01).call.wait()
    call = client.call.wait()
    with pytest.raises(rpc.TooManyCallsError):
        client.call.func()
    handler.gate.set()
    await call


@limits_test(client={"max_pending": 5})
async def test_drain_gives_room_to_each_task(rpc, client, service, handler):
    handler.gate.set()
    answers = []

    async def worker(number):
        for i in range(20):
            await client.drain()
            answers.append(await client.call.wait((number, i)))

    await asyncio.gather(*map(worker, range(20)))
    assert sorted(answers) == [(n, i) for n in range(20) for i in range(20)]
    assert handler.most <= 5
    assert not client._proto._drainers


@limits_test(client={"max_pending": 1})
async def test_drains_that_make_no_call_or_are_cancelled(rpc, client, service, handler):
    call = client.call.wait()
    drains = [asyncio.ensure_future(client.drain()) for _ in range(10)]
    await asyncio.sleep(0)
    assert not any(drain.done() for drain in drains)
    drains[0].cancel()
    drains[5].cancel()
    handler.gate.set()
    await call
    done, _ = await asyncio.wait(drains)
    assert [drain.cancelled() for drain in drains].count(True) == 2
    assert all(drain.cancelled() or drain.result() is None for drain in drains)


@limits_test(client={"max_pending": 1})
async def test_room_passes_over_a_cancelled_drain(rpc, client, service, handler):
    call = client.call.wait()
    first, second = [asyncio.ensure_future(client.drain()) for _ in range(2)]
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.sleep(0)  # the first is woken, but does not run
    first.cancel()
    await second
    assert first.done()


@limits_test(client={"max_pending": 1})
async def test_closing_ends_drain(rpc, client, service, handler):
    client.call.wait()
    drains = [asyncio.ensure_future(client.drain()) for _ in range(3)]
    await asyncio.sleep(0)
    client.close()
    for drain in drains:
        with pytest.raises(rpc.ServiceClosedError):
            await drain
    with pytest.raises(rpc.ServiceClosedError):
        await client.drain()


@pytest.mark.parametrize("kind", ["rpc", "pipeline"])
def test_drain_waits_for_a_slow_peer(ours, run, kind):
    async def go():
        connect = getattr(ours.rpc, f"connect_{kind}")
        client = await connect(bind="tcp://127.0.0.1:*")
        client.transport.setsockopt(zmq.LINGER, 0)
        client.transport.set_write_buffer_limits(high=1000)
        call = client.call if kind == "rpc" else client.notify
        await client.drain()
        for _ in range(100):  # there is no peer at all
            sent = call.func(b"x" * 100)
        drain = asyncio.ensure_future(client.drain())
        await asyncio.sleep(0)
        assert not drain.done()
        (endpoint,) = client.transport.bindings()
        peer_type = zmq.ROUTER if kind == "rpc" else zmq.PULL
        async with ours.opened(peer_type, connect=endpoint) as peer:
            await drain
            for _ in range(100):
                await peer.read()
        sent.cancel()
        client.close()
        await client.wait_closed()
        with pytest.raises(ours.rpc.ServiceClosedError):
            await client.drain()

    run(go())


@limits_test(server={"max_concurrency": 4})
async def test_max_concurrency(rpc, client, service, handler):
    calls = [client.call.wait(i) for i in range(50)]
    last = client.call.func("last")
    while handler.started < 4:
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert handler.started == 4
    assert not last.done()
    handler.gate.set()
    assert await asyncio.gather(*calls) == list(range(50))
    assert await last == "last"
    assert handler.most <= 4
    assert not service._proto.held


@limits_test(server={"max_concurrency": 1, "timeout": 0.01})
async def test_max_concurrency_with_timeouts(rpc, client, service, handler):
    calls = [client.call.wait(i) for i in range(5)]
    for call in calls:
        with pytest.raises(TimeoutError):
            await call
    assert handler.most == 1
    assert await client.call.func(1) == 1


@limits_test(server={"max_concurrency": 1})
async def test_max_concurrency_and_pausing_by_hand(rpc, client, service, handler):
    first = client.call.wait(1)
    while not handler.started:
        await asyncio.sleep(0)
    assert service._proto.held
    with pytest.raises(RuntimeError):
        service.transport.pause_reading()
    service.transport.resume_reading()
    second = client.call.wait(2)
    while handler.started < 2:
        await asyncio.sleep(0)
    handler.gate.set()
    assert await first == 1
    assert await second == 2
    assert await client.call.func(3) == 3


@limits_test("pipeline", server={"max_concurrency": 2})
async def test_max_concurrency_of_a_pipeline(rpc, client, service, handler):
    for _ in range(20):
        await client.notify.wait()
    while handler.started < 2:
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert handler.started == 2
    handler.gate.set()
    while handler.started < 20:
        await asyncio.sleep(0)
    assert handler.most == 2


@limits_test()
async def test_ten_thousand_calls_that_end_together(rpc, client, service, handler):
    """A ROUTER drops what is beyond its mark: all answers are below."""
    (endpoint,) = service.transport.bindings()
    other = await rpc.connect_rpc(connect=endpoint)
    # More than the kernel's buffers hold for a client that does not read meanwhile.
    args = [f"{i:2000}" for i in range(10_000)]
    calls = [client.call.wait(arg) for arg in args]
    while handler.running < len(calls):
        await asyncio.sleep(0)
    handler.gate.set()
    assert await other.call.func(1) == 1
    assert await asyncio.gather(*calls) == args
    other.close()
    await other.wait_closed()


def test_high_water_marks_of_a_server(ours, run):
    async def go():
        for options, expected in (({}, 100_000), ({"sndhwm": 7}, 7)):
            async with ours.served("rpc", {}, server=options) as (_, service):
                assert service.transport.getsockopt(zmq.SNDHWM) == expected

    run(go())

"""shutdown(): what runs is finished, nothing new is begun."""

import asyncio

import pytest


def make_handler(rpc):
    class Handler(rpc.AttrHandler):
        def __init__(self):
            self.gate = asyncio.Event()
            self.started = asyncio.Event()
            self.finished = []

        @rpc.method
        def func(self, arg=None):
            return arg

        @rpc.method
        async def wait(self, arg=None):
            self.started.set()
            await self.gate.wait()
            self.finished.append(arg)

        @rpc.method
        async def stubborn(self):
            self.started.set()
            while not self.gate.is_set():
                try:
                    await self.gate.wait()
                except asyncio.CancelledError:
                    pass

        @rpc.method
        async def end(self):
            self.started.set()
            await self.service.shutdown()

    return Handler()


def shutdown_test(kind="rpc", **options):
    """Runs a test coroutine with (rpc, client, service, handler)."""

    def decorate(test):
        def run_test(ours, run):
            async def go():
                handler = make_handler(ours.rpc)
                async with ours.served(kind, handler, **options) as pair:
                    await test(ours.rpc, *pair, handler)

            run(go())

        run_test.__name__ = test.__name__
        run_test.__doc__ = test.__doc__
        return run_test

    return decorate


def is_closed(rpc, service):
    try:
        service.transport.is_closing()
    except rpc.ServiceClosedError:
        return True
    return False


async def refused(rpc, call):
    with pytest.raises(rpc.GenericError) as exc:
        await call
    assert exc.value.exc_type == "aiozmq.rpc.base.ServiceClosedError"


@shutdown_test()
async def test_running_handlers_are_finished(rpc, client, service, handler):
    calls = [client.call.wait(i) for i in range(5)]
    await handler.started.wait()
    while len(service._proto.pending_waiters) < 5:
        await asyncio.sleep(0)
    end = asyncio.ensure_future(service.shutdown())
    await asyncio.sleep(0)
    # New requests are refused while it waits.
    for name in ("func", "wait", "unknown"):
        await refused(rpc, getattr(client.call, name)())
    assert not end.done()
    handler.gate.set()
    assert await asyncio.gather(*calls) == [None] * 5
    await end
    assert sorted(handler.finished) == list(range(5))
    assert is_closed(rpc, service)


@shutdown_test()
async def test_idle(rpc, client, service, handler):
    assert await client.call.func(1) == 1
    for each in (service, client):
        await each.shutdown()
        assert is_closed(rpc, each)
        await each.shutdown(timeout=1)
        each.close()


@shutdown_test(server={"max_concurrency": 1})
async def test_requests_held_back_are_refused(rpc, client, service, handler):
    call = client.call.wait(1)
    others = [client.call.wait(i) for i in range(2, 5)]
    await handler.started.wait()
    end = asyncio.ensure_future(service.shutdown())
    for other in others:
        await refused(rpc, other)
    handler.gate.set()
    await call
    await end
    assert handler.finished == [1]


@shutdown_test()
async def test_timeout_cancels_handlers(rpc, client, service, handler):
    calls = [client.call.wait(), client.call.stubborn()]
    await handler.started.wait()
    while len(service._proto.pending_waiters) < 2:
        await asyncio.sleep(0)
    await service.shutdown(timeout=0.01)
    assert is_closed(rpc, service)
    # It was told before the end.
    with pytest.raises(rpc.GenericError) as exc:
        await calls[0]
    assert exc.value.exc_type == "asyncio.exceptions.CancelledError"
    assert not handler.finished
    handler.gate.set()
    calls[1].cancel()
    while service._proto.pending_waiters:
        await asyncio.sleep(0)


@shutdown_test()
async def test_cancelling_closes(rpc, client, service, handler):
    call = client.call.wait()
    await handler.started.wait()
    end = asyncio.ensure_future(service.shutdown())
    await asyncio.sleep(0)
    end.cancel()
    with pytest.raises(asyncio.CancelledError):
        await end
    await service.wait_closed()
    assert is_closed(rpc, service)
    call.cancel()


@shutdown_test()
async def test_closing_and_two_shutdowns_at_once(rpc, client, service, handler):
    call = client.call.wait()
    await handler.started.wait()
    ends = [asyncio.ensure_future(service.shutdown()) for _ in range(2)]
    await asyncio.sleep(0)
    service.close()
    await asyncio.gather(*ends)
    call.cancel()


@shutdown_test()
async def test_by_a_handler(rpc, client, service, handler):
    handler.service = service
    call = client.call.end()
    await service.wait_closed()
    call.cancel()


@shutdown_test()
async def test_client_waits_for_answers(rpc, client, service, handler):
    calls = [client.call.wait() for _ in range(3)]
    cancelled = client.call.wait()
    cancelled.cancel()
    end = asyncio.ensure_future(client.shutdown())
    await asyncio.sleep(0)
    with pytest.raises(rpc.ServiceClosedError):
        client.call.func()
    with pytest.raises(rpc.ServiceClosedError):
        await client.drain()
    assert not end.done()
    handler.gate.set()
    assert await asyncio.gather(*calls) == [None] * 3
    await end
    assert is_closed(rpc, client)


@shutdown_test()
async def test_client_with_timeout(rpc, client, service, handler):
    call = client.call.wait()
    await client.shutdown(timeout=0.01)
    assert call.cancelled()
    assert is_closed(rpc, client)


def test_client_without_a_server(ours, run):
    """What ZeroMQ cannot take is given up at the timeout."""

    async def go():
        client = await ours.rpc.connect_pipeline(bind="tcp://127.0.0.1:*")
        client.transport.set_write_buffer_limits(high=0)
        for _ in range(10):
            sent = client.notify.func()
        assert client.transport.get_write_buffer_size() > 0
        await client.shutdown(timeout=0.01)
        assert is_closed(ours.rpc, client)
        await sent

    run(go())


@shutdown_test("pipeline")
async def test_pipeline(rpc, client, service, handler):
    await client.notify.wait(1)
    await handler.started.wait()
    end = asyncio.ensure_future(service.shutdown())
    await asyncio.sleep(0)
    await client.notify.wait(2)  # is never received
    await client.shutdown()
    with pytest.raises(rpc.ServiceClosedError):
        client.notify.wait(3)
    assert not end.done()
    handler.gate.set()
    await end
    assert handler.finished == [1]

"""Notifications, as aiozmq's documentation has them."""

import asyncio
import logging
from unittest import mock

import msgpack
import pytest
import zmq


def make_handler(rpc, queue):
    class Handler(rpc.AttrHandler):
        @rpc.method
        def func(self, *args, **kwargs):
            queue.put_nowait((args, kwargs))

        @rpc.method
        async def coro(self, a, b=2):
            await asyncio.sleep(0)
            queue.put_nowait((a, b))

        @rpc.method
        def func_error(self):
            raise ValueError("wrong")

        @rpc.method
        async def coro_error(self):
            raise ValueError("wrong")

        @rpc.method
        def suspicious(self, arg):
            return arg

        @rpc.method
        async def suspicious_coro(self, arg):
            return arg

        @rpc.method
        async def forever(self):
            queue.put_nowait("started")
            await asyncio.get_running_loop().create_future()

        @rpc.method
        async def cancelled(self):
            queue.put_nowait("cancelled")
            raise asyncio.CancelledError

    return Handler()


def pipeline_test(**server):
    """Runs a test coroutine with (impl, client, service, queue of the calls)."""

    def decorate(test):
        def run_test(impl, run, rpc_log):
            async def go():
                queue = asyncio.Queue()
                handler = make_handler(impl.rpc, queue)
                async with impl.served("pipeline", handler, server=server) as pair:
                    await test(impl, *pair, queue, rpc_log)

            run(go())

        run_test.__name__ = test.__name__
        run_test.__doc__ = test.__doc__
        return run_test

    return decorate


@pipeline_test()
async def test_calls(impl, client, service, queue, log):
    assert await client.notify.func() is None
    assert await queue.get() == ((), {})
    assert await client.notify.func(1, "x", b=[2]) is None
    assert await queue.get() == ((1, "x"), {"b": (2,)})
    assert await client.notify.coro(1) is None
    assert await queue.get() == (1, 2)
    await client.notify.coro(b=5, a=4)
    assert await queue.get() == (4, 5)


@pipeline_test()
async def test_calls_arrive_in_order(impl, client, service, queue, log):
    for i in range(500):
        client.notify.func(i)
    assert [await queue.get() for _ in range(500)] == [((i,), {}) for i in range(500)]


@pipeline_test()
async def test_awaiting_lets_the_loop_run(impl, client, service, queue, log):
    # The handler is in the same loop: a program may notify until it is called.
    while queue.empty():
        await client.notify.func()


@pipeline_test()
async def test_wrong_calls_are_logged(impl, client, service, queue, log):
    for name, args, error in (
        ("unknown", (), impl.rpc.NotFoundError),
        ("coro", (), impl.rpc.ParametersError),
        ("coro", (1, 2, 3), impl.rpc.ParametersError),
    ):
        await getattr(client.notify, name)(*args)
        record = await log.get()
        assert record.levelno == logging.ERROR
        assert record.msg == "Call to %r caused error: %r"
        assert record.args == (name, mock.ANY)
        assert record.exc_info[0] is error
    await client.notify.func()
    assert await queue.get() == ((), {})


@pipeline_test(log_exceptions=True)
async def test_exceptions_are_logged(impl, client, service, queue, log):
    for name in ("func_error", "coro_error"):
        await getattr(client.notify, name)()
        record = await log.get()
        assert record.levelno == logging.ERROR
        assert record.msg == (
            "An exception %r from method %r call occurred.\nargs = %s\nkwargs = %s\n"
        )
        assert record.args == (mock.ANY, name, "()", "{}")
        assert record.exc_info[0] is ValueError


@pipeline_test(log_exceptions=True, exclude_log_exceptions=[ValueError])
async def test_excluded_exceptions_are_not_logged(impl, client, service, queue, log):
    await client.notify.func_error()
    await client.notify.coro_error()
    await client.notify.cancelled()
    await client.notify.func()
    while await queue.get() != ((), {}):
        pass
    assert not log.records


@pipeline_test()
async def test_result_is_warned_of(impl, client, service, queue, log):
    for name in ("suspicious", "suspicious_coro"):
        await getattr(client.notify, name)(1)
        record = await log.get()
        assert record.levelno == logging.WARNING
        assert record.msg == "Pipeline handler %r returned not None"
        assert record.args == (name,)


@pipeline_test()
async def test_closed_client(impl, client, service, queue, log):
    client.close()
    await client.wait_closed()
    with pytest.raises(impl.rpc.ServiceClosedError):
        await client.notify.func()
    with pytest.raises(impl.rpc.ServiceClosedError):
        _ = client.transport


@pipeline_test()
async def test_closing_the_server_cancels_handlers(impl, client, service, queue, log):
    await client.notify.forever()
    assert await queue.get() == "started"
    (task,) = service._proto.pending_waiters
    service.close()
    await service.wait_closed()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert not service._proto.pending_waiters


@pipeline_test()
async def test_empty_name(impl, client, service, queue, log):
    with pytest.raises(ValueError, match="method name is empty"):
        await client.notify()


# -- What aiozmq does not do --


def test_futures_can_be_gathered_and_cancelled(ours, run):
    # aiozmq's future is a task, which may be cancelled before it sends.
    async def go():
        queue = asyncio.Queue()
        handler = make_handler(ours.rpc, queue)
        async with ours.served("pipeline", handler) as (client, _):
            futures = [client.notify.func(i) for i in range(3)]
            futures[1].cancel()
            results = await asyncio.gather(*futures, return_exceptions=True)
            assert results[0] is results[2] is None
            assert isinstance(results[1], asyncio.CancelledError)
            for i in range(3):
                assert await queue.get() == ((i,), {})

    run(go())


def test_server_timeout(ours, run, rpc_log):
    async def go():
        handler = make_handler(ours.rpc, asyncio.Queue())
        server = {"timeout": 0.01, "log_exceptions": True}
        async with ours.served("pipeline", handler, server=server) as (client, _):
            await client.notify.forever()
            record = await rpc_log.get()
            assert record.args[1] == "forever"
            assert record.exc_info[0] is TimeoutError

    run(go())


def test_generator_exit_of_a_coroutine(ours, run, rpc_log):
    async def go():
        rpc = ours.rpc

        @rpc.method
        async def leave():
            await asyncio.sleep(0)
            raise GeneratorExit

        server = {"log_exceptions": True}
        handler = {"leave": leave}
        async with ours.served("pipeline", handler, server=server) as (client, _):
            await client.notify.leave()
            record = await rpc_log.get()
            assert record.args[1] == "leave"
            assert record.exc_info[0] is GeneratorExit

    run(go())


@pytest.mark.parametrize(
    "frames",
    [
        [b"func"],
        [b"func", b"\x90"],
        [b"func", b"\x90", b"\x80", b"more"],
        [b"func", b"\x93", b"\x80"],
        [b"func", b"\x90", b""],
        [b"\xff", b"\x90", b"\x80"],
    ],
)
def test_malformed_message(ours, run, rpc_log, frames):
    async def go():
        queue = asyncio.Queue()
        handler = make_handler(ours.rpc, queue)
        async with ours.served("pipeline", handler) as (client, service):
            (endpoint,) = service.transport.bindings()
            async with ours.opened(zmq.PUSH, connect=endpoint) as peer:
                peer.write(frames)
                record = await rpc_log.get()
                assert record.levelno == logging.CRITICAL
                assert record.getMessage() == f"Cannot unpack {frames!r}"
                assert record.exc_info is not None
            await client.notify.func()
            assert await queue.get() == ((), {})

    run(go())


@pytest.mark.parametrize(
    ("args", "kwargs"), [({}, {}), (1, {}), ("ab", {}), (None, {}), ([], []), ([], 1)]
)
def test_arguments_of_wrong_type(ours, run, rpc_log, args, kwargs):
    async def go():
        queue = asyncio.Queue()
        handler = make_handler(ours.rpc, queue)
        async with ours.served("pipeline", handler) as (client, service):
            (endpoint,) = service.transport.bindings()
            async with ours.opened(zmq.PUSH, connect=endpoint) as peer:
                for name in (b"func", b"coro"):
                    peer.write([name, msgpack.packb(args), msgpack.packb(kwargs)])
                    record = await rpc_log.get()
                    assert record.exc_info[0] is ours.rpc.ParametersError
                    assert "should be a" in record.getMessage()
            await client.notify.func()
            assert await queue.get() == ((), {})

    run(go())


def test_slow_peer_slows_the_client(ours, run):
    async def go():
        queue = asyncio.Queue()
        client = await ours.rpc.connect_pipeline(bind="tcp://127.0.0.1:*")
        (endpoint,) = client.transport.bindings()
        client.transport.setsockopt(zmq.SNDHWM, 1)
        client.transport.set_write_buffer_limits(high=1000, low=100)
        sent = []
        # Nobody takes them: at last the future waits.
        while client.transport.get_write_buffer_size() <= 1000:
            sent.append(client.notify.func(b"x" * 100))
        await asyncio.sleep(0)
        last = client.notify.func("last")
        for _ in range(10):
            await asyncio.sleep(0)
        assert not last.done()
        handler = make_handler(ours.rpc, queue)
        service = await ours.rpc.serve_pipeline(handler, connect=endpoint)
        await asyncio.gather(*sent, last)
        for _ in sent:
            assert await queue.get() == ((b"x" * 100,), {})
        assert await queue.get() == (("last",), {})
        for serv in (client, service):
            serv.close()
            await serv.wait_closed()

    run(go())


def test_closing_frees_who_waits_for_a_slow_peer(ours, run):
    async def go():
        client = await ours.rpc.connect_pipeline(bind="tcp://127.0.0.1:*")
        client.transport.set_write_buffer_limits(high=0)
        waiter = client.notify.func(1)
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiter.done()
        client.transport.abort()
        await client.wait_closed()
        assert await waiter is None

    run(go())


def test_calls_begin_in_order(ours, run):
    """Also where several arrive in one turn, functions and coroutines mixed."""

    async def go():
        order = []
        done = asyncio.Event()
        rpc = ours.rpc

        @rpc.method
        def func(i):
            order.append(i)
            if i == 199:
                done.set()

        @rpc.method
        async def coro(i):
            order.append(i)
            await asyncio.sleep(0)

        async with ours.served("pipeline", {"func": func, "coro": coro}) as (
            client,
            service,
        ):
            for i in range(200):
                (client.notify.func if i % 3 else client.notify.coro)(i)
            await done.wait()
            assert order == list(range(200))
            await asyncio.sleep(0)
            assert service._proto.unstarted == 0

    run(go())

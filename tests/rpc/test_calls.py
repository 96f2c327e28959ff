"""A call's life at the client and at the server: cancel, timeouts, late answers."""

import asyncio
import gc
import logging
import struct
import weakref

import msgpack
import pytest
import zmq

from aiozmq_speedups.rpc import _client as client_module
from aiozmq_speedups.rpc._signature import spec_of

REPLY = struct.Struct("=HHLd?")


def make_handler(rpc):
    class Handler(rpc.AttrHandler):
        def __init__(self):
            self.gate = asyncio.Event()
            self.started = asyncio.Event()
            self.cancelled = asyncio.Event()

        @rpc.method
        def func(self, arg=None):
            return arg

        @rpc.method
        async def wait(self, arg=None):
            self.started.set()
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
            return arg

        @rpc.method
        async def stubborn(self):
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                return "went on"

    return Handler()


def calls_test(**served):
    """Runs a test coroutine with (rpc, client, service, handler, log)."""

    def decorate(test):
        def run_test(ours, run, rpc_log):
            async def go():
                handler = make_handler(ours.rpc)
                async with ours.served("rpc", handler, **served) as pair:
                    await test(ours.rpc, *pair, handler, rpc_log)

            run(go())

        run_test.__name__ = test.__name__
        run_test.__doc__ = test.__doc__
        return run_test

    return decorate


# -- The client's table of calls --


@calls_test()
async def test_a_call_is_a_future_and_no_task(rpc, client, service, handler, log):
    tasks = asyncio.all_tasks()
    call = client.call.func(1)
    assert asyncio.isfuture(call)
    assert asyncio.all_tasks() == tasks
    assert list(client._proto.calls.values()) == [call]
    assert await call == 1
    assert await call == 1
    assert not client._proto.calls


@calls_test()
async def test_functions_run_without_tasks(rpc, client, service, handler, log):
    tasks = []
    asyncio.get_running_loop().set_task_factory(
        lambda loop, coro, **kw: tasks.append(coro) or asyncio.Task(coro, loop=loop)
    )
    calls = [client.call.func(i) for i in range(5)]
    for i, call in enumerate(calls):
        assert await call == i
    assert not tasks
    handler.gate.set()
    assert await client.call.wait(1) == 1
    assert len(tasks) == 1


@pytest.mark.parametrize("timeout", [None, 60])
def test_cancelled_calls_are_forgotten(ours, run, rpc_log, timeout):
    async def go():
        handler = make_handler(ours.rpc)
        async with ours.served("rpc", handler) as (client, _):
            timed = client.with_timeout(timeout)
            calls = [timed.call.wait(i) for i in range(3)]
            assert len(client._proto.calls) == 3
            assert calls[1].cancel()
            assert not calls[1].cancel()
            assert len(client._proto.calls) == 2
            with pytest.raises(asyncio.CancelledError):
                await calls[1]
            # Its answer comes, and is noticed at the debug level only.
            handler.gate.set()
            assert await calls[0] == 0
            assert await calls[2] == 2
            record = await rpc_log.get()
            assert record.levelno == logging.DEBUG
            assert record.msg == (
                "The future for request #%08x has been cancelled, "
                "skip the received result."
            )
            assert not client._proto.calls
            assert not client._proto._forgotten
            assert not rpc_log.records

    run(go())


@calls_test()
async def test_cancelled_task_cancels_its_call(rpc, client, service, handler, log):
    async def wait():
        await client.call.wait()

    task = asyncio.ensure_future(wait())
    await handler.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not client._proto.calls


@calls_test(client={"timeout": 0.01})
async def test_timed_out_calls_are_forgotten(rpc, client, service, handler, log):
    calls = [client.call.wait(i) for i in range(3)]
    for call in calls:
        with pytest.raises(TimeoutError):
            await call
    assert not client._proto.calls
    handler.gate.set()
    for _ in calls:
        assert (await log.get()).levelno == logging.DEBUG
    assert not client._proto._forgotten
    assert await client.with_timeout(60).call.func(1) == 1


@calls_test()
async def test_one_timer_serves_all_timeouts(rpc, client, service, handler, log):
    proto = client._proto
    timed = client.with_timeout(60)
    assert await timed.call.func(0) == 0
    timer = proto._timer
    for i in range(1000):
        assert await timed.call.func(i) == i
    assert proto._timer is timer
    # Those of calls that are done are dropped.
    assert len(proto._deadlines) <= client_module._SWEEP_SIZE + 2
    # An earlier one comes earlier.
    with pytest.raises(TimeoutError):
        await client.with_timeout(0.01).call.wait()
    assert timer.cancelled()


@calls_test()
async def test_timeouts_expire_in_order(rpc, client, service, handler, log):
    expired = []
    calls = []
    for delay in (0.03, 0.01, 0.04, 0.02):
        call = client.with_timeout(delay).call.wait()
        call.add_done_callback(expired.append)
        calls.append(call)
    # That of the deadlines: a slow machine takes its time between two calls.
    by_id = client._proto.calls
    order = [by_id[req_id] for _, req_id in sorted(client._proto._deadlines)]
    assert len(order) == len(calls)
    endless = client.call.wait()
    await asyncio.wait(calls)
    assert expired == order
    assert all(type(call.exception()) is TimeoutError for call in calls)
    assert list(client._proto.calls.values()) == [endless]
    assert not client._proto._deadlines and client._proto._timer is None


@calls_test()
async def test_odd_timeouts(rpc, client, service, handler, log):
    for timeout in (0, -1):
        with pytest.raises(TimeoutError):
            await client.with_timeout(timeout).call.wait()
    with pytest.raises(TypeError):
        client.with_timeout("soon").call.func()
    # It would stay first in the heap, before every later one.
    with pytest.raises(ValueError):
        client.with_timeout(float("nan")).call.wait()
    assert not client._proto.calls and not client._proto._deadlines
    with pytest.raises(TimeoutError):
        await client.with_timeout(0.01).call.wait()


@calls_test()
async def test_forgotten_calls_are_bounded(rpc, client, service, handler, log):
    for _ in range(client_module._MAX_FORGOTTEN + 10):
        client.call.wait().cancel()
    assert len(client._proto._forgotten) == client_module._MAX_FORGOTTEN
    assert not client._proto.calls


@calls_test()
async def test_ids_in_use_are_skipped(rpc, client, service, handler, log):
    waiting = client.call.wait("first")
    (first,) = client._proto.calls
    client._proto.counter = first - 1
    assert await client.call.func(2) == 2
    client._proto.counter = 0xFFFFFFFF
    client._proto.calls[0] = client._proto.calls[first]  # as if it were taken
    assert await client.call.func(3) == 3
    del client._proto.calls[0]
    handler.gate.set()
    assert await waiting == "first"


@calls_test()
async def test_result_given_by_the_caller(rpc, client, service, handler, log):
    call = client.call.wait()
    call.set_result("mine")
    handler.gate.set()
    assert (await log.get()).levelno == logging.DEBUG
    assert await call == "mine"
    assert not client._proto.calls


@calls_test()
async def test_closing_cancels_all_calls(rpc, client, service, handler, log):
    calls = [client.call.wait() for _ in range(5)]
    calls += [client.with_timeout(60).call.wait() for _ in range(5)]
    client.close()
    await client.wait_closed()
    for call in calls:
        assert call.cancelled()
    assert not client._proto.calls


@calls_test()
async def test_wait_closed_may_be_cancelled(rpc, client, service, handler, log):
    waiter = asyncio.ensure_future(client.wait_closed())
    await asyncio.sleep(0)
    waiter.cancel()
    other = asyncio.ensure_future(client.wait_closed())
    await asyncio.sleep(0)
    client.close()
    await other
    assert waiter.cancelled()


def test_closed_clients_are_freed(ours, run):
    async def go():
        handler = make_handler(ours.rpc)
        async with ours.served("rpc", handler) as (client, service):
            calls = [client.call.wait(), client.with_timeout(60).call.wait()]
            await client.call.func()
            await handler.started.wait()
            refs = [weakref.ref(obj) for obj in (client._proto, service._proto)]
            refs += [weakref.ref(call) for call in calls]
        await asyncio.sleep(0)
        return refs

    refs = run(go())
    gc.collect()
    assert [ref() for ref in refs] == [None] * 4


# -- The server --


@calls_test(server={"timeout": 0.01})
async def test_server_timeout(rpc, client, service, handler, log):
    with pytest.raises(TimeoutError):
        await client.call.wait()
    assert handler.cancelled.is_set()
    assert not service._proto.pending_waiters
    handler.gate.set()
    assert await client.call.wait(5) == 5
    # A handler may decide to go on.
    assert await client.call.stubborn() == "went on"


@calls_test(server={"timeout": 0.01, "log_exceptions": True})
async def test_server_timeout_is_logged(rpc, client, service, handler, log):
    with pytest.raises(TimeoutError):
        await client.call.wait(1)
    record = await log.get()
    assert record.args[1:] == ("wait", "(1,)", "{}")
    assert record.exc_info[0] is TimeoutError


def test_cancelled_handlers_answer(ours, run):
    """aiozmq leaves the caller without an answer."""

    async def go():
        rpc = ours.rpc

        @rpc.method
        def func():
            raise asyncio.CancelledError

        @rpc.method
        async def coro():
            raise asyncio.CancelledError("reason")

        @rpc.method
        async def cancels_itself():
            asyncio.current_task().cancel()
            await asyncio.sleep(0)

        handler = {"func": func, "coro": coro, "cancels_itself": cancels_itself}
        async with ours.served("rpc", handler) as (client, service):
            for name in handler:
                with pytest.raises(rpc.GenericError) as exc:
                    await getattr(client.call, name)()
                assert exc.value.exc_type == "asyncio.exceptions.CancelledError"
            await asyncio.sleep(0)
            assert not service._proto.pending_waiters

    run(go())


def test_closing_the_service_from_a_handler(ours, run):
    async def go():
        rpc = ours.rpc
        service = None

        @rpc.method
        def func():
            service.close()
            return 1

        @rpc.method
        async def coro():
            service.close()
            await service.wait_closed()
            await asyncio.sleep(1000)

        for name in ("func", "coro"):
            async with ours.served("rpc", {"func": func, "coro": coro}) as pair:
                client, service = pair
                call = getattr(client.call, name)()
                await service.wait_closed()
                call.cancel()
        service = None

    run(go())


def test_more_calls_from_a_handler(ours, run):
    """A handler that is a client of its own server."""

    async def go():
        rpc = ours.rpc

        @rpc.method
        async def count(n):
            return n if n == 0 else 1 + await client.call.count(n - 1)

        async with ours.served("rpc", {"count": count}) as (client, _):
            assert await client.call.count(50) == 50

    run(go())


# -- Exceptions --


class Odd(Exception):
    def __init__(self, a, b):
        super().__init__()


class BadRepr(Exception):
    def __repr__(self):
        raise RuntimeError("no repr")


class BadArgs(Exception):
    @property
    def args(self):
        raise RuntimeError("no args")


class Quit(BaseException):
    pass


RAISED = [
    (ValueError("x", 1, (2, "y")), ValueError, ("x", 1, (2, "y"))),
    (KeyError("k"), KeyError, ("k",)),
    (OSError(2, "no file"), FileNotFoundError, (2, "no file")),
    (UnicodeDecodeError("utf-8", b"x", 0, 1, "r"), UnicodeDecodeError, None),
    (TimeoutError(), TimeoutError, ()),
    (ExceptionGroup("g", [ValueError(1)]), ExceptionGroup, None),
    (StopIteration(5), "builtins.StopIteration", None),
    (StopAsyncIteration(5), StopAsyncIteration, (5,)),
    (GeneratorExit(), "builtins.GeneratorExit", None),
    (Quit(1), f"{__name__}.Quit", None),
    (Odd(1, 2), f"{__name__}.Odd", None),
    (BadRepr("text"), f"{__name__}.BadRepr", None),
    (ValueError(object(), 5, "\ud800", [2**70]), ValueError, None),
    (ValueError("x" * 3_000_000), ValueError, ("x" * 3_000_000,)),
    (asyncio.QueueFull(), asyncio.QueueFull, ()),
]


@pytest.mark.parametrize(
    ("raised", "expected", "args"), RAISED, ids=lambda value: type(value).__name__
)
def test_exceptions_of_handlers(ours, run, raised, expected, args):
    async def go():
        rpc = ours.rpc

        @rpc.method
        def func():
            raise raised

        @rpc.method
        async def coro():
            raise raised

        async with ours.served("rpc", {"func": func, "coro": coro}) as (client, _):
            names = ["func", "coro"]
            if isinstance(raised, StopIteration):
                names.remove("coro")  # special to the interpreter there
            for name in names:
                with pytest.raises(Exception) as caught:
                    await getattr(client.call, name)()
                if isinstance(expected, str):
                    assert type(caught.value) is rpc.GenericError
                    assert caught.value.exc_type == expected
                else:
                    assert type(caught.value) is expected
                    if args is not None:
                        assert caught.value.args == args
            assert not client._proto.calls

    try:
        run(go())
    finally:
        raised.__traceback__ = raised.__context__ = None


def test_a_handler_that_is_closed_answers_nothing(ours, run):
    """GeneratorExit is not the handler's then; the collector may close it anywhere."""

    async def go():
        rpc = ours.rpc
        proto = None
        written = []

        @rpc.method
        async def suspend():
            await asyncio.sleep(10)

        @rpc.method
        async def close_other():
            other = proto._run(suspend, spec_of(suspend), (), {}, [], 0, "other")
            other.send(None)
            write, proto._write = proto._write, written.append
            other.close()
            proto._write = write

        async with ours.served("rpc", {"call": close_other}) as (client, service):
            proto = service._proto
            await client.call.call()
            assert not written

    run(go())


def test_unpackable_args_become_their_repr(ours, run):
    async def go():
        rpc = ours.rpc

        class Thing:
            def __repr__(self):
                return "<thing \ud800>"

        class Broken:
            def __repr__(self):
                raise OSError

        @rpc.method
        def func():
            raise ValueError(Thing(), 5, Broken())

        async with ours.served("rpc", {"func": func}) as (client, _):
            with pytest.raises(ValueError) as exc:
                await client.call.func()
            assert exc.value.args == (
                "<thing \\ud800>",
                5,
                "<Broken: its repr fails, OSError>",
            )

    run(go())


def test_rpc_errors_have_aiozmq_names(ours, run):
    async def go():
        rpc = ours.rpc

        class MyNotFound(rpc.NotFoundError):
            pass

        errors = {
            "not_found": rpc.NotFoundError("a"),
            "parameters": rpc.ParametersError("a"),
            "error": rpc.Error("a"),
            "closed": rpc.ServiceClosedError(),
            "generic": rpc.GenericError("some.Error", (1,), "Error(1)"),
            "mine": MyNotFound("a"),
            "stream": ours.stream.ZmqStreamClosed(),
        }

        @rpc.method
        def func(name):
            raise errors[name]

        async with ours.served("rpc", {"func": func}) as (client, _):

            async def caught(name):
                with pytest.raises(rpc.Error) as exc:
                    await client.call.func(name)
                return exc.value

            assert type(await caught("not_found")) is rpc.NotFoundError
            assert type(await caught("parameters")) is rpc.ParametersError
            base = "aiozmq.rpc.base."
            assert (await caught("error")).exc_type == base + "Error"
            assert (await caught("closed")).exc_type == base + "ServiceClosedError"
            generic = await caught("generic")
            assert generic.exc_type == base + "GenericError"
            assert generic.arguments == ("some.Error", (1,), "Error(1)")
            assert (await caught("mine")).exc_type.endswith("MyNotFound")
            assert (await caught("stream")).exc_type == "aiozmq.stream.ZmqStreamClosed"
        for error in errors.values():
            error.__traceback__ = None

    run(go())


def refuse(*args):
    raise RuntimeError("refused")


@pytest.mark.parametrize("found", [refuse, lambda *a: "no exception", Odd, 5, None])
def test_bad_error_table(ours, run, found):
    async def go():
        rpc = ours.rpc

        @rpc.method
        def func():
            raise Quit(1)

        table = {f"{__name__}.Quit": found}
        async with ours.served(
            "rpc", {"func": func}, client={"error_table": table}
        ) as (client, _):
            with pytest.raises(rpc.GenericError) as exc:
                await client.call.func()
            assert exc.value.arguments == (1,)

    run(go())


# -- Answers of a hostile server --


@pytest.mark.parametrize(
    ("is_error", "body"),
    [
        (False, b""),
        (False, b"\xc1"),
        (False, b"\xc0\xc0"),
        (True, b"\x91"),
        (True, msgpack.packb(None)),
        (True, msgpack.packb(5)),
        (True, msgpack.packb([])),
        (True, msgpack.packb(["a", "b"])),
        (True, msgpack.packb(["a", "b", "c", "d"])),
        (True, msgpack.packb([{}, (), ""])),
        (False, msgpack.packb(msgpack.ExtType(126, b"cos\nsystem\n."))),
    ],
)
def test_garbage_answer(ours, run, rpc_log, is_error, body):
    """It is logged and the caller gets an error, once."""

    async def go():
        async with ours.opened(zmq.ROUTER, bind="tcp://127.0.0.1:*") as peer:
            (endpoint,) = peer.transport.bindings()
            client = await ours.rpc.connect_rpc(connect=endpoint)
            for c in (client, client.with_timeout(60)):
                call = c.call.func(1)
                identity, header, *_ = await peer.read()
                req_id = struct.unpack("=HHLd", header)[2]
                peer.write([identity, REPLY.pack(1, 2, req_id, 3, is_error), body])
                record = await rpc_log.get()
                assert record.levelno == logging.CRITICAL
                assert record.msg == "Cannot unpack %r"
                with pytest.raises(ours.rpc.Error, match="Cannot unpack"):
                    await call
                assert not client._proto.calls

            # And it goes on.
            call = client.call.func(2)
            identity, header, *_ = await peer.read()
            req_id = struct.unpack("=HHLd", header)[2]
            reply = [identity, REPLY.pack(1, 2, req_id, 3, False), b"\x02"]
            peer.write(reply)
            assert await call == 2
            # The same again is nobody's answer.
            peer.write(reply)
            record = await rpc_log.get()
            assert record.msg == "Unknown answer id: %d (%d %d %f %d) -> %s"
            assert record.args == (req_id, 1, 2, 3.0, False, 2)
            client.close()
            await client.wait_closed()

    run(go())


def test_odd_errors_of_the_server(ours, run):
    async def go():
        async with ours.opened(zmq.ROUTER, bind="tcp://127.0.0.1:*") as peer:
            (endpoint,) = peer.transport.bindings()
            client = await ours.rpc.connect_rpc(connect=endpoint)
            for answer in (
                [None, None, None],
                [5, 6, 7],
                ["builtins.ValueError", 5, ""],
                ["builtins.UnicodeDecodeError", ["x"], ""],
                ["builtins.StopIteration", [], ""],
                ["builtins.BaseException", [], ""],
            ):
                call = client.call.func()
                identity, header, *_ = await peer.read()
                req_id = struct.unpack("=HHLd", header)[2]
                reply = REPLY.pack(1, 2, req_id, 3, True)
                peer.write([identity, reply, msgpack.packb(answer)])
                with pytest.raises(ours.rpc.GenericError) as exc:
                    await call
                assert exc.value.exc_type == answer[0]
            client.close()
            await client.wait_closed()

    run(go())

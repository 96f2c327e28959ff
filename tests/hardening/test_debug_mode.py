"""Debug mode beside asyncio's: the same checks, logs and tracebacks."""

import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys

import pytest
from waiting import run_ready, until

from aiozmq_speedups import _ext, new_event_loop

accelerated = _ext.core is not None

pytestmark = pytest.mark.loops("speedups", "asyncio", closed_at_once=True)


@pytest.fixture
def loop(loop):
    loop.set_debug(True)
    return loop


def test_switch(loop):
    assert loop.get_debug() is True
    loop.set_debug(0)
    assert loop.get_debug() in (False, 0)
    loop.set_debug(True)
    assert loop.slow_callback_duration == 0.1


@pytest.mark.parametrize("value, expected", [("1", "True"), ("", "False")])
def test_environment(value, expected):
    program = (
        "import aiozmq_speedups as a; l = a.Loop(); print(l.get_debug()); l.close()"
    )
    env = os.environ | {"PYTHONASYNCIODEBUG": value}
    out = subprocess.check_output([sys.executable, "-c", program], env=env, text=True)
    assert out.strip() == expected


def test_development_mode():
    program = (
        "import aiozmq_speedups as a; l = a.Loop(); print(l.get_debug()); l.close()"
    )
    out = subprocess.check_output(
        [sys.executable, "-X", "dev", "-c", program], text=True
    )
    assert out.strip() == "True"


def test_slow_callback(loop, caplog):
    def slow_one():
        pass

    loop.slow_callback_duration = 0
    with caplog.at_level(logging.WARNING, "asyncio"):
        loop.call_soon(slow_one)
        run_ready(loop)
    messages = [r.getMessage() for r in caplog.records]
    [message] = [m for m in messages if "slow_one" in m]
    assert message.startswith(
        "Executing <Handle test_slow_callback.<locals>.slow_one()"
    )
    assert " created at " in message and "test_debug_mode.py" in message
    assert message.split(" took ")[1].endswith(" seconds")


def test_slow_task_is_named(loop, caplog):
    async def slow_coroutine():
        pass

    loop.slow_callback_duration = 0
    with caplog.at_level(logging.WARNING, "asyncio"):
        loop.run_until_complete(loop.create_task(slow_coroutine(), name="my task"))
    messages = [r.getMessage() for r in caplog.records]
    assert any(
        m.startswith("Executing <Task ") and "my task" in m and "slow_coroutine" in m
        for m in messages
    )
    caplog.clear()


def test_quick_callbacks_are_not_logged(loop, caplog):
    loop.slow_callback_duration = 1000
    with caplog.at_level(logging.WARNING, "asyncio"):
        loop.run_until_complete(asyncio.sleep(0))
    assert not caplog.records


def test_no_log_without_debug(loop, caplog):
    loop.set_debug(False)
    loop.slow_callback_duration = 0
    with caplog.at_level(logging.WARNING, "asyncio"):
        loop.run_until_complete(asyncio.sleep(0))
    assert not caplog.records


def test_source_traceback(loop):
    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))

    def fail():
        raise ZeroDivisionError

    def schedule(how, *args):
        return getattr(loop, how)(*args, fail)

    handles = [
        schedule("call_soon"),
        schedule("call_later", 0),
        schedule("call_at", loop.time()),
        schedule("call_soon_threadsafe"),
    ]
    for handle in handles:
        assert handle._source_traceback[-1].name == "schedule"
        assert "created at" in repr(handle) and "test_debug_mode.py" in repr(handle)
    for _ in range(3):
        run_ready(loop)
    assert len(contexts) == 4
    for context in contexts:
        assert context["source_traceback"][-1].name == "schedule"
    contexts.clear()


def test_no_source_traceback_without_debug(loop):
    loop.set_debug(False)
    assert loop.call_soon(print)._source_traceback is None
    run_ready(loop)


def test_exception_is_logged_with_its_origin(loop, caplog):
    loop.call_soon([].pop)
    run_ready(loop)
    text = caplog.text
    assert "Exception in callback list.pop()" in text
    assert "Object created at (most recent call last):" in text
    assert "test_exception_is_logged_with_its_origin" in text
    caplog.clear()


def test_callbacks_that_are_coroutines(loop):
    async def coroutine():
        pass

    for how, args in (
        ("call_soon", ()),
        ("call_later", (0,)),
        ("call_at", (0,)),
        ("call_soon_threadsafe", ()),
    ):
        with pytest.raises(TypeError, match="coroutines cannot be used with"):
            getattr(loop, how)(*args, coroutine)
        with pytest.raises(TypeError, match="a callable object was expected"):
            getattr(loop, how)(*args, "x")


def test_task_that_was_never_retrieved(loop, caplog):
    async def fail():
        raise ZeroDivisionError

    async def main():
        asyncio.ensure_future(fail())  # noqa: RUF006
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    loop.run_until_complete(main())

    gc.collect()
    assert "Task exception was never retrieved" in caplog.text
    assert "source_traceback: Object created at" in caplog.text
    caplog.clear()


def test_origin_of_coroutines(loop):
    """Debug mode has coroutines remember where they were made, while it runs."""

    async def coroutine():
        pass

    async def main():
        inside = coroutine()
        origin = inside.cr_origin
        inside.close()
        return origin

    assert loop.run_until_complete(main()) is not None
    outside = coroutine()
    assert outside.cr_origin is None
    outside.close()
    loop.set_debug(False)
    assert loop.run_until_complete(main()) is None


def test_switched_on_while_running(loop):
    loop.set_debug(False)

    async def coroutine():
        pass

    async def main():
        loop.set_debug(True)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        c = coroutine()
        origin = c.cr_origin
        c.close()
        return origin

    assert loop.run_until_complete(main()) is not None


def test_slow_callback_that_fails(loop, caplog):
    loop.slow_callback_duration = 0
    loop.call_soon([].pop)
    run_ready(loop)
    assert "Executing <Handle list.pop()" in caplog.text
    caplog.clear()


def test_callback_that_switches_it_off(loop):
    loop.call_soon(loop.set_debug, False)
    loop.call_soon(loop.set_debug, True)
    run_ready(loop)
    assert loop.get_debug()


def executed(caplog):
    messages = [r.getMessage() for r in caplog.records]
    caplog.clear()
    return [m for m in messages if m.startswith("Executing ")]


def test_slow_signal_handler(loop, caplog):
    def handler():
        pass

    loop.slow_callback_duration = 0
    loop.add_signal_handler(signal.SIGUSR1, handler)
    os.kill(os.getpid(), signal.SIGUSR1)
    with caplog.at_level(logging.WARNING, "asyncio"):
        for _ in range(3):
            run_ready(loop)
    loop.remove_signal_handler(signal.SIGUSR1)
    assert any(
        "test_slow_signal_handler.<locals>.handler" in m for m in executed(caplog)
    )


class Slow(asyncio.Protocol):
    def connection_made(self, transport):
        transport.set_write_buffer_limits(high=0)

    def data_received(self, data):
        pass

    def eof_received(self):
        pass

    def connection_lost(self, exc):
        self.lost.set()

    def __init__(self):
        self.lost = asyncio.Event()


class SlowBuffered(asyncio.BufferedProtocol):
    def get_buffer(self, sizehint):
        return bytearray(100)

    def buffer_updated(self, nbytes):
        pass


@pytest.fixture
def ours():
    loop = new_event_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0
    yield loop
    loop.close()


@pytest.mark.skipif(not accelerated, reason="asyncio names its own methods")
def test_slow_protocols_are_named(ours, caplog):
    async def main():
        made = []

        def factory():
            made.append(Slow())
            return made[-1]

        server = await ours.create_server(factory, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        transport, protocol = await ours.create_connection(Slow, *address)
        buffered, _ = await ours.create_connection(SlowBuffered, *address)
        await until(lambda: len(made) == 2)
        transport.write(b"x")
        transport.write_eof()
        await made[0].lost.wait()
        await protocol.lost.wait()
        server.close()
        made[1].lost.clear()
        buffered.abort()
        await made[1].lost.wait()

    with caplog.at_level(logging.WARNING, "asyncio"):
        ours.run_until_complete(main())
    messages = executed(caplog)
    for method in ("connection_made", "data_received", "eof_received"):
        assert any(f"Executing Slow.{method}() of <" in m for m in messages), method
    assert any("Executing Slow.connection_lost() of <" in m for m in messages)
    assert any("Executing SlowBuffered.connection_made()" in m for m in messages)
    assert any("Executing the protocol factory <function " in m for m in messages)


@pytest.mark.skipif(not accelerated, reason="asyncio names its own methods")
def test_slow_datagram_protocol_is_named(ours, caplog):
    class Datagrams(asyncio.DatagramProtocol):
        def datagram_received(self, data, addr):
            received.set_result(data)

    async def main():
        nonlocal received
        received = ours.create_future()
        transport, _ = await ours.create_datagram_endpoint(
            Datagrams, local_addr=("127.0.0.1", 0)
        )
        transport.sendto(b"x", transport.get_extra_info("sockname"))
        await received
        transport.close()
        await asyncio.sleep(0)

    received = None
    with caplog.at_level(logging.WARNING, "asyncio"):
        ours.run_until_complete(main())
    assert any(".Datagrams.datagram_received() of " in m for m in executed(caplog))


def test_a_loop_that_is_closed_while_a_stack_is_taken(ours):
    def hook(frame, event, arg):
        sys.setprofile(None)
        ours.close()

    for schedule in (ours.call_soon, ours.call_soon_threadsafe):
        sys.setprofile(hook)
        try:
            with pytest.raises(RuntimeError, match="closed"):
                schedule(print)
        finally:
            sys.setprofile(None)

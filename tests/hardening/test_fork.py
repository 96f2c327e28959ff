"""A forked child cannot use the parent's loop, nor disturb it."""

import asyncio
import json
import os
import signal
import socket
import traceback

import pytest

from aiozmq_speedups import Loop, new_event_loop
from aiozmq_speedups._ext import core

pytestmark = [
    pytest.mark.loops("speedups", closed_at_once=True),
    pytest.mark.skipif(core is None, reason="needs the C extension"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded"),
]


# A child that hangs is killed by SIGALRM.
SECONDS = 20


def in_child(function):
    """What `function` returns in a forked child (JSON), or its traceback."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(SECONDS)
        try:
            try:
                result = {"result": function()}
            except BaseException:
                result = {"error": traceback.format_exc()}
            with os.fdopen(write, "w") as f:
                json.dump(result, f)
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as f:
        result = json.loads(f.read() or '{"error": "the child died"}')
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert "error" not in result, result["error"]
    return result["result"]


def message_of(function, *args):
    try:
        function(*args)
    except RuntimeError as exc:
        return str(exc)
    return "no error"


def nothing():
    pass


def test_every_entry_point_says_so(loop):
    a, b = socket.socketpair()

    def child():
        calls = {
            "call_soon": lambda: loop.call_soon(nothing),
            "call_later": lambda: loop.call_later(0, nothing),
            "call_at": lambda: loop.call_at(0, nothing),
            "call_soon_threadsafe": lambda: loop.call_soon_threadsafe(nothing),
            "add_reader": lambda: loop.add_reader(a, nothing),
            "add_writer": lambda: loop.add_writer(a, nothing),
            "run_forever": loop.run_forever,
            "run_once": loop._run_once,
            "create_task": lambda: loop.create_task(asyncio.sleep(0)),
        }
        return {name: message_of(call) for name, call in calls.items()}

    with a, b:
        messages = in_child(child)
    for name, message in messages.items():
        assert "parent process" in message, (name, message)


def test_the_parents_descriptors_stay_watched(loop):
    a, b = socket.socketpair()
    got = []

    def on_readable():
        got.append(a.recv(10))
        loop.stop()

    def child():
        removed = loop.remove_reader(a)
        loop.close()
        loop.close()
        return removed, loop.is_closed()

    with a, b:
        loop.add_reader(a, on_readable)
        assert in_child(child) == [False, True]
        b.send(b"x")
        loop.run_forever()
        assert got == [b"x"]
        assert loop.remove_reader(a)


def test_the_child_may_drop_the_last_reference():
    loop = Loop()
    a, b = socket.socketpair()
    with a, b:
        loop.add_reader(a, loop.stop)
        loops = [loop]

        def child():
            import gc

            nonlocal loop
            loops.clear()
            del loop
            gc.collect()
            return "gone"

        assert in_child(child) == "gone"
        b.send(b"x")
        loops[0].run_forever()
        loops[0].close()


def test_the_child_runs_a_loop_of_its_own(loop):
    loop.call_soon(nothing)

    def child():
        async def main():
            server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            data = await reader.read()
            writer.close()
            await writer.wait_closed()
            server.close()
            await server.wait_closed()
            return data.decode()

        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(main())

    assert in_child(child) == ""
    loop.run_until_complete(asyncio.sleep(0))


def test_a_fork_inside_a_callback(loop):
    """The child is still inside run_forever() of the parent's loop."""

    async def main():
        def child():
            asyncio._set_running_loop(None)
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                own = runner.run(asyncio.sleep(0, "own loop"))
            return own, message_of(loop.call_soon, nothing)

        own, message = in_child(child)
        return own, message

    own, message = loop.run_until_complete(main())
    assert own == "own loop" and "parent process" in message


def test_a_fork_in_another_thread_than_the_loops(loop):
    """The child has not the thread that runs the loop, and hears the same."""
    a, b = socket.socketpair()
    a.setblocking(False)

    async def main():
        _, writer = await asyncio.open_connection(sock=b)
        waiting = loop.create_task(loop.sock_recv(a, 1))
        await asyncio.sleep(0)

        def child():
            calls = {
                "call_soon": lambda: loop.call_soon(nothing),
                "call_soon_threadsafe": lambda: loop.call_soon_threadsafe(nothing),
                "add_reader": lambda: loop.add_reader(a, nothing),
                "sock_recv": lambda: loop.sock_recv(a, 1).send(None),
                "cancel": waiting.cancel,
                "run_once": loop._run_once,
            }
            messages = {name: message_of(call) for name, call in calls.items()}
            writer.transport.set_write_buffer_limits(1)
            return messages, loop.remove_reader(a)

        messages, removed = await asyncio.to_thread(in_child, child)
        for name, message in messages.items():
            assert "parent process" in message, (name, message)
        assert not removed
        writer.write(b"x")
        assert await waiting == b"x"
        writer.close()
        await writer.wait_closed()
        await loop.shutdown_default_executor()

    with a, b:
        loop.run_until_complete(main())


def test_the_child_comes_back_to_the_parents_loop(loop):
    """A child that does not exit: its next turn is an error, not two processes
    that read the same epoll."""

    pids = []

    def fork():
        pid = os.fork()
        if pid:
            pids.append(pid)
            loop.stop()

    loop.call_soon(fork)
    try:
        loop.run_forever()
    except RuntimeError as exc:
        if pids:
            raise
        os._exit(7 if "parent process" in str(exc) else 8)
    if not pids:
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 7


def test_many_forks(loop):
    for i in range(20):
        assert in_child(lambda i=i: i) == i
    assert loop.run_until_complete(asyncio.sleep(0, 1)) == 1

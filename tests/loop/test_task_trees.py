"""``python -m asyncio ps`` and ``pstree`` look at this loop's tasks from outside."""

import re
import subprocess
import sys

import pytest
from children import Child

pytestmark = pytest.mark.skipif(sys.version_info < (3, 14), reason="of Python 3.14")

PROGRAM = """
import asyncio, socket, sys
from aiozmq_speedups import new_event_loop

async def answer(reader, writer):
    await line_of(reader)

async def line_of(reader):
    await reader.readline()

async def outer(future):
    await inner(future)

async def inner(future):
    await future

async def get(queue):
    await queue.get()

async def main():
    loop = asyncio.get_running_loop()
    future, queue = loop.create_future(), asyncio.Queue()
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    where = server.sockets[0].getsockname()
    reader, kept = await asyncio.open_connection(*where)
    other, kept_too = await asyncio.open_connection(*where)
    a, b = socket.socketpair()
    a.setblocking(False)
    while len(asyncio.all_tasks()) < 3:
        await asyncio.sleep(0)
    async with asyncio.TaskGroup() as group:
        group.create_task(outer(future), name="first")
        group.create_task(outer(future), name="second")
        group.create_task(get(queue), name="getter")
        group.create_task(line_of(reader), name="reader")
        # Of ours, the task's own coroutine is in C.
        group.create_task(other.readline(), name="line")
        group.create_task(loop.sock_recv(a, 10), name="socket")
        await asyncio.sleep(0)
        loop.call_soon(print, "ready")
        loop.call_soon(sys.stdout.flush)
        await asyncio.gather(inner(future), get(queue))

factory = asyncio.SelectorEventLoop if sys.argv[1] == "asyncio" else new_event_loop
with asyncio.Runner(loop_factory=factory) as runner:
    runner.run(main())
"""


def seen(command, pid):
    """What the command prints of a process, without what differs each time."""
    ran = subprocess.run(
        [sys.executable, "-m", "asyncio", command, str(pid)],
        capture_output=True,
        text=True,
        timeout=250,
    )
    if ran.returncode and "ermission" in ran.stdout + ran.stderr:
        pytest.skip("this user may not look at the memory of another process")
    assert ran.returncode == 0, ran.stderr
    return re.sub(r"Task-\d+", "Task", ran.stdout)


def tree(pid):
    """Of pstree, the path to each task and frame; they are in any order."""
    path, paths = [], []
    for line in seen("pstree", pid).splitlines():
        indent = re.match(r"[ │├└─]*", line).group()
        del path[len(indent) // 4 :]
        path.append(line[len(indent) :])
        # Ours waits in C there: only CPython's own coroutines show their frames.
        if not re.search(r"asyncio/(streams|selector_events)\.py", line):
            paths.append(tuple(path))
    return sorted(paths)


def table(pid):
    """Of ps, each task's name, stack and awaiters."""
    _, _, *lines = seen("ps", pid).splitlines()
    hexadecimal = re.compile(r"\b0x[0-9a-f]+\b|^\d+")
    in_c = re.compile(r"(StreamReader|BaseSelectorEventLoop)\.\S+( -> )?")
    return sorted(in_c.sub("", hexadecimal.sub("", x)).split() for x in lines)


def test_same_trees():
    with Child(PROGRAM, "speedups") as ours, Child(PROGRAM, "asyncio") as theirs:
        for child in ours, theirs:
            assert child.process.stdout.readline() == "ready\n"
        pids = ours.process.pid, theirs.process.pid
        assert tree(pids[0]) == tree(pids[1])
        assert table(pids[0]) == table(pids[1])
        names = {path[-1] for path in tree(pids[0])}
        tasks = "first", "second", "getter", "reader", "line", "socket"
        assert {f"(T) {name}" for name in tasks} <= names

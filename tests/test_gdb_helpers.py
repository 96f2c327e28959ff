"""tools/gdb_helpers.py on a process whose callback does not end."""

import shutil
import subprocess
from pathlib import Path

import pytest
from children import Child

from aiozmq_speedups import _ext

HELPERS = Path(__file__).parents[1] / "tools" / "gdb_helpers.py"

PROGRAM = """
import asyncio, os, time
from aiozmq_speedups import new_event_loop

def on_pipe():
    pass

def waiting():
    pass

def stuck():
    print(pipe[0], server.sockets[0].fileno(), flush=True)
    time.sleep(100)

async def main():
    global server
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(print, "127.0.0.1", 0)
    loop.add_reader(pipe[0], on_pipe)
    loop.call_soon(stuck)
    loop.call_soon(waiting)
    loop.call_later(1000, print)
    await asyncio.sleep(0)

pipe = os.pipe()
with asyncio.Runner(loop_factory=new_event_loop) as runner:
    runner.run(main())
"""


def gdb(pid, *commands):
    argv = ["gdb", "-nx", "-batch", "-p", str(pid), "-iex", "set auto-load no"]
    argv += ["-iex", "set debuginfod enabled off", "-x", str(HELPERS)]
    for command in commands:
        argv += ["-ex", command]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=250)
    if "ptrace: " in ran.stderr:
        pytest.skip("no process may be traced here")
    return ran.stdout + ran.stderr


def test_gdb_helpers():
    if shutil.which("gdb") is None:
        pytest.skip("gdb is not here")
    if _ext.core is None or _ext.core.BUILD_FLAVOUR != "debug":
        pytest.skip("no build with debug information")
    child = Child(PROGRAM)
    try:
        pipe, listener = child.process.stdout.readline().split()
        said = gdb(child.process.pid, "azs-ready", "azs-fds")
    finally:
        child.kill()
    lines = [line.split() for line in said.splitlines()]
    assert any("ready," in line and "timers" in line for line in lines), said
    handles = [line for line in lines if "handle" in line]
    assert len(handles) >= 2, said  # waiting(), and the task's next step
    by_fd = {line[0]: " ".join(line) for line in lines if "kernel" in line}
    assert f"{pipe} kernel IN reader: function" in by_fd[pipe], said
    assert "Listener" in by_fd[listener], said

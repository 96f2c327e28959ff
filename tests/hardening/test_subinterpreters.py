"""The extension in more than one interpreter of a process."""

import subprocess
import sys

import pytest

from aiozmq_speedups._ext import core

pytestmark = pytest.mark.skipif(core is None, reason="needs the C extension")


# The package without its __init__, which imports pyzmq: that refuses
# sub-interpreters.
INNER = """
import os, selectors, socket, sys, types
package = types.ModuleType("aiozmq_speedups")
package.__path__ = [os.path.dirname({path!r})]
sys.modules["aiozmq_speedups"] = package
from aiozmq_speedups import _core as core
assert "zmq" not in sys.modules
a, b = socket.socketpair()
with core.EpollSelector() as s:
    assert isinstance(s, selectors.BaseSelector)
    key = s.register(a, selectors.EVENT_WRITE, s)
    assert s.select(0) == [(key, selectors.EVENT_WRITE)]
a.close()
b.close()
loop = core.Loop()
seen = []
loop.call_soon(seen.append, 1)
loop.call_later(0, seen.append, 2)
loop.call_soon_threadsafe(seen.append, 3)
while len(seen) < 3:
    loop._run_once()
assert sorted(seen) == [1, 2, 3]
left_behind = core.Loop(), core.EpollSelector()
left_behind[0].call_soon(print)
left_behind[0].call_later(10, left_behind)
"""

#: Make one, with the main one's GIL or with its own, and run code in it.
INTERPRETERS = """
import sys
if sys.version_info >= (3, 13):
    import _interpreters as interpreters
    make = lambda isolated: interpreters.create("isolated" if isolated else "legacy")
    def run(i, code):
        failure = interpreters.run_string(i, code)
        assert failure is None, failure
else:
    import _xxsubinterpreters as interpreters
    make = lambda isolated: interpreters.create(isolated=isolated)
    run = interpreters.run_string
"""


def output_of(program):
    """What it prints in a process of its own."""
    process = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


PROGRAM = """
import aiozmq_speedups._ext, asyncio
inner = {inner!r}.format(path=aiozmq_speedups._ext.core.__file__)
run_main = lambda: aiozmq_speedups.run(asyncio.sleep(0, "main"))
for _ in range(3):
    assert run_main() == "main"
    first, second = make(False), make(False)
    run(first, inner)
    run(second, inner)
    interpreters.destroy(first)
    assert run_main() == "main"
    run(second, inner)
    interpreters.destroy(second)
assert run_main() == "main"
print("done")
"""


def test_interpreters_come_and_go():
    assert output_of(INTERPRETERS + PROGRAM.format(inner=INNER)) == "done\n"


COPIES = """
import gc, importlib.util, socket
import aiozmq_speedups._ext
path = aiozmq_speedups._ext.core.__file__
a, b = socket.socketpair()

def load():
    spec = importlib.util.spec_from_file_location("aiozmq_speedups._core", path)
    core = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(core)
    return core

def use(core):
    loop, selector = core.Loop(), core.EpollSelector()
    everything = [core, loop, selector]
    selector.register(a, 1, everything)
    loop.call_soon(print, everything)
    loop.call_later(100, print, everything)
    loop.call_soon_threadsafe(print, everything)
    loop._add_reader(a, print, everything)
    return selector.get_map(), [loop.call_soon(print) for _ in range(300)]

for _ in range(5):
    # types, module and instances are one garbage cycle; the rest outlives it
    left = use(load())
    gc.collect()
    print(len(left[0]))
    del left
    gc.collect()
print("done")
"""


def test_copies_of_the_module_are_collected():
    assert output_of(COPIES).endswith("done\n")


ISOLATED = """
import asyncio
import aiozmq_speedups

async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()

async def client(address):
    reader, writer = await asyncio.open_connection(*address)
    for _ in range(50):
        writer.write(b"x" * 1000)
        assert await reader.readexactly(1000) == b"x" * 1000
    writer.close()
    await writer.wait_closed()

async def main():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    loop = asyncio.get_running_loop()
    loop.call_later(0, loop.call_soon_threadsafe, int)
    await asyncio.gather(*(client(address) for _ in range(4)))
    server.close()
    await server.wait_closed()
    return type(loop).__module__

for _ in range(3):
    assert aiozmq_speedups.run(main()) == "aiozmq_speedups.loop"
"""

SEVERAL = """
import threading
code = {code!r}
exec(code)  # the main one has one, too
failures = []

def work():
    one = make(True)
    try:
        run(one, code)
    except BaseException as exc:
        failures.append(exc)
    finally:
        interpreters.destroy(one)

threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(failures or "done")
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="since Python 3.12")
def test_interpreters_with_a_gil_of_their_own():
    assert output_of(INTERPRETERS + SEVERAL.format(code=ISOLATED)) == "done\n"

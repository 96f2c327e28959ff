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

PROGRAM = """
import sys
if sys.version_info >= (3, 13):
    import _interpreters as interpreters
    make = lambda: interpreters.create("legacy")
    def run(i, code):
        failure = interpreters.run_string(i, code)
        assert failure is None, failure
else:
    import _xxsubinterpreters as interpreters
    make = lambda: interpreters.create(isolated=False)
    run = interpreters.run_string
import aiozmq_speedups._ext, asyncio
inner = {inner!r}.format(path=aiozmq_speedups._ext.core.__file__)
run_main = lambda: aiozmq_speedups.run(asyncio.sleep(0, "main"))
for _ in range(3):
    assert run_main() == "main"
    first, second = make(), make()
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
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(inner=INNER)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout == "done\n"


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
    process = subprocess.run(
        [sys.executable, "-c", COPIES],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.endswith("done\n")

"""The extension in more than one interpreter of a process."""

import subprocess
import sys

import pytest
import zmq
from certificate import tls  # noqa: F401

from aiozmq_speedups._ext import core

pytestmark = pytest.mark.skipif(core is None, reason="needs the C extension")


# The extension with nothing else of the package.
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
        timeout=250,
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

threads = [threading.Thread(target=work) for _ in range({at_once})]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(failures or "done")
"""


own_gil = pytest.mark.skipif(sys.version_info < (3, 12), reason="since Python 3.12")


@own_gil
def test_interpreters_with_a_gil_of_their_own():
    assert (
        output_of(INTERPRETERS + SEVERAL.format(code=ISOLATED, at_once=3)) == "done\n"
    )


# In those of 3.12.1 `import ssl` alone corrupts the heap, and `import zoneinfo` fails:
# faults of the standard library, with or without the package.
sound = pytest.mark.skipif(
    sys.version_info < (3, 13), reason="ssl and zoneinfo of 3.12 fail there"
)


TLS = """
import asyncio, ssl
import aiozmq_speedups

async def echo(reader, writer):
    writer.write(await reader.readexactly(100_000))
    await writer.drain()
    writer.close()

async def main():
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain({cert!r}, {key!r})
    client_side = ssl.create_default_context(cafile={cert!r})
    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server_side)
    address = server.sockets[0].getsockname()
    for _ in range(5):
        reader, writer = await asyncio.open_connection(*address, ssl=client_side)
        writer.write(b"x" * 100_000)
        assert await reader.read() == b"x" * 100_000
        writer.close()
        await writer.wait_closed()
    server.close()
    await server.wait_closed()

aiozmq_speedups.run(main(), tls="asyncio")
"""


@sound
def test_tls_in_several(tls):  # noqa: F811
    code = TLS.format(cert=str(tls.cert), key=str(tls.key))
    program = INTERPRETERS + SEVERAL.format(code=code, at_once=3)
    assert output_of(program) == "done\n"


ZEROMQ = """
import asyncio
import aiozmq_speedups
from aiozmq_speedups import constants as zmq, rpc

class Handler(rpc.AttrHandler):
    @rpc.method
    def add(self, a, b):
        return a + b

    @rpc.method
    async def fail(self):
        raise KeyError("no")

async def calls():
    service = await rpc.serve_rpc(Handler(), bind="tcp://127.0.0.1:*")
    (address,) = service.transport.bindings()
    client = await rpc.connect_rpc(connect=address)
    for i in range(100):
        assert await client.call.add(i, 1) == i + 1
    try:
        await client.call.fail()
    except KeyError as exc:
        assert exc.args == ("no",)
    for end in client, service:
        end.close()
        await end.wait_closed()

async def streams():
    server = await aiozmq_speedups.create_zmq_stream(
        zmq.PULL, bind="tcp://127.0.0.1:*", curve_server=True,
        curve_publickey={server[0]!r}, curve_secretkey={server[1]!r},
        authenticate={{{client[0]!r}}},
    )
    (address,) = server.transport.bindings()
    client = await aiozmq_speedups.create_zmq_stream(
        zmq.PUSH, connect=address, curve_serverkey={server[0]!r},
        curve_publickey={client[0]!r}, curve_secretkey={client[1]!r},
    )
    for i in range(100):
        client.write([b"%d" % i, b"x" * 1000])
    for i in range(100):
        assert await server.read() == [b"%d" % i, b"x" * 1000]
    for end in client, server:
        end.close()

async def errors():
    create = aiozmq_speedups.create_zmq_connection
    protocol = aiozmq_speedups.ZmqProtocol
    try:
        await create(protocol, zmq.PAIR, engine="libzmq")
    except ImportError as exc:
        assert 'engine="native"' in str(exc), exc
    try:
        await create(protocol, zmq.PULL, curve_server=True,
                     curve_secretkey={server[1]!r})
    except ValueError as exc:
        assert "curve_publickey" in str(exc), exc
    transport, _ = await create(protocol, zmq.SUB)
    try:
        transport.setsockopt(zmq.CONFLATE, 1)
    except (OSError, ValueError) as exc:
        assert 'engine="libzmq"' in str(exc), exc
    transport.close()

async def main():
    await calls()
    await streams()
    await errors()

factory = lambda: aiozmq_speedups.new_event_loop(zmq_engine="native")
aiozmq_speedups.run(main(), loop_factory=factory)
"""


@sound
def test_zeromq_by_the_native_engine():
    """In several at once; the main one has loaded pyzmq, and libsodium with it."""
    code = ZEROMQ.format(server=zmq.curve_keypair(), client=zmq.curve_keypair())
    # rpc needs datetime: 3.13.0 corrupts its memory where several import that at once.
    at_once = 3 if sys.version_info >= (3, 14) else 1
    several = SEVERAL.replace("exec(code)", "import zmq")
    program = INTERPRETERS + several.format(code=code, at_once=at_once)
    assert output_of(program) == "done\n"


@pytest.mark.skipif(sys.version_info < (3, 14), reason="since Python 3.14")
def test_a_pool_of_interpreters():
    """A loop in each, through the standard library's own pool."""
    from concurrent.futures import InterpreterPoolExecutor

    code = ZEROMQ.format(server=zmq.curve_keypair(), client=zmq.curve_keypair())
    with InterpreterPoolExecutor(3) as pool:
        assert list(pool.map(exec, [code] * 6, [{}] * 6)) == [None] * 6


@own_gil
def test_constants_are_those_of_pyzmq():
    from aiozmq_speedups import constants

    assert constants.DEALER is zmq.DEALER
    assert constants.ZMQError is zmq.ZMQError

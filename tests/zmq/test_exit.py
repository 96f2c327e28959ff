"""A process that ends: its messages are sent, but no peer can keep it."""

import os
import subprocess
import sys

import pytest
import zmq
from helpers import raw_socket

PROGRAM = """
import asyncio, math, sys
import zmq
import aiozmq_speedups
from aiozmq_speedups import rpc
from aiozmq_speedups._zmq import linger
from aiozmq_speedups.loop import Loop

kind, how = sys.argv[1:]
linger.CLOSE_TIMEOUT = 0.1
sys.unraisablehook = lambda args: print("unraisable", args, flush=True)

def new_loop():
    if kind == "speedups":
        return Loop(close_timeout=0.1)
    if kind == "uvloop":
        import uvloop
        return uvloop.new_event_loop()
    return asyncio.SelectorEventLoop()

class Protocol(aiozmq_speedups.ZmqProtocol):
    def connection_made(self, transport):
        self.lost = asyncio.get_running_loop().create_future()
    def connection_lost(self, exc):
        self.lost.set_result(exc)

async def main():
    # Nobody is there: the port cannot be connected to.
    where = {"connect": "tcp://127.0.0.1:1", "linger": math.inf}
    transport, protocol = await aiozmq_speedups.create_zmq_connection(
        Protocol, zmq.DEALER, sndhwm=10, **where)
    for _ in range(100):
        transport.write([b"small"])
        transport.write([b"x" * 100_000])  # not copied
    client = await rpc.connect_rpc(**where)
    call = asyncio.ensure_future(client.call.func(1))
    await asyncio.sleep(0.01)
    assert transport.get_write_buffer_size()
    globals().update(locals())  # nothing goes away before the interpreter
    if how == "exit":
        sys.exit()
    if how == "close":
        transport.close()
        client.close()
        await asyncio.sleep(0)
    if how == "abort":
        transport.abort()
        await protocol.lost

loop = new_loop()
try:
    loop.run_until_complete(main())
finally:
    if how != "open":
        loop.close()
print("done", flush=True)
"""


def run_child(program, pure, loop_kind, *args):
    if loop_kind == "uvloop":
        pytest.importorskip("uvloop")
    return subprocess.run(
        [sys.executable, "-c", program, loop_kind, *args],
        capture_output=True,
        text=True,
        timeout=250,
        env={**os.environ, "AIOZMQ_SPEEDUPS_PURE": pure},
    )


@pytest.mark.parametrize("how", ["open", "close", "abort", "exit", "loop"])
@pytest.mark.parametrize("pure", ["", "1"], ids=["C", "pure"])
def test_unsent_messages_do_not_keep_the_process(loop_kind, pure, how):
    done = run_child(PROGRAM, pure, loop_kind, how)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("" if how == "exit" else "done\n"), done.stderr
    assert "Traceback" not in done.stderr, done.stderr


SENDER = """
import asyncio, sys
import zmq
import aiozmq_speedups

kind, how, context, endpoint = sys.argv[1:]

class Protocol(aiozmq_speedups.ZmqProtocol):
    def connection_made(self, transport): pass
    def connection_lost(self, exc): pass
    def pause_writing(self): pass
    def resume_writing(self): pass

async def main():
    options = {"connect": endpoint}
    if context == "user's":
        global user_context
        user_context = zmq.Context()
        options["zmq_sock"] = user_context.socket(zmq.PUSH)
    if kind != "speedups":
        options["sndhwm"] = 0  # only what libzmq has is sent without the loop
    transport, _ = await aiozmq_speedups.create_zmq_connection(
        Protocol, zmq.PUSH, **options)
    for i in range(5000):
        transport.write([b"%d" % i])
    if how == "close":
        transport.close()

if kind == "speedups":
    aiozmq_speedups.run(main())
elif kind == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


@pytest.mark.parametrize("context", ["own", "user's"])
@pytest.mark.parametrize("how", ["open", "close"])
@pytest.mark.parametrize("pure", ["", "1"], ids=["C", "pure"])
def test_what_was_written_is_sent(loop_kind, pure, how, context):
    """As from a program that uses pyzmq: main() writes, and returns."""
    with raw_socket(zmq.PULL, rcvhwm=0) as pull:
        port = pull.bind_to_random_port("tcp://127.0.0.1")
        done = run_child(
            SENDER, pure, loop_kind, how, context, f"tcp://127.0.0.1:{port}"
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert [pull.recv() for _ in range(5000)] == [b"%d" % i for i in range(5000)]

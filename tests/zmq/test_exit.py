"""A process with unsent messages ends at once, whatever the linger time."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, math, sys
import zmq
import aiozmq_speedups
from aiozmq_speedups import rpc
from aiozmq_speedups.loop import Loop

kind, how = sys.argv[1:]
sys.unraisablehook = lambda args: print("unraisable", args, flush=True)

def new_loop():
    if kind == "speedups":
        return Loop()
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


@pytest.mark.parametrize("how", ["open", "close", "abort", "exit", "loop"])
@pytest.mark.parametrize("pure", ["", "1"], ids=["C", "pure"])
def test_unsent_messages_do_not_keep_the_process(loop_kind, pure, how):
    if loop_kind == "uvloop":
        pytest.importorskip("uvloop")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, loop_kind, how],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "AIOZMQ_SPEEDUPS_PURE": pure},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("" if how == "exit" else "done\n"), done.stderr
    assert "Traceback" not in done.stderr, done.stderr

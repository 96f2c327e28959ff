"""jupyter_client and ipykernel, both with zmq_asyncio in zmq.asyncio's place."""

import subprocess
import sys

import pytest

from aiozmq_speedups import zmq_asyncio

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not zmq_asyncio.accelerated, reason="it is pyzmq's own"),
]

CLIENT = """
import asyncio, sys
import aiozmq_speedups
aiozmq_speedups.install(zmq_asyncio=True)
if sys.argv[1] == "asyncio":
    asyncio.set_event_loop_policy(None)
from aiozmq_speedups import zmq_asyncio
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

KERNEL = '''
import aiozmq_speedups
aiozmq_speedups.install(zmq_asyncio=True)
from ipykernel.kernelapp import launch_new_instance
launch_new_instance()
'''

CELL = '''
import asyncio, zmq.asyncio
await asyncio.sleep(0)
print("printed", zmq.asyncio.Socket.__module__)
20 + 3
'''

async def main():
    manager = AsyncKernelManager()
    manager._kernel_spec = KernelSpec(
        argv=[sys.executable, "-c", KERNEL, "-f", "{connection_file}"],
        display_name="kernel", language="python",
    )
    await manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=60)
        assert isinstance(client.shell_channel.socket, zmq_asyncio.Socket)
        outputs = []
        reply = await client.execute_interactive(
            CELL, timeout=60, output_hook=lambda m: outputs.append(m["content"])
        )
        assert reply["content"]["status"] == "ok", reply
        text = "".join(o.get("text", "") for o in outputs)
        assert text == "printed aiozmq_speedups.zmq_asyncio\\n", outputs
        results = [o["data"]["text/plain"] for o in outputs if "data" in o]
        assert results == ["23"], outputs
        reply = await client.execute_interactive("1 / 0", timeout=60, output_hook=print)
        assert reply["content"]["ename"] == "ZeroDivisionError"
    finally:
        client.stop_channels()
        await manager.shutdown_kernel(now=True)
    print("done on", type(asyncio.get_running_loop()).__module__)

asyncio.run(main())
"""


def test_a_kernel_runs_cells(loop_kind, tmp_path, monkeypatch):
    pytest.importorskip("ipykernel")
    pytest.importorskip("jupyter_client")
    for name in "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR":
        monkeypatch.setenv(name, str(tmp_path))
    ran = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", CLIENT, loop_kind],
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-6000:]
    module = "aiozmq_speedups" if loop_kind == "speedups" else "asyncio"
    assert f"done on {module}" in ran.stdout, ran.stdout

"""nest_asyncio is refused as by uvloop, and loops go on."""

import subprocess
import sys

import pytest

from aiozmq_speedups import _ext

pytest.importorskip("nest_asyncio")
pytestmark = pytest.mark.skipif(_ext.core is None, reason="asyncio's loop")

PROGRAM = """
import asyncio
import nest_asyncio
import aiozmq_speedups

loop = aiozmq_speedups.new_event_loop()
try:
    nest_asyncio.apply(loop)
except ValueError as exc:
    print(type(exc).__name__, "nested turns" in str(exc))

async def main():
    await asyncio.sleep(0)
    try:
        loop.run_until_complete(asyncio.sleep(0))
    except RuntimeError:
        return "goes on"

print(loop.run_until_complete(main()))
loop.close()
print(aiozmq_speedups.run(asyncio.sleep(0, "new ones too")))
"""


def test_it_is_refused():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ValueError True\ngoes on\nnew ones too\n"

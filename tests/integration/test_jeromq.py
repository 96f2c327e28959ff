"""jeromq: ZMTP by others, in Java, without libzmq; and this package's native engine.

This runs where there is a Java that compiles, and a jar of jeromq 0.5 or newer with its
jnacl, which AIOZMQ_SPEEDUPS_JEROMQ names. (Debian's is older: ZMTP 2.0, no CURVE.)
"""

import asyncio
import os
import pathlib
import shutil
import subprocess

import pytest
from children import Child
from zmtp_peers import PAIRS, Ours, exchange

from aiozmq_speedups import _ext

JAR = os.environ.get("AIOZMQ_SPEEDUPS_JEROMQ", "")
pytestmark = [
    pytest.mark.loops("speedups"),
    pytest.mark.no_leak_guard("a Java program for all of them"),
    pytest.mark.skipif(_ext.core is None, reason="needs the C extension"),
    pytest.mark.skipif(shutil.which("javac") is None, reason="no Java compiler"),
    pytest.mark.skipif(not os.path.exists(JAR), reason="no jar of jeromq"),
]


class Jeromq(Child):
    """JeromqPeer.java, which is told what to do in lines."""

    def __init__(self):
        program = pathlib.Path(__file__).parent / "JeromqPeer.java"
        self.process = subprocess.Popen(
            ["java", "-cp", JAR, str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )


@pytest.fixture(scope="module")
def theirs():
    with Jeromq() as child:

        class Theirs:
            async def open(self, kind, options):
                child.say(f"open {kind}")
                for name, value in options.items():
                    text = value.decode() if isinstance(value, bytes) else value
                    child.say(f"{name} {text}")

            async def bind(self):
                child.say("bind")
                return await child.line()

            async def connect(self, endpoint):
                child.say(f"connect {endpoint}")

            async def send(self, message):
                frames = " ".join(f"x{frame.hex()}" for frame in message)
                await asyncio.to_thread(child.say, f"send {frames}")

            async def recv(self):
                child.say("receive")
                return [bytes.fromhex(x[1:]) for x in (await child.line()).split(" ")]

            async def close(self):
                child.say("close")

        yield Theirs


@pytest.mark.parametrize("mechanism", ["null", "curve"])
@pytest.mark.parametrize("first_binds", [True, False], ids=["binds", "connects"])
@pytest.mark.parametrize("ours_first", [True, False], ids=["ours", "theirs"])
@pytest.mark.parametrize("kinds", PAIRS, ids="-".join)
def test_each_pair(run, theirs, kinds, ours_first, first_binds, mechanism):
    sides = (Ours, theirs) if ours_first else (theirs, Ours)
    run(exchange(kinds, sides, first_binds, mechanism))

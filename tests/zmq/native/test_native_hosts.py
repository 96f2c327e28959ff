"""Two hosts, and a wire that loses, delays and reorders packets, or is cut.

Each host is a process in a network namespace of its own (host.py); the wire is here.
The same holds on both engines.
"""

import asyncio
import json
import pathlib
import random
import socket
import subprocess
import sys

import host
import pytest
from children import Child


def why_not():
    """Why there can be no namespaces with a TUN device here, if so."""
    program = "import os; os.close(os.open('/dev/net/tun', os.O_RDWR))"
    try:
        done = subprocess.run(
            ["unshare", "-n", sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as exc:
        return str(exc)
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else None


REASON = why_not()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(REASON is not None, reason=f"no namespaces: {REASON}"),
]


class Host(Child):
    def __init__(self, cable, address, *args):
        program = str(pathlib.Path(host.__file__))
        command = ["unshare", "-n", sys.executable, program, cable.fileno(), address]
        self.process = subprocess.Popen(
            [*map(str, command), *map(str, args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[cable.fileno()],
        )
        cable.close()
        self.cuts = []

    async def until(self, word):
        """The rest of its next line that begins so."""
        while True:
            first, _, rest = (await self.line()).partition(" ")
            if first == word:
                return rest
            if first == "cut":
                self.cuts.append(int(rest))


class Wire:
    """Two cables' ends, and what happens between."""

    def __init__(self, loss, delay):
        self.rng = random.Random(1)
        self.loss, self.delay = loss, delay
        self.is_up = True
        self.lost = 0
        self.ends, self.cables = zip(
            *(socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)),
            strict=True,
        )
        self.loop = asyncio.get_running_loop()
        for end, other in zip(self.ends, self.ends[::-1], strict=True):
            end.setblocking(False)
            self.loop.add_reader(end, self.carry, end, other)

    def carry(self, end, other):
        try:
            packet = end.recv(2048)
        except BlockingIOError:
            return
        if not self.is_up or self.rng.random() < self.loss:
            self.lost += 1
            return
        delay = self.rng.uniform(*self.delay)
        self.loop.call_later(delay, self.deliver, other, packet)

    def deliver(self, other, packet):
        try:
            other.send(packet)
        except OSError:  # full, or nobody is there any more
            self.lost += 1

    async def cut(self, seconds):
        self.is_up = False
        await asyncio.sleep(seconds)
        self.is_up = True

    def close(self):
        for end in self.ends:
            self.loop.remove_reader(end)
            end.close()


async def play(roles, engine, *, total, loss, cut, heartbeat=0):
    """What arrived at the server, at the client, and where the client was cut."""
    wire = Wire(loss, (0.001, 0.006))
    args = engine, heartbeat, total
    try:
        with (
            Host(wire.cables[0], host.SERVER, roles[1], *args) as server,
            Host(wire.cables[1], "10.9.8.2", roles[0], *args) as client,
        ):
            await server.until("ready")
            await client.until("up")
            await asyncio.sleep(total * host.INTERVAL / 4)
            await wire.cut(cut)
            await server.until("done")
            if roles[0] == "dealer":
                await client.until("done")
            got = []
            for end in server, client:
                end.say("")
                got.append(json.loads(await end.until("end")))
            assert wire.lost > 0
            return *got, client.cuts
    finally:
        wire.close()


ENGINES = pytest.mark.parametrize("engine", ["libzmq", "native"])


@ENGINES
def test_nothing_is_lost_while_tcp_lives(run, engine):
    async def go():
        got, _, cuts = await play(
            ("push", "pull"), engine, total=1000, loss=0.02, cut=0.3
        )
        assert got == list(range(max(1000, len(got))))
        assert cuts == []

    run(go(), 90)


def check(got, cuts, total):
    """What was sent once the end was known has arrived; nothing twice, all in order."""
    assert cuts
    assert got == sorted(set(got))
    assert set(range(cuts[-1], total)) <= set(got)


@pytest.mark.parametrize("engine", ["libzmq", "native"])
@pytest.mark.parametrize("roles", [("push", "pull"), ("dealer", "router")])
def test_heartbeats_find_a_cut_and_the_connection_comes_again(run, engine, roles):
    async def go():
        got, answered, cuts = await play(
            roles, engine, total=2000, loss=0.01, cut=1.5, heartbeat=0.1
        )
        check(got, cuts, 2000)
        if roles[0] == "dealer":
            check(answered, cuts, 2000)

    run(go(), 90)

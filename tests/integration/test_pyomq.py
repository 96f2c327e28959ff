"""pyomq: ZMTP by others, in Rust, without libzmq; and this package's native engine."""

import asyncio

import pytest
from zmtp_peers import PAIRS, Ours, exchange

from aiozmq_speedups import _ext

pyomq = pytest.importorskip("pyomq")
pytestmark = [
    pytest.mark.loops("speedups"),
    pytest.mark.no_leak_guard("eventfds, which pyomq keeps"),
    pytest.mark.skipif(_ext.core is None, reason="needs the C extension"),
]


class Theirs:
    async def open(self, kind, options):
        self.socket = pyomq.Context.instance().socket(getattr(pyomq, kind))
        self.socket.linger = 0
        self.socket.rcvtimeo = self.socket.sndtimeo = 100_000
        for name, value in options.items():
            if name == "plain_server":
                self.socket.set_plain_auth([("alice", "secret")])
            self.socket.setsockopt(getattr(pyomq, name.upper()), value)

    async def bind(self):
        port = self.socket.bind_to_random_port("tcp://127.0.0.1")
        return f"tcp://127.0.0.1:{port}"

    async def connect(self, endpoint):
        self.socket.connect(endpoint)

    async def send(self, message):
        await asyncio.to_thread(self.socket.send_multipart, message)

    async def recv(self):
        return await asyncio.to_thread(self.socket.recv_multipart)

    async def close(self):
        self.socket.close()


@pytest.mark.parametrize("mechanism", ["null", "plain", "curve"])
@pytest.mark.parametrize("first_binds", [True, False], ids=["binds", "connects"])
@pytest.mark.parametrize("ours_first", [True, False], ids=["ours", "theirs"])
@pytest.mark.parametrize("kinds", PAIRS, ids="-".join)
def test_each_pair(run, kinds, ours_first, first_binds, mechanism):
    if ours_first and kinds[1] == "SUB" and not first_binds:
        pytest.skip("its SUB that binds tells no publisher, libzmq's neither")
    sides = (Ours, Theirs) if ours_first else (Theirs, Ours)
    run(exchange(kinds, sides, first_binds, mechanism))

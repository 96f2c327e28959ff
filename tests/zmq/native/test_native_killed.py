"""kill -9 of a peer in another process, where one side or both are the native engine's:
the tests of test_killed_peers.py, by the same rules."""

import asyncio

import pytest
import test_killed_peers as killed
import zmq
from children import endpoint_of

from aiozmq_speedups import _ext, new_event_loop

# A socket of libzmq's in a child, and the same of the native engine's.
NATIVE_SOCKET = f"""
import sys, zmq
from itertools import count
import aiozmq_speedups

loop = aiozmq_speedups.new_event_loop(zmq_engine="native")
run = loop.run_until_complete

class Socket:
    def __init__(self, zmq_type, how, address):
        self.stream = run(aiozmq_speedups.create_zmq_stream(
            zmq_type,
            rcvhwm={killed.HWM},
            sndhwm=0 if zmq_type == zmq.ROUTER else {killed.HWM},
            reconnect_interval=0.01,
        ))
        transport = self.stream.transport
        transport.setsockopt(zmq.SNDBUF, {killed.KERNEL_BUFFER})
        transport.setsockopt(zmq.RCVBUF, {killed.KERNEL_BUFFER})
        run(getattr(transport, how)(address))

    def send_multipart(self, message):
        self.stream.write(message)
        run(self.stream.drain())

    def recv_multipart(self):
        return run(self.stream.read())

    def setsockopt(self, option, value):
        self.stream.transport.setsockopt(option, value)

def socket(zmq_type):
    how, address = sys.argv[1:]
    sock = Socket(zmq_type, how, address)
    say(sock.stream.transport.getsockopt(zmq.LAST_ENDPOINT))
    return sock

def say(*words):
    print(*words, flush=True)
"""


class Peers(killed.Peers):
    """Our end by one engine, the children by one."""

    def __init__(self, engines, who_binds, endpoint):
        super().__init__(killed.TransportEnd, who_binds, endpoint)
        self.engine, self.children = engines

    async def start(self, program, zmq_type):
        if self.children == "native":
            program = program.replace(killed.SOCKET, NATIVE_SOCKET)
        return await super().start(program, zmq_type)

    async def _open(self, zmq_type, **where):
        if self.engine == "libzmq":
            return await super()._open(zmq_type, **where)
        self.end = await self.end_class.open(
            zmq_type,
            engine="native",
            sndhwm=0 if zmq_type == zmq.ROUTER else killed.HWM,
            rcvhwm=killed.HWM,
            linger=0,
            reconnect_interval=0.01,
        )
        transport = self.end.transport
        transport.setsockopt(zmq.SNDBUF, killed.KERNEL_BUFFER)
        transport.setsockopt(zmq.RCVBUF, killed.KERNEL_BUFFER)
        for how, endpoint in where.items():
            await getattr(transport, how)(endpoint)
        if "bind" in where:
            (self.endpoint,) = transport.bindings()


@pytest.fixture
def run():
    if _ext.core is None:
        pytest.skip("the C extension was not built")
    loop = new_event_loop()

    def run(coroutine):
        return loop.run_until_complete(asyncio.wait_for(coroutine, 100))

    yield run
    loop.close()


ENGINES = [("native", "libzmq"), ("libzmq", "native"), ("native", "native")]
# Of ours and the children's; tcp or ipc; who binds.
CASES = [
    (engines, protocol, who_binds)
    for engines in ENGINES
    for protocol in ("tcp", "ipc")
    for who_binds in ("ours", "theirs")
]
QUICK = [(ENGINES[0], "tcp", "theirs"), (ENGINES[1], "tcp", "ours")]


@pytest.fixture(
    params=[
        pytest.param(case, marks=() if case in QUICK else pytest.mark.slow)
        for case in CASES
    ],
    ids=["-".join([*engines, *rest]) for engines, *rest in CASES],
)
def peers(request, run, tmp_path_factory):
    engines, protocol, who_binds = request.param
    with endpoint_of(protocol, tmp_path_factory) as endpoint:
        peers = Peers(engines, who_binds, endpoint)
        yield peers
        run(peers.close())


def test_receiver_killed(run, peers):
    killed.test_receiver_killed(run, peers)


def test_sender_killed(run, peers):
    killed.test_sender_killed(run, peers)


def test_server_killed(run, peers):
    killed.test_server_killed(run, peers)


def test_client_killed(run, peers):
    killed.test_client_killed(run, peers)

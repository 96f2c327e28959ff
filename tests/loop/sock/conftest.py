"""Fixtures of the sock_* tests."""

import socket

import pytest
from sock_cases import tcp_pair

from aiozmq_speedups.loop import Loop


@pytest.fixture
def ours(loop):
    """Skips on asyncio: what the test says is ours alone."""
    if not isinstance(loop, Loop):
        pytest.skip("asyncio differs: see the test")


@pytest.fixture(params=["unix", "tcp"])
def pair(request):
    """Two connected non-blocking stream sockets."""
    a, b = socket.socketpair() if request.param == "unix" else tcp_pair()
    with a, b:
        a.setblocking(False)
        b.setblocking(False)
        yield a, b


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        listener.setblocking(False)
        yield listener


@pytest.fixture
def udp_pair():
    a, b = (socket.socket(type=socket.SOCK_DGRAM) for _ in range(2))
    with a, b:
        for sock in (a, b):
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
        yield a, b

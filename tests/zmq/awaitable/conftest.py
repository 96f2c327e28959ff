"""Sockets of zmq.asyncio, pyzmq's and ours, on each loop."""

import contextlib

import pytest
import zmq
import zmq.asyncio

from aiozmq_speedups import zmq_asyncio


@pytest.fixture(params=["pyzmq", "speedups"])
def module(request):
    """The test passes with pyzmq's module and with ours."""
    if request.param == "pyzmq":
        return zmq.asyncio
    if not zmq_asyncio.accelerated:
        pytest.skip("no C transport: zmq_asyncio is pyzmq's own")
    return zmq_asyncio


@pytest.fixture
def ours():
    if not zmq_asyncio.accelerated:
        pytest.skip("no C transport: zmq_asyncio is pyzmq's own")
    return zmq_asyncio


@pytest.fixture(scope="session", autouse=True)
def _pyzmq_collector():
    """pyzmq starts a thread for frames that it does not copy, and keeps it."""
    with zmq.Context() as context, context.socket(zmq.PAIR) as a:
        a.linger = 0
        a.bind("inproc://warm-up")
        with context.socket(zmq.PAIR) as b:
            b.connect("inproc://warm-up")
            b.send(b"x" * 100_000, copy=False)
            a.recv()


@contextlib.contextmanager
def sockets(module, *types, hwm=None):
    """A context's sockets; the first is bound, the others are connected to it."""
    with module.Context() as context:
        made = []
        for zmq_type in types:
            sock = context.socket(zmq_type)
            sock.linger = 0
            if hwm is not None:
                sock.set_hwm(hwm)
            if zmq_type == zmq.SUB:
                sock.subscribe(b"")
            if not made:
                port = sock.bind_to_random_port("tcp://127.0.0.1")
            else:
                sock.connect(f"tcp://127.0.0.1:{port}")
            made.append(sock)
        try:
            yield made
        finally:
            for sock in made:
                sock.close()

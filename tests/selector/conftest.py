"""The selectors under test."""

import selectors
import socket

import pytest

from aiozmq_speedups.selector import EpollSelector, ZmqSelector

ALL = [
    pytest.param(selectors.EpollSelector, id="stdlib"),
    pytest.param(EpollSelector, id="ours"),
    pytest.param(ZmqSelector, id="zmq"),
]
EPOLLS = ALL[:2]


@pytest.fixture(params=ALL)
def selector(request):
    with request.param() as s:
        yield s


@pytest.fixture(params=EPOLLS)
def epoll(request):
    with request.param() as s:
        yield s


@pytest.fixture
def pair():
    a, b = socket.socketpair()
    with a, b:
        yield a, b

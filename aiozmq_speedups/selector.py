"""Selectors: epoll in C, and one that also watches ZeroMQ sockets.

``EpollSelector`` is the C one if the extension is there and
``selectors.EpollSelector`` otherwise. ``ZmqSelector`` is aiozmq's.
"""

from selectors import EVENT_READ, EVENT_WRITE, SelectorKey

from aiozmq_speedups._ext import EpollSelector
from aiozmq_speedups._zmq.selector import ZmqSelector

__all__ = ["EVENT_READ", "EVENT_WRITE", "EpollSelector", "SelectorKey", "ZmqSelector"]

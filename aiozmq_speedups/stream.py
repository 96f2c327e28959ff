"""Streams of ZeroMQ messages: coroutines to read them and to wait for room.

The code is in ``_zmq/stream.py``: these are its public names.
"""

from aiozmq_speedups._zmq.stream import (
    ZmqStream,
    ZmqStreamClosed,
    ZmqStreamProtocol,
    create_zmq_stream,
)

__all__ = ["ZmqStream", "ZmqStreamClosed", "ZmqStreamProtocol", "create_zmq_stream"]

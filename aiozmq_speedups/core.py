"""ZeroMQ transports: create_zmq_connection and what it takes and gives.

The code is in ``_zmq/``: these are its public names.
"""

from __future__ import annotations

from typing import Any

from aiozmq_speedups._zmq.connect import create_zmq_connection
from aiozmq_speedups._zmq.monitor import SocketEvent, ZmqMonitor
from aiozmq_speedups._zmq.native_auth import PeerCredentials
from aiozmq_speedups._zmq.options import ZmqOptions

__all__ = [
    "PeerCredentials",
    "SocketEvent",
    "ZmqMonitor",
    "ZmqOptions",
    "create_zmq_connection",
]


def __getattr__(name: str) -> Any:
    # aiozmq has its loop in this module; ours is beside it.
    if name in ("ZmqEventLoop", "ZmqEventLoopPolicy"):
        from aiozmq_speedups import loop

        return getattr(loop, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

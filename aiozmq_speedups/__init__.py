"""asyncio and ZeroMQ at C speed."""

from typing import Any

from aiozmq_speedups._version import __version__, version, version_info
from aiozmq_speedups.core import (
    SocketEvent,
    ZmqMonitor,
    ZmqOptions,
    create_zmq_connection,
)
from aiozmq_speedups.interface import ZmqProtocol, ZmqTransport
from aiozmq_speedups.loop import Loop, ZmqEventLoop, install, new_event_loop, run
from aiozmq_speedups.selector import EpollSelector, ZmqSelector
from aiozmq_speedups.stream import (
    ZmqStream,
    ZmqStreamClosed,
    ZmqStreamProtocol,
    create_zmq_stream,
)

__all__ = (
    "EpollSelector",
    "EventLoopPolicy",
    "Loop",
    "SocketEvent",
    "ZmqEventLoop",
    "ZmqEventLoopPolicy",
    "ZmqMonitor",
    "ZmqOptions",
    "ZmqProtocol",
    "ZmqSelector",
    "ZmqStream",
    "ZmqStreamClosed",
    "ZmqStreamProtocol",
    "ZmqTransport",
    "__version__",
    "create_zmq_connection",
    "create_zmq_stream",
    "install",
    "new_event_loop",
    "run",
    "version",
    "version_info",
)


def __getattr__(name: str) -> Any:
    # Lazily: policies are deprecated in 3.14 and gone in 3.16.
    if name in ("EventLoopPolicy", "ZmqEventLoopPolicy"):
        from aiozmq_speedups import _policy

        return getattr(_policy, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

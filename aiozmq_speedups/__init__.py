"""asyncio and ZeroMQ at C speed."""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # not by typing, which takes as long as all the rest
if TYPE_CHECKING:
    from typing import Any

    from aiozmq_speedups._ext import EpollSelector
    from aiozmq_speedups._loop.policy import EventLoopPolicy, ZmqEventLoopPolicy
    from aiozmq_speedups._version import __version__, version, version_info
    from aiozmq_speedups.core import (
        PeerCredentials,
        SocketEvent,
        ZmqMonitor,
        ZmqOptions,
        create_zmq_connection,
    )
    from aiozmq_speedups.interface import ZmqProtocol, ZmqTransport
    from aiozmq_speedups.loop import (
        Loop,
        SlowCallback,
        ZmqEventLoop,
        install,
        new_event_loop,
        run,
        run_workers,
    )
    from aiozmq_speedups.selector import ZmqSelector
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
    "PeerCredentials",
    "SlowCallback",
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
    "run_workers",
    "version",
    "version_info",
)

# Where each name is, that is loaded when it is first used: who wants the loop pays
# for no pyzmq, and who wants the version for no asyncio. Policies are gone in 3.16.
_MODULE_OF = {
    "EpollSelector": "_ext",
    "EventLoopPolicy": "loop",
    "Loop": "loop",
    "PeerCredentials": "core",
    "SlowCallback": "loop",
    "SocketEvent": "core",
    "ZmqEventLoop": "loop",
    "ZmqEventLoopPolicy": "loop",
    "ZmqMonitor": "core",
    "ZmqOptions": "core",
    "ZmqProtocol": "interface",
    "ZmqSelector": "selector",
    "ZmqStream": "stream",
    "ZmqStreamClosed": "stream",
    "ZmqStreamProtocol": "stream",
    "ZmqTransport": "interface",
    "__version__": "_version",
    "create_zmq_connection": "core",
    "create_zmq_stream": "stream",
    "install": "loop",
    "new_event_loop": "loop",
    "run": "loop",
    "run_workers": "loop",
    "version": "_version",
    "version_info": "_version",
}
_SUBMODULES = {
    "constants",
    "core",
    "interface",
    "loop",
    "selector",
    "stream",
    "zmq_asyncio",
}


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is not None:
        value = getattr(import_module(f"{__name__}.{module}"), name)
        globals()[name] = value
        return value
    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})

"""The event loop: the C core in front of asyncio's own cold code.

The code is in ``_loop/``: these are its public names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiozmq_speedups._loop.api import Loop, new_event_loop, run
from aiozmq_speedups._loop.install import install
from aiozmq_speedups._loop.slow import SlowCallback

if TYPE_CHECKING:
    from aiozmq_speedups._loop.workers import run_workers

__all__ = (
    "EventLoopPolicy",
    "Loop",
    "SlowCallback",
    "ZmqEventLoop",
    "ZmqEventLoopPolicy",
    "install",
    "new_event_loop",
    "run",
    "run_workers",
)

#: aiozmq's name for it.
ZmqEventLoop = Loop


def __getattr__(name: str) -> Any:
    # Only who asks pays. Policies are deprecated in 3.14 and gone in 3.16.
    if name == "run_workers":
        from aiozmq_speedups._loop.workers import run_workers

        return run_workers
    if name in ("EventLoopPolicy", "ZmqEventLoopPolicy"):
        from aiozmq_speedups._loop import policy

        return getattr(policy, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

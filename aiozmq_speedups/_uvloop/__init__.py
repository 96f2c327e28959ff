"""uvloop's names, on this loop: ``import uvloop`` after ``install(uvloop=True)``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiozmq_speedups
from aiozmq_speedups._uvloop import loop as loop
from aiozmq_speedups.loop import Loop, new_event_loop

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable
    from typing import TypeVar

    from aiozmq_speedups._loop.policy import EventLoopPolicy

    _T = TypeVar("_T")

__all__ = ("EventLoopPolicy", "Loop", "install", "new_event_loop", "run")

#: The uvloop whose names these are, for programs that ask for one at least so new.
__version__ = "0.22.1"


def run(
    main: Awaitable[_T],
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = new_event_loop,
    debug: bool | None = None,
) -> _T:
    """uvloop.run(): as aiozmq_speedups.run(), for anything that can be awaited."""

    async def wrapper() -> _T:
        return await main

    return aiozmq_speedups.run(wrapper(), loop_factory=loop_factory, debug=debug)


def install() -> None:
    """uvloop.install(): as aiozmq_speedups.install()."""
    aiozmq_speedups.install()


def __getattr__(name: str) -> Any:
    if name == "EventLoopPolicy":  # not everywhere: see _policy
        return aiozmq_speedups.EventLoopPolicy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

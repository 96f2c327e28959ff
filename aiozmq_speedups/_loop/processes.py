"""Child processes: asyncio spawns them; what it mended later is mended here."""

from __future__ import annotations

import asyncio
import sys
from typing import Any


class _Exiting:
    """Stands for a process transport where asyncio's child watcher is told of it.

    Before Python 3.14 (gh-119710) asyncio wakes who awaits ``Process.wait()`` when the
    last pipe ends, which a grandchild may hold for long.
    """

    __slots__ = ("transport",)

    def __init__(self, transport: Any) -> None:
        self.transport = transport

    def _process_exited(self, returncode: int) -> None:
        self.transport._process_exited(returncode)
        # None where all is done, or where this asyncio has woken them itself.
        waiters = self.transport._exit_waiters or ()
        while waiters:  # none is left to be woken again, with the last pipe
            waiter = waiters.pop()
            if not waiter.done():
                waiter.set_result(returncode)


class Processes(asyncio.SelectorEventLoop):
    """The part of the loop that a child watcher calls."""

    if sys.version_info < (3, 14):

        def _child_watcher_callback(
            self, pid: int, returncode: int, transp: Any
        ) -> None:
            super()._child_watcher_callback(  # type: ignore[misc]
                pid, returncode, _Exiting(transp)
            )

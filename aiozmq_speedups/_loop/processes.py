"""Child processes: asyncio spawns them; what it mended later is mended here."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from asyncio import unix_events
from collections.abc import Callable
from typing import Any

from aiozmq_speedups import _ext
from aiozmq_speedups.log import logger


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


_can_use_pidfd = getattr(unix_events, "can_use_pidfd", None)


class _PidfdChildWatcher:
    """asyncio's, on a Python that was built where there was no ``os.pidfd_open()``.

    asyncio has a thread wait for each process there: 850 of them a second in place of
    1,600 (``/bin/true``, free-threaded 3.14).
    """

    def add_child_handler(
        self, pid: int, callback: Callable[..., object], *args: Any
    ) -> None:
        loop: Any = asyncio.get_running_loop()
        pidfd = _ext.core._pidfd_open(pid)
        try:
            loop._add_reader(pidfd, self._exited, loop, pid, pidfd, callback, args)
        except BaseException:
            os.close(pidfd)
            raise

    def _exited(
        self,
        loop: Any,
        pid: int,
        pidfd: int,
        callback: Callable[..., object],
        args: tuple[Any, ...],
    ) -> None:
        loop._remove_reader(pidfd)
        os.close(pidfd)
        try:
            returncode = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except ChildProcessError:
            returncode = 255
            logger.warning("process %d was waited for elsewhere: it counts as 255", pid)
        callback(pid, returncode, *args)


def _child_watcher() -> _PidfdChildWatcher | None:
    """None where asyncio's is as good, or the only one."""
    if hasattr(os, "pidfd_open") or _ext.core is None:
        return None
    if getattr(unix_events, "can_use_pidfd", None) is not _can_use_pidfd:
        return None  # who has put another in its place is to have threads
    with contextlib.suppress(OSError):
        os.close(_ext.core._pidfd_open(os.getpid()))
        return _PidfdChildWatcher()
    return None


class Processes(asyncio.SelectorEventLoop):
    """The part of the loop that a child watcher calls."""

    if sys.version_info >= (3, 14):  # before, a policy says how processes are watched

        def __init__(self, selector: Any) -> None:
            super().__init__(selector)
            if watcher := _child_watcher():
                self._watcher = watcher

    if sys.version_info < (3, 14):

        def _child_watcher_callback(
            self, pid: int, returncode: int, transp: Any
        ) -> None:
            super()._child_watcher_callback(  # type: ignore[misc]
                pid, returncode, _Exiting(transp)
            )

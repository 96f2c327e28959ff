"""Slow callbacks: who is told of them, and where they are stuck.

The core times them (csrc/loop/slow.c), in debug mode by asyncio's limit, and without
it by ``slow_callback_ms``.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
import threading
import traceback
import weakref
from asyncio import base_events
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiozmq_speedups.log import logger as package_logger

if TYPE_CHECKING:
    from collections.abc import Callable

logger = package_logger.getChild("loop")

SLOW_VARIABLE = "AIOZMQ_SPEEDUPS_SLOW_CALLBACK_MS"
WATCHDOG_VARIABLE = "AIOZMQ_SPEEDUPS_WATCHDOG"
_MAX_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class SlowCallback:
    """A callback that took long, as the hook ``on_slow_callback`` gets it."""

    #: How long, from at most a quarter of ``slow_callback_ms`` before it began.
    seconds: float
    #: The asyncio.Handle that ran; None if it was a call of a protocol.
    handle: asyncio.Handle | None = None
    #: The name of the asyncio.Task whose step it was, or None.
    task: str | None = None
    #: The protocol, or the factory of one, that was called; else the transport whose
    #: I/O it was; None if it was a handle.
    owner: Any = None
    #: The protocol's method, ``"data_received"``, say; None for all others.
    method: str | None = None
    #: With a watchdog, where it was when it had taken ``slow_callback_ms``.
    stack: traceback.StackSummary | None = None

    def __str__(self) -> str:
        if self.handle is not None:
            return base_events._format_handle(self.handle)  # type: ignore[no-any-return]
        if self.method is not None:
            return f"{type(self.owner).__qualname__}.{self.method}() of {self.owner!r}"
        return repr(self.owner)


SlowCallback.__module__ = "aiozmq_speedups.loop"


def check_slow_ms(ms: Any) -> int:
    """In nanoseconds; 0 for None, unless the environment says something."""
    name = "slow_callback_ms"
    if ms is None:
        text = os.environ.get(SLOW_VARIABLE)
        if not text:
            return 0
        name = SLOW_VARIABLE
        try:
            ms = float(text)
        except ValueError:
            raise ValueError(f"{name} must be a number, not {text!r}") from None
    if isinstance(ms, bool) or not isinstance(ms, (int, float)):
        raise TypeError(f"{name} must be a number of milliseconds, not {ms!r}")
    if math.isnan(ms) or not 1 <= ms <= _MAX_MS:
        raise ValueError(f"{name} must be from 1 to {_MAX_MS}, a day, not {ms!r}")
    return round(ms * 1e6)


def check_watchdog(watchdog: bool | None, slow_ns: int) -> bool:
    if watchdog is None:
        return os.environ.get(WATCHDOG_VARIABLE, "") not in ("", "0") and slow_ns > 0
    if watchdog and not slow_ns:
        raise ValueError("watchdog=True needs slow_callback_ms")
    return bool(watchdog)


class Watchdog(threading.Thread):
    """Takes the stack of a loop's thread while a callback keeps it."""

    def __init__(self, loop: Any, slow_ns: int) -> None:
        super().__init__(name="aiozmq_speedups-watchdog", daemon=True)
        self._loop = weakref.ref(loop)
        self._slow_ns = slow_ns
        self._ended = threading.Event()

    def run(self) -> None:
        period = max(self._slow_ns / 4e9, 0.001)
        told = None
        while not self._ended.wait(period):
            loop = self._loop()
            if loop is None:
                return
            told = self._look(loop, told)
            del loop  # only its owner keeps it

    def _look(self, loop: Any, told: int | None) -> int | None:
        stuck = loop._stuck()
        if stuck is None or stuck[1] < self._slow_ns or stuck[0] == told:
            return told
        number, ns, _ = stuck
        frame = sys._current_frames().get(loop._thread_id)
        if frame is None:
            return told
        # Without source lines, for a frame that goes on meanwhile is quickly read.
        stack = traceback.StackSummary.extract(
            traceback.walk_stack(frame), lookup_lines=False
        )
        del frame
        stack.reverse()
        again = loop._stuck()
        if again is None or again[0] != number:
            return told  # it has come back meanwhile
        loop._slow_stack = (number, stack)
        logger.warning(
            "The event loop has been stuck for %.3f seconds in:\n%s",
            ns / 1e9,
            "".join(stack.format()),
        )
        return int(number)

    def end(self) -> None:
        self._ended.set()
        # At the interpreter's end other threads run no more, and none would end.
        if self is not threading.current_thread() and not sys.is_finalizing():
            self.join(1.0)


class Slow:
    """The part of the loop that the core tells of what took long."""

    _watchdog_wanted = False
    _watchdog: Watchdog | None = None
    _slow_ns = 0
    _slow_stack: tuple[int, traceback.StackSummary] | None = None
    on_slow_callback: Callable[[SlowCallback], object] | None = None

    if TYPE_CHECKING:
        slow_callback_duration: float
        _run_foreign: Any
        _look_for_slow: Callable[[int], None]
        _stuck: Callable[[], tuple[int, int, bool] | None]
        get_debug: Callable[[], bool]
        call_exception_handler: Callable[[dict[str, Any]], None]

    def _set_slow(self, slow_ns: int, hook: Any, watchdog: bool) -> None:
        self._slow_ns = slow_ns
        self._watchdog_wanted = watchdog
        if hook is not None:
            self.on_slow_callback = hook
        if slow_ns:
            self._look_for_slow(slow_ns)

    def _start_watchdog(self) -> None:
        if self._watchdog is None:
            self._watchdog = Watchdog(self, self._slow_ns)
            self._watchdog.start()

    def _end_watchdog(self) -> None:
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:
            watchdog.end()

    # -- called by the core --

    def _callback_slow(self, handle: Any, seconds: float) -> bool:
        if handle._callback == self._run_foreign:  # a signal's handler, say
            (handle,) = handle._args
        told = self.get_debug() and seconds >= self.slow_callback_duration
        if told:
            base_events.logger.warning(
                "Executing %s took %.3f seconds",
                base_events._format_handle(handle),
                seconds,
            )
        if not self._slow_ns or seconds * 1e9 < self._slow_ns:
            return told
        task = getattr(handle._callback, "__self__", None)
        name = task.get_name() if isinstance(task, asyncio.Task) else None
        slow = SlowCallback(seconds, handle, name, stack=self._take_slow_stack())
        return self._tell_slow(slow, told)

    def _protocol_slow(self, what: Any, method: Any, seconds: float) -> bool:
        """`method` is None of a protocol factory and False of a transport's I/O."""
        told = self.get_debug() and seconds >= self.slow_callback_duration
        if told and method:
            base_events.logger.warning(
                "Executing %s.%s() of %s took %.3f seconds",
                type(what).__qualname__,
                method,
                repr(what),  # as it is now
                seconds,
            )
        elif told:
            base_events.logger.warning(
                "Executing the %s %s took %.3f seconds",
                "I/O of" if method is False else "protocol factory",
                repr(what),
                seconds,
            )
        if not self._slow_ns or seconds * 1e9 < self._slow_ns:
            return told
        stack = self._take_slow_stack()
        slow = SlowCallback(seconds, owner=what, method=method or None, stack=stack)
        return self._tell_slow(slow, told)

    def _take_slow_stack(self) -> traceback.StackSummary | None:
        kept, self._slow_stack = self._slow_stack, None
        stuck = None if kept is None else self._stuck()
        if kept is None or stuck is None or stuck[0] != kept[0]:
            return None
        return kept[1]

    def _tell_slow(self, slow: SlowCallback, logged: bool) -> bool:
        if not logged:
            # As text: a record that is kept must not keep the loop.
            logger.warning("Executing %s took %.3f seconds", str(slow), slow.seconds)
        hook = self.on_slow_callback
        if hook is not None:
            try:
                hook(slow)
            except Exception as exc:
                self.call_exception_handler(
                    {"message": "Exception in on_slow_callback", "exception": exc}
                )
        return True

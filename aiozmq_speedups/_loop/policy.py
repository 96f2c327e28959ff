"""Event loop policies, for Python 3.11 to 3.15."""

from __future__ import annotations

import asyncio
import threading
import warnings
from typing import Any

from aiozmq_speedups._loop.api import Loop

if hasattr(asyncio.events, "_set_event_loop_policy"):  # 3.14: no warning there
    get_policy: Any = asyncio.events._get_event_loop_policy
    set_policy: Any = asyncio.events._set_event_loop_policy
    _DefaultPolicy: Any = asyncio.events._AbstractEventLoopPolicy
    from asyncio.unix_events import _DefaultEventLoopPolicy as _DefaultPolicy
elif hasattr(asyncio, "set_event_loop_policy"):
    get_policy = asyncio.get_event_loop_policy
    set_policy = asyncio.set_event_loop_policy
    _DefaultPolicy = asyncio.DefaultEventLoopPolicy
else:
    raise ImportError(
        "this Python has no event loop policies any more: use "
        "aiozmq_speedups.run(main()) or asyncio.Runner(loop_factory="
        "aiozmq_speedups.new_event_loop)"
    )


class EventLoopPolicy(_DefaultPolicy):  # type: ignore[misc]
    """The running version's default policy, with our loop."""

    __module__ = "aiozmq_speedups.loop"

    _loop_factory = Loop


class _NoCurrentLoop(RuntimeError, AssertionError):
    """asyncio raises the one and aiozmq the other."""


class _NotALoop(TypeError, AssertionError):
    """asyncio raises the one and aiozmq the other."""


class ZmqEventLoopPolicy(EventLoopPolicy):
    """aiozmq's policy: the main thread gets a loop when it first asks for one.

    get_event_loop() raises RuntimeError (also an AssertionError, as aiozmq's)
    in other threads that have set none.
    """

    __module__ = "aiozmq_speedups.loop"

    def get_event_loop(self) -> Loop:
        local = self._local
        if (
            local._loop is None
            and not getattr(local, "_set_called", False)
            and threading.current_thread() is threading.main_thread()
        ):
            self.set_event_loop(self.new_event_loop())
        if local._loop is None:
            raise _NoCurrentLoop(
                "There is no current event loop in thread "
                f"{threading.current_thread().name!r}."
            )
        loop: Loop = local._loop
        return loop

    def set_event_loop(self, loop: asyncio.AbstractEventLoop | None) -> None:
        if loop is not None and not isinstance(loop, asyncio.AbstractEventLoop):
            raise _NotALoop(
                "loop must be an AbstractEventLoop or None, "
                f"not {type(loop).__name__!r}"
            )
        super().set_event_loop(loop)
        self._local._set_called = True

    if hasattr(asyncio, "SafeChildWatcher"):  # up to 3.13

        def _init_watcher(self) -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                if self._watcher is None:
                    self._watcher = asyncio.SafeChildWatcher()
                    if threading.current_thread() is threading.main_thread():
                        self._watcher.attach_loop(self._local._loop)

        def get_child_watcher(self) -> Any:
            """aiozmq's choice: asyncio.SafeChildWatcher, made when first asked for."""
            if self._watcher is None:
                self._init_watcher()
            return self._watcher

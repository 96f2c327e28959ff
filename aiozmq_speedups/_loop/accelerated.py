"""The event loop: the C core in front of asyncio's own cold code.

``Loop`` has two bases. ``_core.Loop`` comes first and owns whatever runs once
per callback, timer or descriptor event. ``asyncio.SelectorEventLoop`` owns
what runs once per loop, connection or error, so each Python version's
additions arrive by themselves. The private names of asyncio that this relies
on are listed in hooks.py and checked by a test. Imported only where there is a C core.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import selectors
import socket
import sys
import threading
from asyncio import (
    base_events,
    events,
    format_helpers,
    selector_events,
)
from typing import TYPE_CHECKING, Any

from aiozmq_speedups import _ext
from aiozmq_speedups._loop.processes import Processes
from aiozmq_speedups._loop.sendfile import Sendfile
from aiozmq_speedups._loop.servers import Servers
from aiozmq_speedups._loop.signals import Signals
from aiozmq_speedups._loop.slow import Slow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import TypeVar

    _P = TypeVar("_P")
    _T = TypeVar("_T")

_core = _ext.core

# None where it is another's already: then connecting is left to asyncio, which uses it.
_Socket = socket.socket if socket.socket.__module__ == "socket" else None

# What asyncio's create_connection() calls for a numeric address: C stands for these.
_CONNECT_STEPS = (
    "_ensure_resolved",
    "_connect_sock",
    "sock_connect",
    "_create_connection_transport",
    "_make_socket_transport",
)

# Newer versions take a `debug` flag that decides how much of the arguments shows.
_SOURCE_TAKES_DEBUG = (
    "debug" in inspect.signature(format_helpers._format_callback_source).parameters
)


class _CorePoller:
    """Stands where asyncio keeps its selector: polling is the C core's.

    Who would replace its select(), for a clock that jumps, is told, and does not wait
    for ever: assigning to it fails, too.
    """

    __slots__ = ("_loop",)

    def __init__(self, loop: Any) -> None:
        self._loop = loop  # a cycle until close(), which drops the poller

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """What the repr of asyncio's transports asks for."""
        watched = self._loop._watched(fileobj)
        if watched is None:
            raise KeyError(f"{fileobj!r} is not registered")
        fd, reader, writer = watched
        events = (selectors.EVENT_READ if reader is not None else 0) | (
            selectors.EVENT_WRITE if writer is not None else 0
        )
        return selectors.SelectorKey(fileobj, fd, events, (reader, writer))

    def get_map(self) -> Mapping[int, Any]:
        return {}

    def close(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        message = f"this loop polls in C and has no selector whose {name} could be used"
        raise AttributeError(message, name=name, obj=self)


class AcceleratedLoop(
    Slow,
    Signals,
    Servers,
    _core.Loop,  # type: ignore[misc, name-defined]
    Sendfile,
    Processes,
):
    """Joins the C core to asyncio's code."""

    _whole_loop: type  # Loop: no subclass, that may have overridden something

    def __init__(self) -> None:
        self._listeners = {}
        try:
            super(_core.Loop, self).__init__(_CorePoller(self))
        except BaseException:  # no descriptors left
            self._dispose()  # or __del__ closes what is not there
            raise

    # -- running --

    def run_forever(self) -> None:
        """Run until stop() is called (asyncio loop.run_forever)."""
        self._run_forever_setup()
        try:
            if self._watchdog_wanted:
                self._start_watchdog()
            try:
                self._outer_wakeup_fd = self._take_wakeup_fd()
                self._run()
            finally:
                self._give_back_wakeup_fd()
        finally:
            self._run_forever_cleanup()

    if not hasattr(base_events.BaseEventLoop, "_run_forever_setup"):  # < 3.13

        def _run_forever_setup(self) -> None:
            self._check_closed()
            self._check_running()
            self._set_coroutine_origin_tracking(self._debug)
            self._old_agen_hooks = sys.get_asyncgen_hooks()
            self._thread_id = threading.get_ident()
            sys.set_asyncgen_hooks(
                firstiter=self._asyncgen_firstiter_hook,
                finalizer=self._asyncgen_finalizer_hook,
            )
            events._set_running_loop(self)

        def _run_forever_cleanup(self) -> None:
            self._stopping = False
            self._thread_id = None
            events._set_running_loop(None)
            self._set_coroutine_origin_tracking(False)
            sys.set_asyncgen_hooks(*self._old_agen_hooks)

    def close(self) -> None:
        """Close the loop; twice is harmless (asyncio loop.close)."""
        if self.is_closed():
            return
        super().close()
        self._end_watchdog()
        self._listeners.clear()
        self._dispose()

    @property
    def _nest_patched(self) -> bool:
        """What nest_asyncio looks for before it replaces this class's methods,
        by code that needs asyncio's own turn: no loop of the process would run."""
        raise ValueError(
            f"Can't patch loop of type {type(self)}: nested turns are not "
            "supported. Await what is to be awaited, or run it in a thread of its "
            "own (asyncio.to_thread(aiozmq_speedups.run, main()))"
        )

    def __dir__(self) -> list[str]:
        # Whoever walks the attributes would meet the ValueError.
        return [name for name in super().__dir__() if name != "_nest_patched"]

    # -- connections --

    async def _ensure_resolved(
        self,
        address: tuple[Any, ...],
        *,
        family: int = 0,
        type: int = socket.SOCK_STREAM,
        proto: int = 0,
        flags: int = 0,
        loop: Any,
    ) -> list[Any]:
        # asyncio knows numeric hosts, but asks a thread for those with a zone.
        host, port = address[:2]
        if isinstance(host, str) and "%" in host:
            numeric = flags | socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
            with contextlib.suppress(socket.gaierror):
                return socket.getaddrinfo(host, port, family, type, proto, numeric)
        resolved: list[Any] = await super()._ensure_resolved(
            address, family=family, type=type, proto=proto, flags=flags, loop=loop
        )
        return resolved

    @functools.wraps(asyncio.SelectorEventLoop.create_connection)
    async def create_connection(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], Any],
        host: Any = None,
        port: Any = None,
        **options: Any,
    ) -> tuple[Any, Any]:
        # The commonest case, one numeric address and nothing else, is done in C.
        if (
            not options
            and type(host) is str
            and type(port) is int
            and not self.get_debug()
            and (type(self) is self._whole_loop or not self._overrides(_CONNECT_STEPS))
            # Where asyncio has it from, for those who put another there.
            and base_events.socket.socket is _Socket  # type: ignore[attr-defined]
        ):
            connecting = self._connect(protocol_factory, (host, port))
            if connecting is not None:
                connection: tuple[Any, Any] = await connecting
                return connection
        return await super().create_connection(protocol_factory, host, port, **options)

    def _overrides(self, names: Iterable[str]) -> bool:
        cls = type(self)
        return any(
            getattr(cls, name) is not getattr(AcceleratedLoop, name) for name in names
        )

    # -- called by the core's transports, where it is cold --

    def _transport_ended(
        self, transport: Any, exc: BaseException, message: str
    ) -> None:
        selector_events.logger.debug("%r: %s", transport, message, exc_info=exc)

    def _transport_ready(self, waiter: asyncio.Future[None]) -> None:
        if not waiter.cancelled():
            waiter.set_result(None)

    def _transport_socket(self, fd: int) -> socket.socket:
        # Its end, where Ctrl-C comes in between, must not be the transport's.
        sock = socket.socket.__new__(socket.socket)
        try:
            sock.__init__(fileno=fd)  # type: ignore[misc]
            sock.setblocking(False)
        except BaseException:
            sock.detach()
            raise
        return sock

    def _transport_closed_socket(self, family: int, kind: int) -> socket.socket:
        sock = socket.socket(family, kind)
        sock.close()
        return sock

    def _transport_warn(self, message: str) -> None:
        selector_events.logger.warning(message)

    def _transport_debug(self, message: str, *args: Any) -> None:
        selector_events.logger.debug(message, *args)

    # -- called by the core, for errors and in debug mode --

    def _callback_failed(self, handle: Any, exc: BaseException) -> None:
        options = {"debug": self.get_debug()} if _SOURCE_TAKES_DEBUG else {}
        source = format_helpers._format_callback_source(
            handle._callback, handle._args, **options
        )
        context = {
            "message": f"Exception in callback {source}",
            "exception": exc,
            "handle": handle,
        }
        if handle._source_traceback:
            context["source_traceback"] = handle._source_traceback
        self.call_exception_handler(context)

    def _run_foreign(self, handle: asyncio.Handle) -> None:
        if not handle.cancelled():  # since _add_callback()
            handle._run()

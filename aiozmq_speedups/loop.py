"""The event loop: the C core in front of asyncio's own cold code.

``Loop`` has two bases. ``_core.Loop`` comes first and owns whatever runs once
per callback, timer or descriptor event. ``asyncio.SelectorEventLoop`` owns
what runs once per loop, connection or error, so each Python version's
additions arrive by themselves. The private names of asyncio that this relies
on are listed in ``ASYNCIO_HOOKS`` and checked by a test.

Without the extension ``Loop`` is asyncio's loop with ``create_zmq_connection``.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import inspect
import operator
import os
import selectors
import signal
import socket
import sys
import threading
from asyncio import (
    base_events,
    constants,
    events,
    format_helpers,
    selector_events,
    sslproto,
    trsock,
)
from typing import TYPE_CHECKING, Any

from aiozmq_speedups import _ext
from aiozmq_speedups._processes import Processes
from aiozmq_speedups._sendfile import Sendfile

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping
    from contextvars import Context
    from typing import TypeVar

    import zmq

    from aiozmq_speedups._zmqwatch import ZmqWatches
    from aiozmq_speedups.interface import ZmqTransport

    _P = TypeVar("_P")
    _T = TypeVar("_T")

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

__all__ = (
    "EventLoopPolicy",
    "Loop",
    "ZmqEventLoop",
    "ZmqEventLoopPolicy",
    "install",
    "new_event_loop",
    "run",
)

# What asyncio keeps private and this package calls or replaces: kept here in one
# place, so that a new Python version's change is found by one test.
ASYNCIO_HOOKS = {
    "asyncio.base_events.BaseEventLoop": (
        "_asyncgen_finalizer_hook",
        "_asyncgen_firstiter_hook",
        "_check_callback",
        "_check_closed",
        "_check_running",
        "_check_thread",
        "_ensure_resolved",
        "_set_coroutine_origin_tracking",
        "_add_callback",
        "_connect_sock",
        "_create_connection_transport",
        "_make_read_pipe_transport",
        "_make_socket_transport",
        "_make_ssl_transport",
        "_make_write_pipe_transport",
        "_sock_sendfile_native",
        "_write_to_self",
    ),
    "asyncio.selector_events.BaseSelectorEventLoop": (
        "_add_reader",
        "_add_writer",
        "_close_self_pipe",
        "_ensure_fd_no_transport",
        "_make_self_pipe",
        "_sendfile_native",
        "_start_serving",
        "_stop_serving",
        "_read_from_self",
        "_remove_reader",
        "_remove_writer",
    ),
    "asyncio.unix_events._UnixSelectorEventLoop": (
        "_handle_signal",
        "_process_self_data",
        "_sock_sendfile_update_filepos",
    ),
    "asyncio.base_events": ("_format_handle",),
    # And of its instances `_sockets`, `_clients`: see csrc/net/clients.c.
    "asyncio.base_events.Server": ("_attach", "_detach", "_wakeup"),
    "asyncio.format_helpers": ("_format_callback_source", "extract_stack"),
    "asyncio.events": ("_set_running_loop",),
}

# Newer versions take a `debug` flag that decides how much of the arguments shows.
_SOURCE_TAKES_DEBUG = (
    "debug" in inspect.signature(format_helpers._format_callback_source).parameters
)


_BUSY_POLL_MAX_US = 24 * 3600 * 1_000_000


def _check_close_timeout(seconds: float) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"close_timeout must be a number of seconds, not {seconds!r}")
    if not seconds >= 0:
        raise ValueError(f"close_timeout must not be negative: {seconds!r}")
    return seconds


class _CorePoller:
    """Stands where asyncio keeps its selector: polling is the C core's."""

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


def check_engine(engine: str | None) -> None:
    """ValueError where there is no engine of this name; None is the default."""
    if engine not in (None, "auto", "libzmq", "native"):
        raise ValueError(
            f"the engine should be 'libzmq', 'native' or 'auto', not {engine!r}"
        )


class _ZmqSockets:
    """The ZeroMQ part of both loops, accelerated and pure."""

    _close_timeout = 1.0

    def __init__(
        self,
        *,
        zmq_context: zmq.Context[Any] | None = None,
        busy_poll_us: int = 0,
        close_timeout: float = 1.0,
        zmq_engine: str | None = None,
    ) -> None:
        super().__init__()
        self._zmq_context = zmq_context
        self._zmq_engine = zmq_engine
        self._zmtp_lingering: set[Any] = set()  # kept by _zmtp.py
        self._zmq_transports: set[Any] = set()  # kept by core.py
        self._zmq_sockets: Any = None  # _zmqlinger.Sockets, once there is a transport
        self._zmq_watches: ZmqWatches | None = None
        try:
            self._set_busy_poll(operator.index(busy_poll_us))
            self._close_timeout = _check_close_timeout(close_timeout)
            check_engine(zmq_engine)
        except BaseException:
            self.close()  # or __del__ warns that nobody did
            raise

    def _set_busy_poll(self, us: int) -> None:
        if not 0 <= us <= _BUSY_POLL_MAX_US:
            raise ValueError(
                f"busy_poll_us must be from 0 to {_BUSY_POLL_MAX_US}, a day, not {us}"
            )
        if _ext.core is not None:
            self._busy_poll_ns = us * 1000

    @property
    def busy_poll_us(self) -> int:
        """How long an idle loop polls before it sleeps, in microseconds.

        0 where it sleeps at once: by default, and always without the C extension.
        """
        nanoseconds: int = getattr(self, "_busy_poll_ns", 0)
        return nanoseconds // 1000

    async def create_zmq_connection(
        self,
        protocol_factory: Callable[[], _P],
        zmq_type: int,
        *,
        bind: str | Iterable[str] | None = None,
        connect: str | Iterable[str] | None = None,
        zmq_sock: zmq.Socket[Any] | None = None,
        **options: Any,
    ) -> tuple[ZmqTransport, _P]:
        """Create a ZeroMQ socket with a transport and a protocol on this loop.

        The method form of :func:`aiozmq_speedups.create_zmq_connection`. Closing
        the loop closes the socket.
        """
        from aiozmq_speedups.core import _create_zmq_connection

        return await _create_zmq_connection(
            self,
            self._zmq_context,
            protocol_factory,
            zmq_type,
            bind=bind,
            connect=connect,
            zmq_sock=zmq_sock,
            **options,
        )

    def stats(self) -> dict[str, int]:
        """Counts of what the loop has and has done, for monitoring.

        What there is now:

        ``ready``
            callbacks and I/O deliveries that wait for their turn;
        ``timers``
            timers that are neither due nor cancelled;
        ``fds``
            file descriptors that are watched, listening ones among them;
        ``transports``
            open sockets and pipes with a transport (a TLS connection is one);
        ``zmq_transports``
            open ZeroMQ transports.

        Totals since the loop was made:

        ``turns``, ``polls``
            turns of the loop, and how many of them asked the kernel for events;
        ``busy_polls``, ``sleeps``
            system calls of busy polling, and polls that could sleep;
        ``callbacks``
            entries taken from the ready queue, cancelled handles among them;
        ``transports_made``, ``accepted``
            transports, and connections that servers took from listening sockets;
        ``bytes_received``, ``bytes_sent``
            payload that the kernel gave or took, by transports and ``sock_*``, before
            decryption and after encryption; not what ``sendfile()`` sends;
        ``packets_received``, ``packets_sent``
            datagrams, and system calls that moved stream data;
        ``zmq_messages_received``, ``zmq_messages_sent``
            multipart messages of ZeroMQ transports in C.

        Without the C extension only the first five are there, and ``transports``
        leaves out pipes. Works on a closed loop, too.
        """
        counts: dict[str, int] = self._stats()  # type: ignore[attr-defined]
        if not self.is_closed():  # type: ignore[attr-defined]
            counts["fds"] -= 1  # asyncio's own, to be woken by
        counts["zmq_transports"] = len(self._zmq_transports)
        return counts

    def close(self) -> None:
        """Close the loop and the ZeroMQ sockets made on it; twice is harmless.

        Messages that were written and are not sent yet, of transports closed before as
        well, are waited for: at most ``close_timeout`` seconds, and never longer than a
        socket's linger time. What is lost all the same is logged. Ctrl-C ends the wait.
        """
        try:
            if not self.is_running():  # type: ignore[attr-defined]
                self._close_zmq()
        finally:
            super().close()  # type: ignore[misc]

    def _close_zmq(self) -> None:
        watches, self._zmq_watches = self._zmq_watches, None
        try:
            core = sys.modules.get("aiozmq_speedups.core")
            if core is not None:  # without it there are no transports
                core._close_transports(self)
        finally:
            if watches is not None:
                watches.close()

    # Called by the C core for add_reader() and its like with a zmq.Socket.

    def _watch_zmq(
        self, sock: Any, writer: bool, callback: Any, args: tuple[Any, ...]
    ) -> asyncio.Handle:
        if self._zmq_watches is None:
            from aiozmq_speedups._zmqwatch import ZmqWatches

            self._zmq_watches = ZmqWatches(self)  # type: ignore[arg-type]
        return self._zmq_watches.add(sock, writer, callback, *args)

    def _unwatch_zmq(self, sock: Any, writer: bool) -> bool:
        return self._zmq_watches is not None and self._zmq_watches.remove(sock, writer)


if _ext.core is not None:

    class _AcceleratedLoop(_ext.core.Loop, Sendfile, Processes):  # type: ignore[misc, name-defined]
        """Joins the C core to asyncio's code."""

        def __init__(self) -> None:
            self._listeners: dict[int, Any] = {}  # by the listening socket's fd
            try:
                super(_ext.core.Loop, self).__init__(_CorePoller(self))
            except BaseException:  # no descriptors left
                self._dispose()  # or __del__ closes what is not there
                raise

        # -- running --

        def run_forever(self) -> None:
            """Run until stop() is called (asyncio loop.run_forever)."""
            self._run_forever_setup()
            try:
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
            self._listeners.clear()
            self._dispose()

        # -- signals --
        #
        # A signal that arrives just before the loop waits must not be slept
        # over, so in the main thread the wake-up descriptor is always set while
        # the loop runs; asyncio sets it only for add_signal_handler().

        _outer_wakeup_fd = -1  # whose place ours takes while the loop runs

        def _take_wakeup_fd(self) -> int:
            """Returns the descriptor to restore, -1 for none."""
            if threading.get_ident() != threading.main_thread().ident:
                return -1
            own_fd = self._csock.fileno()
            try:
                old_fd = signal.set_wakeup_fd(own_fd, warn_on_full_buffer=False)
            except ValueError:  # the main thread of a sub-interpreter
                return -1
            return -1 if old_fd == own_fd else old_fd

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

        def _give_back_wakeup_fd(self) -> None:
            old_fd, self._outer_wakeup_fd = self._outer_wakeup_fd, -1
            if self._signal_handlers:
                return  # they want it between runs too, as in asyncio
            if threading.get_ident() != threading.main_thread().ident:
                return
            # Ctrl-C may have come before _take_wakeup_fd() returned: ours must go
            # all the same, its number may be another file's soon.
            try:
                current = signal.set_wakeup_fd(-1)
            except ValueError:
                return
            if current != self._csock.fileno():
                old_fd = current  # a callback installed its own: it stays
            if old_fd != -1:
                try:
                    # Nobody can ask whether its owner wanted a warning. Most ask for
                    # none, and a warning that is missing harms less than one that is
                    # written to the program's stderr.
                    signal.set_wakeup_fd(old_fd, warn_on_full_buffer=False)
                except (ValueError, OSError):
                    pass  # its owner closed it meanwhile

        def _handle_signal(self, sig: int) -> None:
            if sig not in self._signal_handlers and self._outer_wakeup_fd != -1:
                # The interpreter would have told the other, had we not asked.
                try:
                    os.write(self._outer_wakeup_fd, bytes([sig]))
                except OSError:
                    pass  # closed, or full
            super()._handle_signal(sig)

        def remove_signal_handler(self, sig: int) -> bool:
            """Remove a handler for a signal (asyncio loop.remove_signal_handler)."""
            removed: bool = super().remove_signal_handler(sig)
            if removed and self.is_running() and not self._signal_handlers:
                self._take_wakeup_fd()
            return removed

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
                and (type(self) is Loop or not self._overrides(_CONNECT_STEPS))
                # Where asyncio has it from, for those who put another there.
                and base_events.socket.socket is _Socket  # type: ignore[attr-defined]
            ):
                connecting = self._connect(protocol_factory, (host, port))
                if connecting is not None:
                    connection: tuple[Any, Any] = await connecting
                    return connection
            return await super().create_connection(
                protocol_factory, host, port, **options
            )

        def _overrides(self, names: Iterable[str]) -> bool:
            cls = type(self)
            return any(getattr(cls, name) is not getattr(Loop, name) for name in names)

        def _make_ssl_transport(
            self,
            rawsock: socket.socket,
            protocol: Any,
            sslcontext: Any,
            waiter: Any = None,
            *,
            server_side: bool = False,
            server_hostname: str | None = None,
            extra: Any = None,
            server: Any = None,
            ssl_handshake_timeout: float | None = constants.SSL_HANDSHAKE_TIMEOUT,
            ssl_shutdown_timeout: float | None = constants.SSL_SHUTDOWN_TIMEOUT,
            context: Context | None = None,  # since Python 3.15
        ) -> Any:
            ssl_protocol = sslproto.SSLProtocol(
                self,
                protocol,
                sslcontext,
                waiter,
                server_side,
                server_hostname,
                ssl_handshake_timeout=ssl_handshake_timeout,
                ssl_shutdown_timeout=ssl_shutdown_timeout,
            )
            self._make_socket_transport(
                rawsock,
                ssl_protocol,
                extra=extra,
                server=server,
                **({} if context is None else {"context": context}),
            )
            return ssl_protocol._app_transport  # type: ignore[attr-defined]

        def _start_serving(
            self,
            protocol_factory: Callable[[], Any],
            sock: socket.socket,
            sslcontext: Any = None,
            server: Any = None,
            backlog: int = 100,
            *timeouts: Any,
            **named: Any,  # timeouts, and since Python 3.15 the Server's context
        ) -> None:
            if sslcontext is not None or sock.type != socket.SOCK_STREAM:
                super()._start_serving(
                    protocol_factory,
                    sock,
                    sslcontext,
                    server,
                    backlog,
                    *timeouts,
                    **named,
                )
                return
            listener = self._listen(
                protocol_factory, sock, server, backlog, named.get("context")
            )
            self._listeners[sock.fileno()] = listener

        def _stop_serving(self, sock: socket.socket) -> None:
            listener = self._listeners.pop(sock.fileno(), None)
            if listener is not None:
                listener.stop()
            super()._stop_serving(sock)

        def _accept_failed(
            self, message: str, exc: BaseException, sock: socket.socket
        ) -> None:
            # As asyncio: what happens to one connection is debug mode's business,
            # but for the errors of the listening socket itself.
            if isinstance(exc, OSError) or self.get_debug():
                self.call_exception_handler(
                    {
                        "message": message,
                        "exception": exc,
                        "socket": trsock.TransportSocket(sock),
                    }
                )

        def _accept_back_off(
            self, listener: Any, exc: BaseException, sock: socket.socket
        ) -> None:
            # First: the handler may raise KeyboardInterrupt.
            self.call_later(constants.ACCEPT_RETRY_DELAY, listener.start)
            self.call_exception_handler(
                {
                    "message": "socket.accept() out of system resource",
                    "exception": exc,
                    "socket": trsock.TransportSocket(sock),
                }
            )

        # -- called by the core's transports, where it is cold --

        def _transport_fatal(
            self, transport: Any, exc: BaseException, message: str
        ) -> None:
            quiet = isinstance(exc, OSError)
            if message == "Fatal read error on pipe transport":
                # A terminal whose other side has gone reads EIO: an end, no error.
                quiet = quiet and exc.errno == errno.EIO
            if not quiet:
                self._transport_failed(transport, exc, message)
            elif self.get_debug():
                selector_events.logger.debug("%r: %s", transport, message, exc_info=exc)

        def _transport_failed(
            self, transport: Any, exc: BaseException, message: str
        ) -> None:
            self.call_exception_handler(
                {
                    "message": message,
                    "exception": exc,
                    "transport": transport,
                    "protocol": transport.get_protocol(),
                }
            )

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

        def _callback_slow(self, handle: Any, seconds: float) -> bool:
            if seconds < self.slow_callback_duration:
                return False
            if handle._callback == self._run_foreign:  # a signal's handler, say
                (handle,) = handle._args
            base_events.logger.warning(
                "Executing %s took %.3f seconds",
                base_events._format_handle(handle),
                seconds,
            )
            return True

        def _protocol_slow(
            self, what: object, method: str | None, seconds: float
        ) -> bool:
            """A call of the protocol `what`, or of a protocol factory, has ended."""
            if seconds < self.slow_callback_duration:
                return False
            if method is None:
                base_events.logger.warning(
                    "Executing the protocol factory %r took %.3f seconds", what, seconds
                )
            else:
                base_events.logger.warning(
                    "Executing %s.%s() of %r took %.3f seconds",
                    type(what).__qualname__,
                    method,
                    what,
                    seconds,
                )
            return True

    _Base = _AcceleratedLoop
else:

    class _PureLoop(Processes):
        """asyncio's loop; its selector also takes ZeroMQ sockets."""

        def __init__(self) -> None:
            self._closed = True  # for __del__, where there are no descriptors left
            try:
                from aiozmq_speedups.selector import ZmqSelector
            except ImportError:  # no pyzmq, or one that does not load
                selector = None
            else:
                selector = ZmqSelector()
            try:
                super().__init__(selector)
            except BaseException:
                self._closed = True
                raise

        def _stats(self) -> dict[str, int]:
            watched = {} if self.is_closed() else self._selector.get_map()
            return {
                "ready": len(self._ready),
                "timers": sum(not timer.cancelled() for timer in self._scheduled),
                "fds": len(watched),
                "transports": sum(
                    not transport.is_closing()
                    for transport in self._transports.values()
                ),
            }

    _Base = _PureLoop

if TYPE_CHECKING:
    _Base = asyncio.SelectorEventLoop


class Loop(_ZmqSockets, _Base):
    """The event loop: asyncio's interface, plus ZeroMQ.

    ``zmq_context`` is the zmq.Context that create_zmq_connection() makes sockets
    in; None means ``zmq.Context.instance()``. With ``busy_poll_us`` an idle loop
    polls for that many microseconds before it sleeps: see :ref:`busy-polling`;
    TypeError where it is no int, ValueError where it is not from 0, the default
    and off, to a day. ``close_timeout`` is how many seconds :meth:`close` waits for
    messages of ZeroMQ sockets to be sent, ``math.inf`` for as long as the sockets'
    linger times. ``zmq_engine`` is what serves its ZeroMQ sockets where they are not
    given an ``engine``: see :ref:`engines`. Every method of
    :class:`asyncio.AbstractEventLoop` of the running Python version is there. A
    loop belongs to the thread that runs it; only call_soon_threadsafe() may be
    called from others.
    """

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            zmq_context: zmq.Context[Any] | None = None,
            busy_poll_us: int = 0,
            close_timeout: float = 1.0,
            zmq_engine: str | None = None,
        ) -> None: ...


#: aiozmq's name for it.
ZmqEventLoop = Loop


def new_event_loop(
    *,
    zmq_context: zmq.Context[Any] | None = None,
    busy_poll_us: int = 0,
    close_timeout: float = 1.0,
    zmq_engine: str | None = None,
) -> Loop:
    """A new loop; give it as ``loop_factory`` to :class:`asyncio.Runner`.

    The arguments are those of :class:`Loop`.
    """
    return Loop(
        zmq_context=zmq_context,
        busy_poll_us=busy_poll_us,
        close_timeout=close_timeout,
        zmq_engine=zmq_engine,
    )


def run(
    main: Coroutine[Any, Any, _T],
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    close_timeout: float | None = None,
) -> _T:
    """Run a coroutine on a new loop and close it: :func:`asyncio.run`.

    ``loop_factory`` makes the loop, :func:`new_event_loop` where it is None.
    ``close_timeout`` is that of :class:`Loop`; ValueError where ``loop_factory`` is
    given, too.
    """
    if events._get_running_loop() is not None:
        raise RuntimeError("run() cannot be called from a running event loop")
    factory = loop_factory or new_event_loop
    if close_timeout is not None:
        if loop_factory is not None:
            raise ValueError("close_timeout is for the loop that run() makes itself")
        factory = functools.partial(new_event_loop, close_timeout=close_timeout)
    with asyncio.Runner(debug=debug, loop_factory=factory) as runner:
        return runner.run(main)


def install(
    *, aiozmq: bool = False, uvloop: bool = False, zmq_asyncio: bool = False
) -> None:
    """Make every new asyncio loop of this process one of ours.

    Sets the event loop policy or, from Python 3.16 on, which has none, replaces
    :func:`asyncio.new_event_loop`; where a program can be changed,
    ``aiozmq_speedups.run(main())`` is the better way. With ``aiozmq=True`` also
    makes ``import aiozmq`` and its submodules resolve to this package, with
    ``uvloop=True`` ``import uvloop`` (``run``, ``new_event_loop``, ``install``,
    ``EventLoopPolicy`` and ``Loop`` are this loop's), with ``zmq_asyncio=True``
    ``import zmq.asyncio`` (:mod:`aiozmq_speedups.zmq_asyncio`); RuntimeError where the
    other package was imported already. Twice is harmless.
    """
    from aiozmq_speedups._alias import install_alias

    if aiozmq:
        install_alias("aiozmq")
    if uvloop:
        install_alias("uvloop")
    if zmq_asyncio:
        install_alias("zmq.asyncio")
    try:
        from aiozmq_speedups._policy import EventLoopPolicy, get_policy, set_policy
    except ImportError:
        # asyncio.Runner looks this name up.
        events.new_event_loop = new_event_loop
        asyncio.new_event_loop = new_event_loop
    else:
        if type(get_policy()) is not EventLoopPolicy:
            set_policy(EventLoopPolicy())


def __getattr__(name: str) -> Any:
    # Policies are deprecated in 3.14 and gone in 3.16: only who asks pays.
    if name in ("EventLoopPolicy", "ZmqEventLoopPolicy"):
        from aiozmq_speedups import _policy

        return getattr(_policy, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

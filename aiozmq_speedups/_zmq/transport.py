"""What all ZeroMQ transports share: everything but the message path.

:class:`_BaseTransport` has what is called seldom. ``pure.py`` adds the
message path in Python, the C extension (csrc/zmq) has the fast one.
"""

from __future__ import annotations

import asyncio
import atexit
import errno
import os
import reprlib
import weakref
from collections.abc import Awaitable, Callable, Iterable
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from aiozmq_speedups._zmq import engine_libzmq, linger
from aiozmq_speedups._zmq.linger import (
    close_transports,
    end_transports,
    others_sockets,
    sockets_of,
)
from aiozmq_speedups._zmq.monitor import (
    _DEFAULT_BACKLOG,
    SocketEvent,
    ZmqMonitor,
    _Hub,
    add_iterator,
    check_backlog,
    check_events,
)
from aiozmq_speedups._zmq.pyzmq import zmq
from aiozmq_speedups.interface import ZmqTransport
from aiozmq_speedups.log import logger
from aiozmq_speedups.util import _EndpointsSet, find_endpoint, water_marks

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

T = TypeVar("T")
_Socket = zmq.Socket[bytes]
_Protocol = Any  # a ZmqProtocol by duck typing, as aiozmq has it

# How soon a message is tried again where libzmq may not tell: see pure.py.
_RETRY_SECONDS = 0.02

# These have no messages that their end could wait for; but a SUB its subscriptions.
_RECEIVERS = frozenset((int(zmq.SUB), int(zmq.PULL)))


def _os_error(exc: zmq.ZMQError) -> OSError:
    return OSError(exc.errno, exc.strerror)


def _not_a_socket() -> OSError:
    return OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))


# The last transport for each number of ZMQ_FD: see _claim_fd.
_by_fd: weakref.WeakValueDictionary[int, _BaseTransport] = weakref.WeakValueDictionary()
# Those that have none.
_native: weakref.WeakSet[_BaseTransport] = weakref.WeakSet()


class _Frames(list[Any]):
    """A message in an exception handler's context: a log shows the beginning."""

    __slots__ = ()

    def __repr__(self) -> str:
        return reprlib.repr(list(self))


class _Process:
    """Told apart by identity: a forked child gets another instance."""

    current: _Process


def _new_process() -> None:
    _Process.current = _Process()


_new_process()
os.register_at_fork(after_in_child=_new_process)


class _BaseTransport(ZmqTransport):
    """All but the message path.

    A subclass has the attributes and methods under TYPE_CHECKING.
    """

    if not TYPE_CHECKING:
        # The attributes below are the subclasses', some of them in C.
        __slots__ = ()

    LOG_THRESHOLD_FOR_CONNLOST_WRITES = 5
    ZMQ_TYPES: ClassVar[dict[int, str]] = {
        int(socket_type): socket_type.name for socket_type in zmq.SocketType
    }

    if TYPE_CHECKING:
        # Reading it schedules a check of ZMQ_EVENTS: see _arm.
        _zmq_sock: _Socket | None
        _loop: AbstractEventLoop | None
        _protocol: _Protocol
        _zmq_type: int
        _zmq_fd: int
        _closing: bool
        _low_water: int
        _high_water: int
        _extra: dict[str, Any]
        _bindings: set[str]
        _connections: set[str]
        _subscriptions: set[bytes]
        _monitor: Any  # of the PAIR socket's transport, or a _NativeMonitor
        _process_token: _Process

        def __init__(
            self,
            loop: AbstractEventLoop,
            zmq_type: int,
            zmq_sock: _Socket,
            protocol: _Protocol,
            waiter: Future[None] | None = None,
        ) -> None: ...

        def _arm(self) -> None: ...
        def _start(self) -> None: ...
        def _on_retry(self) -> None: ...
        def _maybe_pause_protocol(self) -> None: ...
        def _force_close(self, exc: BaseException | None) -> None: ...
        def _abandon(self) -> None: ...
        def _replace_socket(self, zmq_sock: _Socket) -> None: ...
        def _take_queue(self) -> list[Any]: ...

    def _init_cold(self, zmq_sock: _Socket, zmq_type: int) -> None:
        self._extra = {"zmq_socket": zmq_sock, "zmq_type": zmq_type}
        self._bindings = set()
        self._connections = set()
        self._subscriptions = set()
        self._monitor = None
        self._process_token = _Process.current
        self._set_write_buffer_limits()

    def _register(self, waiter: Future[None] | None) -> None:
        """Schedules connection_made, then the start of reading."""
        loop = self._loop
        assert loop is not None
        if self._zmq_fd < 0:
            _native.add(self)
        else:
            self._claim_fd(loop, self._zmq_fd)
            hub = isinstance(self._protocol, _Hub)
            if not hub and self._zmq_type not in _RECEIVERS:
                sockets_of(loop).add(self._zmq_fd)
        loop.call_soon(self._protocol.connection_made, self)
        loop.call_soon(self._start)
        if waiter is not None:
            loop.call_soon(_set_result_unless_done, waiter)
        # Ours closes its transports with itself.
        transports = getattr(loop, "_zmq_transports", None)
        if transports is not None:
            transports.add(self)

    def _claim_fd(self, loop: AbstractEventLoop, fd: int) -> None:
        """Ends the transport that watches a descriptor of the same number still: its
        user has closed its zmq socket, and libzmq has given the number to this one.

        Else this one could not be watched, or it would be the other's end, later on,
        that takes its reader away.
        """
        other = _by_fd.get(fd)
        if other is not None and other._loop is loop:
            zmq_sock = other._zmq_sock
            if zmq_sock is not None and engine_libzmq.is_closed(zmq_sock):
                other._force_close(_not_a_socket())
        _by_fd[fd] = self

    def _unregister(self, loop: AbstractEventLoop) -> None:
        transports = getattr(loop, "_zmq_transports", None)
        if transports is not None:
            transports.discard(self)

    def _is_forked(self) -> bool:
        """In a child of the process that made the socket: there ZMQ_EVENTS, and
        all else that takes libzmq's commands, never returns."""
        return self._process_token is not _Process.current

    def __repr__(self) -> str:
        kind = self.ZMQ_TYPES.get(self._zmq_type, self._zmq_type)
        try:
            zmq_sock = self._zmq_sock
        except RuntimeError:  # another thread's: libzmq must not be asked
            closing = " closing" if self._closing else ""
            return f"<ZmqTransport type={kind}{closing}>"
        info = ["ZmqTransport", f"sock={zmq_sock}", f"type={kind}"]
        try:
            if zmq_sock is not None and not self._is_forked():
                events = engine_libzmq.get_option(zmq_sock, zmq.EVENTS)
                info.append("read=polling" if events & zmq.POLLIN else "read=idle")
                state = "polling" if events & zmq.POLLOUT else "idle"
                size = self.get_write_buffer_size()
                info.append(f"write=<{state}, bufsize={size}>")
                for what, endpoints in (
                    ("bindings", self._bindings),
                    ("connections", self._connections),
                ):
                    if endpoints:
                        some = ", ".join(sorted(endpoints)[:3])
                        more = ", ..." if len(endpoints) > 3 else ""
                        info.append(f"{what}={{{some}{more}}}")
        except zmq.ZMQError:
            pass
        if zmq_sock is None:
            info.append("closed")
        elif self._closing:
            info.append("closing")
        return "<{}>".format(" ".join(info))

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return *name*'s value, or *default* where there is none.

        ``"zmq_socket"`` is the pyzmq socket, ``"zmq_type"`` its type. To
        read, write or poll the socket directly while the transport uses it,
        ask for it anew each time: the transport then looks again whether
        messages are waiting, which ZMQ_FD no longer tells.
        """
        if name == "zmq_socket":
            self._arm()
        return self._extra.get(name, default)

    def can_write_eof(self) -> bool:
        return False

    def _warn_lost_write(self) -> None:
        logger.warning("write to closed ZMQ socket.")

    def _report_refused(self, exc: OSError, message: Iterable[Any]) -> None:
        """Tells of one message that libzmq refused; the transport goes on."""
        if self._loop is None:
            return  # it has ended meanwhile
        self._loop.call_exception_handler(
            {
                "message": "A message cannot be sent by a zmq socket transport",
                "exception": exc,
                "zmq_message": _Frames(message),
                "transport": self,
                "protocol": self._protocol,
            }
        )

    def _schedule_retry(self) -> asyncio.TimerHandle:
        assert self._loop is not None
        return self._loop.call_later(_RETRY_SECONDS, self._on_retry)

    def _schedule_linger(self) -> asyncio.TimerHandle | None:
        """Bounds by the linger time how long close() waits for the buffer."""
        assert self._loop is not None
        try:
            milliseconds = int(self.getsockopt(zmq.LINGER))
        except OSError:
            return None  # closed by the user: the next write finds it so
        if milliseconds < 0:
            return None
        return self._loop.call_later(milliseconds / 1000, self._on_linger)

    def _on_linger(self) -> None:
        if not self._closing or self._loop is None:
            return
        messages = self._take_queue()
        logger.warning(
            "%d messages (%d bytes) that no peer took within the linger time of "
            "close() are lost: %s",
            len(messages),
            sum(len(frame) for message in messages for frame in message),
            repr(self),  # a kept record must not keep the transport
        )
        self._force_close(None)

    def _close_socket(self, zmq_sock: _Socket) -> None:
        if not self._is_forked():
            try:
                # Has libzmq (4.3.5) take its commands: it may lose what a socket
                # sent to a peer that it has just connected to, whatever its linger,
                # where it is closed with commands waiting.
                engine_libzmq.get_option(zmq_sock, zmq.EVENTS)
            except zmq.ZMQError:
                pass  # closed by the user, or its context is terminated
        engine_libzmq.close(zmq_sock)

    # -- Options --

    def getsockopt(self, option: int) -> Any:
        while True:
            zmq_sock = self._zmq_sock
            if zmq_sock is None:
                raise _not_a_socket()
            try:
                value = engine_libzmq.get_option(zmq_sock, option)
            except zmq.ZMQError as exc:
                if exc.errno == errno.EINTR:
                    continue
                raise _os_error(exc) from exc
            if option == zmq.LAST_ENDPOINT:
                return value.decode("utf-8").rstrip("\x00")
            return value

    def setsockopt(self, option: int, value: Any) -> None:
        while True:
            zmq_sock = self._zmq_sock
            if zmq_sock is None:
                raise _not_a_socket()
            try:
                engine_libzmq.set_option(zmq_sock, option, value)
            except zmq.ZMQError as exc:
                if exc.errno == errno.EINTR:
                    continue
                raise _os_error(exc) from exc
            if option == zmq.SUBSCRIBE:
                self._subscriptions.add(value)
            elif option == zmq.UNSUBSCRIBE:
                self._subscriptions.discard(value)
            return

    # -- Flow control --

    def _set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        self._high_water, self._low_water = water_marks(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return (self._low_water, self._high_water)

    def set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        self._set_write_buffer_limits(high=high, low=low)
        self._maybe_pause_protocol()

    # -- Endpoints --

    def _done(self, operation: Callable[[_Socket], T], endpoint: object) -> Future[T]:
        """A future with the result of `operation`, which runs at once.

        The effect does not wait for the caller's await, as in aiozmq.
        """
        zmq_sock = self._zmq_sock  # RuntimeError in another thread than the loop's
        loop = self._loop
        fut: Future[T] = (
            asyncio.get_running_loop() if loop is None else loop
        ).create_future()
        try:
            if not isinstance(endpoint, str):
                raise TypeError(f"endpoint should be str, got {endpoint!r}")
            if zmq_sock is None:
                raise _not_a_socket()
            try:
                result = operation(zmq_sock)
            except zmq.ZMQError as exc:
                if exc.errno == errno.EINVAL and "://" not in endpoint:
                    hint = "an endpoint begins with its transport, as in tcp://"
                    raise OSError(exc.errno, f"{exc.strerror}: {hint}") from exc
                raise _os_error(exc) from exc
        except Exception as exc:
            fut.set_exception(exc)
        else:
            fut.set_result(result)
        return fut

    def bind(self, endpoint: str) -> Awaitable[str]:
        def operation(zmq_sock: _Socket) -> str:
            engine_libzmq.bind(zmq_sock, endpoint)
            real_endpoint: str = self.getsockopt(zmq.LAST_ENDPOINT)
            self._bindings.add(real_endpoint)
            return real_endpoint

        return self._done(operation, endpoint)

    def unbind(self, endpoint: str) -> Awaitable[None]:
        def operation(zmq_sock: _Socket) -> None:
            engine_libzmq.unbind(zmq_sock, endpoint)
            self._forget_endpoint(endpoint)

        return self._done(operation, endpoint)

    def bindings(self) -> AbstractSet[str]:
        return _EndpointsSet(self._bindings)

    def connect(self, endpoint: str) -> Awaitable[str]:
        def operation(zmq_sock: _Socket) -> str:
            engine_libzmq.connect(zmq_sock, endpoint)
            self._connections.add(endpoint)
            return endpoint

        return self._done(operation, endpoint)

    def disconnect(self, endpoint: str) -> Awaitable[None]:
        def operation(zmq_sock: _Socket) -> None:
            engine_libzmq.disconnect(zmq_sock, endpoint)
            self._forget_endpoint(endpoint)

        return self._done(operation, endpoint)

    def connections(self) -> AbstractSet[str]:
        return _EndpointsSet(self._connections)

    def _forget_endpoint(self, endpoint: str) -> None:
        """zmq_unbind(3) and zmq_disconnect(3) are one in libzmq: they end whatever has
        that name, or for TCP the address that it stands for."""
        for endpoints in (self._bindings, self._connections):
            endpoints.discard(find_endpoint(endpoints, endpoint))

    # -- Subscriptions --

    def _check_sub(self) -> None:
        if self._zmq_type != zmq.SUB:
            raise NotImplementedError("Not supported ZMQ socket type")

    def subscribe(self, value: bytes) -> None:
        self._check_sub()
        if not isinstance(value, bytes):
            raise TypeError("value argument should be bytes")
        if value in self._subscriptions:
            return
        self.setsockopt(zmq.SUBSCRIBE, value)

    def unsubscribe(self, value: bytes) -> None:
        self._check_sub()
        if not isinstance(value, bytes):
            raise TypeError("value argument should be bytes")
        self.setsockopt(zmq.UNSUBSCRIBE, value)

    def subscriptions(self) -> AbstractSet[bytes]:
        self._check_sub()
        return _EndpointsSet(self._subscriptions)

    # -- Monitor --

    async def enable_monitor(self, events: int | None = None) -> None:
        engine_libzmq.check_monitor()
        mask = check_events(events)
        hub = self._monitor_hub()
        if hub.protocol_events is None:
            hub.protocol_events = mask

    def _monitor_hub(self) -> _Hub:
        """The protocol of the monitor's transport, which is started if need be."""
        zmq_sock, loop = self._zmq_sock, self._loop
        if zmq_sock is None or loop is None or self._closing:
            raise _not_a_socket()
        if self._monitor is not None:
            hub: _Hub = self._monitor._protocol
            return hub
        if self._zmq_fd < 0:
            hub = _Hub(self)
            self._monitor = _NativeMonitor(hub)
            native: Any = zmq_sock
            native._open_monitor(hub.native_event)
            return hub
        return self._monitor_libzmq(_Hub(self))

    def _monitor_libzmq(self, hub: _Hub) -> _Hub:
        zmq_sock, loop = self._zmq_sock, self._loop
        if zmq_sock is None or loop is None:
            raise _not_a_socket()
        try:
            pair = engine_libzmq.open_monitor(zmq_sock)
        except zmq.ZMQError as exc:
            raise _os_error(exc) from exc
        try:
            self._monitor = monitor = type(self)(loop, zmq.PAIR, pair, hub)
            monitor._receive_events(SocketEvent)
        except BaseException:
            engine_libzmq.close_monitor(zmq_sock)
            engine_libzmq.drop(pair)
            raise
        return hub

    def _use_libzmq(self, zmq_sock: _Socket) -> None:
        """Goes on with a socket of libzmq in place of a native one."""
        loop = self._loop
        if loop is None:
            raise _not_a_socket()
        self._claim_fd(loop, engine_libzmq.get_fd(zmq_sock))  # it is watched at once
        self._replace_socket(zmq_sock)
        self._extra["zmq_socket"] = zmq_sock
        _native.discard(self)
        if self._zmq_type not in _RECEIVERS:
            sockets_of(loop).add(self._zmq_fd)
        if self._monitor is not None:
            hub: _Hub = self._monitor._protocol
            self._monitor = None
            self._monitor_libzmq(hub)

    def _receive_events(self, event_type: type[SocketEvent]) -> None:
        """Of a monitor's own transport: the protocol takes its messages as events.

        Here it decodes them itself; the transport in C calls event_received().
        """

    async def disable_monitor(self) -> None:
        hub: _Hub | None = None if self._monitor is None else self._monitor._protocol
        if hub is not None:
            hub.protocol_events = None
            hub.stop_unless_used()

    def monitor(
        self, events: int | None = None, *, backlog: int | None = _DEFAULT_BACKLOG
    ) -> ZmqMonitor:
        engine_libzmq.check_monitor()
        check_backlog(backlog)
        mask = check_events(events)
        return add_iterator(self._monitor_hub(), mask, backlog)

    def _end_monitoring(self) -> None:
        """Called before the sockets of a loop are closed, its own PAIR among them.

        libzmq (4.3.5) keeps some descriptors of a socket that is closed while it is
        monitored, until its context ends.
        """
        zmq_sock = self._zmq_sock
        if self._monitor is None or zmq_sock is None or self._is_forked():
            return
        try:
            engine_libzmq.close_monitor(zmq_sock)
        except zmq.ZMQError:
            pass  # closed by the user, or its context is terminated

    def _disable_monitor(self) -> None:
        """Called as the transport closes."""
        hub: _Hub | None = None if self._monitor is None else self._monitor._protocol
        if hub is not None:
            hub.stop()


class _NativeMonitor:
    """In place of a PAIR socket's transport: the native engine calls the hub itself."""

    def __init__(self, hub: _Hub) -> None:
        self._protocol = hub

    def get_protocol(self) -> _Hub:
        return self._protocol

    def abort(self) -> None:
        pass


def _set_result_unless_done(waiter: Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _at_exit() -> None:
    """The end of the process: for loops that were not closed, or are not ours."""
    loops: set[Any] = set()
    others = []
    for transport in [*_by_fd.values(), *_native]:
        loop = transport._loop
        if loop is None or transport._is_forked():
            continue
        sockets = sockets_of(loop)
        if loop.is_running():
            sockets.discard(transport._zmq_fd)  # a daemon thread uses it
        elif sockets is others_sockets():
            others.append(transport)
        else:
            loops.add(loop)
    for loop in loops:
        close_transports(loop)
    end_transports(others, others_sockets(), linger.CLOSE_TIMEOUT)


atexit.register(_at_exit)

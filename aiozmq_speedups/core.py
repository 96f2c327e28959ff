"""ZeroMQ transports on any asyncio loop: what runs once per connection.

Three classes: :class:`_BaseTransport` has what is called seldom,
:class:`_PyZmqTransport` adds the message path in Python and
``_CZmqTransport`` the one of the C extension.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import struct
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Set
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import zmq

from aiozmq_speedups import _ext
from aiozmq_speedups.interface import ZmqProtocol, ZmqTransport
from aiozmq_speedups.loop import Loop
from aiozmq_speedups.log import logger
from aiozmq_speedups.util import _EndpointsSet

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

__all__ = ["SocketEvent", "create_zmq_connection"]

T = TypeVar("T")
_Socket = zmq.Socket[bytes]
_Protocol = Any  # a ZmqProtocol by duck typing, as aiozmq has it
_Endpoints = str | Iterable[str] | None

# One turn of a transport's drain ends after this many messages or bytes, so
# that a flood does not keep the rest of the loop waiting.
_BUDGET_MESSAGES = 128
_BUDGET_BYTES = 1024 * 1024

# ZMQ_EVENTS of these always has POLLOUT (zmq_socket(3): they drop, or with
# ZMQ_ROUTER_MANDATORY and ZMQ_XPUB_NODROP refuse), so it cannot tell when a
# refused message may be sent.
_POLLOUT_IS_CONSTANT = frozenset(
    (zmq.ROUTER, zmq.PUB, zmq.XPUB, zmq.XSUB, zmq.REP, zmq.STREAM)
)
_RETRY_SECONDS = 0.02
# A receive on these is an error, not EAGAIN.
_SEND_ONLY = frozenset((zmq.PUB, zmq.PUSH))

_monitor_ids = itertools.count(1)


class SocketEvent(NamedTuple):
    """What a socket monitor reports, see zmq_socket_monitor(3)."""

    event: int
    value: int
    endpoint: str


class _Process:
    """Told apart by identity: a forked child gets another instance."""

    current: _Process


def _new_process() -> None:
    _Process.current = _Process()


_new_process()
os.register_at_fork(after_in_child=_new_process)


def _os_error(exc: zmq.ZMQError) -> OSError:
    return OSError(exc.errno, exc.strerror)


def _not_a_socket() -> OSError:
    return OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))


async def create_zmq_connection(
    protocol_factory: Callable[[], _Protocol],
    zmq_type: int,
    *,
    bind: _Endpoints = None,
    connect: _Endpoints = None,
    zmq_sock: _Socket | None = None,
    loop: AbstractEventLoop | None = None,
) -> tuple[ZmqTransport, _Protocol]:
    """Open a ZeroMQ socket as a transport and its protocol.

    :param protocol_factory: called without arguments, returns an object with
        :class:`ZmqProtocol`'s methods.
    :param zmq_type: ``zmq.DEALER``, ``zmq.ROUTER``, ``zmq.PUB``, ...
    :param bind: endpoint or endpoints (``transport://address``) to bind to.
    :param connect: endpoint or endpoints to connect to.
    :param zmq_sock: a pyzmq socket of *zmq_type* to use instead of a new one.
        The transport owns it from then on, and closes it.
    :param loop: the running loop by default.
    :return: ``(transport, protocol)``, after ``connection_made()``.
    :raise OSError: on an error of libzmq. The socket is closed, also where
        the call is cancelled or *protocol_factory* raises (but then a
        *zmq_sock* stays the caller's).
    :raise ValueError: where *zmq_sock* is of another type, or *bind* or
        *connect* is neither a str nor an iterable.
    """
    if loop is None:
        loop = asyncio.get_running_loop()
    if isinstance(loop, Loop):
        # A subclass may have overridden it.
        return await loop.create_zmq_connection(
            protocol_factory, zmq_type, bind=bind, connect=connect, zmq_sock=zmq_sock
        )
    return await _create_zmq_connection(
        loop,
        None,
        protocol_factory,
        zmq_type,
        bind=bind,
        connect=connect,
        zmq_sock=zmq_sock,
    )


async def _create_zmq_connection(
    loop: AbstractEventLoop,
    zmq_context: zmq.Context[_Socket] | None,
    protocol_factory: Callable[[], _Protocol],
    zmq_type: int,
    *,
    bind: _Endpoints = None,
    connect: _Endpoints = None,
    zmq_sock: _Socket | None = None,
) -> tuple[ZmqTransport, _Protocol]:
    bind = _endpoints(bind, "bind")
    connect = _endpoints(connect, "connect")
    owned = zmq_sock is None
    try:
        if zmq_sock is None:
            zmq_sock = (zmq_context or zmq.Context.instance()).socket(zmq_type)
        elif zmq_sock.getsockopt(zmq.TYPE) != zmq_type:
            raise ValueError("Invalid zmq_sock type")
    except zmq.ZMQError as exc:
        raise _os_error(exc) from exc

    waiter = loop.create_future()
    try:
        protocol = protocol_factory()
        cls = _transport_class if isinstance(zmq_sock, zmq.Socket) else _PyZmqTransport
        transport = cls(loop, zmq_type, zmq_sock, protocol, waiter)
    except BaseException:
        if owned:
            zmq_sock.close(linger=0)
        raise
    try:
        await waiter
        for endpoint in bind:
            await transport.bind(endpoint)
        for endpoint in connect:
            await transport.connect(endpoint)
    except BaseException as exc:
        transport._force_close(exc if isinstance(exc, OSError) else None)
        raise
    return transport, protocol


def _endpoints(value: _Endpoints, name: str) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if not isinstance(value, Iterable):
        raise ValueError(f"{name} should be str or iterable")
    return list(value)


def _close_transports(loop: AbstractEventLoop) -> None:
    """Close the sockets of a loop that is being closed.

    Protocols are not told, as in aiozmq: no callback can run any more.
    """
    for transport in list(getattr(loop, "_zmq_transports", ())):
        transport._abandon()


class _ZmqEventProtocol(ZmqProtocol):
    """Decodes a monitor socket's messages for the monitored protocol."""

    def __init__(self, monitored: _BaseTransport) -> None:
        self._monitored = monitored

    def msg_received(self, data: list[bytes]) -> None:
        if len(data) != 2 or len(data[0]) != 6:
            raise RuntimeError(f"Invalid event message format: {data}")
        # The monitored socket's protocol, which may have been replaced.
        protocol = self._monitored._protocol
        if protocol is not None:
            event, value = struct.unpack("=Hi", data[0])
            endpoint = data[1].decode("utf-8", "surrogateescape")
            protocol.event_received(SocketEvent(event, value, endpoint))


class _BaseTransport(ZmqTransport):
    """All but the message path.

    A subclass has the attributes and methods under TYPE_CHECKING.
    """

    __slots__ = ()

    LOG_THRESHOLD_FOR_CONNLOST_WRITES = 5
    ZMQ_TYPES = {
        getattr(zmq, name): name
        for name in (
            "PUB SUB REP REQ PUSH PULL DEALER ROUTER XPUB XSUB PAIR STREAM".split()
        )
    }

    if TYPE_CHECKING:
        # Reading it schedules a check of ZMQ_EVENTS: see _arm.
        _zmq_sock: _Socket | None
        _loop: AbstractEventLoop | None
        _protocol: _Protocol
        _zmq_type: int
        _closing: bool
        _low_water: int
        _high_water: int
        _extra: dict[str, Any]
        _bindings: set[str]
        _connections: set[str]
        _subscriptions: set[bytes]
        _monitor: _BaseTransport | None

        def __init__(
            self,
            loop: AbstractEventLoop,
            zmq_type: int,
            zmq_sock: _Socket,
            protocol: _Protocol,
            waiter: Future[None] | None = None,
        ) -> None: ...

        def _arm(self) -> None: ...
        def _maybe_pause_protocol(self) -> None: ...
        def _force_close(self, exc: BaseException | None) -> None: ...
        def _abandon(self) -> None: ...

    def _init_cold(self, zmq_sock: _Socket, zmq_type: int) -> None:
        self._extra = {"zmq_socket": zmq_sock, "zmq_type": zmq_type}
        self._bindings = set()
        self._connections = set()
        self._subscriptions = set()
        self._monitor = None
        self._set_write_buffer_limits()

    def _register(self, waiter: Future[None] | None) -> None:
        """Schedules connection_made, then the start of reading."""
        loop = self._loop
        assert loop is not None
        # The loop keeps its transports alive, and closes them with itself.
        try:
            loop._zmq_transports.add(self)  # type: ignore[attr-defined]
        except AttributeError:
            try:
                loop._zmq_transports = {self}  # type: ignore[attr-defined]
            except AttributeError:
                pass  # a foreign loop without a __dict__
        loop.call_soon(self._protocol.connection_made, self)
        loop.call_soon(self._start)
        if waiter is not None:
            loop.call_soon(_set_result_unless_done, waiter)

    def _unregister(self, loop: AbstractEventLoop) -> None:
        transports = getattr(loop, "_zmq_transports", None)
        if transports is not None:
            transports.discard(self)

    def __repr__(self) -> str:
        zmq_sock = self._zmq_sock
        info = [
            "ZmqTransport",
            f"sock={zmq_sock}",
            f"type={self.ZMQ_TYPES.get(self._zmq_type, self._zmq_type)}",
        ]
        try:
            if zmq_sock is not None:
                events = zmq_sock.getsockopt(zmq.EVENTS)
                info.append("read=polling" if events & zmq.POLLIN else "read=idle")
                state = "polling" if events & zmq.POLLOUT else "idle"
                size = self.get_write_buffer_size()
                info.append(f"write=<{state}, bufsize={size}>")
        except zmq.ZMQError:
            pass
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

    def _schedule_retry(self) -> asyncio.TimerHandle:
        assert self._loop is not None
        return self._loop.call_later(_RETRY_SECONDS, self._on_retry)

    # -- Options --

    def getsockopt(self, option: int) -> Any:
        while True:
            zmq_sock = self._zmq_sock
            if zmq_sock is None:
                raise _not_a_socket()
            try:
                value = zmq_sock.getsockopt(option)
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
                zmq_sock.setsockopt(option, value)
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
        if high is None:
            high = 64 * 1024 if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high_water = high
        self._low_water = low

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
        loop = self._loop
        fut: Future[T] = (
            asyncio.get_running_loop() if loop is None else loop
        ).create_future()
        try:
            if not isinstance(endpoint, str):
                raise TypeError(f"endpoint should be str, got {endpoint!r}")
            zmq_sock = self._zmq_sock
            if zmq_sock is None:
                raise _not_a_socket()
            try:
                result = operation(zmq_sock)
            except zmq.ZMQError as exc:
                raise _os_error(exc) from exc
        except Exception as exc:
            fut.set_exception(exc)
        else:
            fut.set_result(result)
        return fut

    def bind(self, endpoint: str) -> Awaitable[str]:
        def operation(zmq_sock: _Socket) -> str:
            zmq_sock.bind(endpoint)
            real_endpoint: str = self.getsockopt(zmq.LAST_ENDPOINT)
            self._bindings.add(real_endpoint)
            return real_endpoint

        return self._done(operation, endpoint)

    def unbind(self, endpoint: str) -> Awaitable[None]:
        def operation(zmq_sock: _Socket) -> None:
            zmq_sock.unbind(endpoint)
            self._bindings.discard(endpoint)

        return self._done(operation, endpoint)

    def bindings(self) -> Set[str]:
        return _EndpointsSet(self._bindings)

    def connect(self, endpoint: str) -> Awaitable[str]:
        def operation(zmq_sock: _Socket) -> str:
            zmq_sock.connect(endpoint)
            self._connections.add(endpoint)
            return endpoint

        return self._done(operation, endpoint)

    def disconnect(self, endpoint: str) -> Awaitable[None]:
        def operation(zmq_sock: _Socket) -> None:
            zmq_sock.disconnect(endpoint)
            self._connections.discard(endpoint)

        return self._done(operation, endpoint)

    def connections(self) -> Set[str]:
        return _EndpointsSet(self._connections)

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

    def subscriptions(self) -> Set[bytes]:
        self._check_sub()
        return _EndpointsSet(self._subscriptions)

    # -- Monitor --

    async def enable_monitor(self, events: int | None = None) -> None:
        if zmq.zmq_version_info() < (4,) or zmq.pyzmq_version_info() < (14, 4):
            raise NotImplementedError(
                "Socket monitor requires libzmq >= 4 and pyzmq >= 14.4, "
                f"have libzmq:{zmq.zmq_version()}, pyzmq:{zmq.pyzmq_version()}"
            )
        if self._monitor is not None:
            return
        zmq_sock, loop = self._zmq_sock, self._loop
        if zmq_sock is None or loop is None or self._closing:
            raise _not_a_socket()
        # inproc joins sockets of one context only. The name is used once: a
        # name derived from the fd comes back while the old monitor closes.
        addr = f"inproc://monitor.aiozmq_speedups-{next(_monitor_ids)}"
        try:
            pair = zmq_sock.context.socket(zmq.PAIR)
        except zmq.ZMQError as exc:
            raise _os_error(exc) from exc
        try:
            # Connected before libzmq binds its end, so no event is lost.
            pair.connect(addr)
            zmq_sock.monitor(addr, zmq.EVENT_ALL if events is None else events)
            ready: Future[None] = loop.create_future()
            self._monitor = type(self)(
                loop, zmq.PAIR, pair, _ZmqEventProtocol(self), ready
            )
        except BaseException as exc:
            pair.close(linger=0)
            if isinstance(exc, zmq.ZMQError):
                raise _os_error(exc) from exc
            raise
        await ready

    async def disable_monitor(self) -> None:
        self._disable_monitor()

    def _disable_monitor(self) -> None:
        monitor = self._monitor
        if monitor is None:
            return
        self._monitor = None
        zmq_sock = self._zmq_sock
        try:
            if zmq_sock is not None:
                zmq_sock.disable_monitor()
        except zmq.ZMQError:
            pass  # the user closed the socket, and libzmq the monitor with it
        monitor.abort()


def _close_socket(zmq_sock: _Socket) -> None:
    try:
        # Has libzmq (4.3.5) take its commands: it may lose what a socket sent to
        # a peer that it has just connected to, whatever its linger, where it is
        # closed with commands waiting.
        zmq_sock.getsockopt(zmq.EVENTS)
    except zmq.ZMQError:
        pass  # closed by the user, or its context is terminated
    zmq_sock.close()


def _set_result_unless_done(waiter: Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class _PyZmqTransport(_BaseTransport):
    """The message path in Python, on ZMQ_FD through ``add_reader``.

    ZMQ_FD says that libzmq has commands for this socket, not that there are
    messages; and every zmq_msg_recv, zmq_getsockopt(ZMQ_EVENTS) and now and
    then zmq_msg_send takes the commands and leaves ZMQ_FD silent. So after
    the last such call somebody must have looked for messages: either a
    receive that ended with EAGAIN, or ZMQ_EVENTS. What is called from
    outside _process cannot tell who looks next and arms a check in the next
    turn.
    """

    def __init__(
        self,
        loop: AbstractEventLoop,
        zmq_type: int,
        zmq_sock: _Socket,
        protocol: _Protocol,
        waiter: Future[None] | None = None,
    ) -> None:
        self._loop = loop
        self._sock: _Socket | None = zmq_sock
        self._zmq_type = zmq_type
        self._protocol = protocol
        self._can_receive = zmq_type not in _SEND_ONLY
        self._process_token = _Process.current
        self._context: Context = copy_context()
        self._fd = -1  # while not watched
        self._armed = False  # _on_armed is scheduled
        self._retry: asyncio.TimerHandle | None = None
        self._in_process = False
        self._closing = False
        self._paused = False
        self._conn_lost = 0  # of close and abort one, then one a lost write
        self._protocol_paused = False
        self._buffer: deque[tuple[int, list[Any]]] = deque()
        self._buffer_size = 0
        self._init_cold(zmq_sock, zmq_type)
        try:
            self._zmq_fd = zmq_sock.getsockopt(zmq.FD)
        except zmq.ZMQError as exc:
            raise _os_error(exc) from exc
        self._register(waiter)

    @property
    def _zmq_sock(self) -> _Socket | None:  # type: ignore[override]
        self._arm()
        return self._sock

    # -- Readiness --

    def _start(self) -> None:
        loop = self._loop
        if loop is None or self._conn_lost:
            return
        self._fd = self._zmq_fd
        loop.add_reader(self._fd, self._on_fd)
        # What a zmq_sock received before does not show at its ZMQ_FD.
        self._arm()

    def _stop(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            assert self._loop is not None
            self._loop.remove_reader(fd)
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _arm(self) -> None:
        if self._armed or self._in_process or self._fd < 0:
            return
        assert self._loop is not None
        if self._loop.is_closed():
            return
        self._loop.call_soon(self._on_armed)
        self._armed = True

    def _on_armed(self) -> None:
        self._armed = False
        self._on_fd()

    def _on_retry(self) -> None:
        self._retry = None
        self._on_fd()

    def _on_fd(self) -> None:
        if self._sock is None or self._fd < 0 or self._in_process:
            return
        if self._process_token is not _Process.current:
            return  # a forked child shares the parent's epoll: not its sockets
        again = True
        self._in_process = True
        try:
            again = self._context.run(self._process)
        finally:
            self._in_process = False
            if again:
                self._arm()

    def _process(self) -> bool:
        """Receives, then sends. True where there is more to do at once."""
        settled = False
        if self._can_receive and not self._paused and not self._closing:
            ended = self._drain()
            if ended is None:
                # Out of budget: the next turn looks at everything.
                if self._buffer:
                    self._flush()
                return True
            settled = ended
        if self._buffer:
            if not self._flush():
                return True
            settled = False
        if settled or self._sock is None or self._fd < 0:
            return False
        return self._recheck()

    def _recheck(self) -> bool:
        assert self._sock is not None
        try:
            events = self._sock.getsockopt(zmq.EVENTS)
        except zmq.ZMQError as exc:
            if exc.errno == errno.EINTR:
                return True
            self._fatal_zmq_error(exc, "Fatal read error on zmq socket transport")
            return False
        if events & zmq.POLLIN and not self._paused and not self._closing:
            return True
        if self._buffer and events & zmq.POLLOUT:
            if self._zmq_type not in _POLLOUT_IS_CONSTANT:
                return True
            # ZMQ_FD wakes us when room comes, but the command may have been
            # taken just now.
            if self._retry is None:
                self._retry = self._schedule_retry()
        return False

    def _drain(self) -> bool | None:
        """Receives until EAGAIN: True; stopped otherwise: False; out of budget:
        None."""
        assert self._sock is not None
        count = size = 0
        while count < _BUDGET_MESSAGES and size < _BUDGET_BYTES:
            try:
                data = self._sock.recv_multipart(zmq.DONTWAIT)
            except zmq.ZMQError as exc:
                if exc.errno == errno.EAGAIN:
                    return True
                if exc.errno == errno.EINTR:
                    return None
                if exc.errno == zmq.EFSM:
                    # A REQ without a request out, a REP that owes a reply.
                    return False
                self._fatal_zmq_error(exc, "Fatal read error on zmq socket transport")
                return False
            except Exception as exc:
                self._fatal_error(exc, "Fatal read error on zmq socket transport")
                return False
            count += 1
            for frame in data:
                size += len(frame)
            # It may close, pause, or close the zmq socket underneath.
            self._protocol.msg_received(data)
            if self._paused or self._closing or self._sock is None:
                return False
        return None

    def _flush(self) -> bool:
        """Sends what waits. False where the budget ended it."""
        count = size = 0
        while self._buffer:
            if count >= _BUDGET_MESSAGES or size >= _BUDGET_BYTES:
                return False
            sent_size, data = self._buffer[0]
            assert self._sock is not None
            try:
                self._sock.send_multipart(data, zmq.DONTWAIT)
            except zmq.ZMQError as exc:
                if exc.errno in (errno.EAGAIN, errno.EINTR):
                    return exc.errno == errno.EAGAIN
                self._fatal_zmq_error(exc, "Fatal write error on zmq socket transport")
                return True
            except Exception as exc:
                self._fatal_error(exc, "Fatal write error on zmq socket transport")
                return True
            self._buffer.popleft()
            self._buffer_size -= sent_size
            count += 1
            size += sent_size
            self._maybe_resume_protocol()
        if self._closing and not self._conn_lost:
            self._schedule_connection_lost(None)
        return True

    # -- Writing --

    def write(self, data: Iterable[bytes | bytearray | memoryview]) -> None:
        if not data:
            return
        parts: list[Any] = list(data)
        size = 0
        for i, part in enumerate(parts):
            if not isinstance(part, bytes):
                if not isinstance(part, (bytearray, memoryview)):
                    raise TypeError(
                        f"data argument must be iterable of byte-ish ({data!r})"
                    )
                # The caller may change it while it waits.
                parts[i] = part = bytes(part)
            size += len(part)
        if not parts:
            return
        if self._process_token is not _Process.current:
            raise RuntimeError(
                "the transport belongs to the parent process: "
                "a forked child must create its own"
            )
        if self._conn_lost:
            if self._conn_lost >= self.LOG_THRESHOLD_FOR_CONNLOST_WRITES:
                self._warn_lost_write()
            self._conn_lost += 1
            return
        if not self._buffer:
            assert self._sock is not None
            try:
                self._sock.send_multipart(parts, zmq.DONTWAIT)
            except zmq.ZMQError as exc:
                if exc.errno not in (errno.EAGAIN, errno.EINTR):
                    self._fatal_zmq_error(
                        exc, "Fatal write error on zmq socket transport"
                    )
                    return
            except Exception as exc:
                self._fatal_error(exc, "Fatal write error on zmq socket transport")
                return
            else:
                if self._can_receive:
                    self._arm()
                return
            if self._can_receive:
                self._arm()
        self._buffer.append((size, parts))
        self._buffer_size += size
        self._maybe_pause_protocol()

    def get_write_buffer_size(self) -> int:
        return self._buffer_size

    def _maybe_pause_protocol(self) -> None:
        if self._buffer_size <= self._high_water or self._protocol_paused:
            return
        self._protocol_paused = True
        self._call_flow_control("pause_writing")

    def _maybe_resume_protocol(self) -> None:
        if self._protocol_paused and self._buffer_size <= self._low_water:
            self._protocol_paused = False
            self._call_flow_control("resume_writing")

    def _call_flow_control(self, name: str) -> None:
        try:
            getattr(self._protocol, name)()
        except Exception as exc:
            assert self._loop is not None
            self._loop.call_exception_handler(
                {
                    "message": f"protocol.{name}() failed",
                    "exception": exc,
                    "transport": self,
                    "protocol": self._protocol,
                }
            )

    # -- Reading --

    def pause_reading(self) -> None:
        if self._closing:
            raise RuntimeError("Cannot pause_reading() when closing")
        if self._paused:
            raise RuntimeError("Already paused")
        self._paused = True

    def resume_reading(self) -> None:
        if not self._paused:
            raise RuntimeError("Not paused")
        self._paused = False
        self._arm()

    # -- Closing --

    def is_closing(self) -> bool:
        return self._closing

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def get_protocol(self) -> Any:
        return self._protocol

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._disable_monitor()
        if not self._buffer:
            self._schedule_connection_lost(None)

    def abort(self) -> None:
        self._force_close(None)

    def _force_close(self, exc: BaseException | None) -> None:
        if self._conn_lost:
            return
        self._disable_monitor()
        self._buffer.clear()
        self._buffer_size = 0
        self._closing = True
        self._schedule_connection_lost(exc)

    def _schedule_connection_lost(self, exc: BaseException | None) -> None:
        self._conn_lost += 1
        self._stop()
        assert self._loop is not None
        self._loop.call_soon(self._call_connection_lost, exc)

    def _call_connection_lost(self, exc: BaseException | None) -> None:
        loop, zmq_sock = self._loop, self._sock
        if loop is None or zmq_sock is None:
            return  # the loop was closed in between
        try:
            self._protocol.connection_lost(exc)
        finally:
            _close_socket(zmq_sock)
            self._sock = None
            self._protocol = None
            self._loop = None
            self._unregister(loop)

    def _abandon(self) -> None:
        loop, zmq_sock = self._loop, self._sock
        if loop is None or zmq_sock is None:
            return
        if not loop.is_closed():
            self._stop()
        self._fd = -1
        self._closing = True
        self._conn_lost += 1
        self._buffer.clear()
        self._buffer_size = 0
        self._monitor = None
        self._sock = None
        self._protocol = None
        self._loop = None
        _close_socket(zmq_sock)
        self._unregister(loop)

    def _fatal_zmq_error(self, exc: zmq.ZMQError, message: str) -> None:
        error = _os_error(exc)
        error.__cause__ = exc
        self._fatal_error(error, message)

    def _fatal_error(
        self, exc: Exception, message: str = "Fatal error on transport"
    ) -> None:
        assert self._loop is not None
        self._loop.call_exception_handler(
            {
                "message": message,
                "exception": exc,
                "transport": self,
                "protocol": self._protocol,
            }
        )
        self._force_close(exc)


if _ext.core is not None:

    class _CZmqTransport(_ext.core.ZmqTransport, _BaseTransport):  # type: ignore[misc, name-defined]
        """The message path in C, on libzmq's own functions."""

        def __init__(
            self,
            loop: AbstractEventLoop,
            zmq_type: int,
            zmq_sock: _Socket,
            protocol: _Protocol,
            waiter: Future[None] | None = None,
        ) -> None:
            super().__init__(loop, zmq_type, zmq_sock, protocol, waiter)
            self._init_cold(zmq_sock, zmq_type)
            self._register(waiter)

        def _watch_release(self) -> None:
            _schedule_release(self._loop, 0.02)

    # libzmq tells in its own thread that it has finished with a large frame,
    # which was not copied; the memory is freed when somebody looks. Every
    # transport does when it is used; this is for when all of them are idle.

    def _schedule_release(loop: AbstractEventLoop, delay: float) -> None:
        _ext.core._zmq_release(delay)
        loop.call_later(delay, _look_for_release, loop, delay, context=Context())

    def _look_for_release(loop: AbstractEventLoop, delay: float) -> None:
        if _ext.core._zmq_release():
            _schedule_release(loop, min(2 * delay, 1.0))


def _choose_transport() -> tuple[type[_BaseTransport], str]:
    """The transport class to use, and why, in one sentence."""
    if _ext.core is None:
        return _PyZmqTransport, f"pure Python: {_ext.reason}"
    _ext.core._set_zmq_socket_class(zmq.Socket)
    socket_type = zmq.backend.Socket
    module = sys.modules.get(socket_type.__module__)
    path = getattr(module, "__file__", None)
    if path is None or ".cython." not in socket_type.__module__:
        return _PyZmqTransport, (
            f"pure Python: pyzmq's backend {socket_type.__module__} gives no access "
            "to libzmq"
        )
    try:
        version = _ext.core._zmq_bind(path, socket_type)
    except ImportError as exc:
        return _PyZmqTransport, f"pure Python: {exc}"
    return _CZmqTransport, f"C, on libzmq {'.'.join(map(str, version))} of {path}"


_transport_class, transport_info = _choose_transport()


def __getattr__(name: str) -> Any:
    # aiozmq has its loop in this module; ours is beside it.
    if name in ("ZmqEventLoop", "ZmqEventLoopPolicy"):
        import aiozmq_speedups

        return getattr(aiozmq_speedups, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

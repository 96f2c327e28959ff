"""Events of a ZeroMQ socket: to its protocol, and to iterators.

libzmq has one monitor a socket and blocks, its I/O thread included, where nobody
reads what it says (libzmq#3575). So there is one PAIR socket a transport, without
a high water mark, that always reads every event; masks and bounds are kept here.
"""

from __future__ import annotations

import logging
import operator
import os
import struct
import weakref
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from aiozmq_speedups._zmq import engine_libzmq
from aiozmq_speedups._zmq.pyzmq import zmq
from aiozmq_speedups.interface import ZmqProtocol
from aiozmq_speedups.log import logger as package_logger

if TYPE_CHECKING:
    from asyncio import Future
    from types import TracebackType
    from typing import Self

    from aiozmq_speedups._zmq.transport import _BaseTransport

__all__ = ["SocketEvent", "ZmqMonitor"]

_DEFAULT_BACKLOG = 1000

# zmq.h of libzmq 4.3; pyzmq's zmq.Event has other constants among them.
_EVENT_NAMES = {
    0x0001: "CONNECTED",
    0x0002: "CONNECT_DELAYED",
    0x0004: "CONNECT_RETRIED",
    0x0008: "LISTENING",
    0x0010: "BIND_FAILED",
    0x0020: "ACCEPTED",
    0x0040: "ACCEPT_FAILED",
    0x0080: "CLOSED",
    0x0100: "CLOSE_FAILED",
    0x0200: "DISCONNECTED",
    0x0400: "MONITOR_STOPPED",
    0x0800: "HANDSHAKE_FAILED_NO_DETAIL",
    0x1000: "HANDSHAKE_SUCCEEDED",
    0x2000: "HANDSHAKE_FAILED_PROTOCOL",
    0x4000: "HANDSHAKE_FAILED_AUTH",
    0x10000: "PIPES_STATS",
}


_LOGGED_AS_INFO = {
    *("LISTENING", "HANDSHAKE_SUCCEEDED", "DISCONNECTED", "BIND_FAILED"),
    *("ACCEPT_FAILED", "HANDSHAKE_FAILED_NO_DETAIL", "HANDSHAKE_FAILED_PROTOCOL"),
    "HANDSHAKE_FAILED_AUTH",
}

logger = package_logger.getChild("zmq")


class SocketEvent(NamedTuple):
    """What a socket monitor reports, see zmq_socket_monitor(3).

    ``event`` is one ``zmq.EVENT_*`` bit, ``endpoint`` the address concerned.
    ``value`` depends on the event: the descriptor of the connection, an errno
    (``*_FAILED``, ``HANDSHAKE_FAILED_NO_DETAIL``), milliseconds until the next
    attempt (``CONNECT_RETRIED``), one of ``zmq.PROTOCOL_ERROR_*``
    (``HANDSHAKE_FAILED_PROTOCOL``) or ZAP's status (``HANDSHAKE_FAILED_AUTH``).
    """

    event: int
    value: int
    endpoint: str

    @property
    def name(self) -> str:
        """The event's name in libzmq without ``ZMQ_EVENT_``, as ``"CONNECTED"``.

        One that libzmq 4.3 does not have is a hexadecimal number.
        """
        return _EVENT_NAMES.get(self.event) or hex(self.event)


SocketEvent.__module__ = "aiozmq_speedups.core"


class ZmqMonitor:
    """Iterates over a socket's events: ``async for event in transport.monitor()``.

    Made by :meth:`ZmqTransport.monitor`, and on from then. What happens while
    nobody waits is kept; if that is more than the backlog the oldest events are
    dropped, and counted in ``dropped``. Iterating ends, once what was kept is
    read, when the transport closes, when :meth:`close` was called, or when the user
    stopped the monitor of the zmq socket itself.

    Several iterators may be open at a time, each gets every event. One coroutine at
    a time may wait for an iterator. Cancelling it loses nothing. An iterator that
    is no longer referenced is closed; ``with transport.monitor() as events:`` closes
    it at the end of the block.
    """

    __module__ = "aiozmq_speedups.core"

    __slots__ = ("__weakref__", "_backlog", "_events", "_hub", "_waiter", "dropped")

    def __init__(self, hub: _Hub, events: int, backlog: int | None) -> None:
        self._hub: _Hub | None = hub  # None once it has ended
        self._events = events
        self._backlog: deque[SocketEvent] = deque(maxlen=backlog)
        self._waiter: Future[None] | None = None
        #: How many events were lost because the backlog was full.
        self.dropped = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SocketEvent:
        """Return the next event.

        :raise StopAsyncIteration: after the last.
        :raise RuntimeError: if another coroutine waits already.
        """
        backlog = self._backlog
        while not backlog:
            hub = self._hub
            if hub is None or hub.monitored._loop is None:
                raise StopAsyncIteration
            if self._waiter is not None:
                raise RuntimeError("another coroutine waits for the monitor already")
            self._waiter = hub.monitored._loop.create_future()
            hub.waiting.add(self)
            try:
                # It only wakes: where this task is cancelled the event stays.
                await self._waiter
            finally:
                self._waiter = None
                hub.waiting.discard(self)
        return backlog.popleft()

    def close(self) -> None:
        """Get no more events. Harmless when repeated."""
        hub = self._hub
        if hub is not None:
            self._end()
            hub.iterators.discard(self)
            hub.stop_unless_used()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _feed(self, event: SocketEvent) -> None:
        if event.event & self._events:
            backlog = self._backlog
            if len(backlog) == backlog.maxlen:
                self.dropped += 1
            backlog.append(event)
            self._wake()

    def _end(self) -> None:
        self._hub = None
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        # Nothing can run any more on a loop that was closed before the transport.
        if waiter and not waiter.done() and not waiter.get_loop().is_closed():
            waiter.set_result(None)


class _Hub(ZmqProtocol):
    """The protocol of the PAIR socket: hands each event to whom wants it."""

    def __init__(self, monitored: _BaseTransport) -> None:
        self.monitored = monitored
        # What event_received() of the monitored protocol gets; None: nothing.
        self.protocol_events: int | None = None
        self.logs = False
        # An iterator that is dropped leaves by itself; what that makes superfluous
        # is found at the next event, since any thread may collect garbage.
        self.iterators: weakref.WeakSet[ZmqMonitor] = weakref.WeakSet()
        # These are awaited: nothing else may refer to them and to who waits.
        self.waiting: set[ZmqMonitor] = set()

    def msg_received(self, data: list[bytes]) -> None:
        # The transport in C decodes its messages itself.
        self.event_received(decode_event(data))

    def event_received(self, event: SocketEvent) -> None:
        kind = event.event
        if self.logs:
            _log(self.monitored, event)
        for iterator in list(self.iterators):
            iterator._feed(event)
        # The monitored socket's protocol, which may have been replaced.
        protocol = self.monitored._protocol
        events = self.protocol_events
        try:
            if protocol is not None and events is not None and kind & events:
                protocol.event_received(event)
        finally:
            if kind == zmq.EVENT_MONITOR_STOPPED:
                self.stop()  # by somebody who used the zmq socket directly
            else:
                self.stop_unless_used()

    def native_event(self, event: int, value: int, endpoint: str) -> None:
        self.event_received(SocketEvent(event, value, endpoint))

    def connection_lost(self, exc: BaseException | None) -> None:
        self.stop()

    def stop_unless_used(self) -> None:
        if self.protocol_events is None and not self.iterators and not self.logs:
            self.stop()

    def stop(self) -> None:
        """Ends the monitor and its iterators. Harmless when repeated."""
        self.protocol_events = None
        for iterator in list(self.iterators):
            iterator._end()
        self.iterators.clear()
        monitored = self.monitored
        pair = monitored._monitor
        if pair is None or pair.get_protocol() is not self:
            return
        monitored._monitor = None
        zmq_sock = monitored._zmq_sock
        try:
            if zmq_sock is not None:
                engine_libzmq.close_monitor(zmq_sock)
        except zmq.ZMQError:
            pass  # the user closed the socket, and libzmq the monitor with it
        finally:
            pair.abort()


def log_events(transport: _BaseTransport) -> None:
    """Logs what happens to its connections, until it closes."""
    transport._monitor_hub().logs = True


def _log(transport: _BaseTransport, event: SocketEvent) -> None:
    name, value = event.name, event.value
    level = logging.INFO if name in _LOGGED_AS_INFO else logging.DEBUG
    if not logger.isEnabledFor(level):
        return
    detail = ""
    if name == "CONNECT_RETRIED":
        detail = f" in {value} ms"
    elif name == "HANDSHAKE_FAILED_PROTOCOL":
        detail = f" (error {value:#x})"
    elif name == "HANDSHAKE_FAILED_AUTH":
        detail = f" (status {value})"
    elif "FAILED" in name and value > 0:
        detail = f" ({os.strerror(value)})"
    kind = transport.ZMQ_TYPES.get(transport._zmq_type, transport._zmq_type)
    what = name.lower().replace("_", " ").removesuffix(" no detail")
    logger.log(level, "%s %s: %s%s", kind, event.endpoint, what, detail)


def decode_event(data: list[bytes]) -> SocketEvent:
    """The event in the message of a monitor: see zmq_socket_monitor(3)."""
    if len(data) != 2 or len(data[0]) != 6:
        raise RuntimeError(f"Invalid event message format: {data}")
    kind, value = struct.unpack("=Hi", data[0])
    return SocketEvent(kind, value, data[1].decode("utf-8", "surrogateescape"))


def add_iterator(hub: _Hub, events: int | None, backlog: int | None) -> ZmqMonitor:
    iterator = ZmqMonitor(hub, check_events(events), backlog)
    hub.iterators.add(iterator)
    return iterator


def check_events(events: int | None) -> int:
    return zmq.EVENT_ALL if events is None else operator.index(events)


def check_backlog(backlog: int | None) -> None:
    if backlog is not None and operator.index(backlog) < 1:
        raise ValueError(f"backlog should be at least 1, got {backlog}")

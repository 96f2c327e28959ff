"""Streams of ZeroMQ messages: coroutines to read them and to wait for room."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from aiozmq_speedups._zmq.connect import create_zmq_connection
from aiozmq_speedups._zmq.engine_libzmq import message_size
from aiozmq_speedups.interface import ZmqProtocol, ZmqTransport
from aiozmq_speedups.util import NO_GIL, check_thread, water_marks

if TYPE_CHECKING:
    import zmq

    from aiozmq_speedups._zmq.monitor import SocketEvent
    from aiozmq_speedups._zmq.options import ZmqOptions

__all__ = ["ZmqStream", "ZmqStreamClosed", "ZmqStreamProtocol", "create_zmq_stream"]


class ZmqStreamClosed(Exception):
    """The stream has been closed."""

    __module__ = "aiozmq_speedups.stream"


async def create_zmq_stream(
    zmq_type: int,
    *,
    bind: str | Iterable[str] | None = None,
    connect: str | Iterable[str] | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
    zmq_sock: zmq.Socket[bytes] | None = None,
    high_read: int | None = None,
    low_read: int | None = None,
    high_write: int | None = None,
    low_write: int | None = None,
    events_backlog: int | None = 100,
    **options: Unpack[ZmqOptions],
) -> ZmqStream:
    """Makes a stream: :func:`create_zmq_connection` with a stream as its protocol.

    :param zmq_type: ``zmq.DEALER``, ``zmq.SUB``, ...
    :param bind: endpoints to bind to: a str (``transport://address``) or an
        iterable of them.
    :param connect: endpoints to connect to, likewise.
    :param loop: the running loop by default.
    :param zmq_sock: a socket to use instead of a new one.
    :param high_read: bytes waiting to be read above which reading pauses;
        64 KiB or ``4 * low_read`` by default. Each frame counts 64 beside its payload,
        here and in the marks below.
    :param low_read: bytes at which it resumes; ``high_read // 4`` by default.
    :param high_write: bytes waiting to be sent above which ``drain`` waits.
    :param low_write: bytes at which it waits no longer.
    :param events_backlog: monitor events kept for ``read_event``; the oldest are
        dropped. None for no limit.
    :param options: options of the socket: see :class:`ZmqOptions`.
    :raises OSError: the endpoint cannot be used.
    :raises ValueError: impossible water marks or options, or a socket of another
        type.
    :raises TypeError: an option is unknown or of another type.

    Source: aiozmq's function of this name.
    """
    if loop is None:
        loop = asyncio.get_running_loop()
    stream = ZmqStream(
        loop, high=high_read, low=low_read, events_backlog=events_backlog
    )
    transport, _ = await create_zmq_connection(
        lambda: stream._protocol,
        zmq_type,
        bind=bind,
        connect=connect,
        zmq_sock=zmq_sock,
        loop=loop,
        **options,
    )
    try:
        transport.set_write_buffer_limits(high_write, low_write)
    except BaseException:
        transport.close()
        raise
    return stream


create_zmq_stream.__module__ = "aiozmq_speedups.stream"


class ZmqStreamProtocol(ZmqProtocol):
    """Feeds a stream with what its transport receives.

    :param stream: the :class:`ZmqStream`.
    :param loop: the loop of the stream.
    """

    __module__ = "aiozmq_speedups.stream"

    def __init__(self, stream: ZmqStream, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._stream = stream
        self._paused = False
        self._drain_waiters: deque[asyncio.Future[None]] = deque()
        self._connection_lost = False
        if type(self) is ZmqStreamProtocol:
            # Called for every message: no frame of ours between.
            self.msg_received = stream.feed_msg  # type: ignore[method-assign]

    def msg_received(self, msg: list[bytes]) -> None:
        self._stream.feed_msg(msg)

    def event_received(self, event: SocketEvent) -> None:
        self._stream.feed_event(event)

    def pause_writing(self) -> None:
        assert not self._paused
        self._paused = True

    def resume_writing(self) -> None:
        assert self._paused
        self._paused = False
        self._wake_drains(None)

    def connection_made(self, transport: Any) -> None:
        self._stream.set_transport(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connection_lost = True
        if exc is None:
            self._stream.feed_closing()
        else:
            self._stream.set_exception(exc)
        self._wake_drains(exc)

    def _wake_drains(self, exc: BaseException | None) -> None:
        for waiter in self._drain_waiters:
            if waiter.done():
                continue
            if exc is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(exc)

    async def _drain_helper(self) -> None:
        if self._connection_lost:
            raise ConnectionResetError("Connection lost")
        if not self._paused:
            return
        waiter = self._loop.create_future()
        self._drain_waiters.append(waiter)
        try:
            await waiter
        finally:
            self._drain_waiters.remove(waiter)


class ZmqStream:
    """Messages to read and to write, on top of a transport.

    One coroutine at a time may wait in :meth:`read`, and one in
    :meth:`read_event`. Cancelling them loses nothing: a message leaves the queue
    only when it is returned. Not thread-safe: use it in the thread of its loop.

    :param loop: the loop of the transport.
    :param high: bytes waiting to be read above which reading pauses.
    :param low: bytes at which it resumes.
    :param events_backlog: monitor events kept for :meth:`read_event`.
    """

    __module__ = "aiozmq_speedups.stream"

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        high: int | None = None,
        low: int | None = None,
        events_backlog: int | None = 100,
    ) -> None:
        self._transport: ZmqTransport | None = None
        self._protocol = ZmqStreamProtocol(self, loop=loop)
        self._loop = loop
        # (bytes, message) each; _queue_len is the sum of the bytes.
        self._queue: deque[tuple[int, list[bytes]]] = deque()
        self._queue_len = 0
        self._event_queue: deque[SocketEvent] = deque(maxlen=events_backlog)
        self._closing = False
        self._waiter: asyncio.Future[None] | None = None
        self._event_waiter: asyncio.Future[None] | None = None
        self._exception: BaseException | None = None
        self._paused = False
        self._set_read_buffer_limits(high, low)

    def __repr__(self) -> str:
        info = [type(self).__name__, f"messages={len(self._queue)}"]
        if self._paused:
            info.append("paused")
        if self._exception is not None:
            info.append(f"exception={self._exception!r}")
        info.append("closed" if self._transport is None else repr(self._transport))
        return "<{}>".format(" ".join(info))

    @property
    def transport(self) -> ZmqTransport | None:
        """The transport; None once the connection is closed."""
        return self._transport

    def write(self, msg: Sequence[bytes]) -> None:
        """Sends a message of 1..n frames, or keeps it until the socket takes it.

        :raises TypeError: a frame is not bytes, bytearray or memoryview.
        :raises ZmqStreamClosed: the stream has been closed.
        """
        self._open_transport().write(msg)

    def close(self) -> None:
        """Closes the stream and its socket. Harmless when repeated.

        What was written is sent still: see :meth:`ZmqTransport.close`. To wait for
        that, close the loop, or have the peer answer: neither that :meth:`read` raises
        ZmqStreamClosed nor that :meth:`drain` returns tells of it.
        """
        if self._transport is not None:
            self._transport.close()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Information on the transport, as ``"zmq_socket"`` or ``"zmq_type"``.

        :raises ZmqStreamClosed: the stream has been closed.
        """
        return self._open_transport().get_extra_info(name, default)

    def _open_transport(self) -> ZmqTransport:
        transport = self._transport
        if transport is None:
            raise ZmqStreamClosed()
        return transport

    async def drain(self) -> None:
        """Waits while more is waiting to be sent than the water marks allow.

        What libzmq has taken counts as sent.

        :raises ConnectionResetError: the stream has been closed.
        """
        if NO_GIL:
            check_thread(self._loop)
        if self._exception is not None:
            raise self._exception
        await self._protocol._drain_helper()

    def exception(self) -> BaseException | None:
        """The exception that ended the stream."""
        return self._exception

    def set_exception(self, exc: BaseException) -> None:
        """Ends the stream with an exception, which reading raises. Private."""
        self._exception = exc
        self._wake_readers(exc)

    def set_transport(self, transport: ZmqTransport) -> None:
        """Private: called once, when the connection is made."""
        assert self._transport is None, "Transport already set"
        self._transport = transport

    def set_read_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        """Sets the water marks of reading, in bytes. Private.

        :raises ValueError: not ``high >= low >= 0``.
        """
        if NO_GIL:
            check_thread(self._loop)
        self._set_read_buffer_limits(high, low)
        self._maybe_resume_transport()

    def _set_read_buffer_limits(self, high: int | None, low: int | None) -> None:
        self._high_water, self._low_water = water_marks(high, low)

    def _maybe_resume_transport(self) -> None:
        if (
            self._paused
            and self._queue_len <= self._low_water
            and self._transport is not None
        ):
            self._paused = False
            # RuntimeError: the user has resumed the transport. read() must return
            # its message all the same.
            with contextlib.suppress(RuntimeError):
                self._transport.resume_reading()

    def feed_closing(self) -> None:
        """Tells that the connection is closed. Private."""
        self._closing = True
        self._transport = None
        self._wake_readers(ZmqStreamClosed)

    def _wake_readers(self, exc: BaseException | type[BaseException]) -> None:
        for waiter in (self._waiter, self._event_waiter):
            if waiter is not None and not waiter.done():
                waiter.set_exception(exc)
        self._waiter = self._event_waiter = None

    def at_closing(self) -> bool:
        """Whether the connection is closed and nothing is left to be read."""
        return self._closing and not self._queue

    def feed_msg(self, msg: list[bytes]) -> None:
        """Adds a received message and wakes the reader. Private."""
        assert not self._closing, "feed_msg after feed_closing"

        msg_len = message_size(msg)
        self._queue.append((msg_len, msg))
        self._queue_len += msg_len

        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)
        if (
            self._queue_len > self._high_water
            and not self._paused
            and self._transport is not None
        ):
            self._transport.pause_reading()
            self._paused = True

    def feed_event(self, event: SocketEvent) -> None:
        """Adds a monitor event and wakes its reader. Private."""
        assert not self._closing, "feed_event after feed_closing"

        self._event_queue.append(event)

        waiter = self._event_waiter
        if waiter is not None:
            self._event_waiter = None
            if not waiter.done():
                waiter.set_result(None)

    async def read(self) -> list[bytes]:
        """Reads one message, waiting for it.

        :returns: its 1..n frames.
        :raises ZmqStreamClosed: the stream has been closed.
        :raises RuntimeError: another coroutine waits in ``read``.
        :raises OSError: the connection failed.
        """
        if NO_GIL:
            check_thread(self._loop)
        self._check_open()
        while not self._queue:
            waiter = self._waiter
            if waiter is not None and not waiter.done():
                raise RuntimeError(
                    "read called while another coroutine is "
                    "already waiting for incoming data"
                )
            waiter = self._waiter = self._loop.create_future()
            try:
                # Only wakes: the message stays in the queue, so that it is still
                # there if this task is cancelled before it runs.
                await waiter
            finally:
                if self._waiter is waiter:
                    self._waiter = None
            if not self._queue:
                # Another coroutine was faster.
                self._check_open()

        msg_len, msg = self._queue.popleft()
        self._queue_len -= msg_len
        if self._paused:
            self._maybe_resume_transport()
        return msg

    async def read_event(self) -> SocketEvent:
        """Reads one monitor event, waiting for it.

        ``await stream.transport.enable_monitor()`` comes first.

        :raises ZmqStreamClosed: the stream has been closed.
        :raises RuntimeError: another coroutine waits in ``read_event``.
        """
        if NO_GIL:
            check_thread(self._loop)
        if self._closing:
            raise ZmqStreamClosed()
        while not self._event_queue:
            waiter = self._event_waiter
            if waiter is not None and not waiter.done():
                raise RuntimeError(
                    "read_event called while another coroutine"
                    " is already waiting for incoming data"
                )
            waiter = self._event_waiter = self._loop.create_future()
            try:
                await waiter
            finally:
                if self._event_waiter is waiter:
                    self._event_waiter = None
            if not self._event_queue:
                self._check_open()
        return self._event_queue.popleft()

    def _check_open(self) -> None:
        if self._exception is not None:
            raise self._exception
        if self._closing:
            raise ZmqStreamClosed()

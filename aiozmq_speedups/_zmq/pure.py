"""The message path of a ZeroMQ transport in pure Python.

The reference that the C one is tested against, and what runs without it.
"""

from __future__ import annotations

import errno
from collections import deque
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from aiozmq_speedups._zmq import engine_libzmq
from aiozmq_speedups._zmq.engine_libzmq import (
    MESSAGE_ERRORS,
    get_events,
    message_size,
    receive,
    receive_from,
    send,
)
from aiozmq_speedups._zmq.pyzmq import zmq
from aiozmq_speedups._zmq.transport import (
    _BaseTransport,
    _os_error,
    _Protocol,
    _Socket,
)

if TYPE_CHECKING:
    import asyncio
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Iterable

# One turn of a transport ends after this many messages or bytes, the frames' overhead
# among them, so that a flood does not keep the rest of the loop waiting.
_BUDGET_MESSAGES = 128
_BUDGET_BYTES = 1024 * 1024

# ZMQ_EVENTS of these always has POLLOUT (zmq_socket(3): they drop, or with
# ZMQ_ROUTER_MANDATORY and ZMQ_XPUB_NODROP refuse), so it cannot tell when a
# refused message may be sent.
_POLLOUT_IS_CONSTANT = frozenset(
    (zmq.ROUTER, zmq.PUB, zmq.XPUB, zmq.XSUB, zmq.REP, zmq.STREAM)
)
# A receive on these is an error, not EAGAIN.
_SEND_ONLY = frozenset((zmq.PUB, zmq.PUSH))


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
        self._context: Context = copy_context()
        self._fd = -1  # while not watched
        self._armed = False  # _on_armed is scheduled
        self._retry: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._in_process = False
        self._closing = False
        self._paused = False
        self._conn_lost = 0  # of close and abort one, then one a lost write
        self._told = False  # connection_lost was called
        self._protocol_paused = False
        self._tells_source = False  # the next line is filled in
        self._source = -1  # the descriptor that the last message came by
        self._buffer: deque[tuple[int, list[Any]]] = deque()
        self._buffer_size = 0
        self._init_cold(zmq_sock, zmq_type)
        try:
            self._zmq_fd = engine_libzmq.get_fd(zmq_sock)
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
            if not self._is_forked():  # a child has its parent's epoll
                self._loop.remove_reader(fd)
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None

    def _arm(self) -> None:
        if self._armed or self._in_process or self._fd < 0 or self._is_forked():
            return
        assert self._loop is not None
        if self._loop.is_closed():
            return
        self._armed = True
        try:
            self._loop.call_soon(self._on_armed)
        except BaseException:
            self._armed = False
            raise

    def _on_armed(self) -> None:
        self._armed = False
        self._on_fd()

    def _on_retry(self) -> None:
        self._retry = None
        self._on_fd()

    def _on_fd(self) -> None:
        if self._sock is None or self._fd < 0 or self._in_process:
            return
        if self._is_forked():
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
        if self._wants_messages():
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
        # Whatever is wanted: a send looks for commands at most once a millisecond, and
        # until somebody takes them, those that tell of room keep ZMQ_FD readable.
        return self._recheck()

    def _wants_messages(self) -> bool:
        return self._can_receive and not self._paused and not self._closing

    def _recheck(self) -> bool:
        """Asks for messages after a call that may have taken their command."""
        assert self._sock is not None
        try:
            events = get_events(self._sock)
        except zmq.ZMQError as exc:
            if exc.errno == errno.EINTR:
                return True
            self._fatal_zmq_error(exc, "Fatal read error on zmq socket transport")
            return False
        if events & zmq.POLLIN and self._wants_messages():
            return True
        if not self._buffer:
            return False
        if self._zmq_type not in _POLLOUT_IS_CONSTANT:
            return bool(events & zmq.POLLOUT)
        # The look may have taken the command that there is room. Only a send tells.
        if not self._flush() or not self._buffer:
            return True
        # libzmq may have taken commands in that send, too, if it had not for a
        # millisecond: who looks once more takes the next one. So a timer does.
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
                if self._tells_source:
                    data, self._source = receive_from(self._sock)
                else:
                    data = receive(self._sock)
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
            size += message_size(data)
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
            refused = None
            try:
                send(self._sock, data)
            except zmq.ZMQError as exc:
                if exc.errno in (errno.EAGAIN, errno.EINTR):
                    return exc.errno == errno.EAGAIN
                if exc.errno not in MESSAGE_ERRORS:
                    self._fatal_zmq_error(
                        exc, "Fatal write error on zmq socket transport"
                    )
                    return True
                refused = _os_error(exc)
            except Exception as exc:
                self._fatal_error(exc, "Fatal write error on zmq socket transport")
                return True
            self._buffer.popleft()
            self._buffer_size -= sent_size
            count += 1
            size += sent_size
            if refused is not None:
                self._report_refused(refused, data)
            self._maybe_resume_protocol()
        if self._closing and not self._conn_lost:
            self._schedule_connection_lost(None)
        return True

    # -- Writing --

    def write(self, data: Iterable[bytes | bytearray | memoryview]) -> None:
        if not data:
            return
        parts: list[Any] = list(data)
        for i, part in enumerate(parts):
            if not isinstance(part, bytes):
                if not isinstance(part, (bytearray, memoryview)):
                    raise TypeError(
                        f"data argument must be iterable of byte-ish ({data!r})"
                    )
                # The caller may change it while it waits.
                parts[i] = bytes(part)
        if not parts:
            return
        if self._is_forked():
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
                send(self._sock, parts)
            except zmq.ZMQError as exc:
                if exc.errno in MESSAGE_ERRORS:
                    if self._can_receive:
                        self._arm()
                    self._report_refused(_os_error(exc), parts)
                    return
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
        size = message_size(parts)
        self._buffer.append((size, parts))
        self._buffer_size += size
        self._maybe_pause_protocol()

    def _take_queue(self) -> list[Any]:
        taken = [data for _, data in self._buffer]
        self._buffer.clear()
        self._buffer_size = 0
        return taken

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
        try:
            self._disable_monitor()
        finally:
            # What that raises, Ctrl-C say, must not leave it closing for ever.
            if not self._conn_lost and self._loop is not None:
                if not self._buffer:
                    self._schedule_connection_lost(None)
                elif not self._loop.is_closed():
                    self._linger = self._schedule_linger()

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
        assert self._loop is not None
        if self._loop.is_closed():
            # No callback can run any more, but the socket must not stay open.
            self._abandon()
            return
        self._conn_lost += 1
        self._stop()
        self._loop.call_soon(self._call_connection_lost, exc)

    def _call_connection_lost(self, exc: BaseException | None) -> None:
        loop, zmq_sock = self._loop, self._sock
        if loop is None or zmq_sock is None or not self._conn_lost or self._told:
            return  # the loop was closed in between, or the caller should not call
        self._told = True
        try:
            self._protocol.connection_lost(exc)
        finally:
            self._sock = None
            self._protocol = None
            self._loop = None
            self._unregister(loop)
            self._close_socket(zmq_sock)

    def _abandon(self) -> None:
        loop, zmq_sock = self._loop, self._sock
        if loop is None or zmq_sock is None:
            return
        if not loop.is_closed():
            self._stop()
        self._fd = -1
        self._closing = True
        self._conn_lost = max(self._conn_lost, 1)
        self._buffer.clear()
        self._buffer_size = 0
        self._monitor = None
        self._sock = None
        self._protocol = None
        self._loop = None
        self._unregister(loop)
        self._close_socket(zmq_sock)

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

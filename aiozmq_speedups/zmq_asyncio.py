"""pyzmq's ``zmq.asyncio`` at C speed: the same names, a drop-in.

::

    import zmq
    from aiozmq_speedups import zmq_asyncio

    context = zmq_asyncio.Context()
    socket = context.socket(zmq.PULL)
    message = await socket.recv_multipart()

It works on every event loop that has add_reader(); on this package's it is fastest.
``aiozmq_speedups.install(zmq_asyncio=True)`` makes ``import zmq.asyncio`` mean this
module, in a program that is not changed.

Sockets are ``zmq.asyncio.Socket`` objects, too, with all their methods and attributes;
results are asyncio Futures. What differs: a receive that is cancelled or times out
never loses a message; a send that libzmq refuses for now waits, and pyzmq's fails;
after 128 messages or 1 MiB received without a turn of the loop the next receive waits
for one, so that timers and other tasks are served.

Source: the documentation of pyzmq, ``zmq.asyncio``.
"""

from __future__ import annotations

import asyncio
import functools
import warnings
from typing import TYPE_CHECKING, Any

import zmq
import zmq.asyncio as _pyzmq
from zmq.asyncio import ZMQEventLoop, install

from aiozmq_speedups import _alias, _ext
from aiozmq_speedups._zmq import accelerated as _transports
from aiozmq_speedups._zmq.pure import _PyZmqTransport
from aiozmq_speedups.util import NO_GIL

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Context", "Poller", "Socket", "ZMQEventLoop", "install"]

#: True if these are in C; False if they are pyzmq's own.
accelerated: bool = (
    _ext.core is not None and _transports.transport_class is not _PyZmqTransport
)

if TYPE_CHECKING or not accelerated:
    from zmq.asyncio import Context, Poller, Socket
else:
    _core = _ext.core

    def _error(errno: int) -> zmq.ZMQError:
        if errno == zmq.EAGAIN:
            return zmq.Again(errno)
        if errno == zmq.ETERM:
            return zmq.ContextTerminated(errno)
        return zmq.ZMQError(errno)

    def _default_loop(_socket: object) -> asyncio.AbstractEventLoop:
        warnings.warn(
            "No running event loop. zmq.asyncio should be used from within an "
            "asyncio loop.",
            RuntimeWarning,
            stacklevel=2,
        )
        return asyncio.get_event_loop()

    def _watch_release(loop: asyncio.AbstractEventLoop) -> None:
        _transports.schedule_release(loop, 0.02)

    _core._zmq_async_setup(_error, zmq.Again, zmq.Frame, _default_loop, _watch_release)

    class _StashPoller(zmq.Poller):
        """What stands behind pyzmq's Poller in the order of classes: it sees what
        the sockets have received already, too."""

        def poll(self, timeout: float | None = None) -> list[tuple[Any, int]]:
            events = dict(super().poll(timeout))
            for socket, mask in self.sockets:
                # A look takes libzmq's commands, whatever it is for.
                if (
                    isinstance(socket, Socket)
                    and socket._io.looked()
                    and mask & zmq.POLLIN
                ):
                    events[socket] = events.get(socket, 0) | zmq.POLLIN
            return list(events.items())

    class Poller(_pyzmq.Poller, _StashPoller):  # type: ignore[no-redef]
        """A ``zmq.asyncio.Poller``: poll() gives a Future of list[(socket, events)].

        Messages that a cancelled receive gave back count as POLLIN.
        """

    class Socket(_core.AsyncSocketMethods, _pyzmq.Socket):  # type: ignore[no-redef]
        """A ``zmq.asyncio.Socket`` whose receives and sends are in C.

        Every method is pyzmq's; recv(), recv_multipart(), recv_into(), send(),
        send_multipart() and all that stand on them return asyncio Futures.

        A receive that is cancelled, times out, or whose Future is dropped has taken
        nothing: its message is the next receive's. Messages that were read by
        somebody who was cancelled then (asyncio.gather(), wait_for() of Python 3.11, a
        coroutine of the user's) are not given back.

        An operation from another loop while some wait in the first raises
        RuntimeError. close() cancels what waits, and warns (RuntimeWarning) if
        messages were given back that nobody has received since.
        """

        _poller_class = Poller
        _io: Any = None

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._io = _core.AsyncSocket(
                self._shadow_sock,
                self.underlying,
                self._fd,
                int(self.type),
                not self._shadow,
            )

        def __repr__(self) -> str:
            start = super().__repr__()
            if self._io is None or self._closed or self._io.handle_closed:
                return start
            receives, sends = self._io.waiting
            return f"{start[:-1]} receives={receives} sends={sends}>"

        def close(self, linger: int | None = None) -> None:
            io = self._io
            if io is not None and not self._closed:
                if io.handle_closed:  # the address may be another's now
                    self._closed = True
                lost = io.close()
                if lost:
                    warnings.warn(
                        f"{self!r} is closed with {lost} message(s) received that "
                        "nobody has got: their receives were cancelled",
                        RuntimeWarning,
                        stacklevel=2,
                    )
            zmq.Socket.close(self, linger=linger)

        # What libzmq does for these may take its word of a message, or of room.

        def bind(self, addr: str) -> Any:
            try:
                return super().bind(addr)
            finally:
                self._io.looked()

        def connect(self, addr: str) -> Any:
            try:
                return super().connect(addr)
            finally:
                self._io.looked()

        def unbind(self, addr: str) -> None:
            try:
                super().unbind(addr)
            finally:
                self._io.looked()

        def disconnect(self, addr: str) -> None:
            try:
                super().disconnect(addr)
            finally:
                self._io.looked()

        def get(self, option: int) -> Any:
            result = zmq.Socket.get(self, option)
            if option == zmq.EVENTS:
                if self._io.looked():
                    result |= zmq.POLLIN
            elif option == zmq.RCVMORE and self._io.more >= 0:
                result = self._io.more
            return result

        getsockopt = get

        def _deserialize(self, recvd: Any, load: Callable[[Any], Any]) -> Any:
            if isinstance(recvd, _core.Operation):
                return recvd._load(load)
            return super()._deserialize(recvd, load)

        # What pyzmq's Poller asks of a socket.

        def _add_recv_event(self, kind: str, **kwargs: Any) -> Any:
            future = kwargs["future"]
            self._io.poll(future, zmq.POLLIN)
            return future

        def _add_send_event(self, kind: str, **kwargs: Any) -> Any:
            future = kwargs["future"]
            self._io.poll(future, zmq.POLLOUT)
            return future

        def _clear_io_state(self) -> None:
            self._io.leave()

    Poller._socket_class = Socket

    def _guard(method: Any) -> Any:
        """Refuses other threads than that of the socket's loop."""

        @functools.wraps(method)
        def guarded(self: Socket, *args: Any, **kwargs: Any) -> Any:
            if self._io is not None:
                self._io.check_thread()
            return method(self, *args, **kwargs)

        return guarded

    def _del_in_thread(self: Socket) -> None:
        """The collector may run in any thread; the loop's closes the socket then."""
        io = self._io
        if io is not None and not self._closed:
            try:
                io.check_thread()
            except RuntimeError:
                loop = io.loop
                if loop is None:  # another thread's close() has failed halfway
                    zmq.Socket.close(self)
                else:
                    loop.call_soon_threadsafe(_pyzmq.Socket.__del__, self)
                return
        _pyzmq.Socket.__del__(self)

    if NO_GIL:  # what goes to libzmq in the thread of the caller, which it must not
        for _name in (
            *("bind", "connect", "unbind", "disconnect", "join", "leave", "monitor"),
            *("get", "set", "getsockopt", "setsockopt"),
        ):
            setattr(Socket, _name, _guard(getattr(Socket, _name)))
        Socket.__del__ = _del_in_thread  # type: ignore[method-assign]

    class Context(_pyzmq.Context):  # type: ignore[no-redef]
        """A ``zmq.asyncio.Context``: socket() gives the Sockets of this module."""

        _socket_class = Socket
        _instance = None


_alias.own_alias("zmq.asyncio")

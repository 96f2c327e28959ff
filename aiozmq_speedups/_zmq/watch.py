"""``Loop.add_reader`` and its like with a ``zmq.Socket`` in place of a descriptor.

aiozmq's loop allowed that, level-triggered: the callback is called in every turn
in which the socket is ready. epoll cannot tell, since ZMQ_FD says only that a
socket *may* have become ready, and only once (zmq_getsockopt(3)). So the loop
asks here before each poll, and ZMQ_FD wakes it up in between.
"""

from __future__ import annotations

import asyncio
import errno
from contextvars import Context
from typing import TYPE_CHECKING, Any

from aiozmq_speedups._zmq import engine_libzmq
from aiozmq_speedups._zmq.pyzmq import zmq

if TYPE_CHECKING:
    from collections.abc import Callable

_Socket = zmq.Socket[Any]


class _Watch:
    """One socket's callbacks."""

    __slots__ = ("fd", "reader", "writer")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.reader: asyncio.Handle | None = None
        self.writer: asyncio.Handle | None = None


class ZmqWatches:
    """The watched sockets of one loop."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop  # a cycle while sockets are watched, or till close()
        self._watches: dict[_Socket, _Watch] = {}

    def add(
        self, sock: _Socket, writer: bool, callback: Callable[..., object], *args: Any
    ) -> asyncio.Handle:
        """Watch `sock`, replacing an earlier callback for the same direction."""
        watch = self._watches.get(sock)
        if watch is None:
            try:
                fd = engine_libzmq.get_fd(sock)
            except zmq.ZMQError as exc:
                raise OSError(exc.errno, exc.strerror) from exc
            # RuntimeError where a transport uses the socket.
            self._loop.add_reader(fd, _wake_up)
            watch = self._watches[sock] = _Watch(fd)
            self._loop._before_poll = self._look
        handle = asyncio.Handle(callback, args, self._loop)
        old = watch.writer if writer else watch.reader
        if writer:
            watch.writer = handle
        else:
            watch.reader = handle
        if old is not None:
            old.cancel()
        return handle

    def remove(self, sock: _Socket, writer: bool) -> bool:
        """Stop watching for one direction. True if it was watched."""
        watch = self._watches.get(sock)
        if watch is None:
            return False
        old = watch.writer if writer else watch.reader
        if old is None:
            return False
        old.cancel()
        if writer:
            watch.writer = None
        else:
            watch.reader = None
        if watch.reader is None and watch.writer is None:
            self._drop(sock, watch)
        return True

    def close(self) -> None:
        for sock, watch in list(self._watches.items()):
            for handle in (watch.reader, watch.writer):
                if handle is not None:
                    handle.cancel()
            self._drop(sock, watch)

    def _drop(self, sock: _Socket, watch: _Watch) -> None:
        del self._watches[sock]
        self._loop.remove_reader(watch.fd)
        if not self._watches:
            self._loop._before_poll = None

    def _look(self) -> None:
        """Schedules the callbacks of what is ready; before each poll."""
        for sock, watch in list(self._watches.items()):
            try:
                events = engine_libzmq.get_events(sock)
            except zmq.ZMQError as exc:
                if exc.errno != errno.EINTR:
                    self._failed(sock, watch, exc)
                continue
            if watch.reader is not None and events & zmq.POLLIN:
                self._schedule(watch.reader)
            if watch.writer is not None and events & zmq.POLLOUT:
                self._schedule(watch.writer)

    def _schedule(self, handle: asyncio.Handle) -> None:
        # The handle enters its own context.
        self._loop.call_soon(_run, handle, context=Context())

    def _failed(self, sock: _Socket, watch: _Watch, exc: zmq.ZMQError) -> None:
        """The socket was closed, or its context terminated: the end of its watch."""
        self._drop(sock, watch)
        self._loop.call_soon(
            self._loop.call_exception_handler,
            {
                "message": "A watched ZeroMQ socket can no longer be used",
                "exception": OSError(exc.errno, exc.strerror),
                "socket": sock,
            },
        )


def _wake_up() -> None:
    """ZMQ_FD is readable: the loop looks before its next poll."""


def _run(handle: asyncio.Handle) -> None:
    if not handle.cancelled():
        handle._run()

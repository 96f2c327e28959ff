"""Selectors: epoll in C, and one that also watches ZeroMQ sockets.

``EpollSelector`` is the C one if the extension is there and
``selectors.EpollSelector`` otherwise. ``ZmqSelector`` is aiozmq's.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator, Mapping
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector, SelectorKey
from typing import Any, Union

from aiozmq_speedups._ext import EpollSelector
from aiozmq_speedups._zmq import engine_libzmq
from aiozmq_speedups._zmq.pyzmq import zmq
from aiozmq_speedups.util import NO_GIL

__all__ = ["EVENT_READ", "EVENT_WRITE", "EpollSelector", "SelectorKey", "ZmqSelector"]

# What a ZmqSelector watches: a file descriptor, or a socket that stands for itself.
_Target = Union[int, "zmq.Socket[Any]"]

# select() compares zmq's bits with the caller's.
assert EVENT_READ == zmq.POLLIN and EVENT_WRITE == zmq.POLLOUT


class _FdUse:
    """Who wants what of one descriptor.

    A ZeroMQ socket's ZMQ_FD may also be watched as a plain descriptor.
    """

    __slots__ = ("events", "sock")

    def __init__(self) -> None:
        self.events = 0
        self.sock: zmq.Socket[Any] | None = None

    @property
    def wanted(self) -> int:
        return self.events | (EVENT_READ if self.sock is not None else 0)


class _ZmqPoller:
    """Polls sockets and descriptors, level-triggered, idle descriptors free of charge.

    It has the interface of ``zmq.Poller``, with seconds for the timeout.

    ZMQ_FD says that a socket *may* have become ready, and only once: reading or
    writing the socket, or its ZMQ_EVENTS, takes the news away (zmq_getsockopt(3)).
    So every socket's ZMQ_EVENTS is read before the wait, when the news may have
    been consumed by the caller, and after it, when there may be some.
    """

    def __init__(self) -> None:
        self._epoll = EpollSelector()
        self._uses: dict[int, _FdUse] = {}
        # events wanted and ZMQ_FD of each socket
        self._socks: dict[zmq.Socket[Any], tuple[int, int]] = {}
        # epoll refuses regular files; poll(2), and so zmq_poll, has them ready always
        self._always_ready: dict[_Target, int] = {}

    def register(self, target: _Target, events: int) -> None:
        if isinstance(target, zmq.Socket):
            fd = engine_libzmq.get_fd(target)
            use = self._take_use(fd)
            use.sock = target
            self._watch(fd, use)
            self._socks[target] = (events, fd)
        else:
            use = self._take_use(target)
            use.events = events
            try:
                self._watch(target, use)
            except PermissionError:
                self._always_ready[target] = events

    def modify(self, target: _Target, events: int) -> None:
        if isinstance(target, zmq.Socket):
            self._socks[target] = (events, self._socks[target][1])
        elif target in self._always_ready:
            self._always_ready[target] = events
        else:
            use = self._uses[target]
            use.events = events
            self._watch(target, use)

    def unregister(self, target: _Target) -> None:
        if isinstance(target, zmq.Socket):
            fd = self._socks.pop(target)[1]
            use = self._uses.get(fd)
            if use is not None and use.sock is target:
                use.sock = None
                self._watch(fd, use)
        elif self._always_ready.pop(target, None) is None:
            use = self._uses[target]
            use.events = 0
            self._watch(target, use)

    def poll(self, timeout: float | None) -> list[tuple[_Target, int]]:
        """Ready targets with their events. `timeout` in seconds, None for ever."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            ready = self._always_ready.copy()
            for sock in self._socks:
                self._check(sock, ready)
            found = self._epoll.select(0 if ready else timeout)
            for key, events in found:
                use = key.data
                if use.events & events:
                    ready[key.fd] = use.events & events
                if use.sock is not None:
                    self._check(use.sock, ready)
            if ready or not found:
                return list(ready.items())
            # A socket's internal news only: wait for the rest of the time.
            if deadline is not None:
                timeout = max(deadline - time.monotonic(), 0)

    def close(self) -> None:
        self._epoll.close()
        self._uses.clear()
        self._socks.clear()
        self._always_ready.clear()

    def _check(self, sock: zmq.Socket[Any], ready: dict[_Target, int]) -> None:
        events = engine_libzmq.get_events(sock) & self._socks[sock][0]
        if events:
            ready[sock] = events

    def _take_use(self, fd: int) -> _FdUse:
        """The use of `fd`, taken out of epoll to be registered anew.

        A descriptor that was closed while it was watched is gone from epoll, and
        its number may be in use again.
        """
        use = self._uses.pop(fd, None)
        if use is None:
            return _FdUse()
        self._epoll.unregister(fd)
        if use.sock is not None and engine_libzmq.is_closed(use.sock):
            use.sock = None
        return use

    def _watch(self, fd: int, use: _FdUse) -> None:
        """Brings epoll in line with `use`."""
        wanted = use.wanted
        if fd not in self._uses:
            self._epoll.register(fd, wanted, use)
            self._uses[fd] = use
        elif wanted:
            try:
                self._epoll.modify(fd, wanted, use)
            except OSError:
                # The selector has unregistered it.
                del self._uses[fd]
                raise
        else:
            self._epoll.unregister(fd)
            del self._uses[fd]


class _LockedZmqPoller(_ZmqPoller):
    """Where there is no GIL: libzmq ends the process if two threads are in one socket.

    The rest of what two threads do to a selector ends in exceptions.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.RLock()

    def register(self, target: _Target, events: int) -> None:
        with self._lock:
            super().register(target, events)

    def _check(self, sock: zmq.Socket[Any], ready: dict[_Target, int]) -> None:
        with self._lock:
            super()._check(sock, ready)


_Poller = _LockedZmqPoller if NO_GIL else _ZmqPoller


class _SelectorMapping(Mapping[Any, SelectorKey]):
    """Live mapping of file objects to keys."""

    def __init__(self, selector: ZmqSelector) -> None:
        self._selector = selector

    def __len__(self) -> int:
        return len(self._selector._fd_to_key)

    def __getitem__(self, fileobj: Any) -> SelectorKey:
        target = self._selector._target(fileobj)
        try:
            return self._selector._fd_to_key[target]
        except KeyError:
            raise KeyError(f"{fileobj!r} is not registered") from None

    def __iter__(self) -> Iterator[Any]:
        return iter(self._selector._fd_to_key)


class ZmqSelector(BaseSelector):
    """A selector for file objects, file descriptors and ``zmq.Socket`` together.

    The ``fd`` of a socket's key is the socket itself. Readiness is
    level-triggered for sockets too: what is not read is reported again. Errors
    of libzmq are raised as OSError. Drives ``asyncio.SelectorEventLoop``.
    Not thread-safe.
    """

    __module__ = "aiozmq_speedups.selector"

    _poller: _ZmqPoller | None

    def __init__(self) -> None:
        self._fd_to_key: dict[Any, SelectorKey] = {}
        self._map = _SelectorMapping(self)
        self._poller = _Poller()

    def _target(self, fileobj: Any) -> _Target:
        """The socket itself or the descriptor; ValueError if it is neither.

        A registered object that is closed by now is found by identity.
        """
        if isinstance(fileobj, zmq.Socket):
            return fileobj
        if isinstance(fileobj, int):
            fd = fileobj
        else:
            try:
                fd = int(fileobj.fileno())
            except (AttributeError, TypeError, ValueError):
                fd = self._registered_fd(fileobj)
                if fd < 0:
                    raise ValueError(f"Invalid file object: {fileobj!r}") from None
        if fd < 0:
            registered = self._registered_fd(fileobj)
            if registered < 0:
                raise ValueError(f"Invalid file descriptor: {fd}")
            return registered
        return fd

    def _registered_fd(self, fileobj: Any) -> int:
        for key in self._fd_to_key.values():
            if key.fileobj is fileobj:
                return key.fd
        return -1

    def _open_poller(self) -> _ZmqPoller:
        if self._poller is None:
            raise RuntimeError("Selector is closed")
        return self._poller

    def register(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        """Starts watching `fileobj` for `events`, EVENT_READ and/or EVENT_WRITE.

        Raises ValueError if either is invalid, KeyError if it is
        registered already, OSError if the system or libzmq refuses it.
        """
        if not events or events & ~(EVENT_READ | EVENT_WRITE):
            raise ValueError(f"Invalid events: {events!r}")
        target = self._target(fileobj)
        if target in self._fd_to_key:
            raise KeyError(f"{fileobj!r} (FD {target}) is already registered")
        key = SelectorKey(fileobj, target, events, data)  # type: ignore[arg-type]
        try:
            self._open_poller().register(target, events)
        except zmq.ZMQError as exc:
            raise OSError(exc.errno, exc.strerror) from exc
        self._fd_to_key[target] = key
        return key

    def unregister(self, fileobj: Any) -> SelectorKey:
        """Stops watching `fileobj`, which may be closed by now.

        Raises KeyError if it is not registered.
        """
        target = self._target(fileobj)
        if target not in self._fd_to_key:
            raise KeyError(f"{fileobj!r} is not registered")
        try:
            self._open_poller().unregister(target)
        except zmq.ZMQError as exc:
            raise OSError(exc.errno, exc.strerror) from exc
        return self._fd_to_key.pop(target)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        """Changes the events and data of a registered object.

        Raises KeyError if it is not registered.
        """
        target = self._target(fileobj)
        key = self._fd_to_key.get(target)
        if key is None:
            raise KeyError(f"{fileobj!r} is not registered")
        if data == key.data and events == key.events:
            return key
        if events != key.events:
            try:
                self._open_poller().modify(target, events)
            except zmq.ZMQError as exc:
                raise OSError(exc.errno, exc.strerror) from exc
        key = key._replace(events=events, data=data)
        self._fd_to_key[target] = key
        return key

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        """Waits at most `timeout` seconds; None for ever, <= 0 not at all.

        Returns a list of (key, events). A signal handler that raises ends the wait.
        """
        if timeout is not None and timeout <= 0:
            timeout = 0
        try:
            found = self._open_poller().poll(timeout)
        except zmq.ZMQError as exc:
            if exc.errno == errno.EINTR:
                return []
            raise OSError(exc.errno, exc.strerror) from exc
        ready = []
        for target, events in found:
            key = self._fd_to_key.get(target)
            if key is not None:
                ready.append((key, events & key.events))
        return ready

    def close(self) -> None:
        """Stops watching everything. Sockets and files stay open."""
        self._fd_to_key.clear()
        poller, self._poller = self._poller, None
        if poller is not None:
            poller.close()

    def get_map(self) -> Mapping[Any, SelectorKey]:
        """A live read-only mapping of file objects to their keys."""
        return self._map

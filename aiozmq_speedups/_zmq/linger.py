"""What the end of a loop, and of the process, waits for: messages not yet sent.

zmq_close(3) returns at once, and libzmq goes on sending what it accepted. It tells
nobody when that is done, but it frees the socket then, and closes the descriptor that
ZMQ_FD gave. An epoll instance forgets a descriptor that is closed: so it knows whether
a number still is that socket's, without a system resource for each socket.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from aiozmq_speedups._zmq import engine_libzmq, engine_native
from aiozmq_speedups._zmq.pyzmq import zmq
from aiozmq_speedups.log import logger

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiozmq_speedups._zmq.transport import _BaseTransport

#: Seconds: how long the end waits where the loop does not say.
CLOSE_TIMEOUT = 1.0

# Between two looks: libzmq's thread is to run meanwhile.
_SHORTEST_PAUSE = 0.0001
_LONGEST_PAUSE = 0.01


class Sockets:
    """The sockets of a loop that libzmq has not freed yet."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None  # once there is a socket
        self._fds: set[int] = set()
        self._pid = os.getpid()

    def add(self, fd: int) -> None:
        """A socket was made that has `fd` as its ZMQ_FD."""
        if not hasattr(select, "epoll"):
            return  # there is nothing to know, and nothing is waited for
        try:
            if self._epoll is None:
                self._epoll = select.epoll()
            self._epoll.register(fd, 0)
        except FileExistsError:
            pass  # another transport of the same socket
        except OSError:
            return  # EMFILE, ENOMEM, ENOSPC: it is not waited for
        self._fds.add(fd)

    def wait(self, deadline: float) -> None:
        """Waits until all are freed, and logs how many are not at `deadline`."""
        if self._pid != os.getpid():
            return  # a forked child: they are its parent's
        pause = _SHORTEST_PAUSE
        try:
            while self._look() and (remaining := deadline - time.monotonic()) > 0:
                time.sleep(min(pause, remaining))
                pause = min(2 * pause, _LONGEST_PAUSE)
        finally:
            if self._fds:
                logger.warning(
                    "%d closed ZeroMQ sockets have messages that no peer has taken: "
                    "they are lost where the process ends now",
                    len(self._fds),
                )

    def _look(self) -> set[int]:
        self._fds = {fd for fd in self._fds if self._is_open(fd)}
        return self._fds

    def _is_open(self, fd: int) -> bool:
        assert self._epoll is not None
        try:
            self._epoll.modify(fd, 0)
        except OSError:  # EBADF; or ENOENT: the number is another file's by now
            return False
        return True

    def discard(self, fd: int) -> None:
        self._fds.discard(fd)

    def close(self) -> None:
        self._fds.clear()
        if self._epoll is not None:
            self._epoll.close()


# Of the loops that are not this package's: nobody tells of their end.
_others = Sockets()


def _forked() -> None:
    global _others
    _others = Sockets()


os.register_at_fork(after_in_child=_forked)


def others_sockets() -> Sockets:
    return _others


def is_our_loop(loop: Any) -> bool:
    """Whether it is a Loop of this package: that is the room above, which this one
    does not import."""
    return hasattr(type(loop), "_close_zmq")


def sockets_of(loop: Any) -> Sockets:
    if not is_our_loop(loop):
        return _others
    if loop._zmq_sockets is None:
        loop._zmq_sockets = Sockets()
    sockets: Sockets = loop._zmq_sockets
    return sockets


class _Rest:
    """What waits in the queue of one transport."""

    def __init__(self, transport: _BaseTransport, deadline: float) -> None:
        self.lost: list[Any] = []
        sock: Any = transport._zmq_sock
        self._sock = sock
        self._messages = deque(transport._take_queue())
        self._deadline = deadline
        if isinstance(sock, engine_native.NativeSocket):
            # Its own queues have room for all: they are sent as it is closed.
            self.lost += engine_native.send_rest(sock, self._messages)
            self._messages.clear()
        try:
            linger = engine_libzmq.get_linger(sock) if self._messages else 0
        except zmq.ZMQError:
            linger = 0  # closed by the user, or its context is terminated
        if linger >= 0:
            self._deadline = min(deadline, time.monotonic() + linger / 1000)

    def send(self) -> bool:
        """Sends what libzmq takes. True where it took all, or nothing more will be."""
        messages = self._messages
        try:
            while messages:
                engine_libzmq.send(self._sock, messages[0])
                messages.popleft()
        except zmq.ZMQError as exc:
            if exc.errno in (errno.EAGAIN, errno.EINTR):
                return time.monotonic() >= self._deadline
            if exc.errno in engine_libzmq.MESSAGE_ERRORS:
                self.lost.append(messages.popleft())
                return not messages
            return True
        return True

    def give_up(self) -> None:
        self.lost += self._messages
        self._messages.clear()


def _send_queues(transports: Iterable[_BaseTransport], deadline: float) -> None:
    """Sends what waits in the transports, and logs what is not sent at `deadline`."""
    rests = [_Rest(transport, deadline) for transport in transports]
    waiting = rests
    pause = _SHORTEST_PAUSE
    try:
        while waiting := [rest for rest in waiting if not rest.send()]:
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
    finally:
        for rest in rests:
            rest.give_up()
        lost = [rest.lost for rest in rests if rest.lost]
        if lost:
            logger.warning(
                "%d messages (%d bytes) that waited in %d ZeroMQ transports are lost",
                sum(map(len, lost)),
                sum(len(frame) for messages in lost for m in messages for frame in m),
                len(lost),
            )


def end_transports(
    transports: Iterable[_BaseTransport],
    sockets: Sockets,
    timeout: float,
    loop: Any = None,
) -> None:
    """Closes transports whose loop does not run, and waits for what they accepted.

    Protocols are not told, as in aiozmq: no callback can run any more. Each is
    closed, then the first exception is raised: a socket's class may be the user's.
    """
    transports = [transport for transport in transports if not transport._is_forked()]
    deadline = time.monotonic() + timeout
    failure = None
    steps: list[Any] = [partial(_send_queues, transports, deadline)]
    steps += [transport._end_monitoring for transport in transports]
    steps += [transport._abandon for transport in transports]
    for step in steps:
        try:
            step()
        except BaseException as exc:
            failure = failure or exc
    # KeyboardInterrupt: the user does not want to wait.
    if failure is None or isinstance(failure, Exception):
        sockets.wait(deadline)
        messages, count = engine_native.finish(loop, deadline)
        if messages:
            logger.warning(
                "%d messages that waited in %d closed ZeroMQ sockets are lost",
                messages,
                count,
            )
    if failure is not None:
        raise failure


def close_transports(loop: Any) -> None:
    """Close the sockets of one of our loops, which is being closed."""
    transports = list(loop._zmq_transports)
    if not transports and loop._zmq_sockets is None and not loop._zmtp_lingering:
        return
    sockets = sockets_of(loop)
    try:
        end_transports(transports, sockets, loop._close_timeout, loop)
    finally:
        loop._zmq_sockets = None
        sockets.close()

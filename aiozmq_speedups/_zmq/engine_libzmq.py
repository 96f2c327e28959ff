"""All that is asked of pyzmq: its contexts, its sockets, its keys.

Other modules of the package know of pyzmq its constants, its exceptions and its types.

What a message path asks is asked by the functions of pyzmq's own class. A subclass may
do otherwise: zmq.asyncio's ``recv()`` returns a future, zmq.green's switches to another
greenlet. What it overrides is passed by, as the C transport does.

What is asked seldom is asked by the socket's methods, which NativeSocket has as well.
"""

from __future__ import annotations

import errno
import itertools
import sys
from typing import TYPE_CHECKING, Any

from aiozmq_speedups._zmq import pyzmq
from aiozmq_speedups._zmq.pyzmq import z85, zmq

if TYPE_CHECKING:
    from collections.abc import Sequence

Socket = zmq.Socket[bytes]

_EVENTS = int(zmq.EVENTS)
_FD = int(zmq.FD)
_LINGER = int(zmq.LINGER)
_RCVMORE = int(zmq.RCVMORE)
_SNDMORE = int(zmq.DONTWAIT | zmq.SNDMORE)
_DONTWAIT = int(zmq.DONTWAIT)
_SRCFD = int(zmq.SRCFD)
_Base: Any = zmq.backend.Socket
_get, _recv, _send = _Base.get, _Base.recv, _Base.send

#: Errors of zmq_msg_send(3) that concern one message, not the socket: a peer that is
#: not there (ZMQ_ROUTER_MANDATORY, STREAM), several frames where the type has one, a
#: request or an answer that is out of turn.
MESSAGE_ERRORS = frozenset((errno.EHOSTUNREACH, errno.EINVAL, int(zmq.EFSM)))

_monitor_ids = itertools.count(1)

# What libzmq's zmq_msg_t takes beside the payload: csrc/zmq/engine.h has the same.
_FRAME_OVERHEAD = 64


def message_size(frames: Sequence[Any]) -> int:
    """How much a message counts in buffers, budgets and water marks, in bytes."""
    return sum(map(len, frames)) + _FRAME_OVERHEAD * len(frames)


def get_events(sock: Socket) -> int:
    events: int = _get(sock, _EVENTS)
    return events


def get_linger(sock: Socket) -> int:
    milliseconds: int = _get(sock, _LINGER)
    return milliseconds


def receive(sock: Socket) -> list[bytes]:
    """Receives one message without blocking. May raise ZMQError."""
    frames = [_recv(sock, _DONTWAIT)]
    while _get(sock, _RCVMORE):
        frames.append(_recv(sock, _DONTWAIT))
    return frames


def receive_from(sock: Socket) -> tuple[list[bytes], int]:
    """As receive(), and the descriptor of the connection it came by, or -1."""
    frame = _recv(sock, _DONTWAIT, copy=False)
    try:
        source = int(frame.get(_SRCFD))
    except zmq.ZMQError:
        source = -1
    frames = [frame.bytes]
    while _get(sock, _RCVMORE):
        frames.append(_recv(sock, _DONTWAIT))
    return frames, source


def send(sock: Socket, frames: Sequence[Any]) -> None:
    """Sends one message without blocking. May raise ZMQError."""
    last = len(frames) - 1
    for i, frame in enumerate(frames):
        _send(sock, frame, _SNDMORE if i < last else _DONTWAIT)


# -- Once a socket --


def backend() -> tuple[type[Any], str | None]:
    """The class of pyzmq's backend that sockets derive from, and the file that it is
    in, which libzmq's functions are found by."""
    if pyzmq.missing is not None:
        return _Base, pyzmq.library
    module = sys.modules.get(_Base.__module__)
    return _Base, getattr(module, "__file__", None)


def is_socket(sock: object) -> bool:
    return isinstance(sock, zmq.Socket)


def new_socket(context: zmq.Context[Any] | None, zmq_type: int) -> Any:
    """A socket of the user's context, or of the process's. May raise ZMQError."""
    return (context or zmq.Context.instance()).socket(zmq_type)


def close(sock: Any) -> None:
    sock.close()


def drop(sock: Any) -> None:
    """Closes it, and what it was to send still is lost."""
    sock.close(linger=0)


def is_closed(sock: Any) -> bool:
    closed: bool = sock.closed
    return closed


def get_fd(sock: Any) -> int:
    return int(sock.getsockopt(_FD))


def get_option(sock: Any, option: int) -> Any:
    """May raise ZMQError, of EINTR as well."""
    return sock.getsockopt(option)


def set_option(sock: Any, option: int, value: Any) -> None:
    sock.setsockopt(option, value)


def has_default(sock: Any, option: int) -> bool:
    """Was a value for all its sockets set on the socket's context?"""
    return option in getattr(sock.context, "sockopts", ())


def bind(sock: Any, endpoint: str) -> None:
    sock.bind(endpoint)


def unbind(sock: Any, endpoint: str) -> None:
    sock.unbind(endpoint)


def connect(sock: Any, endpoint: str) -> None:
    sock.connect(endpoint)


def disconnect(sock: Any, endpoint: str) -> None:
    sock.disconnect(endpoint)


def is_bound(context: zmq.Context[Any] | None, endpoint: str) -> bool:
    """Has a socket of the context this inproc endpoint?"""
    with new_socket(context, zmq.PAIR) as probe:
        probe.linger = 0
        try:
            probe.bind(endpoint)
        except zmq.ZMQError as exc:
            return exc.errno == errno.EADDRINUSE
    return False


# -- Monitors --


def check_monitor() -> None:
    if zmq.zmq_version_info() < (4,) or zmq.pyzmq_version_info() < (14, 4):
        raise NotImplementedError(
            "Socket monitor requires libzmq >= 4 and pyzmq >= 14.4, "
            f"have libzmq:{zmq.zmq_version()}, pyzmq:{zmq.pyzmq_version()}"
        )


def open_monitor(sock: Socket) -> Any:
    """A PAIR socket that gets the socket's events. May raise ZMQError."""
    # inproc joins sockets of one context only. The name is used once: a name
    # derived from the fd comes back while the old monitor closes.
    addr = f"inproc://monitor.aiozmq_speedups-{next(_monitor_ids)}"
    pair = sock.context.socket(zmq.PAIR)
    try:
        pair.setsockopt(zmq.RCVHWM, 0)
        # Connected before libzmq binds its end, so no event is lost.
        pair.connect(addr)
        sock.monitor(addr, zmq.EVENT_ALL)
    except BaseException:
        pair.close(linger=0)
        raise
    return pair


def close_monitor(sock: Any) -> None:
    """May raise ZMQError: the user has closed the socket, or ended its context."""
    sock.disable_monitor()


# -- CURVE --


def has_curve() -> bool:
    return bool(zmq.has("curve"))


def encode_key(key: bytes) -> bytes:
    """The 40 characters of Z85 for 32 bytes."""
    encoded: bytes = z85.encode(key)
    return encoded


def decode_key(text: bytes) -> bytes:
    """The 32 bytes of 40 characters; ValueError or others where they are not Z85."""
    decoded: bytes = z85.decode(text)
    return decoded


def public_key(secret: bytes) -> bytes | None:
    """The public key of a secret one, both of 32 bytes; None where pyzmq is missing."""
    if pyzmq.missing is not None:
        return None
    return decode_key(zmq.curve_public(encode_key(secret)))

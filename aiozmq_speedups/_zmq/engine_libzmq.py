"""What a message path asks of a pyzmq socket, by the functions of pyzmq's own class.

A subclass may do otherwise: zmq.asyncio's ``recv()`` returns a future, zmq.green's
switches to another greenlet. What it overrides is passed by, as the C transport does.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import zmq

if TYPE_CHECKING:
    from collections.abc import Sequence

Socket = zmq.Socket[bytes]

EVENTS = int(zmq.EVENTS)
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

# What libzmq's zmq_msg_t takes beside the payload: csrc/zmq/engine.h has the same.
_FRAME_OVERHEAD = 64


def message_size(frames: Sequence[Any]) -> int:
    """How much a message counts in buffers, budgets and water marks, in bytes."""
    return sum(map(len, frames)) + _FRAME_OVERHEAD * len(frames)


def get_events(sock: Socket) -> int:
    events: int = _get(sock, EVENTS)
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

"""Who may come in: the native engine asks the ZAP handler of the loop's context.

RFC 27, https://rfc.zeromq.org/spec/27/. The handler, one of zmq.auth say, is bound to
inproc://zeromq.zap.01 in the context that the loop's libzmq sockets have.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import socket
import struct
from typing import TYPE_CHECKING, Any

import zmq

from aiozmq_speedups._zmq import engine_libzmq
from aiozmq_speedups.interface import ZmqProtocol
from aiozmq_speedups.log import logger

if TYPE_CHECKING:
    from aiozmq_speedups._zmq.engine_native import NativeSocket

_ENDPOINT = "inproc://zeromq.zap.01"
_MECHANISMS = (b"NULL", b"PLAIN", b"CURVE")
_NULL, _PLAIN, _CURVE = range(3)
_STATUSES = frozenset((b"200", b"300", b"400", b"500"))


def address_of(fd: int) -> bytes:
    """The peer's IP address; of a Unix socket what libzmq says there."""
    with socket.socket(fileno=os.dup(fd)) as sock:
        if sock.family == socket.AF_UNIX:
            raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            pid, uid, gid = struct.unpack("iii", raw)
            return f"localhost:{uid}:{gid}:{pid}".encode()
        host: str = sock.getpeername()[0]
        return host.encode()


class Zap(ZmqProtocol):
    """Asks, and hands each answer to the peer that waits for it."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._transport: Any = None
        self._opening: asyncio.Task[Any] | None = None
        self._queue: list[list[bytes]] = []
        self._asking: dict[bytes, Any] = {}  # request id -> peer
        self._requests: dict[Any, bytes] = {}  # the other way
        self._ids = itertools.count(1)

    def ask(
        self,
        sock: NativeSocket,
        peer: Any,
        mechanism: int,
        username: bytes,
        password: bytes,
        key: bytes,
    ) -> None:
        """Has the peer's _decide() called, at once or later."""
        values = sock._values
        domain = values[zmq.ZAP_DOMAIN]
        if mechanism == _CURVE and not domain and values[zmq.ZAP_ENFORCE_DOMAIN]:
            peer._decide(200)
            return
        if not engine_libzmq.is_bound(self._loop._zmq_context, _ENDPOINT):
            # As libzmq: a password is good for nobody then, a key for everybody.
            if mechanism == _PLAIN or values[zmq.ZAP_ENFORCE_DOMAIN]:
                peer._disconnect(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, errno.EFAULT)
            else:
                peer._decide(200)
            return
        request = b"%d" % next(self._ids)
        message = [b"", b"1.0", request, domain, address_of(peer.fd)]
        message += [values[zmq.ROUTING_ID], _MECHANISMS[mechanism]]
        if mechanism == _PLAIN:
            message += [username, password]
        elif mechanism == _CURVE:
            message.append(key)
        self._asking[request] = peer
        self._requests[peer] = request
        if self._transport is not None:
            self._transport.write(message)
            return
        self._queue.append(message)
        if self._opening is None:
            self._opening = self._loop.create_task(self._open())

    def forget(self, peer: Any) -> None:
        """Its connection has ended: an answer is not for the next one."""
        request = self._requests.pop(peer, None)
        if request is not None:
            self._asking.pop(request, None)

    def _pop(self, request: bytes) -> Any:
        peer = self._asking.pop(request, None)
        self._requests.pop(peer, None)
        return peer

    async def _open(self) -> None:
        try:
            await self._loop.create_zmq_connection(
                lambda: self, zmq.DEALER, connect=_ENDPOINT, linger=0, engine="libzmq"
            )
        finally:
            self._opening = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        queue, self._queue = self._queue, []
        # Connected in a moment: what is written waits for that.
        self._loop.call_soon(self._write_all, transport, queue)

    def _write_all(self, transport: Any, messages: list[list[bytes]]) -> None:
        for message in messages:
            transport.write(message)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._transport = None
        asking, self._asking = self._asking, {}
        self._requests.clear()
        for peer in asking.values():
            peer._decide(500)

    def msg_received(self, data: list[bytes]) -> None:
        # "", version, request, status, text, user id, metadata
        if len(data) != 7 or data[1] != b"1.0" or data[3] not in _STATUSES:
            logger.warning("the ZAP handler answered with %r", data)
            peer = self._pop(data[2]) if len(data) > 2 else None
            if peer is not None:
                peer._decide(500)
            return
        peer = self._pop(data[2])
        if peer is not None:
            peer._decide(int(data[3]))

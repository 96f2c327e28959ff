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

from aiozmq_speedups._zmq import engine_libzmq
from aiozmq_speedups._zmq.pyzmq import zmq
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


class _Line(ZmqProtocol):
    """The connection to a handler."""

    def __init__(self, zap: Zap) -> None:
        self._zap = zap
        self._transport: Any = None
        self._queue: list[list[bytes]] = []

    def write(self, message: list[bytes]) -> None:
        if self._transport is not None:
            self._transport.write(message)
        else:
            self._queue.append(message)

    def is_held(self) -> bool:
        """Is the handler at the other end still?"""
        if self._transport is None:
            return True  # it was, a moment ago
        if self._transport.is_closing():
            return False
        sock = self._transport.get_extra_info("zmq_socket")
        return sock is not None and bool(engine_libzmq.get_events(sock) & zmq.POLLOUT)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: Any) -> None:
        # Connected in a moment: what is written waits for that.
        self._zap.loop.call_soon(self._write_all, transport)

    def _write_all(self, transport: Any) -> None:
        self._transport = transport
        queue, self._queue = self._queue, []
        for message in queue:
            transport.write(message)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._zap.line_lost(self)

    def msg_received(self, data: list[bytes]) -> None:
        self._zap.answered(data)


class Zap:
    """Asks, and hands each answer to the peer that waits for it."""

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self._line: _Line | None = None
        self._opening: asyncio.Task[Any] | None = None
        self._asking: dict[bytes, Any] = {}  # request id -> peer
        self._requests: dict[Any, bytes] = {}  # the other way
        self._ids = itertools.count(1)

    def _has_handler(self) -> bool:
        # Who binds there at the same time would be refused: it is not tried again as
        # long as the handler is there that it has found.
        if self._line is not None:
            if self._line.is_held():
                return True
            self._line.abort()
            self.line_lost(self._line)
        return engine_libzmq.is_bound(self.loop._zmq_context, _ENDPOINT)

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
        if not self._has_handler():
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
        if self._line is None:
            self._line = _Line(self)
            self._opening = self.loop.create_task(self._open(self._line))
        self._line.write(message)

    def forget(self, peer: Any) -> None:
        """Its connection has ended: an answer is not for the next one."""
        request = self._requests.pop(peer, None)
        if request is not None:
            self._asking.pop(request, None)

    def _pop(self, request: bytes) -> Any:
        peer = self._asking.pop(request, None)
        self._requests.pop(peer, None)
        return peer

    async def _open(self, line: _Line) -> None:
        try:
            await self.loop.create_zmq_connection(
                lambda: line, zmq.DEALER, connect=_ENDPOINT, linger=0, engine="libzmq"
            )
        except BaseException:
            self.line_lost(line)
            raise
        finally:
            self._opening = None

    def line_lost(self, line: _Line) -> None:
        if line is not self._line:
            return
        self._line = None
        asking, self._asking = self._asking, {}
        self._requests.clear()
        for peer in asking.values():
            peer._decide(500)

    def answered(self, data: list[bytes]) -> None:
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

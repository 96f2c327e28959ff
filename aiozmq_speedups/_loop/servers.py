"""Listening sockets: once per server or failure, so in Python."""

from __future__ import annotations

import asyncio
import socket
from asyncio import constants, trsock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

if TYPE_CHECKING:
    _Base = asyncio.SelectorEventLoop
else:
    _Base = object


class Servers(_Base):
    """The part of the loop that asyncio's Server calls, and the core's listeners."""

    _listeners: dict[int, Any]  # by the listening socket's fd

    def _start_serving(
        self,
        protocol_factory: Callable[[], Any],
        sock: socket.socket,
        sslcontext: Any = None,
        server: Any = None,
        backlog: int = 100,
        *timeouts: Any,
        **named: Any,  # timeouts, and since Python 3.15 the Server's context
    ) -> None:
        if sslcontext is not None or sock.type != socket.SOCK_STREAM:
            super()._start_serving(
                protocol_factory,
                sock,
                sslcontext,
                server,
                backlog,
                *timeouts,
                **named,
            )
            return
        listener = self._listen(
            protocol_factory, sock, server, backlog, named.get("context")
        )
        self._listeners[sock.fileno()] = listener

    def _stop_serving(self, sock: socket.socket) -> None:
        listener = self._listeners.pop(sock.fileno(), None)
        if listener is not None:
            listener.stop()
        super()._stop_serving(sock)

    def _accept_failed(
        self, message: str, exc: BaseException, sock: socket.socket
    ) -> None:
        # As asyncio: what happens to one connection is debug mode's business,
        # but for the errors of the listening socket itself.
        if isinstance(exc, OSError) or self.get_debug():
            self.call_exception_handler(
                {
                    "message": message,
                    "exception": exc,
                    "socket": trsock.TransportSocket(sock),
                }
            )

    def _accept_back_off(
        self, listener: Any, exc: BaseException, sock: socket.socket
    ) -> None:
        # First: the handler may raise KeyboardInterrupt.
        self.call_later(constants.ACCEPT_RETRY_DELAY, listener.start)
        self.call_exception_handler(
            {
                "message": "socket.accept() out of system resource",
                "exception": exc,
                "socket": trsock.TransportSocket(sock),
            }
        )

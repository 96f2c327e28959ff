"""engine="auto" of a socket without endpoints: its first one decides.

Until then it is the native engine's, where nothing can come or go. What is set is
recorded; where libzmq is to have the socket, all of that is set again on one of its.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from aiozmq_speedups._zmq import engine_libzmq
from aiozmq_speedups._zmq.engine_native import NativeSocket, serves, serves_option
from aiozmq_speedups._zmq.pyzmq import zmq

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiozmq_speedups._zmq.native_auth import PeerCredentials
    from aiozmq_speedups._zmq.transport import _BaseTransport

_NOT_RECORDED = frozenset((int(zmq.SUBSCRIBE), int(zmq.UNSUBSCRIBE)))


class AutoSocket(NativeSocket):
    """Who has asked for it goes on with it, whichever engine has the socket then."""

    def __init__(
        self,
        loop: Any,
        zmq_type: int,
        check: Callable[[PeerCredentials], bool | Awaitable[bool]] | None = None,
    ) -> None:
        super().__init__(loop, zmq_type, check)
        self._record: list[tuple[int, Any]] | None = []  # None: it is decided
        self._libzmq: Any = None  # the socket in place of this one
        self._transport: weakref.ref[_BaseTransport] | None = None

    def belongs_to(self, transport: _BaseTransport) -> None:
        self._transport = weakref.ref(transport)

    def _leave_to_libzmq(self) -> Any:
        transport = None if self._transport is None else self._transport()
        sock = engine_libzmq.new_socket(None, self.type)
        try:
            for option, value in self._record or ():
                engine_libzmq.set_option(sock, option, value)
            if transport is not None:
                transport._use_libzmq(sock)
        except BaseException:
            engine_libzmq.drop(sock)
            raise
        self._record = None
        self._libzmq = sock
        super().close(0)
        return sock

    def _is_libzmqs(self, served: bool) -> bool:
        """`served`: would the native engine do what is asked for?"""
        if self._libzmq is None and self._record is not None and not served:
            # It is told by itself that a transport is needed for that.
            if self._transport is not None and self._authenticator is None:
                self._leave_to_libzmq()
        return self._libzmq is not None

    def getsockopt(self, option: int) -> Any:
        if self._is_libzmqs(serves_option(option)):
            return engine_libzmq.get_option(self._libzmq, option)
        return super().getsockopt(option)

    def setsockopt(self, option: int, value: Any) -> None:
        if self._is_libzmqs(int(option) in _NOT_RECORDED or serves_option(option)):
            engine_libzmq.set_option(self._libzmq, option, value)
            return
        super().setsockopt(option, value)
        if self._record is not None:
            self._record.append((option, value))

    get = getsockopt
    set = setsockopt

    def bind(self, endpoint: str) -> None:
        if self._is_libzmqs(serves([endpoint], {})):
            engine_libzmq.bind(self._libzmq, endpoint)
            return
        super().bind(endpoint)
        self._record = None

    def connect(self, endpoint: str) -> None:
        if self._is_libzmqs(serves([endpoint], {})):
            engine_libzmq.connect(self._libzmq, endpoint)
            return
        super().connect(endpoint)
        self._record = None

    def unbind(self, endpoint: str) -> None:
        if self._libzmq is not None:
            engine_libzmq.unbind(self._libzmq, endpoint)
        else:
            super().unbind(endpoint)

    def disconnect(self, endpoint: str) -> None:
        if self._libzmq is not None:
            engine_libzmq.disconnect(self._libzmq, endpoint)
        else:
            super().disconnect(endpoint)

    def close(self, linger: int | None = None) -> None:
        if self._libzmq is not None:
            self._libzmq.close(linger)
        else:
            super().close(linger)

    @property
    def closed(self) -> bool:
        if self._libzmq is not None:
            return engine_libzmq.is_closed(self._libzmq)
        closed: bool = super().closed
        return closed

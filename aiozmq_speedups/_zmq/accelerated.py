"""The transport whose message path is in C, and whether it can be had here."""

from __future__ import annotations

from contextvars import Context
from typing import TYPE_CHECKING

from aiozmq_speedups import _ext
from aiozmq_speedups._zmq import engine_libzmq, pyzmq
from aiozmq_speedups._zmq.pure import _PyZmqTransport
from aiozmq_speedups._zmq.pyzmq import zmq
from aiozmq_speedups._zmq.transport import _BaseTransport, _Protocol, _Socket

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

if _ext.core is not None:

    class _CZmqTransport(_ext.core.ZmqTransport, _BaseTransport):  # type: ignore[misc, name-defined]
        """The message path in C, on libzmq's own functions."""

        def __init__(
            self,
            loop: AbstractEventLoop,
            zmq_type: int,
            zmq_sock: _Socket,
            protocol: _Protocol,
            waiter: Future[None] | None = None,
        ) -> None:
            super().__init__(loop, zmq_type, zmq_sock, protocol, waiter)
            self._init_cold(zmq_sock, zmq_type)
            self._register(waiter)

        def _watch_release(self) -> None:
            if self._loop is not None:
                schedule_release(self._loop, 0.02)

    # libzmq tells in its own thread that it has finished with a large frame,
    # which was not copied; the memory is freed when somebody looks. Every
    # transport does when it is used; this is for when all of them are idle.

    _core = _ext.core

    def schedule_release(loop: AbstractEventLoop, delay: float) -> None:
        _core._zmq_release(delay)
        loop.call_later(delay, _look_for_release, loop, delay, context=Context())

    def _look_for_release(loop: AbstractEventLoop, delay: float) -> None:
        if _core._zmq_release():
            schedule_release(loop, min(2 * delay, 1.0))


def _choose_transport() -> tuple[type[_BaseTransport], str]:
    """The transport class to use, and why, in one sentence."""
    if _ext.core is None:
        return _PyZmqTransport, f"pure Python: {_ext.reason}"
    if pyzmq.missing is not None:
        return _CZmqTransport, f"C, on the native engine only: {pyzmq.missing}"
    _ext.core._set_zmq_socket_class(zmq.Socket)
    socket_type, path = engine_libzmq.backend()
    if path is None or ".cython." not in socket_type.__module__:
        return _PyZmqTransport, (
            f"pure Python: pyzmq's backend {socket_type.__module__} gives no access "
            "to libzmq"
        )
    try:
        version = _ext.core._zmq_bind(path, socket_type)
    except ImportError as exc:
        return _PyZmqTransport, f"pure Python: {exc}"
    return _CZmqTransport, f"C, on libzmq {'.'.join(map(str, version))} of {path}"


transport_class, transport_info = _choose_transport()

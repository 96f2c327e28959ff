"""create_zmq_connection, and the choice of its transport's class."""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import zmq

from aiozmq_speedups import _ext, _zmqlinger, _zmtp
from aiozmq_speedups._options import ZmqOptions, apply_options, check_options
from aiozmq_speedups._zmqbase import (
    _BaseTransport,
    _by_fd,
    _native,
    _os_error,
    _Protocol,
    _Socket,
)
from aiozmq_speedups._zmqlinger import end_transports, others_sockets, sockets_of
from aiozmq_speedups._zmqmonitor import SocketEvent, ZmqMonitor
from aiozmq_speedups._zmqpure import _PyZmqTransport
from aiozmq_speedups.loop import Loop, check_engine

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

    from aiozmq_speedups.interface import ZmqTransport

__all__ = ["SocketEvent", "ZmqMonitor", "ZmqOptions", "create_zmq_connection"]

_Endpoints = str | Iterable[str] | None
_NATIVE_TYPES = frozenset(range(int(zmq.PAIR), int(zmq.XSUB) + 1))
_P = TypeVar("_P")  # the protocol: a ZmqProtocol by duck typing, as aiozmq has it


async def create_zmq_connection(
    protocol_factory: Callable[[], _P],
    zmq_type: int,
    *,
    bind: _Endpoints = None,
    connect: _Endpoints = None,
    zmq_sock: _Socket | None = None,
    loop: AbstractEventLoop | None = None,
    **options: Unpack[ZmqOptions],
) -> tuple[ZmqTransport, _P]:
    """Open a ZeroMQ socket as a transport and its protocol.

    :param protocol_factory: called without arguments, returns an object with
        :class:`ZmqProtocol`'s methods.
    :param zmq_type: ``zmq.DEALER``, ``zmq.ROUTER``, ``zmq.PUB``, ...
    :param bind: endpoint or endpoints (``transport://address``) to bind to.
    :param connect: endpoint or endpoints to connect to.
    :param zmq_sock: a pyzmq socket of *zmq_type* to use instead of a new one.
        The transport owns it from then on, and closes it.
    :param loop: the running loop by default.
    :param options: options of the socket: see :class:`ZmqOptions`.
    :return: ``(transport, protocol)``, after ``connection_made()``.
    :raise OSError: on an error of libzmq. The socket is closed, also where
        the call is cancelled or *protocol_factory* raises (but then a
        *zmq_sock* stays the caller's).
    :raise ValueError: where *zmq_sock* is of another type, *bind* or
        *connect* is neither a str nor an iterable, or the options are wrong.
    :raise TypeError: where an option is unknown or of another type.
    """
    if loop is None:
        loop = asyncio.get_running_loop()
    if isinstance(loop, Loop):
        # A subclass may have overridden it.
        return await loop.create_zmq_connection(
            protocol_factory,
            zmq_type,
            bind=bind,
            connect=connect,
            zmq_sock=zmq_sock,
            **options,
        )
    return await _create_zmq_connection(
        loop,
        None,
        protocol_factory,
        zmq_type,
        bind=bind,
        connect=connect,
        zmq_sock=zmq_sock,
        **options,
    )


async def _create_zmq_connection(
    loop: Any,  # an AbstractEventLoop, or the mixin of Loop
    zmq_context: zmq.Context[_Socket] | None,
    protocol_factory: Callable[[], _P],
    zmq_type: int,
    *,
    bind: _Endpoints = None,
    connect: _Endpoints = None,
    zmq_sock: _Socket | None = None,
    **options: Unpack[ZmqOptions],
) -> tuple[ZmqTransport, _P]:
    bind = _endpoints(bind, "bind")
    connect = _endpoints(connect, "connect")
    engine = options.pop("engine", None)
    values = check_options(options)
    owned = zmq_sock is None
    native = _is_native(
        engine, loop, zmq_context or zmq_sock, zmq_type, [*bind, *connect], values
    )
    try:
        if native:
            zmq_sock = _zmtp.NativeSocket(loop, zmq_type)
        elif zmq_sock is None:
            zmq_sock = (zmq_context or zmq.Context.instance()).socket(zmq_type)
        elif zmq_sock.getsockopt(zmq.TYPE) != zmq_type:
            raise ValueError("Invalid zmq_sock type")
        apply_options(zmq_sock, values, owned)
    except zmq.ZMQError as exc:
        if owned and zmq_sock is not None:
            zmq_sock.close(linger=0)
        raise _os_error(exc) from exc

    waiter = loop.create_future()
    try:
        protocol = protocol_factory()
        known = native or isinstance(zmq_sock, zmq.Socket)
        cls = _transport_class if known else _PyZmqTransport
        transport = cls(loop, zmq_type, zmq_sock, protocol, waiter)
    except BaseException:
        if owned:
            zmq_sock.close(linger=0)
        raise
    try:
        await waiter
        for endpoint in bind:
            await transport.bind(endpoint)
        for endpoint in connect:
            await transport.connect(endpoint)
    except BaseException as exc:
        transport._force_close(exc if isinstance(exc, OSError) else None)
        raise
    return transport, protocol


def _is_native(
    engine: str | None,
    loop: Any,
    given: Any,
    zmq_type: int,
    endpoints: list[str],
    options: dict[int, Any],
) -> bool:
    """Is the socket to be the native engine's? `given`: a context or a socket of the
    user's, or None.

    :raise ValueError: there is no such engine, or not here.
    """
    asked = engine
    if engine is None:
        engine = getattr(loop, "_zmq_engine", None)
    if engine is None:
        engine = os.environ.get("AIOZMQ_SPEEDUPS_ENGINE") or "libzmq"
    check_engine(engine)
    if engine == "libzmq":
        return False
    missing = None
    if _transport_class is _PyZmqTransport:
        missing = f"the transport in C: {transport_info}"
    elif not isinstance(loop, Loop):
        missing = "a loop of aiozmq_speedups"
    elif given is not None:
        missing = "a socket of its own: zmq_sock= and a loop's zmq_context are libzmq's"
    if engine == "auto":
        return (
            missing is None
            and zmq_type in _NATIVE_TYPES
            and bool(endpoints)
            and _zmtp.serves(endpoints, options)
        )
    if missing is not None:
        if asked is None:
            return False  # a default; what cannot be served by it is libzmq's
        raise ValueError(f"the native engine needs {missing}: {_zmtp.USE_LIBZMQ}")
    if zmq_type not in _NATIVE_TYPES:
        raise ValueError(
            f"the native engine has no sockets of type {zmq_type}: {_zmtp.USE_LIBZMQ}"
        )
    return True


def _endpoints(value: _Endpoints, name: str) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if not isinstance(value, Iterable):
        raise ValueError(f"{name} should be str or iterable")
    return list(value)


def _close_transports(loop: Any) -> None:
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


def _at_exit() -> None:
    """The end of the process: for loops that were not closed, or are not ours."""
    loops: set[Any] = set()
    others = []
    for transport in [*_by_fd.values(), *_native]:
        loop = transport._loop
        if loop is None or transport._is_forked():
            continue
        sockets = sockets_of(loop)
        if loop.is_running():
            sockets.discard(transport._zmq_fd)  # a daemon thread uses it
        elif sockets is others_sockets():
            others.append(transport)
        else:
            loops.add(loop)
    for loop in loops:
        _close_transports(loop)
    end_transports(others, others_sockets(), _zmqlinger.CLOSE_TIMEOUT)


atexit.register(_at_exit)


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
                _schedule_release(self._loop, 0.02)

    # libzmq tells in its own thread that it has finished with a large frame,
    # which was not copied; the memory is freed when somebody looks. Every
    # transport does when it is used; this is for when all of them are idle.

    _core = _ext.core

    def _schedule_release(loop: AbstractEventLoop, delay: float) -> None:
        _core._zmq_release(delay)
        loop.call_later(delay, _look_for_release, loop, delay, context=Context())

    def _look_for_release(loop: AbstractEventLoop, delay: float) -> None:
        if _core._zmq_release():
            _schedule_release(loop, min(2 * delay, 1.0))


def _choose_transport() -> tuple[type[_BaseTransport], str]:
    """The transport class to use, and why, in one sentence."""
    if _ext.core is None:
        return _PyZmqTransport, f"pure Python: {_ext.reason}"
    _ext.core._set_zmq_socket_class(zmq.Socket)
    socket_type = zmq.backend.Socket
    module = sys.modules.get(socket_type.__module__)
    path = getattr(module, "__file__", None)
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


_transport_class, transport_info = _choose_transport()


def __getattr__(name: str) -> Any:
    # aiozmq has its loop in this module; ours is beside it.
    if name in ("ZmqEventLoop", "ZmqEventLoopPolicy"):
        import aiozmq_speedups

        return getattr(aiozmq_speedups, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

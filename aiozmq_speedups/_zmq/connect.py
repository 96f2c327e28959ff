"""create_zmq_connection."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from aiozmq_speedups._zmq import engine_libzmq, engine_native
from aiozmq_speedups._zmq.accelerated import transport_class, transport_info
from aiozmq_speedups._zmq.engine_auto import AutoSocket
from aiozmq_speedups._zmq.linger import is_our_loop
from aiozmq_speedups._zmq.monitor import log_events
from aiozmq_speedups._zmq.native_auth import make_check
from aiozmq_speedups._zmq.options import (
    ZmqOptions,
    apply_options,
    check_options,
    key_option,
)
from aiozmq_speedups._zmq.pure import _PyZmqTransport
from aiozmq_speedups._zmq.pyzmq import zmq
from aiozmq_speedups._zmq.transport import _os_error, _Socket
from aiozmq_speedups.util import check_engine

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from aiozmq_speedups.interface import ZmqTransport

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
    :param bind: endpoints to bind to: a str (``transport://address``) or an
        iterable of them.
    :param connect: endpoints to connect to, likewise.
    :param zmq_sock: a pyzmq socket of *zmq_type* to use instead of a new one.
        The transport owns it from then on, and closes it.
    :param loop: the running loop by default.
    :param options: options of the socket: see :class:`ZmqOptions`.
    :return: ``(transport, protocol)``, after ``connection_made()``.
    :raise OSError: on an error of libzmq. The socket is closed, also if
        the call is cancelled or *protocol_factory* raises (but then a
        *zmq_sock* stays the caller's).
    :raise ValueError: if *zmq_sock* is of another type, *bind* or
        *connect* is neither a str nor an iterable, or the options are wrong.
    :raise TypeError: if an option is unknown or of another type.

    Call it in the thread of the loop. Sources: aiozmq's function of this name;
    zmq_bind(3), zmq_connect(3), zmq_setsockopt(3).
    """
    if loop is None:
        loop = asyncio.get_running_loop()
    if is_our_loop(loop):
        # A subclass may have overridden it.
        ours: Any = loop
        return await ours.create_zmq_connection(  # type: ignore[no-any-return]
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


create_zmq_connection.__module__ = "aiozmq_speedups.core"


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
    authenticate = options.pop("authenticate", None)
    logs = options.pop("log_events", None)
    if logs is None:
        variable = os.environ.get("AIOZMQ_SPEEDUPS_LOG_ZMQ", "")
        logs = variable not in ("", "0") and zmq_sock is None
    elif not isinstance(logs, bool):
        raise TypeError(f"log_events must be a bool, not {logs!r}")
    values = check_options(options)
    check = None
    if authenticate is not None:
        check = _authenticate_check(authenticate, values)
    owned = zmq_sock is None
    native = _is_native(
        engine, loop, zmq_context or zmq_sock, zmq_type, [*bind, *connect], values
    )
    if check is not None and not native:
        raise ValueError(
            'authenticate is served by the native engine, engine="native": '
            "libzmq asks a ZAP authenticator of the socket's context"
        )
    engine_name = _engine_name(engine, loop)
    try:
        if native:
            endpoints_decide = not bind and not connect and engine_name == "auto"
            cls_of_socket = (
                AutoSocket if endpoints_decide else engine_native.NativeSocket
            )
            zmq_sock = cls_of_socket(loop, zmq_type, check)
        elif zmq_sock is None:
            zmq_sock = engine_libzmq.new_socket(zmq_context, zmq_type)
        elif engine_libzmq.get_option(zmq_sock, zmq.TYPE) != zmq_type:
            raise ValueError("Invalid zmq_sock type")
        apply_options(zmq_sock, values, owned)
    except zmq.ZMQError as exc:
        if owned and zmq_sock is not None:
            engine_libzmq.drop(zmq_sock)
        raise _os_error(exc) from exc

    waiter = loop.create_future()
    try:
        protocol = protocol_factory()
        known = native or engine_libzmq.is_socket(zmq_sock)
        cls = transport_class if known else _PyZmqTransport
        transport = cls(loop, zmq_type, zmq_sock, protocol, waiter)
        if isinstance(zmq_sock, AutoSocket):
            zmq_sock.belongs_to(transport)
    except BaseException:
        if owned:
            engine_libzmq.drop(zmq_sock)
        raise
    try:
        await waiter
        if logs:
            engine_libzmq.check_monitor()
            log_events(transport)
        for endpoint in bind:
            await transport.bind(endpoint)
        for endpoint in connect:
            await transport.connect(endpoint)
    except BaseException as exc:
        transport._force_close(exc if isinstance(exc, OSError) else None)
        raise
    return transport, protocol


def _authenticate_check(how: Any, values: dict[int, Any]) -> Any:
    plain = bool(values.get(zmq.PLAIN_SERVER))
    if not plain and not values.get(zmq.CURVE_SERVER):
        raise ValueError("authenticate needs plain_server=True or curve_server=True")
    return make_check(how, plain, key_option)


def _engine_name(engine: str | None, loop: Any) -> str:
    if engine is None:
        engine = getattr(loop, "_zmq_engine", None)
    if engine is None:
        engine = os.environ.get("AIOZMQ_SPEEDUPS_ENGINE") or "libzmq"
    check_engine(engine)
    return engine


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
    engine = _engine_name(engine, loop)
    if engine == "libzmq":
        return False
    missing = None
    if transport_class is _PyZmqTransport:
        missing = f"the transport in C: {transport_info}"
    elif not is_our_loop(loop):
        missing = "a loop of aiozmq_speedups"
    elif given is not None:
        missing = "a socket of its own: zmq_sock= and a loop's zmq_context are libzmq's"
    if engine == "auto":
        return (
            missing is None
            and zmq_type in _NATIVE_TYPES
            and engine_native.serves(endpoints, options)
        )
    if missing is not None:
        if asked is None:
            return False  # a default; what cannot be served by it is libzmq's
        raise ValueError(
            f"the native engine needs {missing}: {engine_native.USE_LIBZMQ}"
        )
    if zmq_type not in _NATIVE_TYPES:
        raise ValueError(
            f"the native engine has no sockets of type {zmq_type}: "
            f"{engine_native.USE_LIBZMQ}"
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

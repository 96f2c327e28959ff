"""Request and reply over DEALER and ROUTER sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self, Unpack

from aiozmq_speedups._zmq.pyzmq import zmq

from ..core import ZmqOptions, create_zmq_connection
from . import _fast
from ._client import _ClientProtocol
from ._errors import ErrorTable
from ._observe import Observer, observed
from ._server import bound_answers
from .base import AbstractHandler, Service, check_limit
from .packer import TranslationTable
from .util import _MethodCall

__all__ = ["RPCClient", "connect_rpc", "serve_rpc"]

#: Answers that wait for one client.
_SERVER_SNDHWM = 100_000


async def connect_rpc(
    *,
    connect: str | Iterable[str] | None = None,
    bind: str | Iterable[str] | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
    error_table: ErrorTable | None = None,
    translation_table: TranslationTable | None = None,
    timeout: float | None = None,
    max_pending: int | None = None,
    observer: Observer | None = None,
    **options: Unpack[ZmqOptions],
) -> RPCClient:
    """Makes an rpc client.

    :param connect: endpoints to connect to: a str (``transport://address``) or an
        iterable of them. With several, calls go to each in turn.
    :param bind: endpoints to bind to, likewise.
    :param loop: the running loop by default.
    :param error_table: ``{"package.module.Name": class}``: exceptions of the
        server to raise here as such, besides the builtin ones.
    :param translation_table: ``{code: (class, packer, unpacker)}``, the same as
        the server has.
    :param timeout: seconds until a call raises TimeoutError; None for no limit.
    :param max_pending: so many calls may wait for their answers: one more raises
        :exc:`TooManyCallsError` and is not sent; None for no limit. ``await
        client.drain()`` waits until there is room.
    :param observer: is told of each call: see :ref:`observed-calls`.
    :param options: options of the socket: see :class:`~aiozmq_speedups.ZmqOptions`.
    :raises OSError: the endpoint cannot be used.
    :raises ValueError: ``max_pending`` is less than 1.

    A coroutine, which does not wait for the server. Source: ``aiozmq.rpc``.
    """
    check_limit("max_pending", max_pending)
    if loop is None:
        loop = asyncio.get_running_loop()
    used_loop = loop
    _, proto = await create_zmq_connection(
        lambda: observed(_fast.client_protocol, observer)(
            used_loop,
            error_table=error_table,
            translation_table=translation_table,
            max_pending=max_pending,
        ),
        zmq.DEALER,
        connect=connect,
        bind=bind,
        loop=loop,
        **options,
    )
    return RPCClient(loop, proto, timeout=timeout)  # type: ignore[abstract]


async def serve_rpc(
    handler: AbstractHandler | Mapping[str, Any],
    *,
    connect: str | Iterable[str] | None = None,
    bind: str | Iterable[str] | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
    translation_table: TranslationTable | None = None,
    log_exceptions: bool = False,
    exclude_log_exceptions: Iterable[type[BaseException]] = (),
    timeout: float | None = None,
    max_concurrency: int | None = None,
    observer: Observer | None = None,
    **options: Unpack[ZmqOptions],
) -> Service:
    """Makes an rpc server.

    :param handler: what names are looked up in: an :class:`AttrHandler` or another
        :class:`AbstractHandler`, or a dict.
    :param connect: endpoints to connect to: a str (``transport://address``) or an
        iterable of them.
    :param bind: endpoints to bind to, likewise.
    :param loop: the running loop by default.
    :param translation_table: ``{code: (class, packer, unpacker)}``, the same as
        the clients have.
    :param log_exceptions: whether exceptions out of handlers are logged.
    :param exclude_log_exceptions: exception classes that are not logged.
    :param timeout: seconds after which a coroutine handler is cancelled and the
        caller gets TimeoutError; None for no limit.
    :param max_concurrency: while so many coroutine handlers run, nothing more is
        received: requests wait in ZeroMQ's queues; None for no limit.
    :param observer: is told of each call: see :ref:`observed-calls`.
    :raises TypeError: ``handler`` has no ``__getitem__``.
    :raises ValueError: ``max_concurrency`` is less than 1.
    :param options: options of the socket: see :class:`~aiozmq_speedups.ZmqOptions`.
        ``sndhwm`` is 100,000 by default: so many answers wait for a client that
        does not fetch them.
    :raises OSError: the endpoint cannot be used.
    """
    check_limit("max_concurrency", max_concurrency)
    # A ROUTER drops what is beyond the mark: answers to calls that end together.
    options.setdefault("sndhwm", _SERVER_SNDHWM)
    if loop is None:
        loop = asyncio.get_running_loop()
    used_loop = loop
    transport, proto = await create_zmq_connection(
        lambda: observed(_fast.server_protocol, observer)(
            used_loop,
            handler,
            translation_table=translation_table,
            log_exceptions=log_exceptions,
            exclude_log_exceptions=exclude_log_exceptions,
            timeout=timeout,
            max_concurrency=max_concurrency,
        ),
        zmq.ROUTER,
        connect=connect,
        bind=bind,
        loop=loop,
        **options,
    )
    bound_answers(transport)
    return Service(loop, proto)  # type: ignore[abstract]


class RPCClient(Service):
    """What :func:`~aiozmq_speedups.rpc.connect_rpc` gives."""

    _proto: _ClientProtocol

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        proto: _ClientProtocol,
        *,
        timeout: float | None,
    ) -> None:
        super().__init__(loop, proto)
        self._timeout = timeout
        self._call = _MethodCall(proto, timeout)

    @property
    def call(self) -> _MethodCall:
        """For calls: ``answer = await client.call.ns.func(1, 2, key=3)``.

        The call is sent at once and gives a future. Cancelling the future, as
        ``wait_for`` does, drops the call, and closing the client cancels it.

        :raises ServiceClosedError: the client has been closed.
        :raises TooManyCallsError: as many calls as ``max_pending`` wait.
        :raises TypeError, ValueError, OverflowError: arguments that cannot be
            packed.
        """
        return self._call

    async def drain(self) -> None:
        """Waits until the client can take a call.

        That is while ZeroMQ's queue to a slow server is full and the transport's
        buffer is over its high water mark, or while ``max_pending`` calls wait.
        Who calls at once after it, without awaiting in between, has the room. It
        may be cancelled.

        :raises ServiceClosedError: the client has been closed.
        """
        await self._proto.drain()

    def with_timeout(self, timeout: float | None) -> Self:
        """The same client with another timeout, also as a context manager.

        :param timeout: seconds until a call raises TimeoutError, None for no
            limit. An answer that comes later is ignored.
        """
        return self.__class__(self._loop, self._proto, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        return None

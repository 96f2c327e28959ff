"""Notifications over PUSH and PULL sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Unpack

from aiozmq_speedups._zmq.pyzmq import zmq

from ..core import ZmqOptions, create_zmq_connection
from ._observe import Observer, observed
from ._oneway import OneWayClientProtocol, OneWayServerProtocol
from .base import AbstractHandler, Service, check_limit
from .packer import TranslationTable
from .util import _MethodCall

__all__ = ["PipelineClient", "connect_pipeline", "serve_pipeline"]


async def connect_pipeline(
    *,
    connect: str | Iterable[str] | None = None,
    bind: str | Iterable[str] | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
    translation_table: TranslationTable | None = None,
    observer: Observer | None = None,
    **options: Unpack[ZmqOptions],
) -> PipelineClient:
    """Makes a pipeline client.

    The parameters are those of :func:`connect_rpc`.

    :param options: options of the socket: see :class:`~aiozmq_speedups.ZmqOptions`.
    :raises OSError: the endpoint cannot be used.
    """
    if loop is None:
        loop = asyncio.get_running_loop()
    used_loop = loop
    _, proto = await create_zmq_connection(
        lambda: observed(_ClientProtocol, observer)(
            used_loop, translation_table=translation_table
        ),
        zmq.PUSH,
        connect=connect,
        bind=bind,
        loop=loop,
        **options,
    )
    return PipelineClient(loop, proto)  # type: ignore[abstract]


async def serve_pipeline(
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
    """Makes a pipeline server.

    The parameters are those of :func:`serve_rpc`; a coroutine handler that is
    cancelled by ``timeout`` raises TimeoutError, which is logged.

    :raises ValueError: ``max_concurrency`` is less than 1.
    :raises TypeError: ``handler`` has no ``__getitem__``.
    :param options: options of the socket: see :class:`~aiozmq_speedups.ZmqOptions`.
    :raises OSError: the endpoint cannot be used.
    """
    check_limit("max_concurrency", max_concurrency)
    if loop is None:
        loop = asyncio.get_running_loop()
    used_loop = loop
    _, proto = await create_zmq_connection(
        lambda: observed(_ServerProtocol, observer)(
            used_loop,
            handler,
            translation_table=translation_table,
            log_exceptions=log_exceptions,
            exclude_log_exceptions=exclude_log_exceptions,
            timeout=timeout,
            max_concurrency=max_concurrency,
        ),
        zmq.PULL,
        connect=connect,
        bind=bind,
        loop=loop,
        **options,
    )
    return Service(loop, proto)  # type: ignore[abstract]


class _ClientProtocol(OneWayClientProtocol):
    def send(
        self,
        bname: bytes,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        option: None,
    ) -> asyncio.Future[None]:
        return self.send_frames([bname], args, kwargs)


class PipelineClient(Service):
    """What :func:`~aiozmq_speedups.rpc.connect_pipeline` gives."""

    def __init__(self, loop: asyncio.AbstractEventLoop, proto: _ClientProtocol) -> None:
        super().__init__(loop, proto)
        self._sender = proto
        self._notify = _MethodCall(proto)

    @property
    def notify(self) -> _MethodCall:
        """For notifications: ``await client.notify.ns.func(1, 2, key=3)``.

        Sent at once; the future tells nothing but that the socket can take more.

        :raises ServiceClosedError: the client has been closed.
        """
        return self._notify

    async def drain(self) -> None:
        """Waits while the transport's buffer is over its high water mark.

        :raises ServiceClosedError: the client has been closed.
        """
        await self._sender.drain()


class _ServerProtocol(OneWayServerProtocol):
    not_none_message = "Pipeline handler %r returned not None"

    def msg_received(self, data: list[bytes]) -> None:
        try:
            bname, bargs, bkwargs = data
        except ValueError as exc:
            self.log_malformed(data, exc)
            return
        self.call_received(data, bname, bargs, bkwargs)

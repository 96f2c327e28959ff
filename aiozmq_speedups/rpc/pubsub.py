"""Calls published by topic, over PUB and SUB sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Unpack

import zmq

from ..core import ZmqOptions, create_zmq_connection
from ._oneway import OneWayClientProtocol, OneWayServerProtocol
from .base import AbstractHandler, Service, check_limit
from .packer import TranslationTable
from .util import _MethodCall

__all__ = ["PubSubClient", "PubSubService", "connect_pubsub", "serve_pubsub"]

#: Topics whose chains of names a client remembers.
_MAX_REMEMBERED = 256


async def connect_pubsub(
    *,
    connect: str | Iterable[str] | None = None,
    bind: str | Iterable[str] | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
    translation_table: TranslationTable | None = None,
    **options: Unpack[ZmqOptions],
) -> PubSubClient:
    """Makes a publisher.

    The parameters are those of :func:`connect_rpc`.

    :param options: options of the socket: see :class:`~aiozmq_speedups.ZmqOptions`.
    :raises OSError: the endpoint cannot be used.
    """
    if loop is None:
        loop = asyncio.get_running_loop()
    used_loop = loop
    _, proto = await create_zmq_connection(
        lambda: _ClientProtocol(used_loop, translation_table=translation_table),
        zmq.PUB,
        connect=connect,
        bind=bind,
        loop=loop,
        **options,
    )
    return PubSubClient(loop, proto)  # type: ignore[abstract]


async def serve_pubsub(
    handler: AbstractHandler | Mapping[str, Any],
    *,
    subscribe: str | bytes | Iterable[str | bytes] | None = None,
    connect: str | Iterable[str] | None = None,
    bind: str | Iterable[str] | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
    translation_table: TranslationTable | None = None,
    log_exceptions: bool = False,
    exclude_log_exceptions: Iterable[type[BaseException]] = (),
    timeout: float | None = None,
    max_concurrency: int | None = None,
    **options: Unpack[ZmqOptions],
) -> PubSubService:
    """Makes a subscriber.

    The parameters are those of :func:`serve_pipeline`, and:

    :param subscribe: one topic or several.
    :raises ValueError: ``max_concurrency`` is less than 1.
    :raises TypeError: ``handler`` has no ``__getitem__``, or a topic is neither
        str nor bytes.
    :param options: options of the socket: see :class:`~aiozmq_speedups.ZmqOptions`.
    :raises OSError: the endpoint cannot be used.
    """
    check_limit("max_concurrency", max_concurrency)
    if loop is None:
        loop = asyncio.get_running_loop()
    used_loop = loop
    _, proto = await create_zmq_connection(
        lambda: _ServerProtocol(
            used_loop,
            handler,
            translation_table=translation_table,
            log_exceptions=log_exceptions,
            exclude_log_exceptions=exclude_log_exceptions,
            timeout=timeout,
            max_concurrency=max_concurrency,
        ),
        zmq.SUB,
        connect=connect,
        bind=bind,
        loop=loop,
        **options,
    )
    service = PubSubService(loop, proto)  # type: ignore[abstract]
    try:
        if isinstance(subscribe, (str, bytes)):
            service.subscribe(subscribe)
        elif subscribe is not None:
            if not isinstance(subscribe, Iterable):
                raise TypeError("subscribe should be str, bytes or iterable")
            for topic in subscribe:
                service.subscribe(topic)
    except BaseException:
        service.close()
        raise
    return service


class _ClientProtocol(OneWayClientProtocol):
    def send(
        self,
        bname: bytes,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        option: Any,
    ) -> asyncio.Future[None]:
        """Publishes a call; ``option`` is its topic."""
        if option is None:
            topic = b""
        elif isinstance(option, str):
            topic = option.encode()
        elif isinstance(option, bytes):
            topic = option
        else:
            raise TypeError(f"topic argument should be None, str or bytes ({option!r})")
        return self.send_frames([topic, bname], args, kwargs)


class _Publication(_MethodCall):
    __slots__ = ()

    _empty_name = "PubSub method name is empty"


class PubSubClient(Service):
    """What :func:`connect_pubsub` gives."""

    def __init__(self, loop: asyncio.AbstractEventLoop, proto: _ClientProtocol) -> None:
        super().__init__(loop, proto)
        self._sender = proto
        self._publications: dict[str | bytes | None, _Publication] = {}

    def publish(self, topic: str | bytes | None) -> _Publication:
        """For publishing: ``await client.publish("topic").ns.func(1, key=2)``.

        Sent at once; the future tells nothing but that the socket can take more.

        :param topic: None is the empty topic. The call raises TypeError for
            anything but None, str and bytes.
        :raises ServiceClosedError: (the call) the client has been closed.
        """
        if type(topic) not in (str, bytes):
            return _Publication(self._sender, topic)
        found = self._publications.get(topic)
        if found is None:
            if len(self._publications) >= _MAX_REMEMBERED:
                self._publications.clear()
            found = self._publications[topic] = _Publication(self._sender, topic)
        return found

    async def drain(self) -> None:
        """Waits while the transport's buffer is over its high water mark.

        :raises ServiceClosedError: the client has been closed.
        """
        await self._sender.drain()


class PubSubService(Service):
    """What :func:`serve_pubsub` gives."""

    def subscribe(self, topic: str | bytes) -> None:
        """Adds a topic: messages whose topic begins with it are received.

        :raises TypeError: ``topic`` is neither str nor bytes.
        :raises ServiceClosedError: the service has been closed.
        """
        self.transport.subscribe(_encode(topic))

    def unsubscribe(self, topic: str | bytes) -> None:
        """Removes a topic.

        :raises TypeError: ``topic`` is neither str nor bytes.
        :raises ServiceClosedError: the service has been closed.
        """
        self.transport.unsubscribe(_encode(topic))


def _encode(topic: str | bytes) -> bytes:
    if isinstance(topic, bytes):
        return topic
    if isinstance(topic, str):
        return topic.encode()
    raise TypeError(f"topic should be str or bytes, got {topic!r}")


class _ServerProtocol(OneWayServerProtocol):
    not_none_message = "PubSub handler %r returned not None"

    def msg_received(self, data: list[bytes]) -> None:
        try:
            _, bname, bargs, bkwargs = data
        except ValueError as exc:
            self.log_malformed(data, exc)
            return
        self.call_received(data, bname, bargs, bkwargs)

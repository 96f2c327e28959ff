"""Calls published by topic, over PUB and SUB sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterable, Mapping
from typing import Any, Unpack

from aiozmq_speedups._zmq.pyzmq import zmq

from .._zmq import engine_libzmq
from ..core import ZmqOptions, create_zmq_connection
from ..util import NO_GIL, check_thread
from ._observe import Observer, observed
from ._oneway import OneWayClientProtocol, OneWayServerProtocol
from .base import (
    NO_KWARGS,
    AbstractHandler,
    Service,
    ServiceClosedError,
    check_limit,
)
from .packer import TranslationTable
from .util import _MethodCall

__all__ = ["PubSubClient", "PubSubService", "connect_pubsub", "serve_pubsub"]

#: Topics whose chains of names a client remembers.
_MAX_REMEMBERED = 256

#: Connections of a topic's subscribers that may be lost before they are looked for.
_MAX_LOST = 64

#: A subscriber asks by subscribing to a topic of its own, this and random bytes,
#: and a publisher answers by publishing to it: a call without a name, whose
#: arguments tell publishers apart. No str has this in UTF-8.
_QUESTION = b"\xffaiozmq_speedups.subscribed?"
_RANDOM_SIZE = 16


async def connect_pubsub(
    *,
    connect: str | Iterable[str] | None = None,
    bind: str | Iterable[str] | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
    translation_table: TranslationTable | None = None,
    observer: Observer | None = None,
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
        lambda: observed(_ClientProtocol, observer)(
            used_loop, translation_table=translation_table
        ),
        zmq.XPUB,  # as PUB, but it tells of subscriptions
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
    observer: Observer | None = None,
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
    # What a subscriber sends is subscriptions: libzmq drops those beyond the mark.
    options.setdefault("sndhwm", 0)
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


#: A descriptor and the inode of its socket: the number alone is soon another's.
_Connection = tuple[int, int]


def _connection_of(fd: int) -> _Connection | None:
    if fd < 0:
        return None
    try:
        return fd, os.fstat(fd).st_ino
    except OSError:  # closed since
        return None


class _ClientProtocol(OneWayClientProtocol):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # How many subscribers have each topic.
        self.subscriptions: dict[bytes, int] = {}
        # Their connections, as far as libzmq tells: it forwards every subscription,
        # but where a subscriber has two to a topic only one end of them.
        self.connections: dict[bytes, set[_Connection]] = {}
        self.waiting: dict[asyncio.Future[None], tuple[bytes, int]] = {}
        me = self.packer.packb((os.urandom(_RANDOM_SIZE),))
        self.answer = [b"", me, NO_KWARGS]

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # All of them, not just the first and the last of each topic.
        transport.setsockopt(zmq.XPUB_VERBOSER, 1)
        transport._tells_source = True

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        for waiter in self.waiting:
            _fail_closed(waiter)

    def msg_received(self, data: list[bytes]) -> None:
        """A subscription that came into effect, or ended."""
        frame = data[0]
        change, topic = frame[:1], frame[1:]
        if len(data) > 1 or change not in (b"\0", b"\1"):
            return  # an XSUB socket may send anything
        if topic.startswith(_QUESTION):
            if (
                change == b"\1"
                and len(topic) == len(_QUESTION) + _RANDOM_SIZE
                and self._write is not None
            ):
                self._write([topic, *self.answer])
            return
        if not self._note(topic, change == b"\1"):
            return
        for waiter, (wanted, needed) in self.waiting.items():
            if (
                wanted.startswith(topic)
                and not waiter.done()
                and self.count_subscriptions(wanted) >= needed
            ):
                waiter.set_result(None)

    def _note(self, topic: bytes, subscribed: bool) -> bool:
        """Counts a subscription or the end of one; False where there are not more."""
        transport: Any = self.transport
        connection = _connection_of(transport._source)
        known = self.connections.get(topic)
        count = self.subscriptions.get(topic, 0)
        if not subscribed:
            # That of a connection that was lost comes by none.
            if connection is not None and known is not None:
                known.discard(connection)
            if count > 1:
                self.subscriptions[topic] = count - 1
            else:
                self.subscriptions.pop(topic, None)
                self.connections.pop(topic, None)
            return False
        if connection is not None:
            if known is None:
                known = self.connections[topic] = set()
            elif connection in known:
                return False
            elif len(known) > 2 * count + _MAX_LOST:
                known.intersection_update(
                    [one for one in known if _connection_of(one[0]) == one]
                )
            known.add(connection)
        self.subscriptions[topic] = count + 1
        return True

    def count_subscriptions(self, topic: bytes) -> int:
        """How many subscriptions have what is published to the topic."""
        get = self.subscriptions.get
        return sum(get(topic[:end], 0) for end in range(len(topic) + 1))

    async def wait_subscribed(self, topic: bytes, count: int) -> None:
        if self._write is None:
            raise ServiceClosedError()
        if self.count_subscriptions(topic) >= count:
            return
        waiter = self.loop.create_future()
        self.waiting[waiter] = topic, count
        try:
            await waiter
        finally:
            del self.waiting[waiter]

    def send(
        self,
        bname: bytes,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        option: Any,
    ) -> asyncio.Future[None]:
        """Publishes a call; ``option`` is its topic."""
        return self.send_frames([_published_topic(option), bname], args, kwargs)


def _published_topic(topic: Any) -> bytes:
    if topic is None:
        return b""
    if isinstance(topic, str):
        return topic.encode()
    if isinstance(topic, bytes):
        return topic
    raise TypeError(f"topic argument should be None, str or bytes ({topic!r})")


def _fail_closed(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(ServiceClosedError())


class _Publication(_MethodCall):
    __slots__ = ()

    __empty_name__ = "PubSub method name is empty"


class PubSubClient(Service):
    """What :func:`~aiozmq_speedups.rpc.connect_pubsub` gives."""

    def __init__(self, loop: asyncio.AbstractEventLoop, proto: _ClientProtocol) -> None:
        super().__init__(loop, proto)
        self._sender = proto
        # Apart: with -bb a dict of both str and bytes raises.
        self._by_str: dict[str | bytes, _Publication] = {}
        self._by_bytes: dict[str | bytes, _Publication] = {}

    def publish(self, topic: str | bytes | None) -> _Publication:
        """For publishing: ``await client.publish("topic").ns.func(1, key=2)``.

        Sent at once; the future tells nothing but that the socket can take more.

        :param topic: None is the empty topic. The call raises TypeError for
            anything but None, str and bytes.
        :raises ServiceClosedError: (the call) the client has been closed.
        """
        if type(topic) is str:
            remembered = self._by_str
        elif type(topic) is bytes:
            remembered = self._by_bytes
        else:
            return _Publication(self._sender, topic)
        found = remembered.get(topic)
        if found is None:
            if len(remembered) >= _MAX_REMEMBERED:
                remembered.clear()
            found = remembered[topic] = _Publication(self._sender, topic)
        return found

    async def drain(self) -> None:
        """Waits while the transport's buffer is over its high water mark.

        :raises ServiceClosedError: the client has been closed.
        """
        await self._sender.drain()

    async def wait_subscribed(
        self,
        topic: str | bytes | None,
        *,
        count: int = 1,
        timeout: float | None = None,
    ) -> None:
        """Waits until what is published to ``topic`` has subscribers.

        Each of them gets what is published from then on, as long as it stays
        connected and keeps up. Subscribers of any software count.

        :param topic: as for :meth:`publish`. A subscription to any beginning of it
            counts, the empty one included.
        :param count: how many subscriptions to wait for; a subscriber that has
            subscribed to several beginnings of the topic counts once for each. One
            that has subscribed to the same twice counts once, over ``tcp://`` and
            ``ipc://`` (libzmq); ``inproc://`` cannot tell. All that are behind a
            forwarder count as one.
        :param timeout: seconds; None for no limit.
        :raises TimeoutError: there are not as many in time.
        :raises ServiceClosedError: the client has been closed.
        :raises TypeError: ``topic`` is neither None, str nor bytes.
        :raises ValueError: ``count`` is less than 1.
        """
        if NO_GIL:
            check_thread(self._loop)
        check_limit("count", count)
        async with asyncio.timeout(timeout):
            await self._sender.wait_subscribed(_published_topic(topic), count)


class PubSubService(Service):
    """What :func:`~aiozmq_speedups.rpc.serve_pubsub` gives."""

    def __init__(self, loop: asyncio.AbstractEventLoop, proto: _ServerProtocol) -> None:
        super().__init__(loop, proto)
        self._receiver = proto

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

    async def wait_subscribed(
        self, *, publishers: int = 1, timeout: float | None = None
    ) -> None:
        """Waits until what was subscribed to before is in effect at a publisher.

        The publisher itself says so: what it publishes from then on arrives here,
        as long as the connection lasts and this end keeps up. Only publishers that
        this package's :func:`~aiozmq_speedups.rpc.connect_pubsub` made can say so, also
        through a forwarder of XSUB and XPUB sockets. Others never answer; with them
        HANDSHAKE_SUCCEEDED of ``transport.monitor()`` tells that the subscriptions
        are on their way.

        If ``max_concurrency`` has the service receive nothing, it waits for that,
        too.

        :param publishers: how many publishers to wait for.
        :param timeout: seconds; None for no limit.
        :raises TimeoutError: not as many have answered in time.
        :raises ServiceClosedError: the service has been closed.
        :raises ValueError: ``publishers`` is less than 1.
        """
        if NO_GIL:
            check_thread(self._loop)
        check_limit("publishers", publishers)
        transport = self.transport
        async with asyncio.timeout(timeout):
            await self._receiver.wait_subscribed(transport, publishers)


def _encode(topic: str | bytes) -> bytes:
    if isinstance(topic, bytes):
        return topic
    if isinstance(topic, str):
        return topic.encode()
    raise TypeError(f"topic should be str or bytes, got {topic!r}")


class _Inquiry:
    """Asks whether the subscriptions are in effect, until enough say so.

    A connection that is made begins with all subscriptions of the socket, in any
    order. So a publisher's first answer tells only that it is connected: what is
    asked after that is sent, and so answered, after everything before.
    """

    def __init__(
        self, transport: Any, publishers: int, done: asyncio.Future[None]
    ) -> None:
        self.done = done
        self._publishers = publishers
        self._transport = transport
        self._connected: set[bytes] = set()
        self._confirmed: set[bytes] = set()
        self._question = b""
        self._ask()

    def _ask(self) -> None:
        self.close()
        self._may_confirm = frozenset(self._connected)
        self._question = _QUESTION + os.urandom(_RANDOM_SIZE)
        self._setsockopt(zmq.SUBSCRIBE)

    def _setsockopt(self, option: int) -> None:
        # The transport would name the question among its subscriptions.
        sock = self._transport.get_extra_info("zmq_socket")
        # Where it is closed the transport finds it so, and ends.
        with contextlib.suppress(zmq.ZMQError):
            engine_libzmq.set_option(sock, option, self._question)

    def answered(self, question: bytes, publisher: bytes) -> None:
        if question != self._question or self.done.done():
            return
        if publisher in self._may_confirm:
            self._confirmed.add(publisher)
            if len(self._confirmed) >= self._publishers:
                self.done.set_result(None)
        elif publisher not in self._connected:
            self._connected.add(publisher)
            self._ask()

    def close(self) -> None:
        if self._question:
            self._setsockopt(zmq.UNSUBSCRIBE)


class _ServerProtocol(OneWayServerProtocol):
    not_none_message = "PubSub handler %r returned not None"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.inquiries: set[_Inquiry] = set()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        for inquiry in self.inquiries:
            _fail_closed(inquiry.done)

    async def wait_subscribed(self, transport: Any, publishers: int) -> None:
        inquiry = _Inquiry(transport, publishers, self.loop.create_future())
        self.inquiries.add(inquiry)
        try:
            await inquiry.done
        finally:
            self.inquiries.discard(inquiry)
            inquiry.close()

    def msg_received(self, data: list[bytes]) -> None:
        try:
            topic, bname, bargs, bkwargs = data
        except ValueError as exc:
            self.log_malformed(data, exc)
            return
        if not bname and topic.startswith(_QUESTION):
            # Another subscriber may have asked, where all topics come here.
            for inquiry in list(self.inquiries):
                inquiry.answered(topic, bargs)
            return
        self.call_received(data, bname, bargs, bkwargs)

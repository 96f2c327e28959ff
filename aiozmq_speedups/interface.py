"""The abstract transport and protocol of ZeroMQ sockets."""

from __future__ import annotations

from asyncio import BaseProtocol, BaseTransport
from collections.abc import Awaitable, Iterable
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiozmq_speedups._zmq.monitor import SocketEvent, ZmqMonitor

__all__ = ["ZmqTransport", "ZmqProtocol"]


class ZmqTransport(BaseTransport):
    """A ZeroMQ socket as an asyncio transport.

    Programs get one from :func:`create_zmq_connection` and never make one.
    No method may be called from a thread other than the loop's.

    Every error of libzmq arrives as :exc:`OSError` with libzmq's errno and
    its text; EINTR is handled inside.
    """

    # The C transport adds its own layout below this class.
    __slots__ = ()

    def write(self, data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send one message.

        :param data: the frames, an iterable of 1..n bytes-like objects. If
            it is false (``None``, an empty list) nothing is sent.
        :raise TypeError: if a frame is not bytes-like; nothing is sent.

        Never blocks. If libzmq cannot take the message now (its high water
        mark is reached, or a socket of this type has no peer) the message
        waits in the transport's buffer, see :meth:`set_write_buffer_limits`.
        ``bytes`` are kept as they are; other buffers are copied before this
        method returns.

        If libzmq refuses this one message, the loop's exception handler gets
        it, as a list of frames in ``context["zmq_message"]``, with the OSError in
        ``context["exception"]``, and the transport goes on: EHOSTUNREACH (the peer
        is not there: ROUTER with ``zmq.ROUTER_MANDATORY``, STREAM), EFSM (a second
        request of a REQ, an answer of a REP that was not asked), EINVAL (several
        frames if the type has one). Other errors end the transport.

        After the transport has closed the message is dropped, and from the
        sixth time on a warning is logged.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Close the transport once its buffer is empty.

        No more messages are received. The socket's ``zmq.LINGER`` option, as
        it is now, bounds the wait: what is still in the buffer then is lost,
        with a warning. In the end the protocol's ``connection_lost(None)`` is
        called, exactly once.

        That does not say that the messages have left: libzmq sends what it has
        taken in a thread of its own, for as long as the same option says. The
        loop's ``close()`` waits for it, up to ``close_timeout``; another loop
        (asyncio's, uvloop) does not, but the end of the process does, for a
        second. What a peer has got only the peer can tell.
        """
        raise NotImplementedError

    def abort(self) -> None:
        """Close the transport at once, losing its buffer.

        The protocol's ``connection_lost(None)`` is called in the next turn.
        """
        raise NotImplementedError

    def getsockopt(self, option: int) -> Any:
        """Return a socket option, see zmq_getsockopt(3).

        :param option: a constant such as ``zmq.TYPE`` or ``zmq.RCVHWM``.
        :return: int or bytes as the option has it; ``zmq.LAST_ENDPOINT`` is a
            str without the closing NUL.
        :raise OSError: on an error of libzmq.
        """
        raise NotImplementedError

    def setsockopt(self, option: int, value: Any) -> None:
        """Set a socket option, see zmq_setsockopt(3).

        ``zmq.SUBSCRIBE`` and ``zmq.UNSUBSCRIBE`` also change
        :meth:`subscriptions`.

        :raise OSError: on an error of libzmq.
        """
        raise NotImplementedError

    def set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        """Set the water marks of the write buffer, in bytes.

        They count as :meth:`get_write_buffer_size` does.

        The protocol's ``pause_writing()`` is called when the buffer grows
        over *high*, its ``resume_writing()`` when it has shrunk to *low* or
        less. *high* alone makes *low* a quarter of it, *low* alone makes
        *high* four times it; the default is 64 KiB and 16 KiB.

        :raise ValueError: unless high >= low >= 0.
        """
        raise NotImplementedError

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return ``(low, high)``, in bytes."""
        raise NotImplementedError

    def get_write_buffer_size(self) -> int:
        """Return how much waits in the transport, in bytes.

        That is the payload, and 64 for each frame, so that empty ones count, too.
        What libzmq has taken into its own queues is not counted.
        """
        raise NotImplementedError

    def pause_reading(self) -> None:
        """Stop calling ``msg_received()`` until :meth:`resume_reading`.

        :raise RuntimeError: if it is paused already, or closing.
        """
        raise NotImplementedError

    def resume_reading(self) -> None:
        """Undo :meth:`pause_reading`.

        :raise RuntimeError: if it is not paused.
        """
        raise NotImplementedError

    def bind(self, endpoint: str) -> Awaitable[str]:
        """Accept connections at *endpoint*, see zmq_bind(3). A coroutine.

        :param endpoint: ``transport://address``; ``tcp://127.0.0.1:*`` lets
            the system choose the port.
        :return: the endpoint with wildcards resolved.
        :raise OSError: on an error of libzmq.
        :raise TypeError: if *endpoint* is not a str.
        """
        raise NotImplementedError

    def unbind(self, endpoint: str) -> Awaitable[None]:
        """Stop accepting at *endpoint*. A coroutine.

        :param endpoint: as :meth:`bind` returned it; for TCP any name of its address
            (libzmq looks it up, and so does this method).

        :raise OSError: on an error of libzmq.
        :raise TypeError: if *endpoint* is not a str.
        """
        raise NotImplementedError

    def bindings(self) -> AbstractSet[str]:
        """Return a read-only live view of the bound endpoints.

        Only those bound by :meth:`bind` or :func:`create_zmq_connection`;
        not those that a ``zmq_sock`` had before.
        """
        raise NotImplementedError

    def connect(self, endpoint: str) -> Awaitable[str]:
        """Connect to *endpoint*, see zmq_connect(3). A coroutine.

        libzmq connects in the background, and again after a disconnect; this
        waits for neither. A host name is resolved by libzmq, in its own
        thread.

        :return: *endpoint*.
        :raise OSError: on an error of libzmq.
        :raise TypeError: if *endpoint* is not a str.
        """
        raise NotImplementedError

    def disconnect(self, endpoint: str) -> Awaitable[None]:
        """Disconnect from *endpoint*. A coroutine.

        :raise OSError: on an error of libzmq.
        :raise TypeError: if *endpoint* is not a str.
        """
        raise NotImplementedError

    def connections(self) -> AbstractSet[str]:
        """Return a read-only live view of the connected endpoints.

        Only those connected by :meth:`connect` or
        :func:`create_zmq_connection`; not those that a ``zmq_sock`` had before.
        """
        raise NotImplementedError

    def subscribe(self, value: bytes) -> None:
        """Receive the messages that begin with *value* (SUB sockets).

        ``b""`` subscribes to everything. Unlike on a raw socket, subscribing
        twice to the same value counts once.

        :raise NotImplementedError: if the socket is not a SUB.
        :raise TypeError: if *value* is not bytes.
        """
        raise NotImplementedError

    def unsubscribe(self, value: bytes) -> None:
        """Remove a filter that :meth:`subscribe` made.

        :raise NotImplementedError: if the socket is not a SUB.
        :raise TypeError: if *value* is not bytes.
        """
        raise NotImplementedError

    def subscriptions(self) -> AbstractSet[bytes]:
        """Return a read-only live view of the subscribed values.

        Only those made through the transport; not those that a ``zmq_sock``
        had before.

        :raise NotImplementedError: if the socket is not a SUB.
        """
        raise NotImplementedError

    async def enable_monitor(self, events: int | None = None) -> None:
        """Pass the socket's events to ``ZmqProtocol.event_received()``.

        Does nothing if the monitor is on already.

        :param events: a mask such as ``zmq.EVENT_CONNECTED``; all by default.
            See zmq_socket_monitor(3).
        :raise NotImplementedError: if libzmq or pyzmq is too old.
        :raise OSError: on an error of libzmq.
        """
        raise NotImplementedError

    async def disable_monitor(self) -> None:
        """Undo :meth:`enable_monitor`; does nothing if it is not on."""
        raise NotImplementedError

    def monitor(
        self, events: int | None = None, *, backlog: int | None = 1000
    ) -> ZmqMonitor:
        """Iterate over the socket's events, from now on until it closes.

        No coroutine: what a ``connect()`` in the next line causes is among the
        events. Independent of :meth:`enable_monitor`::

            with transport.monitor(zmq.EVENT_HANDSHAKE_SUCCEEDED) as events:
                await transport.connect(endpoint)
                await anext(events)

        :param events: a mask such as ``zmq.EVENT_CONNECTED``; all by default.
            See zmq_socket_monitor(3).
        :param backlog: how many events are kept until they are read, at least
            1; None for no limit.
        :raise ValueError: if *backlog* is less than 1.
        :raise NotImplementedError: if libzmq or pyzmq is too old.
        :raise OSError: on an error of libzmq, or if the transport closes.
        """
        raise NotImplementedError


class ZmqProtocol(BaseProtocol):
    """Receives what happens on a :class:`ZmqTransport`.

    Calls come in this order: connection_made, any number of the others,
    connection_lost. Each runs in the loop's thread, in a copy of the context
    that made the connection.
    """

    def msg_received(self, data: list[bytes]) -> None:
        """Called with each message, as a list of 1..n frames.

        What it raises goes to the loop's exception handler; the transport
        goes on with the next message.
        """

    def event_received(self, event: SocketEvent) -> None:
        """Called with each event while the monitor is on.

        :param event: see :class:`SocketEvent`.
        """

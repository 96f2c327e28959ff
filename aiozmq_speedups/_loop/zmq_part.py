"""What both loops, accelerated and pure, have beside asyncio's: ZeroMQ and stats."""

from __future__ import annotations

import operator
import sys
from typing import TYPE_CHECKING, Any

from aiozmq_speedups import _ext
from aiozmq_speedups._loop.slow import check_slow_ms, check_watchdog
from aiozmq_speedups._loop.tls import check_choice as check_tls
from aiozmq_speedups.util import check_engine

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    import zmq

    from aiozmq_speedups._loop.slow import SlowCallback
    from aiozmq_speedups._zmq.watch import ZmqWatches
    from aiozmq_speedups.interface import ZmqTransport

    _P = TypeVar("_P")

_BUSY_POLL_MAX_US = 24 * 3600 * 1_000_000


def _check_close_timeout(seconds: float) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"close_timeout must be a number of seconds, not {seconds!r}")
    if not seconds >= 0:
        raise ValueError(f"close_timeout must not be negative: {seconds!r}")
    return seconds


class ZmqPart:
    """The ZeroMQ part of a loop, and what is counted."""

    _close_timeout = 1.0

    def __init__(
        self,
        *,
        zmq_context: zmq.Context[Any] | None = None,
        busy_poll_us: int = 0,
        close_timeout: float = 1.0,
        zmq_engine: str | None = None,
        tls: str = "auto",
        slow_callback_ms: float | None = None,
        on_slow_callback: Callable[[SlowCallback], object] | None = None,
        watchdog: bool | None = None,
    ) -> None:
        super().__init__()
        self._zmq_context = zmq_context
        self._zmq_engine = zmq_engine
        self._zmtp_lingering: set[Any] = set()  # kept by _zmq/engine_native.py
        self._zmtp_zap: Any = None  # kept by _zmq/engine_native.py, too
        self._zmq_transports: set[Any] = set()  # kept by _zmq/transport.py
        self._zmq_sockets: Any = None  # _zmq.linger.Sockets, once there is a transport
        self._zmq_watches: ZmqWatches | None = None
        try:
            self._set_busy_poll(operator.index(busy_poll_us))
            self._close_timeout = _check_close_timeout(close_timeout)
            check_engine(zmq_engine)
            self._tls_choice = check_tls(tls)
            slow_ns = check_slow_ms(slow_callback_ms)
            watchdog = check_watchdog(watchdog, slow_ns)
            if _ext.core is not None:
                self._set_slow(slow_ns, on_slow_callback, watchdog)  # type: ignore[attr-defined]
        except BaseException:
            self.close()  # or __del__ warns that nobody did
            raise

    def _set_busy_poll(self, us: int) -> None:
        if not 0 <= us <= _BUSY_POLL_MAX_US:
            raise ValueError(
                f"busy_poll_us must be from 0 to {_BUSY_POLL_MAX_US}, a day, not {us}"
            )
        if _ext.core is not None:
            self._busy_poll_ns = us * 1000

    @property
    def slow_callback_ms(self) -> float | None:
        """From how many milliseconds on a callback is slow: see :ref:`slow-callbacks`.

        None if nobody looks, and always without the C extension.
        """
        slow_ns: int = getattr(self, "_slow_ns", 0)
        return slow_ns / 1e6 if slow_ns else None

    @property
    def busy_poll_us(self) -> int:
        """How long an idle loop polls before it sleeps, in microseconds.

        0 where it sleeps at once: by default, and always without the C extension.
        """
        nanoseconds: int = getattr(self, "_busy_poll_ns", 0)
        return nanoseconds // 1000

    async def create_zmq_connection(
        self,
        protocol_factory: Callable[[], _P],
        zmq_type: int,
        *,
        bind: str | Iterable[str] | None = None,
        connect: str | Iterable[str] | None = None,
        zmq_sock: zmq.Socket[Any] | None = None,
        **options: Any,
    ) -> tuple[ZmqTransport, _P]:
        """Create a ZeroMQ socket with a transport and a protocol on this loop.

        The method form of :func:`aiozmq_speedups.create_zmq_connection`. Closing
        the loop closes the socket.
        """
        from aiozmq_speedups._zmq.connect import _create_zmq_connection

        return await _create_zmq_connection(
            self,
            self._zmq_context,
            protocol_factory,
            zmq_type,
            bind=bind,
            connect=connect,
            zmq_sock=zmq_sock,
            **options,
        )

    def stats(self, *, reset: bool = False) -> dict[str, int]:
        """Counts of what the loop has and has done, for monitoring.

        It is always on and costs nothing worth measuring: see :doc:`observe`. May be
        called from any thread.

        What there is now:

        ``ready``
            callbacks and I/O deliveries that wait for their turn;
        ``timers``
            timers that are neither due nor cancelled;
        ``fds``
            file descriptors that are watched, listening ones among them;
        ``transports``
            open sockets and pipes with a transport (a TLS connection of asyncio's code
            is one, aiofastnet's are not counted anywhere: see :ref:`tls`);
        ``zmq_transports``
            open ZeroMQ transports.

        Totals since the loop was made:

        ``turns``, ``polls``
            turns of the loop, and how many of them asked the kernel for events;
        ``busy_polls``, ``sleeps``
            system calls of busy polling, and polls that could sleep;
        ``callbacks``
            entries taken from the ready queue, cancelled handles among them;
        ``transports_made``, ``accepted``
            transports, and connections that servers took from listening sockets;
        ``bytes_received``, ``bytes_sent``
            payload that the kernel gave or took, by transports and ``sock_*``, before
            decryption and after encryption; not what ``sendfile()`` sends;
        ``packets_received``, ``packets_sent``
            datagrams, and system calls that moved stream data;
        ``zmq_messages_received``, ``zmq_messages_sent``
            multipart messages of ZeroMQ transports in C;
        ``busy_ns``, ``idle_ns``
            nanoseconds that the loop ran, without and with those in which it waited for
            events: by sleeping, or with ``busy_poll_us`` by polling. Their share in
            between two looks is how busy it was. Waiting for the GIL after a sleep is
            idle time.

        What was longest since :meth:`stats` was last called with ``reset=True``, in
        nanoseconds:

        ``longest_turn_ns``
            one turn's callbacks together, which new events waited for; the turn that
            runs counts with what it has taken so far;
        ``longest_callback_ns``
            one callback or call of a protocol, of those that take longer than a quarter
            of ``slow_callback_ms``, or in debug mode of all. Else it is 0; the longest
            turn is no shorter;
        ``lag_ns``
            how late the loop noticed that a timer was due.

        Without the C extension only the first five are there, and ``transports``
        leaves out pipes. Works on a closed loop, too.
        """
        counts: dict[str, int] = self._stats(reset is True)  # type: ignore[attr-defined]
        if not self.is_closed():  # type: ignore[attr-defined]
            counts["fds"] -= 1  # asyncio's own, to be woken by
        counts["zmq_transports"] = len(self._zmq_transports)
        return counts

    def close(self) -> None:
        """Close the loop and the ZeroMQ sockets made on it; twice is harmless.

        Messages that were written and are not sent yet, of transports closed before as
        well, are waited for: at most ``close_timeout`` seconds, and never longer than a
        socket's linger time. What is lost all the same is logged. Ctrl-C ends the wait.
        """
        try:
            if not self.is_running():  # type: ignore[attr-defined]
                self._close_zmq()
        finally:
            super().close()  # type: ignore[misc]

    def _close_zmq(self) -> None:
        watches, self._zmq_watches = self._zmq_watches, None
        try:
            linger = sys.modules.get("aiozmq_speedups._zmq.linger")
            if linger is not None:  # without it there are no transports
                linger.close_transports(self)
        finally:
            if watches is not None:
                watches.close()

    # Called by the C core for add_reader() and its like with a zmq.Socket.

    def _watch_zmq(
        self, sock: Any, writer: bool, callback: Any, args: tuple[Any, ...]
    ) -> asyncio.Handle:
        if self._zmq_watches is None:
            from aiozmq_speedups._zmq.watch import ZmqWatches

            self._zmq_watches = ZmqWatches(self)  # type: ignore[arg-type]
        return self._zmq_watches.add(sock, writer, callback, *args)

    def _unwatch_zmq(self, sock: Any, writer: bool) -> bool:
        return self._zmq_watches is not None and self._zmq_watches.remove(sock, writer)

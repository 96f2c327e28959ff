"""What Loop stands on without the C extension."""

from __future__ import annotations

from aiozmq_speedups._loop.processes import Processes


class PureLoop(Processes):
    """asyncio's loop; its selector also takes ZeroMQ sockets."""

    def __init__(self) -> None:
        self._closed = True  # for __del__, where there are no descriptors left
        try:
            from aiozmq_speedups._zmq.selector import ZmqSelector
        except ImportError:  # no pyzmq, or one that does not load
            selector = None
        else:
            selector = ZmqSelector()
        try:
            super().__init__(selector)
        except BaseException:
            self._closed = True
            raise

    def _stats(self, reset: bool) -> dict[str, int]:
        watched = {} if self.is_closed() else self._selector.get_map()
        return {
            "ready": len(self._ready),
            "timers": sum(not timer.cancelled() for timer in self._scheduled),
            "fds": len(watched),
            "transports": sum(
                not transport.is_closing() for transport in self._transports.values()
            ),
        }

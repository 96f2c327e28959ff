"""The client's side of request and reply: the table of calls that wait."""

from __future__ import annotations

import asyncio
import heapq
import os
import random
import struct
import time
from collections import ChainMap, OrderedDict, deque
from collections.abc import Mapping
from typing import Any

from ..util import NO_GIL, check_thread
from ._errors import ErrorTable, default_error_table, make_error
from .base import (
    NO_KWARGS,
    Error,
    ServiceClosedError,
    TooManyCallsError,
    _BaseProtocol,
    shorten,
)
from .log import logger
from .packer import KEPT_BUFFER_SIZE, TranslationTable

__all__ = ["_ClientProtocol"]

# pid mod 65536, a random number, request id, time [, is it an error].
_pack_request = struct.Struct("=HHLd").pack
_unpack_reply = struct.Struct("=HHLd?").unpack

_MAX_REQUEST_ID = 0xFFFFFFFF

#: Calls that timed out or were cancelled, remembered to tell their late answers
#: from answers that nobody asked for.
_MAX_FORGOTTEN = 4096

#: Cancelled calls stay in the table until it has this many entries, or twice as
#: many as were waiting when it was last looked through.
_SWEEP_SIZE = 128

_default_error_table = default_error_table()


class _ClientProtocol(_BaseProtocol):
    """Sends calls and gives their answers to the futures.

    The futures are the loop's own: a subclass that noticed its cancelling would
    cost as much again as all that is done here for a call. So cancelled calls are
    looked for in the table from time to time.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        error_table: ErrorTable | None = None,
        translation_table: TranslationTable | None = None,
        max_pending: int | None = None,
    ) -> None:
        super().__init__(loop, translation_table=translation_table)
        # {request id: the future of its answer, maybe done}
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self.counter = 0
        self.max_pending = max_pending
        # So many entries are looked through before the next call.
        self._sweep_at = _SWEEP_SIZE
        self._set_sweep()
        self._forgotten: OrderedDict[int, None] = OrderedDict()
        # A heap of (loop.time() to expire at, request id), also of calls that are
        # gone, and the timer for its first.
        self._deadlines: list[tuple[float, int]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False
        self._drainers: deque[asyncio.Future[None]] = deque()
        self._pid = os.getpid() % 0x10000
        self._random = random.randrange(0x10000)
        self._create_future = loop.create_future
        self.error_table: Mapping[str, type[BaseException]]
        if error_table is None:
            self.error_table = _default_error_table
        else:
            self.error_table = ChainMap(
                error_table,  # type: ignore[arg-type]
                _default_error_table,  # type: ignore[arg-type]
            )

    @property
    def calls(self) -> dict[int, asyncio.Future[Any]]:
        """The calls that wait: {request id: future}."""
        if NO_GIL:
            check_thread(self.loop)
        self._sweep()
        return self._calls

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._deadlines.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        calls = list(self._calls.values())
        self._calls.clear()
        for call in calls:
            call.cancel()
        self._wake_all()

    def state_info(self) -> list[str]:
        waiting = sum(not call.done() for call in list(self._calls.values()))
        return [f"pending={waiting}", *(["paused"] if self._paused else [])]

    # -- sending --

    def call(self, name: str, args: Any, kwargs: Any) -> asyncio.Future[Any]:
        """Calls the method of that (dotted) name, without a timeout."""
        return self.send(name.encode(), args, kwargs, None)

    def send(
        self,
        bname: bytes,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        option: float | None,
    ) -> asyncio.Future[Any]:
        """Sends a call; ``option`` is its timeout in seconds."""
        if NO_GIL:
            check_thread(self.loop)
        write = self._write
        if write is None:
            raise ServiceClosedError()
        calls = self._calls
        if len(calls) >= self._sweep_at:
            self._make_room()
        packer = self.packer
        bargs = packer.packb(args)
        bkwargs = packer.packb(kwargs) if kwargs else NO_KWARGS
        if len(bargs) > KEPT_BUFFER_SIZE or len(bkwargs) > KEPT_BUFFER_SIZE:
            packer.trim()

        req_id = self.counter + 1
        while req_id in calls or req_id > _MAX_REQUEST_ID:
            req_id = req_id + 1 if req_id < _MAX_REQUEST_ID else 0
        self.counter = req_id

        call = self._create_future()
        if option is not None:
            self._expire_after(option, req_id)
        if self.max_pending is not None:
            call.add_done_callback(self._one_done)
        header = _pack_request(self._pid, self._random, req_id, time.time())
        write([header, bname, bargs, bkwargs])
        calls[req_id] = call
        return call

    _send = send

    def _sweep(self) -> None:
        """Drops the calls that nobody waits for any longer."""
        calls = self._calls
        for req_id in [req_id for req_id, call in calls.items() if call.done()]:
            del calls[req_id]
            self._forget(req_id)

    def _set_sweep(self) -> None:
        self._sweep_at = max(_SWEEP_SIZE, 2 * len(self._calls))
        if self.max_pending is not None:
            self._sweep_at = min(self._sweep_at, self.max_pending)

    def _make_room(self) -> None:
        self._sweep()
        self._set_sweep()
        if self.max_pending is not None and len(self._calls) >= self.max_pending:
            raise TooManyCallsError(self.max_pending)

    def _forget(self, req_id: int) -> None:
        self._forgotten[req_id] = None
        if len(self._forgotten) > _MAX_FORGOTTEN:
            self._forgotten.popitem(last=False)

    # -- timeouts --

    def _expire_after(self, timeout: float, req_id: int) -> None:
        deadline = self.loop.time() + timeout
        if deadline != deadline:
            # It has no place in a heap: no later call would ever time out.
            raise ValueError("timeout must not be NaN")
        deadlines = self._deadlines
        if len(deadlines) > 2 * len(self._calls) + _SWEEP_SIZE:
            calls = self._calls
            deadlines[:] = [entry for entry in deadlines if entry[1] in calls]
            heapq.heapify(deadlines)
        heapq.heappush(deadlines, (deadline, req_id))
        if deadlines[0][1] == req_id:
            self._start_timer()

    def _start_timer(self) -> None:
        deadline = self._deadlines[0][0]
        if self._timer is not None:
            if self._timer.when() <= deadline:
                return
            self._timer.cancel()
        self._timer = self.loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._timer = None
        deadlines = self._deadlines
        now = self.loop.time()
        while deadlines:
            deadline, req_id = deadlines[0]
            if deadline > now and req_id in self._calls:
                self._start_timer()
                break
            heapq.heappop(deadlines)
            call = self._calls.pop(req_id, None)
            if call is not None:
                self._forget(req_id)
                if not call.done():
                    call.set_exception(TimeoutError())

    # -- answers --

    def msg_received(self, data: list[bytes]) -> None:
        try:
            header, banswer = data
            req_id = _unpack_reply(header)[2]
        except Exception as exc:
            self.log_malformed(data, exc)
            return
        call = self._calls.pop(req_id, None)
        try:
            answer = self.packer.unpackb(banswer)
        except Exception as exc:
            self._cannot_unpack(data, call, exc)
            return
        self._answered(data, call, answer)

    _msg_received = msg_received

    def _answered(
        self, data: list[bytes], call: asyncio.Future[Any] | None, answer: Any
    ) -> None:
        """Ends ``call``, which is out of the table already."""
        pid, rnd, req_id, timestamp, is_error = _unpack_reply(data[0])
        if call is None:
            if self._was_forgotten(req_id):
                return
            logger.critical(
                "Unknown answer id: %d (%d %d %f %d) -> %s",
                req_id,
                pid,
                rnd,
                timestamp,
                is_error,
                answer if shorten(data) is data else f"<{len(data[1])} bytes>",
            )
        elif call.cancelled():
            self._log_cancelled(req_id)
        elif call.done():
            # The caller has given it a result of its own.
            logger.debug("Request #%08x is done, skip the received result.", req_id)
        elif is_error:
            try:
                call.set_exception(make_error(self.error_table, *answer))
            except Exception as exc:
                self._cannot_unpack(data, call, exc)
        else:
            call.set_result(answer)

    def _was_forgotten(self, req_id: int) -> bool:
        try:
            del self._forgotten[req_id]
        except KeyError:
            return False
        self._log_cancelled(req_id)
        return True

    def _log_cancelled(self, req_id: int) -> None:
        logger.debug(
            "The future for request #%08x has been cancelled, "
            "skip the received result.",
            req_id,
        )

    def _cannot_unpack(
        self, data: list[bytes], call: asyncio.Future[Any] | None, exc: Exception
    ) -> None:
        self.log_malformed(data, exc)
        if call is not None and not call.done():
            # There will be no other answer.
            error = Error("Cannot unpack the answer")
            error.__cause__ = exc
            call.set_exception(error)

    # -- back-pressure --

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._wake_next()

    async def drain(self) -> None:
        if NO_GIL:
            check_thread(self.loop)
        again = False
        while not self._has_room():
            waiter: asyncio.Future[None] = self.loop.create_future()
            if again:
                self._drainers.appendleft(waiter)
            else:
                self._drainers.append(waiter)
            try:
                await waiter
            except BaseException:
                if not waiter.cancelled():
                    self._wake_next()  # the room that it was woken for
                raise
            again = True
        # There may be room for more than one.
        self._wake_next()

    def _has_room(self) -> bool:
        if self._write is None:
            raise ServiceClosedError()
        if self._paused:
            return False
        if self.max_pending is None or len(self._calls) < self.max_pending:
            return True
        self._sweep()
        return len(self._calls) < self.max_pending

    def _one_done(self, call: asyncio.Future[Any]) -> None:
        self._wake_next()

    def _wake_next(self) -> None:
        while self._drainers:
            waiter = self._drainers.popleft()
            if not waiter.done():
                waiter.set_result(None)
                break

    def _wake_all(self) -> None:
        while self._drainers:
            self._wake_next()

    # -- the end --

    def begin_shutdown(self) -> None:
        self._write = None
        self._wake_all()

    async def finish(self) -> None:
        while calls := list(self.calls.values()):
            await asyncio.wait(calls)

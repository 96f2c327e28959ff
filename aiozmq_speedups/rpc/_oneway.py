"""What pipeline and pub/sub share: calls that have no answer."""

from __future__ import annotations

import asyncio
from inspect import isawaitable
from typing import Any

from ..util import NO_GIL, check_thread
from ._signature import CallSpec
from .base import (
    NO_KWARGS,
    NotFoundError,
    ParametersError,
    ServiceClosedError,
    _BaseProtocol,
    _BaseServerProtocol,
)
from .log import logger
from .packer import KEPT_BUFFER_SIZE

__all__ = ["OneWayClientProtocol", "OneWayServerProtocol"]


class OneWayClientProtocol(_BaseProtocol):
    """Sends calls; their futures are done in the next turn of the loop.

    While the peer is slow (the transport has paused writing) they are done when
    it has caught up, so that who awaits them is slowed down.
    """

    _paused = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sent: list[asyncio.Future[None]] = []

    def send_frames(
        self,
        start: list[bytes],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> asyncio.Future[None]:
        """Sends ``start`` and the packed arguments in one message."""
        if NO_GIL:
            check_thread(self.loop)
        write = self._write
        if write is None:
            raise ServiceClosedError()
        packer = self.packer
        bargs = packer.packb(args)
        bkwargs = packer.packb(kwargs) if kwargs else NO_KWARGS
        if len(bargs) > KEPT_BUFFER_SIZE or len(bkwargs) > KEPT_BUFFER_SIZE:
            packer.trim()
        write([*start, bargs, bkwargs])
        if not self._sent:
            self.loop.call_soon(self._release)
        sent = self.loop.create_future()
        self._sent.append(sent)
        return sent

    def _release(self) -> None:
        if self._paused:
            return
        done, self._sent = self._sent, []
        for sent in done:
            if not sent.done():
                sent.set_result(None)

    async def drain(self) -> None:
        """Waits while the transport has paused writing."""
        if NO_GIL:
            check_thread(self.loop)
        if self._write is None:
            raise ServiceClosedError()
        if self._paused:
            resumed = self.loop.create_future()
            self._sent.append(resumed)
            await resumed
            if self._write is None:
                raise ServiceClosedError()

    def begin_shutdown(self) -> None:
        self._write = None

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._release()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.resume_writing()


class OneWayServerProtocol(_BaseServerProtocol):
    """Runs calls and logs what comes of them."""

    not_none_message: str

    def begin_shutdown(self) -> None:
        super().begin_shutdown()
        self._hold()

    def call_received(
        self, data: list[bytes], bname: bytes, bargs: bytes, bkwargs: bytes
    ) -> None:
        """Runs the call in the message ``data``."""
        try:
            name = str(bname, "utf-8")
            unpackb = self.packer.unpackb
            args = unpackb(bargs)
            kwargs = {} if bkwargs == NO_KWARGS else unpackb(bkwargs)
        except Exception as exc:
            self.log_malformed(data, exc)
            return
        self.last_name = name
        try:
            func, spec = self.dispatch(name)
            if not (
                bkwargs == NO_KWARGS
                and type(args) is tuple
                and spec.min_args <= len(args) <= spec.max_args
            ):
                args, kwargs = self.check_args(spec, args, kwargs)
            if spec.is_coroutine or self.unstarted:
                self.spawn(self._run(func, spec, args, kwargs, name), name)
                return
            result = func(*args, **kwargs)
            if isawaitable(result):
                # A plain function that has begun something to wait for.
                func = lambda *args, **kwargs: result  # noqa: E731
                self.spawn(self._run(func, spec, args, kwargs, name), name)
            elif result is not None:
                logger.warning(self.not_none_message, name)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:
            self._log_failure(exc, name, args, kwargs)

    async def _run(
        self,
        func: Any,
        spec: CallSpec,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str,
    ) -> None:
        try:
            result = func(*args, **kwargs)
            if spec.is_coroutine or isawaitable(result):
                if self.timeout is None:
                    result = await result
                else:
                    async with asyncio.timeout(self.timeout):
                        result = await result
            if result is not None:
                logger.warning(self.not_none_message, name)
        except (KeyboardInterrupt, SystemExit, asyncio.CancelledError):
            raise
        except BaseException as exc:
            if issubclass(type(exc), GeneratorExit) and not self.raised_by_handler():
                raise
            self._log_failure(exc, name, args, kwargs)

    def _log_failure(
        self, exc: BaseException, name: str, args: Any, kwargs: Any
    ) -> None:
        if issubclass(type(exc), (NotFoundError, ParametersError)):
            logger.error("Call to %r caused error: %r", name, exc, exc_info=exc)
        else:
            self.try_log(exc, name, args, kwargs)

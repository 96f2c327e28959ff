"""The server's side of request and reply."""

from __future__ import annotations

import asyncio
import os
import random
import struct
import time
from inspect import isawaitable
from typing import Any

from .._zmq.engine_native import NativeSocket
from ._errors import pack_error
from ._signature import CallSpec
from .base import (
    NO_KWARGS,
    ParametersError,
    ServiceClosedError,
    _BaseServerProtocol,
)
from .log import logger
from .packer import KEPT_BUFFER_SIZE

__all__ = ["_ServerProtocol", "bound_answers"]

# pid mod 65536, a random number, request id, time [, is it an error].
_unpack_request = struct.Struct("=HHLd").unpack
_pack_reply = struct.Struct("=HHLd?").pack

#: Bytes of answers that wait for one client of a native server.
_MAX_QUEUED = 64 * 1024 * 1024


def bound_answers(transport: Any) -> None:
    """What libzmq bounds by their number alone."""
    sock = transport.get_extra_info("zmq_socket")
    if isinstance(sock, NativeSocket):
        sock.bound_queues(_MAX_QUEUED, _log_drop)


def _log_drop(endpoint: str, waiting: int) -> None:
    logger.warning(
        "Answers to a client at %s that does not fetch them are dropped: %d wait",
        endpoint,
        waiting,
    )


class _ServerProtocol(_BaseServerProtocol):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pid = os.getpid() % 0x10000
        self._random = random.randrange(0x10000)

    def msg_received(self, data: list[bytes]) -> None:
        try:
            *route, header, bname, bargs, bkwargs = data
            req_id = _unpack_request(header)[2]
        except Exception as exc:
            self.log_malformed(data, exc)
            return
        if self.refusing:
            self._reply_error(route, req_id, ServiceClosedError())
            return
        try:
            name = str(bname, "utf-8")
            unpackb = self.packer.unpackb
            args = unpackb(bargs)
            kwargs = {} if bkwargs == NO_KWARGS else unpackb(bkwargs)
        except Exception as exc:
            self.log_malformed(data, exc)
            self._reply_error(route, req_id, ParametersError(repr(exc)))
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
                self._start(func, spec, args, kwargs, route, req_id, name)
                return
            result = func(*args, **kwargs)
            if self._start_awaiting(result, spec, args, kwargs, route, req_id, name):
                return
            packed = self.packer.packb(result)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:
            self._failed(exc, name, args, kwargs, route, req_id)
        else:
            self._reply(route, req_id, False, packed)

    _msg_received = msg_received

    def _start(
        self,
        func: Any,
        spec: CallSpec,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        route: list[bytes],
        req_id: int,
        name: str,
    ) -> None:
        self.spawn(self._run(func, spec, args, kwargs, route, req_id, name), name)

    def _start_awaiting(self, result: Any, *call: Any) -> bool:
        """Awaits what a plain function gave where that can be done."""
        if not isawaitable(result):
            return False
        self._start(lambda *args, **kwargs: result, *call)
        return True

    def _failed(
        self,
        exc: BaseException,
        name: str,
        args: Any,
        kwargs: Any,
        route: list[bytes],
        req_id: int,
    ) -> None:
        self.try_log(exc, name, args, kwargs)
        self._reply_error(route, req_id, exc)

    async def _run(
        self,
        func: Any,
        spec: CallSpec,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        route: list[bytes],
        req_id: int,
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
            packed = self.packer.packb(result)
        except (KeyboardInterrupt, SystemExit):
            raise
        except asyncio.CancelledError as exc:
            # Of the closed service nobody can be told; otherwise the caller must
            # not wait for ever.
            self._reply_error(route, req_id, exc)
            raise
        except BaseException as exc:
            if issubclass(type(exc), GeneratorExit) and not self.raised_by_handler():
                raise
            self._failed(exc, name, args, kwargs, route, req_id)
        else:
            self._reply(route, req_id, False, packed)

    def begin_shutdown(self) -> None:
        super().begin_shutdown()
        if self.held:
            self._release()  # to refuse what waits

    def _reply(
        self, route: list[bytes], req_id: int, is_error: bool, packed: bytes
    ) -> None:
        write = self._write
        if write is None:
            return
        route.append(
            _pack_reply(self._pid, self._random, req_id, time.time(), is_error)
        )
        route.append(packed)
        write(route)
        if len(packed) > KEPT_BUFFER_SIZE:
            self.packer.trim()

    def _reply_error(self, route: list[bytes], req_id: int, exc: BaseException) -> None:
        self._reply(route, req_id, True, pack_error(self.packer.packb, exc))

"""Request and reply over DEALER and ROUTER sockets."""

from __future__ import annotations

import asyncio
import os
import random
import struct
import time
from collections import ChainMap, OrderedDict
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

import zmq

from ..core import create_zmq_connection
from ._signature import CallSpec
from .base import (
    NO_KWARGS,
    AbstractHandler,
    Error,
    GenericError,
    NotFoundError,
    ParametersError,
    Service,
    ServiceClosedError,
    _BaseProtocol,
    _BaseServerProtocol,
    shorten,
)
from .log import logger
from .packer import KEPT_BUFFER_SIZE, TranslationTable
from .util import _fill_error_table, _MethodCall

__all__ = ["RPCClient", "connect_rpc", "serve_rpc"]

#: Full name of an exception class -> class.
_ErrorTable = Mapping[str, type[BaseException]]

# pid mod 65536, a random number, request id, time [, is it an error].
_REQUEST = struct.Struct("=HHLd")
_REPLY = struct.Struct("=HHLd?")
_pack_request = _REQUEST.pack
_unpack_request = _REQUEST.unpack
_pack_reply = _REPLY.pack
_unpack_reply = _REPLY.unpack

_MAX_REQUEST_ID = 0xFFFFFFFF

#: Calls that timed out or were cancelled, remembered to tell their late answers
#: from answers that nobody asked for.
_MAX_FORGOTTEN = 4096

_default_error_table = _fill_error_table()

# Peers know these by aiozmq's names.
_WIRE_NAMES: dict[type, str] = {
    cls: f"aiozmq.rpc.base.{cls.__name__}"
    for cls in (
        Error,
        GenericError,
        NotFoundError,
        ParametersError,
        ServiceClosedError,
    )
}


async def connect_rpc(
    *,
    connect: str | Iterable[str] | None = None,
    bind: str | Iterable[str] | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
    error_table: _ErrorTable | None = None,
    translation_table: TranslationTable | None = None,
    timeout: float | None = None,
) -> RPCClient:
    """Makes an rpc client.

    :param connect: endpoints to connect to, as for ``create_zmq_connection``.
    :param bind: endpoints to bind to.
    :param loop: the running loop by default.
    :param error_table: ``{"package.module.Name": class}``: exceptions of the
        server to raise here as such, besides the builtin ones.
    :param translation_table: ``{code: (class, packer, unpacker)}``, the same as
        the server has.
    :param timeout: seconds until a call raises TimeoutError; None for no limit.
    :raises OSError: the endpoint cannot be used.
    """
    if loop is None:
        loop = asyncio.get_running_loop()
    used_loop = loop
    _, proto = await create_zmq_connection(
        lambda: _ClientProtocol(
            used_loop, error_table=error_table, translation_table=translation_table
        ),
        zmq.DEALER,
        connect=connect,
        bind=bind,
        loop=loop,
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
) -> Service:
    """Makes an rpc server.

    :param handler: where names are looked up.
    :param connect: endpoints to connect to, as for ``create_zmq_connection``.
    :param bind: endpoints to bind to.
    :param loop: the running loop by default.
    :param translation_table: ``{code: (class, packer, unpacker)}``, the same as
        the clients have.
    :param log_exceptions: whether exceptions out of handlers are logged.
    :param exclude_log_exceptions: exception classes that are not logged.
    :param timeout: seconds after which a coroutine handler is cancelled and the
        caller gets TimeoutError; None for no limit.
    :raises TypeError: ``handler`` has no ``__getitem__``.
    :raises OSError: the endpoint cannot be used.
    """
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
        ),
        zmq.ROUTER,
        connect=connect,
        bind=bind,
        loop=loop,
    )
    return Service(loop, proto)  # type: ignore[abstract]


class _Call(asyncio.Future[Any]):
    """The answer of one call; cancelling it drops the call."""

    __slots__ = ("_proto", "_req_id")

    _proto: _ClientProtocol
    _req_id: int

    def cancel(self, msg: Any = None) -> bool:
        if not super().cancel(msg):
            return False
        self._proto.forget(self._req_id)
        return True


class _TimedCall(_Call):
    """A call with a timeout."""

    __slots__ = ("_timer",)

    _timer: asyncio.TimerHandle

    def set_result(self, result: Any, /) -> None:
        self._timer.cancel()
        super().set_result(result)

    def set_exception(self, exception: Any, /) -> None:
        self._timer.cancel()
        super().set_exception(exception)

    def cancel(self, msg: Any = None) -> bool:
        self._timer.cancel()
        return super().cancel(msg)

    def expire(self) -> None:
        if not self.done():
            self._proto.forget(self._req_id)
            super().set_exception(TimeoutError())


class _ClientProtocol(_BaseProtocol):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        error_table: _ErrorTable | None = None,
        translation_table: TranslationTable | None = None,
    ) -> None:
        super().__init__(loop, translation_table=translation_table)
        # {request id: the call that waits for its answer}
        self.calls: dict[int, _Call] = {}
        self.counter = 0
        self._forgotten: OrderedDict[int, None] = OrderedDict()
        self._pid = os.getpid() % 0x10000
        self._random = random.randrange(0x10000)
        self.error_table: Mapping[str, type[BaseException]]
        if error_table is None:
            self.error_table = _default_error_table
        else:
            self.error_table = ChainMap(
                error_table,  # type: ignore[arg-type]
                _default_error_table,  # type: ignore[arg-type]
            )

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        calls = list(self.calls.values())
        self.calls.clear()
        for call in calls:
            call.cancel()

    def call(self, name: str, args: Any, kwargs: Any) -> _Call:
        """Calls the method of that (dotted) name, without a timeout."""
        return self.send(name.encode(), args, kwargs, None)

    def send(
        self,
        bname: bytes,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        option: float | None,
    ) -> _Call:
        """Sends a call; ``option`` is its timeout in seconds."""
        write = self._write
        if write is None:
            raise ServiceClosedError()
        packer = self.packer
        bargs = packer.packb(args)
        bkwargs = packer.packb(kwargs) if kwargs else NO_KWARGS
        if len(bargs) > KEPT_BUFFER_SIZE or len(bkwargs) > KEPT_BUFFER_SIZE:
            packer.trim()

        calls = self.calls
        req_id = self.counter + 1
        while req_id in calls or req_id > _MAX_REQUEST_ID:
            req_id = req_id + 1 if req_id < _MAX_REQUEST_ID else 0
        self.counter = req_id

        if option is None:
            call = _Call(loop=self.loop)
        else:
            call = _TimedCall(loop=self.loop)
            call._timer = self.loop.call_later(option, call.expire)
        call._proto = self
        call._req_id = req_id
        header = _pack_request(self._pid, self._random, req_id, time.time())
        write([header, bname, bargs, bkwargs])
        calls[req_id] = call
        return call

    def forget(self, req_id: int) -> None:
        """Drops a call that nobody waits for any longer."""
        if self.calls.pop(req_id, None) is not None:
            self._forgotten[req_id] = None
            if len(self._forgotten) > _MAX_FORGOTTEN:
                self._forgotten.popitem(last=False)

    def msg_received(self, data: list[bytes]) -> None:
        try:
            header, banswer = data
            pid, rnd, req_id, timestamp, is_error = _unpack_reply(header)
        except Exception:
            self.log_malformed(data)
            return
        call = self.calls.pop(req_id, None)
        try:
            answer = self.packer.unpackb(banswer)
        except Exception as exc:
            self._cannot_unpack(data, call, exc)
            return
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
                answer if shorten(data) is data else f"<{len(banswer)} bytes>",
            )
        elif call.done():
            # The caller has given it a result of its own.
            logger.debug("Request #%08x is done, skip the received result.", req_id)
        elif is_error:
            try:
                call.set_exception(self._translate_error(*answer))
            except Exception as exc:
                self._cannot_unpack(data, call, exc)
        else:
            call.set_result(answer)

    def _was_forgotten(self, req_id: int) -> bool:
        try:
            del self._forgotten[req_id]
        except KeyError:
            return False
        logger.debug(
            "The future for request #%08x has been cancelled, "
            "skip the received result.",
            req_id,
        )
        return True

    def _cannot_unpack(
        self, data: list[bytes], call: _Call | None, exc: Exception
    ) -> None:
        self.log_malformed(data)
        if call is not None and not call.done():
            # There will be no other answer.
            error = Error("Cannot unpack the answer")
            error.__cause__ = exc
            call.set_exception(error)

    def _translate_error(
        self, exc_type: str, exc_args: Any, exc_repr: str
    ) -> BaseException:
        found = self.error_table.get(exc_type)
        if found is not None:
            try:
                exc = found(*exc_args)
            except Exception:
                # A class with another signature than its args.
                exc = None
            # A Future refuses StopIteration.
            if isinstance(exc, BaseException) and not isinstance(exc, StopIteration):
                return exc
        return GenericError(exc_type, exc_args, exc_repr)


class RPCClient(Service):
    """What :func:`connect_rpc` gives."""

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
        :raises TypeError, ValueError, OverflowError: arguments that cannot be
            packed.
        """
        return self._call

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


class _ServerProtocol(_BaseServerProtocol):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pid = os.getpid() % 0x10000
        self._random = random.randrange(0x10000)

    def msg_received(self, data: list[bytes]) -> None:
        try:
            *route, header, bname, bargs, bkwargs = data
            req_id = _unpack_request(header)[2]
        except Exception:
            self.log_malformed(data)
            return
        try:
            name = str(bname, "utf-8")
            unpackb = self.packer.unpackb
            args = unpackb(bargs)
            kwargs = {} if bkwargs == NO_KWARGS else unpackb(bkwargs)
        except Exception as exc:
            self.log_malformed(data)
            self._reply_error(route, req_id, ParametersError(repr(exc)))
            return
        try:
            func, spec = self.dispatch(name)
            if not (
                bkwargs == NO_KWARGS
                and type(args) is tuple
                and spec.min_args <= len(args) <= spec.max_args
            ):
                self.check_args(spec, args, kwargs)
            if spec.is_coroutine or self.unstarted:
                self.spawn(self._run(func, spec, args, kwargs, route, req_id, name))
                return
            result = self.packer.packb(func(*args, **kwargs))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:
            self.try_log(exc, name, args, kwargs)
            self._reply_error(route, req_id, exc)
        else:
            self._reply(route, req_id, False, result)

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
            if not spec.is_coroutine:
                result = func(*args, **kwargs)
            elif self.timeout is None:
                result = await func(*args, **kwargs)
            else:
                async with asyncio.timeout(self.timeout):
                    result = await func(*args, **kwargs)
            packed = self.packer.packb(result)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except asyncio.CancelledError as exc:
            # Of the closed service nobody can be told; otherwise the caller must
            # not wait for ever.
            self._reply_error(route, req_id, exc)
            raise
        except BaseException as exc:
            self.try_log(exc, name, args, kwargs)
            self._reply_error(route, req_id, exc)
        else:
            self._reply(route, req_id, False, packed)

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
        self._reply(route, req_id, True, self._pack_error(exc))

    def _pack_error(self, exc: BaseException) -> bytes:
        cls = exc.__class__
        name = _WIRE_NAMES.get(cls) or f"{cls.__module__}.{cls.__qualname__}"
        text = _text_of(exc)
        packb = self.packer.packb
        try:
            return packb((name, exc.args, text))
        except Exception:
            # The args are the user's objects: send what can be sent.
            name = name.encode(errors="backslashreplace").decode()
            return packb((name, tuple(map(self._packable, exc.args)), text))

    def _packable(self, value: Any) -> Any:
        try:
            self.packer.packb(value)
        except Exception:
            return _text_of(value)
        return value


def _text_of(value: object) -> str:
    try:
        text = repr(value)
    except Exception as exc:
        text = f"<{type(value).__name__}: its repr fails, {type(exc).__name__}>"
    # msgpack refuses lone surrogates.
    return text.encode(errors="backslashreplace").decode()

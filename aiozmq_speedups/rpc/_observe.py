"""Calls that somebody watches: the classes of services that have an observer.

They stand in front of the usual ones, C among them, which so cost nothing more without.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import time
from typing import TYPE_CHECKING, Any

import msgpack

from ..util import NO_GIL, check_thread
from .base import _BaseServerProtocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ObservedCall", "Observer", "observed"]

# In front of a request's header a server has a route, which it sends back as it is: a
# frame more among it is nothing to a server that does not know it, aiozmq's or ours.
_MAGIC = b"\0aiozmq_speedups.carrier\0"
_MAX_CARRIER = 64 * 1024


class ObservedCall:
    """A call, as its observer sees it."""

    __slots__ = (
        "_start",
        "carrier",
        "error",
        "handed_on",
        "kind",
        "name",
        "seconds",
        "side",
        "state",
    )

    def __init__(self, side: str, kind: str, name: str) -> None:
        #: ``"client"`` or ``"server"``.
        self.side = side
        #: ``"rpc"``, ``"pipeline"`` or ``"pubsub"``.
        self.kind = kind
        #: The dotted name that is called.
        self.name = name
        #: What the call carries beside its arguments, ``{str: str}``. What a client's
        #: observer puts there when the call starts, a server's finds there; of "rpc".
        self.carrier: dict[str, str] = {}
        #: How long it took, once it has ended; else None.
        self.seconds: float | None = None
        #: What it raised, or None.
        self.error: BaseException | None = None
        #: The observer's own.
        self.state: Any = None
        self.handed_on = False  # to a task, which ends it
        self._start = time.perf_counter()


ObservedCall.__module__ = "aiozmq_speedups.rpc"


class Observer:
    """Is told of a service's calls: derive from it, and give it as ``observer``.

    The methods run in the loop's thread and should be quick; what they raise goes to
    the loop's exception handler. At a server they run in a Context of the call, which
    its handler has, too.
    """

    __module__ = "aiozmq_speedups.rpc"

    def call_started(self, call: ObservedCall) -> None:
        """At a client before it is sent, at a server before its handler is found."""

    def call_ended(self, call: ObservedCall) -> None:
        """At a client when the answer is there, at a server when it was sent.

        Of a notification, which has no answer, it is when it was sent and when its
        handler has returned.
        """


def observed(cls: Any, observer: Observer | None) -> Any:
    """What makes protocols of the class: it, or one that tells the observer."""
    if observer is None:
        return cls

    def make(*args: Any, **kwargs: Any) -> Any:
        proto = _observed_class(cls)(*args, **kwargs)
        proto.observer = observer
        return proto

    return make


@functools.cache
def _observed_class(cls: type) -> type:
    kind = cls.__module__.rpartition(".")[2]
    mixin: type
    if issubclass(cls, _BaseServerProtocol):
        mixin = _OneWayServer if kind in ("pipeline", "pubsub") else _RpcServer
    else:
        mixin = _Client if kind in ("pipeline", "pubsub") else _RpcClient
    if kind not in ("pipeline", "pubsub"):
        kind = "rpc"
    return type(f"_Observed{cls.__name__}", (mixin, cls), {"kind": kind})


class _Observed:
    observer: Observer
    kind: str
    loop: asyncio.AbstractEventLoop

    def _tell(self, method: Callable[[ObservedCall], None], call: ObservedCall) -> None:
        try:
            method(call)
        except Exception as exc:
            self.loop.call_exception_handler(
                {"message": "Exception in an rpc observer", "exception": exc}
            )

    def _begin(self, call: ObservedCall) -> None:
        self._tell(self.observer.call_started, call)

    def _end(self, call: ObservedCall) -> None:
        call.seconds = time.perf_counter() - call._start
        self._tell(self.observer.call_ended, call)


# ---- clients ----


class _Client(_Observed):
    _carrier: dict[str, str] | None = None

    def send(self, bname: bytes, args: Any, kwargs: Any, option: Any) -> Any:
        if NO_GIL:
            check_thread(self.loop)
        call = ObservedCall("client", self.kind, bname.decode())
        self._begin(call)
        self._carrier = call.carrier
        try:
            answer = super().send(bname, args, kwargs, option)  # type: ignore[misc]
        except BaseException as exc:
            call.error = exc
            self._end(call)
            raise
        finally:
            self._carrier = None
        answer.add_done_callback(functools.partial(self._has_ended, call))
        return answer

    def _has_ended(self, call: ObservedCall, answer: asyncio.Future[Any]) -> None:
        # Not by exception(): asyncio tells of one that nobody has asked for.
        call.error = (
            asyncio.CancelledError()
            if answer.cancelled()
            else getattr(answer, "_exception", None)
        )
        self._end(call)


class _RpcClient(_Client):
    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)  # type: ignore[misc]
        write = transport.write

        def write_with_carrier(frames: list[bytes]) -> None:
            if self._carrier:
                frames.insert(0, _MAGIC + msgpack.packb(self._carrier))
            write(frames)

        self._write = write_with_carrier

    def msg_received(self, data: list[bytes]) -> None:
        if len(data) == 3 and data[0].startswith(_MAGIC):
            del data[0]  # it has come back
        super().msg_received(data)  # type: ignore[misc]


# ---- servers ----

#: The call whose handler runs, in its Context and in that of its task.
_current: contextvars.ContextVar[ObservedCall] = contextvars.ContextVar(
    "aiozmq_speedups.rpc.call"
)


class _Server(_Observed):
    def _observe(
        self,
        bname: bytes,
        carrier: dict[str, str],
        receive: Callable[..., None],
        *args: Any,
    ) -> None:
        call = ObservedCall("server", self.kind, str(bname, "utf-8", "replace"))
        call.carrier = carrier
        contextvars.copy_context().run(self._receive, call, receive, args)

    def _receive(
        self, call: ObservedCall, receive: Callable[..., None], args: tuple[Any, ...]
    ) -> None:
        _current.set(call)
        self._begin(call)
        try:
            receive(*args)
        except BaseException as exc:
            call.error = exc
            raise
        finally:
            if not call.handed_on:
                self._end(call)

    def spawn(self, coro: Any, name: str) -> Any:
        call = _current.get()
        call.handed_on = True
        task = super().spawn(coro, name)  # type: ignore[misc]
        if task.done():
            self._task_ended(call, task)
        else:
            task.add_done_callback(functools.partial(self._task_ended, call))
        return task

    def _task_ended(self, call: ObservedCall, task: asyncio.Task[None]) -> None:
        if task.cancelled() and call.error is None:
            call.error = asyncio.CancelledError()
        self._end(call)


class _RpcServer(_Server):
    def msg_received(self, data: list[bytes]) -> None:
        if len(data) < 5:
            super().msg_received(data)  # type: ignore[misc]
            return
        carrier = _carrier_in(data[-5]) if len(data) > 5 else {}
        receive = super().msg_received  # type: ignore[misc]
        self._observe(data[-3], carrier, receive, data)

    def _reply_error(self, route: Any, req_id: int, exc: BaseException) -> None:
        _current.get().error = exc
        super()._reply_error(route, req_id, exc)  # type: ignore[misc]


class _OneWayServer(_Server):
    def call_received(self, data: Any, bname: bytes, bargs: Any, bkwargs: Any) -> None:
        receive = super().call_received  # type: ignore[misc]
        self._observe(bname, {}, receive, data, bname, bargs, bkwargs)

    def _log_failure(self, exc: BaseException, *args: Any) -> None:
        _current.get().error = exc
        super()._log_failure(exc, *args)  # type: ignore[misc]


def _carrier_in(frame: bytes) -> dict[str, str]:
    """What a client has put there; {} if it is something else, or not sound."""
    if len(frame) > _MAX_CARRIER or not frame.startswith(_MAGIC):
        return {}
    try:
        carrier = msgpack.unpackb(frame[len(_MAGIC) :])
    except Exception:
        return {}
    if type(carrier) is not dict or not all(
        type(key) is str and type(value) is str for key, value in carrier.items()
    ):
        return {}
    return carrier

"""What rpc, pipeline and pub/sub services share."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import operator
import pprint
import sys
from asyncio import ensure_future
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

from .. import interface
from ..util import NO_GIL, check_thread
from ._signature import CallSpec, signature_of, spec_of
from .log import logger
from .packer import TranslationTable, _Packer

__all__ = [
    "AbstractHandler",
    "AttrHandler",
    "Error",
    "GenericError",
    "NotFoundError",
    "ParametersError",
    "Service",
    "ServiceClosedError",
    "TooManyCallsError",
    "ensure_future",
    "method",
]

_F = TypeVar("_F", bound=Callable[..., Any])

#: No keyword arguments, packed: what nearly every call sends.
NO_KWARGS = b"\x80"

_eager_task: Callable[..., asyncio.Task[None]] | None
if sys.version_info >= (3, 12):
    _eager_task = partial(asyncio.Task, eager_start=True)
else:
    _eager_task = None

#: Of a malformed message, no more than this of each frame goes to the log.
_LOGGED_FRAME_SIZE = 1024


class Error(Exception):
    """Base class of the exceptions of rpc."""


class GenericError(Error):
    """A remote call raised an exception that the error table does not know.

    :ivar exc_type: the full name of its class, ``"package.module.Name"``.
    :ivar arguments: the ``args`` of the exception, a tuple.
    :ivar exc_repr: the ``repr`` of the exception.
    """

    def __init__(self, exc_type: str, args: Any, exc_repr: str) -> None:
        super().__init__(exc_type, args, exc_repr)
        self.exc_type = exc_type
        self.arguments = args
        self.exc_repr = exc_repr

    def __repr__(self) -> str:
        return f"<Generic RPC Error {self.exc_type}{self.arguments}: {self.exc_repr}>"


class NotFoundError(Error, LookupError):
    """The server has no method of that name."""


class ParametersError(Error, ValueError):
    """The arguments of the call do not fit the signature of the method."""


class ServiceClosedError(Error):
    """The service has been closed."""


class TooManyCallsError(Error):
    """As many calls as the client's ``max_pending`` wait for their answers."""


class AbstractHandler(metaclass=abc.ABCMeta):
    """What a server looks names up in: any class with ``__getitem__``, as dict.

    A look-up gives a handler for the rest of a dotted name, or a callable that
    :func:`method` has marked; it raises KeyError if there is nothing.
    """

    __slots__ = ()

    @abc.abstractmethod
    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)

    @classmethod
    def __subclasshook__(cls, subclass: type) -> Any:
        if issubclass(subclass, (str, bytes)):
            return False
        if cls is AbstractHandler and any(
            "__getitem__" in base.__dict__ for base in subclass.__mro__
        ):
            return True
        return NotImplemented


class AttrHandler(AbstractHandler):
    """A handler whose attributes are its methods and namespaces."""

    def __getitem__(self, key: str) -> Any:
        try:
            return getattr(self, key)
        except AttributeError:
            raise KeyError(key) from None


def method(func: _F) -> _F:
    """Marks a function (or coroutine function) as callable by peers.

    :raises TypeError, ValueError: ``func`` has no signature.
    :raises AttributeError: ``func`` takes no attributes.
    """
    # The server keeps in __rpc__ what it works out of the signature.
    func.__rpc__ = {}  # type: ignore[attr-defined]
    func.__signature__ = signature_of(func)  # type: ignore[attr-defined]
    return func


class Service(asyncio.AbstractServer):
    """A client or a server, as the ``connect_*`` and ``serve_*`` coroutines give it.

    Also an asynchronous context manager, which closes it at the end. Not
    thread-safe: use it in the thread of its loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, proto: _BaseProtocol) -> None:
        self._loop = loop
        self._proto = proto

    def __repr__(self) -> str:
        proto = self._proto
        info = [type(self).__name__, *proto.state_info()]
        if proto.transport is None:
            info.append("closed")
        else:
            if proto.closing:
                info.append("closing")
            info.append(repr(proto.transport))
        return "<{}>".format(" ".join(info))

    @property
    def transport(self) -> interface.ZmqTransport:
        """The transport, for binding and connecting while the service runs.

        :raises ServiceClosedError: the service has been closed.
        """
        transport = self._proto.transport
        if transport is None:
            raise ServiceClosedError()
        return transport

    def close(self) -> None:
        """Stops serving and closes the transport. Harmless when repeated."""
        if NO_GIL:
            check_thread(self._loop)
        proto = self._proto
        if proto.closing:
            return
        proto.closing = True
        if proto.transport is not None:
            proto.transport.close()

    async def wait_closed(self) -> None:
        """Waits until the transport is closed. Cancelling it only stops waiting.

        What was sent is in libzmq's hands then, which sends it in a thread of its own:
        the end of the loop waits for that, see :meth:`ZmqTransport.close()
        <aiozmq_speedups.ZmqTransport.close>`.
        """
        if NO_GIL:
            check_thread(self._loop)
        if self._proto.transport is None:
            return
        waiter = self._loop.create_future()
        self._proto.done_waiters.append(waiter)
        await waiter

    async def shutdown(self, *, timeout: float | None = None) -> None:
        """Takes nothing new, finishes what was begun, then closes.

        A server answers new requests with :exc:`ServiceClosedError` (callers get it
        as a GenericError), waits for the handlers that run and sends their answers;
        a subscriber and the server of a pipeline receive no more. A client lets no
        more calls be made and waits for the answers of those that were. Cancelling
        it closes the service at once.

        :param timeout: seconds until it ends as :meth:`close` does, which cancels
            handlers and calls; None for no limit.
        """
        if NO_GIL:
            check_thread(self._loop)
        proto = self._proto
        if not proto.closing and proto.transport is not None:
            proto.begin_shutdown()
            try:
                async with asyncio.timeout(timeout):
                    await proto.finish()
                    self.close()
                    await self.wait_closed()
            except TimeoutError:
                await proto.give_up()
            finally:
                self.close()
        await self.wait_closed()


class _BaseProtocol(interface.ZmqProtocol):
    """The protocol of a client or server.

    ``_write`` is the transport's write while there is a transport.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        translation_table: TranslationTable | None = None,
    ) -> None:
        self.loop = loop
        self.transport: interface.ZmqTransport | None = None
        self.done_waiters: list[asyncio.Future[None]] = []
        self.packer = _Packer(translation_table=translation_table)
        self.pending_waiters: set[asyncio.Task[None]] = set()
        self.closing = False
        self._write: Callable[[Any], None] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._write = transport.write

    def connection_lost(self, exc: BaseException | None) -> None:
        self.transport = None
        self._write = None
        waiters, self.done_waiters = self.done_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def state_info(self) -> list[str]:
        """For the repr of the service."""
        return []

    def begin_shutdown(self) -> None:
        """Takes nothing new from now on."""

    async def finish(self) -> None:
        """Waits until what was begun before is done."""

    async def give_up(self) -> None:
        """Closes without waiting for anybody."""
        if self.transport is not None:
            self.transport.abort()

    def log_malformed(self, data: list[bytes], exc: BaseException) -> None:
        """Logs a message that is not a call, and why."""
        logger.critical("Cannot unpack %r", shorten(data), exc_info=exc)


class _BaseServerProtocol(_BaseProtocol):
    """Finds the handler function of a call, checks the arguments, logs errors."""

    #: What was called last: who tells of slow calls has it from the repr.
    last_name: str | None = None

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handler: AbstractHandler | Mapping[str, Any],
        *,
        translation_table: TranslationTable | None = None,
        log_exceptions: bool = False,
        exclude_log_exceptions: Iterable[type[BaseException]] = (),
        timeout: float | None = None,
        max_concurrency: int | None = None,
    ) -> None:
        super().__init__(loop, translation_table=translation_table)
        if not isinstance(handler, AbstractHandler):
            hint = ""
            if isinstance(handler, type):
                hint = f": {handler.__name__} is a class, give an instance of it"
            raise TypeError(f"handler must implement AbstractHandler{hint}")
        self.handler: AbstractHandler = handler
        self.log_exceptions = log_exceptions
        self.exclude_log_exceptions = tuple(exclude_log_exceptions)
        self.timeout = timeout
        # Tasks that have not begun to run. While there are some, functions run
        # in tasks too: calls begin in the order in which they came.
        self.unstarted = 0
        # So many tasks may run; while they do, `held`: nothing is received.
        self.max_concurrency = max_concurrency
        self.held = False
        # Shutting down: nothing new is run.
        self.refusing = False

    def __repr__(self) -> str:
        called = "" if self.last_name is None else f" called={self.last_name[:100]!r}"
        return f"<{type(self).__name__}{called}>"

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        for task in list(self.pending_waiters):
            task.cancel()

    def dispatch(self, name: str) -> tuple[Any, CallSpec]:
        """The function of that (dotted) name, and its spec.

        :raises NotFoundError: there is none. What a handler's ``__getitem__``
            raises, except KeyError, passes through.
        """
        if not name:
            raise NotFoundError(name)
        # Nothing is cached here: what a look-up gives may change at any time.
        handler: Any = self.handler
        key = name
        try:
            if "." in name:
                *namespaces, key = name.split(".")
                for part in namespaces:
                    handler = handler[part]
                    if not isinstance(handler, AbstractHandler):
                        raise NotFoundError(name)
            func = handler[key]
        except KeyError:
            raise NotFoundError(name) from None
        try:
            return func, spec_of(func)
        except AttributeError:
            raise NotFoundError(name) from None
        except (TypeError, ValueError) as exc:
            raise ParametersError(repr(exc)) from exc

    def check_args(
        self, spec: CallSpec, args: Any, kwargs: Any
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Checks the arguments of a call; gives those to call the function with.

        :raises ParametersError: they do not fit the signature.
        """
        try:
            return spec.check(args, kwargs)
        except TypeError as exc:
            raise ParametersError(repr(exc)) from exc

    def spawn(self, coro: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Runs a coroutine in a task that lives no longer than the connection, and is
        named as what is called."""
        loop = self.loop
        if _eager_task is not None and loop.get_task_factory() is None:
            task = _eager_task(coro, loop=loop, name=name)
        else:
            task = loop.create_task(coro)
            # A task factory of the user's may take no name, and give what has none.
            if isinstance(task, asyncio.Task):
                task.set_name(name)
            self.unstarted += 1
            loop.call_soon(self._one_started)
        if task.done():
            return task
        self.pending_waiters.add(task)
        if self.max_concurrency is None:
            task.add_done_callback(self.pending_waiters.discard)
        else:
            task.add_done_callback(self._one_finished)
            if len(self.pending_waiters) >= self.max_concurrency:
                self._hold()
        return task

    def raised_by_handler(self) -> bool:
        """Of GeneratorExit, in the coroutine at hand: did its handler raise it?

        Else the coroutine is being closed; by the garbage collector, say, and then
        in any thread.
        """
        try:
            task = asyncio.current_task()
        except RuntimeError:  # no loop runs in this thread
            return False
        coro = None if task is None else task.get_coro()
        return getattr(coro, "cr_frame", None) is sys._getframe(1)

    def _one_started(self) -> None:
        self.unstarted -= 1

    def _one_finished(self, task: asyncio.Task[None]) -> None:
        self.pending_waiters.discard(task)
        if self.held and not self.refusing:
            self._release()

    def _hold(self) -> None:
        self.held = True
        if self.transport is not None:
            # RuntimeError: it is closing, or the user has paused it.
            with contextlib.suppress(RuntimeError):
                self.transport.pause_reading()

    def _release(self) -> None:
        self.held = False
        if self.transport is not None:
            with contextlib.suppress(RuntimeError):
                self.transport.resume_reading()

    def state_info(self) -> list[str]:
        info = [f"running={len(self.pending_waiters)}"]
        if self.held:
            info.append("held")
        if self.refusing:
            info.append("refusing")
        return info

    def begin_shutdown(self) -> None:
        self.refusing = True

    async def finish(self) -> None:
        # A handler may be who shuts the service down.
        own = asyncio.current_task()
        while tasks := self.pending_waiters - {own}:
            await asyncio.wait(tasks)

    async def give_up(self) -> None:
        for task in list(self.pending_waiters):
            task.cancel()
        # Their answers: a turn for each end of a coroutine and of its task.
        for _ in range(3):
            await asyncio.sleep(0)
        await super().give_up()

    def try_log(self, exc: BaseException, name: str, args: Any, kwargs: Any) -> None:
        """Logs an exception out of a handler where the service is told to."""
        if not self.log_exceptions or issubclass(
            type(exc), self.exclude_log_exceptions
        ):
            return
        logger.error(
            "An exception %r from method %r call occurred.\nargs = %s\nkwargs = %s\n",
            exc,
            name,
            _pformat(args),
            _pformat(kwargs),
            exc_info=exc,
        )


def check_limit(name: str, value: int | None) -> None:
    """Checks an argument that limits a number of calls.

    :raises TypeError, ValueError: it is neither None nor an int of 1 or more.
    """
    if value is not None and operator.index(value) < 1:
        raise ValueError(f"{name} should be at least 1, got {value!r}")


def _pformat(value: Any) -> str:
    try:
        return pprint.pformat(value)
    except Exception as exc:
        # Nested too deeply, or a repr that fails.
        return f"<{type(value).__name__}: cannot be formatted, {type(exc).__name__}>"


def shorten(data: list[bytes]) -> list[bytes]:
    """The message itself, or a copy with the ends of long frames cut off."""
    if all(len(frame) <= _LOGGED_FRAME_SIZE for frame in data):
        return data
    return [bytes(frame[:_LOGGED_FRAME_SIZE]) for frame in data]

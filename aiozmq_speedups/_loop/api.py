"""Loop, on the C core or without it, and what makes and runs one."""

from __future__ import annotations

import asyncio
import functools
from asyncio import events
from typing import TYPE_CHECKING, Any, Literal

from aiozmq_speedups import _ext
from aiozmq_speedups._loop.tls import Tls
from aiozmq_speedups._loop.zmq_part import ZmqPart

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import TypeVar

    import zmq

    from aiozmq_speedups._loop.slow import SlowCallback

    _T = TypeVar("_T")

    _Base = asyncio.SelectorEventLoop
elif _ext.core is not None:
    from aiozmq_speedups._loop.accelerated import AcceleratedLoop as _Base
else:
    from aiozmq_speedups._loop.pure import PureLoop as _Base


class Loop(ZmqPart, Tls, _Base):
    """The event loop: asyncio's interface, plus ZeroMQ.

    Every method of :class:`asyncio.AbstractEventLoop` of the running Python version
    is there. A loop belongs to the thread that runs it; only call_soon_threadsafe()
    may be called from others.

    :param zmq_context: the ``zmq.Context`` that create_zmq_connection() makes sockets
        in; None is ``zmq.Context.instance()``.
    :param busy_poll_us: for how many microseconds an idle loop polls before it sleeps,
        an int from 0, which is off, to a day: see :ref:`busy-polling`.
    :param close_timeout: how many seconds :meth:`close` waits for messages of ZeroMQ
        sockets to be sent; ``math.inf`` for as long as the sockets' linger times.
    :param zmq_engine: what serves ZeroMQ sockets that are not given an ``engine``: see
        :ref:`engines`.
    :param tls: ``"auto"``, ``"asyncio"`` or ``"aiofastnet"``: see :ref:`tls`.
    :param slow_callback_ms: callbacks that take longer are logged, a number of
        milliseconds from 1 to a day: see :ref:`slow-callbacks`.
    :param on_slow_callback: is called with a :class:`SlowCallback` for each of those.
    :param watchdog: True has a thread log where a callback is stuck.
    :raises TypeError: a number is of another type.
    :raises ValueError: a number is out of range, or ``tls`` is another word.
    :raises ImportError: aiofastnet is asked for, and no tested version is installed.
    """

    __module__ = "aiozmq_speedups.loop"

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            zmq_context: zmq.Context[Any] | None = None,
            busy_poll_us: int = 0,
            close_timeout: float = 1.0,
            zmq_engine: str | None = None,
            tls: Literal["auto", "asyncio", "aiofastnet"] = "auto",
            slow_callback_ms: float | None = None,
            on_slow_callback: Callable[[SlowCallback], object] | None = None,
            watchdog: bool | None = None,
        ) -> None: ...


Loop._whole_loop = Loop


def new_event_loop(
    *,
    zmq_context: zmq.Context[Any] | None = None,
    busy_poll_us: int = 0,
    close_timeout: float = 1.0,
    zmq_engine: str | None = None,
    tls: Literal["auto", "asyncio", "aiofastnet"] = "auto",
    slow_callback_ms: float | None = None,
    on_slow_callback: Callable[[SlowCallback], object] | None = None,
    watchdog: bool | None = None,
) -> Loop:
    """A new loop; give it as ``loop_factory`` to :class:`asyncio.Runner`.

    The arguments are those of :class:`Loop`.
    """
    return Loop(
        zmq_context=zmq_context,
        busy_poll_us=busy_poll_us,
        close_timeout=close_timeout,
        zmq_engine=zmq_engine,
        tls=tls,
        slow_callback_ms=slow_callback_ms,
        on_slow_callback=on_slow_callback,
        watchdog=watchdog,
    )


new_event_loop.__module__ = "aiozmq_speedups.loop"


def run(
    main: Coroutine[Any, Any, _T],
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    close_timeout: float | None = None,
    tls: Literal["auto", "asyncio", "aiofastnet"] | None = None,
    slow_callback_ms: float | None = None,
    on_slow_callback: Callable[[SlowCallback], object] | None = None,
    watchdog: bool | None = None,
) -> _T:
    """Run a coroutine on a new loop and close it: :func:`asyncio.run`.

    ``loop_factory`` makes the loop, :func:`new_event_loop` if it is None.
    The other arguments are those of :class:`Loop`; ValueError if ``loop_factory`` is
    given, too.
    """
    if events._get_running_loop() is not None:
        raise RuntimeError("run() cannot be called from a running event loop")
    factory = loop_factory or new_event_loop
    options: dict[str, Any] = {
        "close_timeout": close_timeout,
        "tls": tls,
        "slow_callback_ms": slow_callback_ms,
        "on_slow_callback": on_slow_callback,
        "watchdog": watchdog,
    }
    options = {name: value for name, value in options.items() if value is not None}
    if options:
        if loop_factory is not None:
            raise ValueError(f"{min(options)} is for the loop that run() makes itself")
        factory = functools.partial(new_event_loop, **options)
    with asyncio.Runner(debug=debug, loop_factory=factory) as runner:
        return runner.run(main)


run.__module__ = "aiozmq_speedups.loop"

"""Several loops, each in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import threading
from asyncio import events
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from aiozmq_speedups._loop.api import new_event_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_T = TypeVar("_T")


class _Worker(Generic[_T]):
    """One thread and its loop."""

    result: _T
    error: BaseException | None = None

    def __init__(
        self,
        index: int,
        factory: Callable[[int], Coroutine[Any, Any, _T]],
        runner: Callable[[], asyncio.Runner],
        ended: queue.SimpleQueue[_Worker[_T]],
    ) -> None:
        self._index = index
        self._factory = factory
        self._runner = runner
        self._ended = ended
        self._lock = threading.Lock()  # guards the next two
        self._task: asyncio.Task[Any] | None = None
        self._stopped = False
        self.thread = threading.Thread(
            target=contextvars.copy_context().run,
            args=(self._run,),
            name=f"aiozmq-worker-{index}",
        )

    def _run(self) -> None:
        try:
            with self._runner() as runner:
                self.result = runner.run(self._main())
        except BaseException as exc:
            # Nobody but who asked for it hears of the end that was asked for.
            if not (self._stopped and isinstance(exc, asyncio.CancelledError)):
                self.error = exc
        finally:
            self._ended.put(self)

    async def _main(self) -> _T:
        with self._lock:
            if self._stopped:
                raise asyncio.CancelledError
            self._task = asyncio.current_task()
        try:
            return await self._factory(self._index)
        finally:
            with self._lock:
                self._task = None

    def stop(self) -> None:
        """Cancel its coroutine, once, from any thread; harmless where it has ended."""
        with self._lock:
            was_stopped, self._stopped = self._stopped, True
            if self._task is not None and not was_stopped:
                loop = self._task.get_loop()
                loop.call_soon_threadsafe(self._task.cancel)


def run_workers(
    factory: Callable[[int], Coroutine[Any, Any, _T]],
    n: int,
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> list[_T]:
    """Run ``factory(0)`` to ``factory(n - 1)``, each in a thread and a loop of its own.

    ``factory`` is called in the thread, inside its loop, and returns a coroutine.
    Returns their results in that order, when all have ended. If one raises, or a
    signal's handler in the calling thread (Ctrl-C), the others are cancelled one after
    the other, the first first, each when the one before has ended and its loop is
    closed. Then :exc:`BaseExceptionGroup` of what workers raised is raised, or what the
    handler did. What a handler raises meanwhile (Ctrl-C again) has the rest cancelled
    at once, and is raised without a wait for their ends.

    Listeners with ``reuse_port=True`` have the kernel share connections out among the
    workers: see :ref:`threads`. ``debug`` and ``loop_factory`` are those of
    :func:`run`. RuntimeError inside a running loop, ValueError if ``n`` is below 1,
    TypeError if ``factory`` is a coroutine, not a function that makes one.
    """
    if events._get_running_loop() is not None:
        raise RuntimeError("run_workers() cannot be called from a running event loop")
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    if not callable(factory):
        raise TypeError(
            f"factory must be a function of the worker's index, not {factory!r}"
        )

    def runner() -> asyncio.Runner:
        return asyncio.Runner(debug=debug, loop_factory=loop_factory or new_event_loop)

    ended: queue.SimpleQueue[_Worker[_T]] = queue.SimpleQueue()
    workers = [_Worker(i, factory, runner, ended) for i in range(n)]
    try:
        for worker in workers:
            worker.thread.start()
        for _ in workers:
            if ended.get().error is not None:
                break
    finally:
        try:
            for worker in workers:
                worker.stop()
                # Ctrl-C may have come while it was started: then it ends by itself.
                with contextlib.suppress(RuntimeError):
                    worker.thread.join()
        except BaseException:  # Ctrl-C again, where one takes its time
            for worker in workers:
                worker.stop()
            raise
    errors = [worker.error for worker in workers if worker.error is not None]
    if errors:
        raise BaseExceptionGroup("workers have failed", errors)
    return [worker.result for worker in workers]


run_workers.__module__ = "aiozmq_speedups.loop"

"""Puts a program on this loop that knows nothing of it.

For ``python -m aiozmq_speedups run`` and, by aiozmq_speedups.pth, for each Python
that starts with ``AIOZMQ_SPEEDUPS_RUN=1``: the program itself, or a process that it
spawned. Nothing is imported before the program asks for it.
"""

from __future__ import annotations

import os
import sys

from aiozmq_speedups._alias import install_alias

TYPE_CHECKING = False  # as in _alias
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

__all__ = ["start", "start_by_environment"]

VARIABLE = "AIOZMQ_SPEEDUPS_RUN"


def start() -> None:
    """What ``run`` does, for this process and for those that it starts.

    A second call changes nothing: `site` reads some .pth files twice.
    """
    os.environ[VARIABLE] = "1"
    install_alias("aiozmq")
    install_alias("uvloop")
    install_alias("zmq.asyncio")
    if "asyncio" in sys.modules:
        _take_asyncio()
    elif not any(isinstance(finder, _AsyncioFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AsyncioFinder())


def start_by_environment() -> None:
    """Called by aiozmq_speedups.pth, if the variable is set."""
    if not sys.flags.ignore_environment:
        start()


class _AsyncioFinder:
    """Sees asyncio's import, and puts our loop there when it has been executed.

    If it is a module of this package that imports asyncio first, that one is half made
    then: asyncio is taken when it is whole.
    """

    def __init__(self) -> None:
        self.executing = 0  # modules of ours
        self.waits = False  # asyncio is there, and not taken
        self.taken = False

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        ours = fullname.startswith("aiozmq_speedups.")
        if self.taken or not (ours or fullname == "asyncio"):
            return None
        for finder in sys.meta_path:
            if finder is not self:
                spec = finder.find_spec(fullname, path, target)
                if spec is not None and spec.loader is not None:
                    loader: Any = _Loader(spec.loader, self, ours)
                    spec.loader = loader
                    return spec
        return None

    def executed(self) -> None:
        if self.waits and not self.executing:
            self.waits, self.taken = False, True
            _take_asyncio()


class _Loader:
    def __init__(self, own: Loader, finder: _AsyncioFinder, ours: bool) -> None:
        self._own = own
        self._finder = finder
        self._ours = ours

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)  # runpy wants get_code()

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None  # the import system has set it
        module.__spec__.loader = module.__loader__ = self._own
        finder = self._finder
        finder.executing += self._ours
        try:
            self._own.exec_module(module)
        finally:
            finder.executing -= self._ours
        if not self._ours:
            finder.waits = True
        finder.executed()


def _take_asyncio() -> None:
    import aiozmq_speedups

    aiozmq_speedups.install()
    _tell_of_other_loops()


def _tell_of_other_loops() -> None:
    """Warn, once, of a program that makes asyncio's own loop by its name."""
    import functools
    import warnings
    from asyncio.base_events import BaseEventLoop

    from aiozmq_speedups.loop import Loop

    run_forever = BaseEventLoop.run_forever
    if hasattr(run_forever, "__wrapped__"):
        return

    @functools.wraps(run_forever)
    def watched(self: Any) -> None:
        if not isinstance(self, Loop) and BaseEventLoop.run_forever is watched:
            BaseEventLoop.run_forever = run_forever  # type: ignore[method-assign]
            warnings.warn(
                f"this program was to run on aiozmq_speedups, but it has made a "
                f"{type(self).__module__}.{type(self).__qualname__} itself",
                RuntimeWarning,
                stacklevel=2,
            )
        run_forever(self)

    BaseEventLoop.run_forever = watched  # type: ignore[method-assign]

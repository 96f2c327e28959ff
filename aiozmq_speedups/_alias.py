"""Makes another package's name mean this one: see :func:`install_alias`.

A meta-path finder answers for the names ``aiozmq`` and ``aiozmq.*`` with the
modules of this package, which keep aiozmq's file names. They are the same
module objects under two names, not copies: ``aiozmq.rpc is
aiozmq_speedups.rpc``, so classes, registries and loggers exist once. Nothing
is imported before the program asks for it. ``uvloop`` and ``zmq.asyncio``
likewise; what stands for the last is built on pyzmq's, which is loaded beneath it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys

# Without typing and importlib.abc, as it is imported at the start of each Python that
# AIOZMQ_SPEEDUPS_RUN=1 is for.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType
    from typing import Any

__all__ = ["install_alias"]

#: What a program imports: what it gets, and the same with the submodules of both.
_TARGETS = {
    "aiozmq": "aiozmq_speedups",
    "uvloop": "aiozmq_speedups._uvloop",
    "zmq.asyncio": "aiozmq_speedups.zmq_asyncio",
}


def _target_name(alias: str, name: str) -> str | None:
    """The module of this package that `name` stands for, or None."""
    if name == alias or name.startswith(alias + "."):
        return _TARGETS[alias] + name[len(alias) :]
    return None


class _AliasLoader:
    """Hands out a module that its own loader has loaded, or loads now."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._own_spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._target)
        self._own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has just given it the alias's spec. With that, the
        # module's relative imports and importlib.reload would use the alias.
        module.__spec__ = self._own_spec

    def get_code(self, fullname: str) -> CodeType | None:
        """For ``python -m``: the code of the module behind the alias."""
        spec = importlib.util.find_spec(self._target)
        if spec is None or spec.loader is None:
            raise ImportError(f"no module named {self._target!r}", name=fullname)
        loader: Any = spec.loader
        code: CodeType | None = loader.get_code(self._target)
        return code


class _AliasFinder:
    def __init__(self, alias: str) -> None:
        self.alias = alias
        self._searching = False

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        name = _target_name(self.alias, fullname)
        if name is None or self._searching:
            return None
        if name == _TARGETS["zmq.asyncio"]:
            loading = getattr(sys.modules.get(name), "__spec__", None)
            if getattr(loading, "_initializing", False):
                return None  # it imports what it stands for: see own_alias()
            self._load_beneath(name)
        found = importlib.util.find_spec(name)
        if found is None:
            return None
        spec = importlib.util.spec_from_loader(
            fullname,
            _AliasLoader(name),  # type: ignore[arg-type]
            origin=found.origin,
            is_package=found.submodule_search_locations is not None,
        )
        assert spec is not None  # only None where there is no loader
        spec.submodule_search_locations = found.submodule_search_locations
        return spec

    def _load_beneath(self, name: str) -> None:
        """Loads a module that itself imports the one that it stands for."""
        self._searching = True
        try:
            importlib.import_module(name)
        finally:
            self._searching = False
        # The import system would take what has that name now for what it looks for.
        sys.modules.pop(self.alias, None)


def own_alias(alias: str) -> None:
    """For the module that `alias` stands for, which has imported the other of that
    name: the name is its own again, where install_alias() was called."""
    if any(getattr(finder, "alias", None) == alias for finder in sys.meta_path):
        parent, _, name = alias.rpartition(".")
        sys.modules[alias] = own = sys.modules[_TARGETS[alias]]
        vars(sys.modules[parent])[name] = own


def install_alias(alias: str) -> None:
    """Make ``aiozmq``, ``uvloop`` or ``zmq.asyncio``, with submodules, names of ours.

    Call it before the program's first import of it. A second call changes
    nothing. PyPI's package of that name, where it is installed, is no longer
    reachable in this process.

    Raises RuntimeError where another of that name has been imported already: its
    classes would live on beside ours, and no isinstance test would hold.
    """
    keyword = alias.replace(".", "_")
    own = sys.modules.get(_TARGETS[alias])
    if alias == "zmq.asyncio" and own is not None:
        # It has imported pyzmq's, which nobody else need have done.
        sys.modules[alias] = own
        vars(sys.modules["zmq"])["asyncio"] = own
        return
    for name, module in list(sys.modules.items()):
        target = _target_name(alias, name)
        if target is None or module is sys.modules.get(target):
            continue
        where = getattr(module, "__file__", None) or "an unknown place"
        raise RuntimeError(
            f"{alias} is already imported ({name} from {where}): call "
            f"aiozmq_speedups.install({keyword}=True) before the program's first "
            f"import of {alias}, or start the program with "
            "'python -m aiozmq_speedups run'"
        )
    if not any(getattr(finder, "alias", None) == alias for finder in sys.meta_path):
        sys.meta_path.insert(0, _AliasFinder(alias))

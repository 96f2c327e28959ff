"""pyzmq; or what the native engine needs of it, where it refuses to load.

A sub-interpreter with a GIL of its own cannot load pyzmq's extension (Cython's refuse
all interpreters but one). The constants are a file of Python in it, which is loaded by
itself then; the rest is the error that NativeSocket raises, and names that say what to
do. ``missing`` is why, None where all of pyzmq is here.
"""

from __future__ import annotations

import importlib.util
import os
import types
from pathlib import Path
from typing import Any, ClassVar, NoReturn

__all__ = ["constants", "library", "missing", "z85", "zmq"]

missing: str | None = None

#: The file that libsodium is found by, where another interpreter has loaded it.
library: str | None = None


class ZMQError(Exception):
    """As pyzmq's: an errno, and what it means."""

    def __init__(self, errno: int | None = None, msg: str | None = None) -> None:
        self.errno = errno
        self.strerror = msg or (os.strerror(errno) if errno else "unknown error")
        super().__init__(errno, self.strerror)

    def __str__(self) -> str:
        return self.strerror


def _refuse(*_args: object, **_kwargs: object) -> NoReturn:
    raise ImportError(
        f'{missing}: no socket of libzmq can be made here. engine="native" needs none'
    )


class _Refusing:
    """A class of pyzmq's that has no instances."""

    get: ClassVar[Any] = _refuse
    recv: ClassVar[Any] = _refuse
    send: ClassVar[Any] = _refuse
    instance: ClassVar[Any] = _refuse

    def __class_getitem__(cls, item: object) -> type[_Refusing]:
        return cls

    def __init__(self, *_args: object, **_kwargs: object) -> None:
        _refuse()


class Socket(_Refusing):
    pass


class Context(_Refusing):
    pass


class Poller(_Refusing):
    pass


def _load(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"{__name__}.{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _stand_in() -> Any:
    names = types.SimpleNamespace(
        ZMQError=ZMQError,
        Socket=Socket,
        Context=Context,
        Poller=Poller,
        backend=types.SimpleNamespace(Socket=Socket),
        has=lambda capability: capability == "curve",
    )
    for name in constants.__all__:
        setattr(names, name, getattr(constants, name))
    return names


try:
    import zmq as zmq
    from zmq import constants
    from zmq.utils import z85
except ModuleNotFoundError:
    raise
except ImportError as exc:
    _spec = importlib.util.find_spec("zmq")
    _folders = (_spec.submodule_search_locations if _spec else None) or []
    _folder = next(
        (Path(f) for f in _folders if (Path(f) / "constants.py").exists()), None
    )
    if _folder is None:
        raise
    missing = f"pyzmq does not load ({exc})"
    library = next(map(str, (_folder / "backend" / "cython").glob("_zmq.*.so")), None)
    constants = _load("constants", _folder / "constants.py")
    zmq = _stand_in()
    z85 = _load("z85", _folder / "utils" / "z85.py")

"""Client helpers: ``client.call.ns.func(...)`` and the table of exceptions."""

from __future__ import annotations

import asyncio
import builtins
from typing import Any, Protocol

from .base import NotFoundError, ParametersError

#: Names remembered at one place of a chain. A program has few; one that makes
#: names out of data must not fill the memory.
_MAX_REMEMBERED = 1024


class _Sender(Protocol):
    def send(
        self, bname: bytes, args: tuple[Any, ...], kwargs: dict[str, Any], option: Any
    ) -> asyncio.Future[Any]: ...


class _MethodCall:
    """A remote name: an attribute of it is a longer name, calling it is a call.

    :param proto: what sends the call.
    :param option: for ``proto.send``: the timeout or the topic.
    :param names: the parts of the dotted name.
    """

    # Names that are looked up once stay in __dict__, so that __getattr__ is not
    # asked again: a chain costs what plain attributes cost.
    __slots__ = ("_proto", "_option", "_names", "_bname", "__dict__")

    _empty_name = "RPC method name is empty"

    def __init__(
        self, proto: _Sender, option: Any = None, names: tuple[str, ...] = ()
    ) -> None:
        self._proto = proto
        self._option = option
        self._names = names
        self._bname = b""

    def __getattr__(self, name: str) -> _MethodCall:
        longer = self.__class__(self._proto, self._option, (*self._names, name))
        if len(self.__dict__) < _MAX_REMEMBERED:
            self.__dict__[name] = longer
        return longer

    def __call__(self, *args: Any, **kwargs: Any) -> asyncio.Future[Any]:
        if not self._bname:
            if not self._names:
                raise ValueError(self._empty_name)
            self._bname = ".".join(self._names).encode()
        return self._proto.send(self._bname, args, kwargs, self._option)


def _fill_error_table() -> dict[str, type[Exception]]:
    """``{full name: class}`` of the exceptions that every client knows."""
    table: dict[str, type[Exception]] = {}
    for module in (builtins, asyncio):
        for name, value in vars(module).items():
            if isinstance(value, type) and issubclass(value, Exception):
                table[f"{module.__name__}.{name}"] = value
    # The names on the wire are aiozmq's.
    table["aiozmq.rpc.base.NotFoundError"] = NotFoundError
    table["aiozmq.rpc.base.ParametersError"] = ParametersError
    return table

"""Client helpers: ``client.call.ns.func(...)``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol, Self

from .. import _ext

#: Names remembered at one place of a chain. A program has few; one that makes
#: names out of data must not fill the memory.
_MAX_REMEMBERED = 1024


class _Sender(Protocol):
    def send(
        self, bname: bytes, args: tuple[Any, ...], kwargs: dict[str, Any], option: Any
    ) -> asyncio.Future[Any]: ...


class _Name:
    """A remote name: an attribute of it is a longer name, calling it is a call.

    :param proto: what sends the call.
    :param option: for ``proto.send``: the timeout or the topic.
    :param names: the parts of the dotted name.
    """

    if TYPE_CHECKING:
        __proto__: _Sender
        __option__: Any
        __names__: tuple[str, ...]
        __bname__: bytes
    else:
        __slots__ = ()

    __empty_name__ = "RPC method name is empty"

    def __init__(
        self, proto: _Sender, option: Any = None, names: tuple[str, ...] = ()
    ) -> None:
        self.__proto__ = proto
        self.__option__ = option
        self.__names__ = names
        self.__bname__ = b""

    def __getattr__(self, name: str) -> Self:
        if name[:2] == "__" == name[-2:]:
            # Whoever asks for a protocol of Python, as copy.copy() does, or a server
            # that has this among its handler's attributes, must not find one.
            raise AttributeError(name)
        longer = self.__class__(
            self.__proto__, self.__option__, (*self.__names__, name)
        )
        if len(self.__dict__) < _MAX_REMEMBERED:
            self.__dict__[name] = longer
        return longer

    def __copy__(self) -> Self:
        return self.__class__(self.__proto__, self.__option__, self.__names__)

    def __make_name__(self) -> bytes:
        """Called before the first call."""
        if not self.__names__:
            raise ValueError(self.__empty_name__)
        self.__bname__ = ".".join(self.__names__).encode()
        return self.__bname__


# Names that are looked up once stay in __dict__, so that __getattr__ is not asked
# again: a chain costs what plain attributes cost. Every name is a remote one but those
# that are Python's own, such as these.

if _ext.core is not None:

    class _MethodCall(_ext.core.RpcCall, _Name):  # type: ignore[misc]
        __slots__ = ("__names__", "__dict__")

else:

    class _MethodCall(_Name):  # type: ignore[no-redef]
        __slots__ = ("__proto__", "__option__", "__names__", "__bname__", "__dict__")

        def __call__(self, /, *args: Any, **kwargs: Any) -> asyncio.Future[Any]:
            name = self.__bname__ or self.__make_name__()
            return self.__proto__.send(name, args, kwargs, self.__option__)

"""What the server must know of a handler function, worked out once for each."""

from __future__ import annotations

import asyncio
import inspect
import sys
from types import FunctionType, MethodType
from typing import Any

__all__ = ["CallSpec", "spec_of"]

_POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

if sys.version_info >= (3, 14):
    _iscoroutinefunction = inspect.iscoroutinefunction
else:
    # Knows the marker of mocks and of old-style coroutines as well.
    _iscoroutinefunction = asyncio.iscoroutinefunction

#: Specs kept with one function: more only where functools.wraps has copied its
#: __rpc__ to wrappers made on the fly.
_MAX_CACHED = 64


class CallSpec:
    """Whether a function is a coroutine function, and which calls it accepts.

    :raises TypeError, ValueError: the function has no usable signature.
    """

    __slots__ = ("is_coroutine", "min_args", "max_args", "_places", "_required", "_sig")

    is_coroutine: bool
    #: Positional arguments alone are right where there are between these many;
    #: max_args is -1 where they never are.
    min_args: int
    max_args: int

    def __init__(self, func: Any) -> None:
        self.is_coroutine = _iscoroutinefunction(func)
        self._sig = inspect.signature(func)
        params = self._sig.parameters.values()
        positional = [p for p in params if p.kind in _POSITIONAL]
        required = {
            p.name
            for p in params
            if p.default is inspect.Parameter.empty and p.kind not in _VARIADIC
        }
        # How many positional arguments leave a keyword argument free to be given.
        self._places = {
            p.name: sys.maxsize
            for p in params
            if p.kind is inspect.Parameter.KEYWORD_ONLY
        }
        for place, param in enumerate(positional):
            if param.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
                self._places[param.name] = place
        # [n]: what n positional arguments leave to be given by keyword.
        self._required = [
            frozenset(required.difference(p.name for p in positional[:given]))
            for given in range(len(positional) + 1)
        ]

        self.min_args = len([p for p in positional if p.name in required])
        if self._required[-1]:
            self.max_args = -1
        elif any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in params):
            self.max_args = sys.maxsize
        else:
            self.max_args = len(positional)

    def check(self, args: Any, kwargs: Any) -> None:
        """Does nothing where ``func(*args, **kwargs)`` has the right arguments.

        :raises TypeError: says what is wrong with them.
        """
        if type(args) is not tuple:
            raise TypeError(f"arguments should be a tuple, got {type(args).__name__}")
        if type(kwargs) is not dict:
            raise TypeError(
                f"keyword arguments should be a dict, got {type(kwargs).__name__}"
            )
        given = len(args)
        if given < len(self._required):
            places = self._places
            for name in kwargs:
                if places.get(name, -1) < given:
                    break
            else:
                if kwargs.keys() >= self._required[given]:
                    return
        # For its message; it also accepts what is too unusual for the above.
        self._sig.bind(*args, **kwargs)


def spec_of(func: Any) -> CallSpec:
    """The spec of a handler function.

    :param func: what a look-up gave.
    :raises AttributeError: :func:`method` has not marked it.
    :raises TypeError, ValueError: it has no usable signature.
    """
    holder: Any
    key: Any
    # Bound, the same function takes one argument less.
    if type(func) is MethodType:
        key = holder = func.__func__
    else:
        holder = func
        key = (func,)
    cache = holder.__rpc__
    if type(cache) is not dict or type(holder) is not FunctionType:
        return CallSpec(func)
    spec: CallSpec | None = cache.get(key)
    if spec is None:
        spec = CallSpec(func)
        if len(cache) >= _MAX_CACHED:
            cache.clear()
        cache[key] = spec
    return spec

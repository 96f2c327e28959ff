"""What the server must know of a handler function, worked out once for each."""

from __future__ import annotations

import asyncio
import inspect
import sys
from types import FunctionType, MethodType
from typing import Any

__all__ = ["CallSpec", "signature_of", "spec_of"]

_POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

if sys.version_info >= (3, 14):
    import annotationlib

    _iscoroutinefunction = inspect.iscoroutinefunction

    def signature_of(func: Any) -> inspect.Signature:
        """``inspect.signature(func)``, whether or not its annotations have a value.

        Names that are imported for type checkers only have none.
        """
        return inspect.signature(
            func, annotation_format=annotationlib.Format.FORWARDREF
        )

else:
    # Knows the marker of mocks and of old-style coroutines as well.
    _iscoroutinefunction = asyncio.iscoroutinefunction
    signature_of = inspect.signature

#: Specs kept with one function: more only where functools.wraps has copied its
#: __rpc__ to wrappers made on the fly.
_MAX_CACHED = 64


def _own_signature(func: Any) -> inspect.Signature | None:
    """What the function itself takes, whatever it says of itself.

    None for other callables than functions and their methods.
    """
    if type(func) is MethodType:
        bare = _bare(func.__func__)
        return None if bare is None else inspect.signature(MethodType(bare, func))
    bare = _bare(func)
    return None if bare is None else inspect.signature(bare)


def _bare(func: Any) -> FunctionType | None:
    """A copy without __signature__, __wrapped__ and annotations."""
    if type(func) is not FunctionType:
        return None
    bare = FunctionType(
        func.__code__, {}, func.__name__, func.__defaults__, func.__closure__
    )
    bare.__kwdefaults__ = func.__kwdefaults__
    return bare


def _shape(sig: inspect.Signature) -> list[Any]:
    """What two signatures have in common that take the same arguments."""
    return [
        (p.name, p.kind, p.default is inspect.Parameter.empty)
        for p in sig.parameters.values()
    ]


class CallSpec:
    """Whether a function is a coroutine function, and which calls it accepts.

    :raises TypeError, ValueError: the function has no usable signature.
    """

    __slots__ = (
        "is_coroutine",
        "min_args",
        "max_args",
        "_places",
        "_required",
        "_sig",
        "_own",
        "_as_given",
    )

    is_coroutine: bool
    #: Positional arguments alone are right where there are between these many;
    #: max_args is -1 where they never are.
    min_args: int
    max_args: int

    def __init__(self, func: Any) -> None:
        call = getattr(type(func), "__call__", None)  # noqa: B004
        self.is_coroutine = _iscoroutinefunction(func) or _iscoroutinefunction(call)
        self._sig = signature_of(func)
        # A wrapper (functools.wraps) takes other arguments than it says.
        self._own = _own_signature(func)
        self._as_given = self._own is not None and _shape(self._own) == _shape(
            self._sig
        )
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

    def check(self, args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments to call the function with.

        :raises TypeError: says what is wrong with those that are given.
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
                    return self._placed(args, kwargs) if kwargs else (args, kwargs)
        # For its message; it also accepts what is too unusual for the above.
        self._sig.bind(*args, **kwargs)
        return self._placed(args, kwargs)

    def _placed(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """As many by position as can be, where the function is a wrapper.

        Those it calls ``*args``, or by other names. So does aiozmq; a wrapper that
        takes keywords alone gets them as they are.
        """
        if self._as_given:
            return args, kwargs
        bound = self._sig.bind(*args, **kwargs)
        if self._own is not None:
            try:
                self._own.bind(*bound.args, **bound.kwargs)
            except TypeError:
                return args, kwargs
        return bound.args, bound.kwargs


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

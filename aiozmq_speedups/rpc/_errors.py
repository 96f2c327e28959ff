"""How exceptions travel: as aiozmq sends them, and with what it loses.

On the wire an exception is (full name of its class, args, repr). Of the builtin
exceptions and asyncio's, args are what makes the same object again; where that does
not tell all, the repr is a pair (repr, {attribute: value}), which aiozmq ignores.
"""

from __future__ import annotations

import asyncio
import builtins
import os
from collections.abc import Callable, Mapping
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any

from ..stream import ZmqStreamClosed
from .base import (
    Error,
    GenericError,
    NotFoundError,
    ParametersError,
    ServiceClosedError,
    TooManyCallsError,
)

__all__ = ["ErrorTable", "default_error_table", "make_error", "pack_error"]

#: Full name of an exception class -> class.
ErrorTable = Mapping[str, type[BaseException]]

# Peers know these by aiozmq's names.
_WIRE_NAMES: dict[type, str] = {
    cls: f"aiozmq.rpc.base.{cls.__name__}"
    for cls in (
        Error,
        GenericError,
        NotFoundError,
        ParametersError,
        ServiceClosedError,
        TooManyCallsError,
    )
}
_WIRE_NAMES[ZmqStreamClosed] = "aiozmq.stream.ZmqStreamClosed"
# Its args hold exceptions: aiozmq's clients would fail to make it, so it has a name
# that they do not know.
_WIRE_NAMES[ExceptionGroup] = _GROUP = "builtins.BaseExceptionGroup"

#: Attributes that do not travel. `obj` may be anything of the server's (pickle leaves
#: it out, too). `name_from` has traceback import the module `name`, which a peer would
#: choose. Those of a group are its args.
_KEPT_HOME = {"obj", "name_from", "exceptions", "message"}


def default_error_table() -> dict[str, type[Exception]]:
    """``{full name: class}`` of the exceptions that every client knows."""
    table: dict[str, type[Exception]] = {}
    for module in (builtins, asyncio):
        for name, value in vars(module).items():
            if isinstance(value, type) and issubclass(value, Exception):
                table[f"{module.__name__}.{name}"] = value
                table[f"{value.__module__}.{value.__qualname__}"] = value
    # What Python 3.10 calls it.
    table["asyncio.exceptions.TimeoutError"] = TimeoutError
    table[_GROUP] = ExceptionGroup
    # The names on the wire are aiozmq's.
    table["aiozmq.rpc.base.NotFoundError"] = NotFoundError
    table["aiozmq.rpc.base.ParametersError"] = ParametersError
    return table


_STANDARD = frozenset(default_error_table().values()) - {NotFoundError, ParametersError}


def _attributes(cls: type) -> frozenset[str]:
    """The names of what an object of a standard class has besides its args."""
    return frozenset(
        name
        for base in cls.__mro__
        if base not in (object, BaseException)
        for name, value in vars(base).items()
        if isinstance(value, (GetSetDescriptorType, MemberDescriptorType))
        and not name.startswith("_")
        and name not in _KEPT_HOME
    )


# -- At the server --


def pack_error(packb: Callable[[Any], bytes], exc: BaseException) -> bytes:
    """What is sent for an exception, whatever its class and its args are."""
    try:
        parts = _parts(packb, exc)
    except Exception:
        # An object of the user's that fails to say what it is.
        text = "an exception that cannot be described"
        parts = (_WIRE_NAMES[Error], (text,), text)
    try:
        return packb(parts)
    except Exception:
        parts = _packable_parts(packb, parts)
    try:
        return packb(parts)
    except Exception:  # nested one level too deep
        return packb((parts[0], (), _text_of(exc)))


def _parts(packb: Callable[[Any], bytes], exc: BaseException) -> tuple[Any, Any, Any]:
    cls = type(exc)
    name = _WIRE_NAMES.get(cls) or f"{cls.__module__}.{cls.__qualname__}"
    text = _text_of(exc)
    # Not a property of that name.
    args: tuple[Any, ...] = BaseException.args.__get__(exc)  # type: ignore[attr-defined]
    if cls not in _STANDARD:
        return name, args, text
    attributes: dict[str, Any] = {}
    if isinstance(exc, ExceptionGroup):
        args = (exc.message, [_nested(packb, nested) for nested in exc.exceptions])
    else:
        args = exc.__reduce__()[1]  # type: ignore[assignment]
        again: BaseException | None
        try:
            again = cls(*args)
        except Exception:
            again = None  # its args were changed
        for attribute in _attributes(cls):
            value = getattr(exc, attribute, None)
            if not _same(value, getattr(again, attribute, None)):
                attributes[attribute] = value
    if notes := getattr(exc, "__notes__", None):
        attributes["__notes__"] = notes
    return name, args, (text, attributes) if attributes else text


def _nested(packb: Callable[[Any], bytes], exc: BaseException) -> tuple[Any, Any, Any]:
    parts = _parts(packb, exc)
    try:
        packb(parts)
    except Exception:
        return _packable_parts(packb, parts)
    return parts


def _same(a: object, b: object) -> bool:
    try:
        return a is b or (type(a) is type(b) and bool(a == b))
    except Exception:
        return False


def _packable_parts(
    packb: Callable[[Any], bytes], parts: tuple[Any, Any, Any]
) -> tuple[Any, Any, Any]:
    """The same with what can be sent: the args may be the user's objects."""
    name, args, text = parts

    def packable(value: Any) -> Any:
        try:
            packb(value)
        except Exception:
            if isinstance(value, os.PathLike):
                return os.fspath(value)
            return _text_of(value)
        return value

    if type(text) is tuple:
        text, attributes = text
        text = text, {key: packable(value) for key, value in attributes.items()}
    name = name.encode(errors="backslashreplace").decode()
    return name, tuple(map(packable, args)), text


def _text_of(value: object) -> str:
    try:
        text = repr(value)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as exc:
        text = f"<{type(value).__name__}: its repr fails, {type(exc).__name__}>"
    # msgpack refuses lone surrogates.
    return str.encode(text, errors="backslashreplace").decode()


# -- At the client --


def make_error(
    table: ErrorTable, exc_type: str, exc_args: Any, exc_repr: Any
) -> BaseException:
    """The exception that a server sent; GenericError where ``table`` has none.

    :raises TypeError, ValueError: it is none.
    """
    attributes: Any = {}
    if type(exc_repr) is tuple:
        exc_repr, attributes = exc_repr
    found = table.get(exc_type)
    if found is not None:
        try:
            if exc_type == _GROUP:
                message, nested = exc_args
                exc = found(message, [make_error(table, *parts) for parts in nested])
            else:
                exc = found(*exc_args)
            if type(exc) in _STANDARD and type(attributes) is dict:
                _set_attributes(exc, attributes)
            if _is_sound(exc):
                return exc
        except Exception:
            # A class with another signature than its args.
            pass
    return GenericError(exc_type, exc_args, exc_repr)


def _is_sound(exc: object) -> bool:
    # A Future refuses StopIteration.
    if not isinstance(exc, BaseException) or isinstance(exc, StopIteration):
        return False
    # CPython up to 3.13 reads before the object of such a one when asked for its str.
    return not isinstance(exc, UnicodeError) or getattr(exc, "start", 0) >= 0


def _set_attributes(exc: BaseException, attributes: dict[Any, Any]) -> None:
    notes = attributes.get("__notes__")
    if type(notes) is tuple and all(type(note) is str for note in notes):
        for note in notes:
            exc.add_note(note)
    for name in _attributes(type(exc)) & attributes.keys():
        try:
            setattr(exc, name, attributes[name])
        except (AttributeError, TypeError, ValueError, OverflowError):
            continue  # another version's, which is not to be set here

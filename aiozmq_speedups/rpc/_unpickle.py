"""Reads the few pickles that aiozmq's predefined translators put on the wire.

aiozmq sends ``datetime`` objects as pickles (ext codes 123 to 127) and reads
them with ``pickle.loads``, which lets a peer run any code. This reader knows
only the opcodes that pickling such an object makes (protocols 2 to 5), can
name only the types of ``datetime`` and ``zoneinfo.ZoneInfo``, and never uses
the pickle module: the C unpickler would also let a peer claim memory (an
opcode of five bytes can ask for a memo of gigabytes).
"""

from __future__ import annotations

import datetime
import struct
import zoneinfo
from collections.abc import Callable
from typing import Any

__all__ = ["loads"]

#: The longest real one, a datetime with a ZoneInfo, has about 200 bytes.
MAX_PICKLE_SIZE = 1024

_uint16 = struct.Struct("<H").unpack_from
_int32 = struct.Struct("<i").unpack_from
_uint32 = struct.Struct("<I").unpack_from
_uint64 = struct.Struct("<Q").unpack_from


def _getattr(owner: object, name: object) -> Callable[..., object]:
    # How pickle names a classmethod: ZoneInfo.__reduce__ needs this one only.
    if owner is zoneinfo.ZoneInfo and name == "_unpickle":
        return _zone
    raise ValueError("a pickled attribute is not allowed")


def _zone(key: object, from_cache: object) -> zoneinfo.ZoneInfo:
    if type(key) is not str:
        raise ValueError("a pickled time zone has no key")
    return zoneinfo.ZoneInfo(key) if from_cache else zoneinfo.ZoneInfo.no_cache(key)


def _encode(text: object, encoding: object) -> bytes:
    # Protocol 2 spells bytes as text and its encoding.
    if type(text) is str and encoding == "latin1":
        return text.encode("latin1")
    raise ValueError("pickled bytes are not latin1")


_GLOBALS: dict[tuple[object, object], Callable[..., Any]] = {
    ("datetime", "date"): datetime.date,
    ("datetime", "datetime"): datetime.datetime,
    ("datetime", "time"): datetime.time,
    ("datetime", "timedelta"): datetime.timedelta,
    ("datetime", "timezone"): datetime.timezone,
    ("datetime", "tzinfo"): datetime.tzinfo,
    ("zoneinfo", "ZoneInfo"): zoneinfo.ZoneInfo,
    ("zoneinfo._zoneinfo", "ZoneInfo"): zoneinfo.ZoneInfo,
    ("builtins", "getattr"): _getattr,
    ("__builtin__", "getattr"): _getattr,
    ("_codecs", "encode"): _encode,
}
# timezone.utc and time.min pickle as calls of these; ZoneInfo only through
# _zone, whose arguments are checked.
_CALLABLE = {
    datetime.date,
    datetime.datetime,
    datetime.time,
    datetime.timedelta,
    datetime.timezone,
    datetime.tzinfo,
    _getattr,
    _zone,
    _encode,
}

_CHECKED = (datetime.date, datetime.time)

# What the five ext codes stand for.
_RESULTS = (
    datetime.date,
    datetime.time,
    datetime.timedelta,
    datetime.tzinfo,
)


def loads(data: bytes) -> Any:
    """The object pickled in ``data``.

    :param data: a pickle of a ``date``, ``datetime``, ``time``, ``timedelta``,
        ``timezone``, ``tzinfo`` or ``ZoneInfo`` object.
    :raises ValueError: the pickle is malformed or names anything else.
    """
    if len(data) > MAX_PICKLE_SIZE:
        raise ValueError(f"a pickle of {len(data)} bytes is too long for a datetime")
    try:
        return _run(data)
    except ValueError:
        raise
    except Exception as exc:
        # Too short, an empty stack, arguments that the type refuses, ...
        raise ValueError(f"malformed pickle: {exc!r}") from exc


def _lookup(module: object, name: object) -> Callable[..., Any]:
    if type(module) is str and type(name) is str:
        found = _GLOBALS.get((module, name))
        if found is not None:
            return found
        raise ValueError(f"pickled global {module!r}.{name!r} is not allowed")
    raise ValueError("the name of a pickled global is no text")


def _run(data: bytes) -> Any:
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    push = stack.append
    pop = stack.pop
    pos = 0

    while True:
        op = data[pos]
        pos += 1
        match op:
            case 0x94:  # MEMOIZE
                memo[len(memo)] = stack[-1]
            case 0x8C:  # SHORT_BINUNICODE
                end = pos + 1 + data[pos]
                push(_take(data, pos + 1, end).decode("utf-8", "surrogatepass"))
                pos = end
            case 0x93:  # STACK_GLOBAL
                name = pop()
                push(_lookup(pop(), name))
            case 0x43:  # SHORT_BINBYTES
                end = pos + 1 + data[pos]
                push(_take(data, pos + 1, end))
                pos = end
            case 0x52:  # REDUCE
                args = pop()
                func = pop()
                # Callables only are hashed. By the memo a few bytes make a tuple whose
                # hash, or repr in a message, would take for ever.
                if type(args) is not tuple or not (
                    callable(func) and func in _CALLABLE
                ):
                    raise ValueError("a pickled call is not allowed")
                result = func(*args)
                if isinstance(result, _CHECKED):
                    # Pickled bytes are taken unchecked, and the C code reads out
                    # of bounds where the year is 0; replace() checks all fields.
                    result = result.replace()
                push(result)
            case 0x29:  # EMPTY_TUPLE
                push(())
            case 0x85:  # TUPLE1
                push((pop(),))
            case 0x86 | 0x87:  # TUPLE2, TUPLE3
                size = op - 0x84
                if len(stack) < size:
                    raise ValueError("a pickled tuple is short of items")
                stack[-size:] = [tuple(stack[-size:])]
            case 0x4B:  # BININT1
                push(data[pos])
                pos += 1
            case 0x4D:  # BININT2
                push(_uint16(data, pos)[0])
                pos += 2
            case 0x4A:  # BININT
                push(_int32(data, pos)[0])
                pos += 4
            case 0x4E:  # NONE
                push(None)
            case 0x88 | 0x89:  # NEWTRUE, NEWFALSE
                push(op == 0x88)
            case 0x68:  # BINGET
                push(memo[data[pos]])
                pos += 1
            case 0x6A:  # LONG_BINGET
                push(memo[_uint32(data, pos)[0]])
                pos += 4
            case 0x71:  # BINPUT
                memo[data[pos]] = stack[-1]
                pos += 1
            case 0x72:  # LONG_BINPUT
                memo[_uint32(data, pos)[0]] = stack[-1]
                pos += 4
            case 0x63:  # GLOBAL
                end = data.index(b"\n", pos)
                stop = data.index(b"\n", end + 1)
                module = data[pos:end].decode("ascii")
                push(_lookup(module, data[end + 1 : stop].decode("ascii")))
                pos = stop + 1
            case 0x58:  # BINUNICODE
                end = pos + 4 + _uint32(data, pos)[0]
                push(_take(data, pos + 4, end).decode("utf-8", "surrogatepass"))
                pos = end
            case 0x95:  # FRAME
                if _uint64(data, pos)[0] > len(data) - pos - 8:
                    raise ValueError("a pickled frame is cut off")
                pos += 8
            case 0x80:  # PROTO
                if not 2 <= data[pos] <= 5:
                    raise ValueError(f"pickle protocol {data[pos]} is not supported")
                pos += 1
            case 0x2E:  # STOP
                result = pop()
                if stack or not isinstance(result, _RESULTS):
                    raise ValueError("the pickle holds no datetime object")
                return result
            case _:
                raise ValueError(f"pickle opcode {op:#04x} is not allowed")


def _take(data: bytes, start: int, end: int) -> bytes:
    if end > len(data):
        raise ValueError("a pickled string is cut off")
    return data[start:end]

"""Small helpers of the core API."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Collection, Iterator
from collections.abc import Set as AbstractSet
from typing import TypeVar

T = TypeVar("T", str, bytes)

#: There is no GIL: who calls check_thread() asks this first.
NO_GIL: bool = not getattr(sys, "_is_gil_enabled", lambda: True)()


def check_thread(loop: asyncio.AbstractEventLoop) -> None:
    """Refuses what only the thread of a loop that runs may do.

    :raises RuntimeError: the loop runs in another thread.
    """
    if asyncio._get_running_loop() is not loop and loop.is_running() is True:
        raise RuntimeError(
            "Non-thread-safe operation invoked on an event loop other than the "
            "current one"
        )


class _EndpointsSet(AbstractSet[T]):
    """A read-only live view of a transport's endpoints or subscriptions."""

    __slots__ = ("_collection",)
    _collection: Collection[T]

    def __init__(self, collection: Collection[T]) -> None:
        self._collection = collection

    # Set's operators build their results here: they must not be views.
    @classmethod
    def _from_iterable(cls, it: object) -> frozenset[T]:  # type: ignore[override]
        return frozenset(it)  # type: ignore[call-overload, no-any-return]

    def __len__(self) -> int:
        return len(self._collection)

    def __contains__(self, endpoint: object) -> bool:
        return endpoint in self._collection

    def __iter__(self) -> Iterator[T]:
        return iter(self._collection)

    def __repr__(self) -> str:
        # bytes (subscriptions) are shown as bytes, endpoints without quotes.
        shown = (v if isinstance(v, str) else repr(v) for v in sorted(self._collection))
        return "{" + ", ".join(shown) + "}"

    __str__ = __repr__


def find_endpoint(endpoints: Collection[str], name: str) -> str:
    """Which of *endpoints* *name* stands for; *name* itself where none is."""
    if name in endpoints:
        return name
    addresses = _tcp_addresses(name)
    if addresses:
        for endpoint in endpoints:
            if not addresses.isdisjoint(_tcp_addresses(endpoint)):
                return endpoint
    return name


def _tcp_addresses(endpoint: str) -> set[tuple[str, str]]:
    """The (address, port) pairs that a TCP endpoint may stand for."""
    scheme, _, address = endpoint.partition("://")
    host, _, port = address.rpartition(":")
    if scheme != "tcp" or ";" in address:  # "source;target"
        return set()
    try:
        # libzmq has just asked for the same.
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return set()
    return {(str(info[4][0]).removeprefix("::ffff:"), port) for info in found}


def check_engine(engine: str | None) -> None:
    """ValueError where there is no engine of this name; None is the default."""
    if engine not in (None, "auto", "libzmq", "native"):
        raise ValueError(
            f"the engine should be 'libzmq', 'native' or 'auto', not {engine!r}"
        )


def water_marks(high: int | None, low: int | None) -> tuple[int, int]:
    """(high, low), each from the other where it is not given.

    :raises ValueError: not ``high >= low >= 0``.
    """
    if high is None:
        high = 64 * 1024 if low is None else 4 * low
    if low is None:
        low = high // 4
    if not high >= low >= 0:
        raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
    return high, low

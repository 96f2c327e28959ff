"""Small helpers of the core API."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from collections.abc import Set as AbstractSet
from typing import TypeVar

T = TypeVar("T", str, bytes)


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

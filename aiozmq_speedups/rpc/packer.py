"""msgpack with aiozmq's translation tables."""

from __future__ import annotations

import datetime
from collections import ChainMap
from collections.abc import Callable, Mapping
from functools import partial
from pickle import HIGHEST_PROTOCOL, dumps
from typing import Any, TypeAlias

from msgpack import ExtType, Packer, Unpacker, unpackb

from ._unpickle import loads

#: {ext code 0..127: (class, packer, unpacker)}
TranslationTable: TypeAlias = Mapping[
    int, tuple[type, Callable[[Any], bytes], Callable[[bytes], Any]]
]

_dumps = partial(dumps, protocol=HIGHEST_PROTOCOL)

# The bytes are aiozmq's; reading them is restricted, see _unpickle.
_default: TranslationTable = {
    127: (datetime.date, _dumps, loads),
    126: (datetime.datetime, _dumps, loads),
    125: (datetime.time, _dumps, loads),
    124: (datetime.timedelta, _dumps, loads),
    123: (datetime.tzinfo, _dumps, loads),
}

#: msgpack allocates an array of the declared length before it sees the items
#: and nests up to 1024 of them, so a frame may declare longer arrays only
#: where they are proved to be there: a few kilobytes could else claim gigabytes.
UNCHECKED_ARRAY_LEN = 4096

#: Keys other than str and bytes hash predictably, so that a peer can make them
#: collide at a quadratic cost; a map of that many such keys takes well under a
#: second even so.
ODD_KEYS_MAP_LEN = 10_000

#: A msgpack.Packer keeps its buffer for ever: one that grew beyond this is
#: replaced (see trim).
KEPT_BUFFER_SIZE = 1 << 20

#: Classes remembered by a packer; those of a program are far fewer.
_MAX_CACHED_CLASSES = 4096


class _Packer:
    """Packs values for the wire and unpacks them.

    Not thread-safe: every rpc protocol has its own.

    :param translation_table: ``{code: (class, packer, unpacker)}`` with codes 0
        to 127, searched in ascending order before the predefined one.
    """

    #: packb(data) -> bytes. Raises TypeError (unknown type), ValueError (nested
    #: too deeply) or OverflowError (an int beyond 64 bits).
    packb: Callable[[Any], bytes]

    def __init__(self, *, translation_table: TranslationTable | None = None) -> None:
        self.translation_table: TranslationTable
        if translation_table is None:
            self.translation_table = _default
        else:
            self.translation_table = ChainMap(dict(translation_table), dict(_default))
        self._codes = sorted(self.translation_table)
        self._pack_cache: dict[type, tuple[int, Callable[[Any], bytes]] | None]
        self._pack_cache = {}
        self._unpack_cache: dict[int, Callable[[bytes], Any]] = {}
        self._fill_caches()
        self._ext_hook = self.ext_type_unpack_hook
        self.trim()

    def _fill_caches(self) -> None:
        self._pack_cache.clear()
        for code in self._codes:
            cls, packer, unpacker = self.translation_table[code]
            self._pack_cache[cls] = (code, packer)
            self._unpack_cache[code] = unpacker

    def trim(self) -> None:
        """Drops the buffer, for use after something huge was packed."""
        self.packb = self._new_pack()

    def _new_pack(self) -> Callable[[Any], bytes]:
        packer = Packer(use_bin_type=True, default=self.ext_type_pack_hook)
        pack: Callable[[Any], bytes] = packer.pack
        return pack

    def _pack_nested(self, data: Any) -> bytes:
        return self._new_pack()(data)

    def unpackb(self, packed: bytes) -> Any:
        """The value packed in ``packed``: arrays become tuples.

        :raises ValueError: malformed or truncated data, or too deeply nested.
            What an unpacker of the translation table raises passes through.
        """
        try:
            return unpackb(
                packed,
                use_list=False,
                raw=False,
                ext_hook=self._ext_hook,
                max_array_len=UNCHECKED_ARRAY_LEN,
            )
        except ValueError:
            pass
        return self._unpack_checked(packed)

    def _unpack_checked(self, packed: bytes) -> Any:
        # Walks the data without building anything: fails where a declared
        # length is not there.
        checker = Unpacker(max_buffer_size=0)
        checker.feed(packed)
        try:
            checker.skip()
        except Exception as exc:
            raise ValueError(f"Unpack failed: {exc!r}") from exc
        try:
            return unpackb(packed, use_list=False, raw=False, ext_hook=self._ext_hook)
        except ValueError:
            pass
        return unpackb(
            packed,
            use_list=False,
            raw=False,
            ext_hook=self._ext_hook,
            strict_map_key=False,
            max_map_len=ODD_KEYS_MAP_LEN,
        )

    def ext_type_pack_hook(self, obj: Any) -> ExtType:
        """The ExtType of an object that msgpack itself cannot pack.

        :raises TypeError: no class of the table matches.
        """
        obj_class = obj.__class__
        try:
            hit = self._pack_cache[obj_class]
        except KeyError:
            hit = self._search(obj, obj_class)
        if hit is None:
            raise TypeError(f"Unknown type: {obj!r}")
        code, packer = hit
        # The buffer is in use: a packer that packs something of its own with
        # this object (by making another call, say) must not write into it.
        pack = self.packb
        self.packb = self._pack_nested
        try:
            return ExtType(code, packer(obj))
        finally:
            self.packb = pack

    def _search(
        self, obj: Any, obj_class: type
    ) -> tuple[int, Callable[[Any], bytes]] | None:
        if len(self._pack_cache) > _MAX_CACHED_CLASSES:
            self._fill_caches()
        hit = None
        for code in self._codes:
            cls, packer, _ = self.translation_table[code]
            if isinstance(obj, cls):
                hit = (code, packer)
                break
        self._pack_cache[obj_class] = hit
        return hit

    def ext_type_unpack_hook(self, code: int, data: bytes) -> Any:
        """The object of an ext value, or the ExtType itself for an unknown code."""
        unpacker = self._unpack_cache.get(code)
        if unpacker is None:
            return ExtType(code, data)
        return unpacker(data)

"""msgpack and the translation tables, beside aiozmq's packer."""

import datetime
import pickle
import tracemalloc
from functools import partial
from unittest import mock
from zoneinfo import ZoneInfo

import msgpack
import pytest
from msgpack import ExtType

from aiozmq_speedups.rpc import packer as our_packer

dumps = partial(pickle.dumps, protocol=pickle.HIGHEST_PROTOCOL)

TIMES = [
    datetime.date(2014, 3, 25),
    datetime.date.min,
    datetime.date.max,
    datetime.datetime(2014, 3, 25, 15, 18, 1, 999999),
    datetime.datetime(2014, 3, 25, 15, tzinfo=datetime.UTC),
    datetime.datetime(2014, 10, 26, 2, tzinfo=ZoneInfo("Europe/Kyiv"), fold=1),
    datetime.time(15, 51),
    datetime.time(15, 51, 1, 2, tzinfo=datetime.UTC, fold=1),
    datetime.timedelta(days=1, hours=2, minutes=3, seconds=4),
    datetime.timedelta.min,
    datetime.timedelta.max,
    datetime.UTC,
    datetime.timezone(datetime.timedelta(hours=-3, microseconds=1)),
    datetime.timezone(datetime.timedelta(hours=5, minutes=30), "IST"),
    ZoneInfo("America/New_York"),
]


class Point:
    def __init__(self, x, y):
        self.x = x
        self.y = y

    def __eq__(self, other):
        return (self.x, self.y) == (other.x, other.y)

    __hash__ = None


POINTS = {
    0: (
        Point,
        lambda value: msgpack.packb((value.x, value.y)),
        lambda binary: Point(*msgpack.unpackb(binary)),
    ),
}


@pytest.fixture(params=["aiozmq", "aiozmq_speedups"])
def packers(request):
    """The class of each package."""
    if request.param == "aiozmq":
        pytest.importorskip("aiozmq.core", exc_type=ImportError)
        return pytest.importorskip("aiozmq.rpc.packer")._Packer
    return our_packer._Packer


def test_plain_values(packers):
    packer = packers()
    for value in (None, True, 5, -1, 1.5, "ü", b"\xff", (), (1, (2,)), {"a": (1,)}):
        assert packer.packb(value) == msgpack.packb(value)
        assert packer.unpackb(packer.packb(value)) == value
    assert packer.packb([1, [2]]) == packer.packb((1, (2,)))
    assert packer.unpackb(packer.packb([1, [2]])) == (1, (2,))


@pytest.mark.parametrize("value", TIMES, ids=repr)
def test_predefined_translators(packers, value):
    packer = packers()
    packed = packer.packb([value, {"k": value}])
    assert packer.unpackb(packed) == (value, {"k": value})
    ext = msgpack.unpackb(packed)[0]
    assert ext.data == dumps(value)
    classes = {
        datetime.datetime: 126,
        datetime.date: 127,
        datetime.time: 125,
        datetime.timedelta: 124,
    }
    assert ext.code == classes.get(type(value), 123)


def test_translation_table(packers):
    packer = packers(translation_table=POINTS)
    point = Point(1, (2,))
    assert packer.ext_type_pack_hook(point) == ExtType(0, msgpack.packb((1, (2,))))
    assert packer.unpackb(packer.packb({"p": Point(1, 2)})) == {"p": Point(1, 2)}
    # The predefined ones are there too.
    assert packer.unpackb(packer.packb(TIMES[0])) == TIMES[0]


def test_overridden_translator(packers):
    table = {125: POINTS[0]}
    packer = packers(translation_table=table)
    assert packer.unpackb(packer.packb(Point(1, 2))) == Point(1, 2)
    with pytest.raises(TypeError, match="Unknown type: "):
        packer.packb(datetime.time(1))


def test_order_of_translators(packers):
    class A:
        pass

    class B(A):
        pass

    class C(A):
        pass

    class D(B):
        pass

    table = {
        1: (A, lambda value: b"a", lambda data: "A"),
        2: (B, lambda value: b"b", lambda data: "B"),
    }
    packer = packers(translation_table=table)
    for _ in range(2):
        # A class of the table itself is found first, then in ascending order.
        assert packer.packb(A()) == packer.packb(ExtType(1, b"a"))
        assert packer.packb(B()) == packer.packb(ExtType(2, b"b"))
        assert packer.packb(C()) == packer.packb(ExtType(1, b"a"))
        assert packer.packb(D()) == packer.packb(ExtType(1, b"a"))


def test_unknown_types(packers):
    packer = packers()
    for _ in range(2):
        with pytest.raises(TypeError, match="Unknown type: "):
            packer.packb([1, packer])
        # The packer is usable after that.
        assert packer.packb([1]) == b"\x91\x01"
    assert packer.unpackb(packer.packb(ExtType(1, b"x"))) == ExtType(1, b"x")
    with pytest.raises((ValueError, pickle.UnpicklingError)):
        packer.ext_type_unpack_hook(127, b"bad data")


def test_exceptions_of_translators(packers):
    table = {
        0: (Point, mock.Mock(side_effect=OSError("pack")), None),
        1: (A := type("A", (), {}), lambda a: b"", mock.Mock(side_effect=OSError)),
    }
    packer = packers(translation_table=table)
    with pytest.raises(OSError, match="pack"):
        packer.packb(Point(1, 2))
    with pytest.raises(OSError):
        packer.unpackb(packer.packb(A()))
    assert packer.packb(1) == b"\x01"


# -- What aiozmq does not do --


def test_key_error_of_an_unpacker_passes():
    table = {0: (Point, lambda point: b"", lambda data: {}["missing"])}
    packer = our_packer._Packer(translation_table=table)
    with pytest.raises(KeyError, match="missing"):
        packer.unpackb(packer.packb(Point(1, 2)))


def test_translator_may_use_the_packer():
    packer = our_packer._Packer(
        translation_table={
            0: (
                Point,
                lambda point: packer.packb((point.x, point.y)),
                lambda data: Point(*packer.unpackb(data)),
            )
        }
    )
    value = (Point(1, Point(Point(2, 3), "x" * 1000)), Point("y", 5), "end")
    assert packer.unpackb(packer.packb(value)) == value


def test_table_is_copied():
    table = dict(POINTS)
    packer = our_packer._Packer(translation_table=table)
    table.clear()
    assert packer.unpackb(packer.packb(Point(1, 2))) == Point(1, 2)


def test_keys_of_any_type():
    packer = our_packer._Packer()
    value = {(1, 2): "a", 5: "b", None: "c", "s": {1.5: "d"}, b"b": {(): {}}}
    assert packer.unpackb(packer.packb(value)) == value
    many = dict.fromkeys(range(our_packer.ODD_KEYS_MAP_LEN + 1))
    with pytest.raises(ValueError, match="max_map_len"):
        packer.unpackb(packer.packb(many))
    for bad in (b"\x81\x80\x01", b"\x81\x91\x80\x01"):  # {{}: 1}, {({},): 1}
        with pytest.raises((TypeError, ValueError)):
            packer.unpackb(bad)


def test_many_classes_do_not_fill_the_memory():
    packer = our_packer._Packer(translation_table=POINTS)
    for _ in range(our_packer._MAX_CACHED_CLASSES + 10):
        with pytest.raises(TypeError):
            packer.ext_type_pack_hook(type("Other", (), {})())
    assert len(packer._pack_cache) < 100
    assert packer.unpackb(packer.packb(Point(1, 2))) == Point(1, 2)


def test_large_values():
    packer = our_packer._Packer()
    for value in (
        tuple(range(100_000)),
        (tuple(range(10_000)),) * 3,
        dict.fromkeys(map(str, range(100_000))),
        b"x" * 10_000_000,
    ):
        assert packer.unpackb(packer.packb(value)) == value
    packer.trim()
    assert packer.packb(1) == b"\x01"


@pytest.mark.parametrize(
    "bomb",
    [
        b"\xdd\x00\x10\x00\x00" * 300_000,  # arrays of 1 M items, nested
        b"\xdd\x00\x00\x10\x00" * 300_000,  # of 4096
        b"\xdd\x00\x00\x10\x00" * 1000,
        b"\xdf\x00\x10\x00\x00" * 300_000,  # maps
        b"\x91" * 1_000_000 + b"\xc0",  # nested one in another
        b"\x81" * 1_000_000,
        b"\x91" * 1_000_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",  # bin
        b"\xdb\xff\xff\xff\xff",  # str
        b"\xc9\xff\xff\xff\xff\x7f",  # ext
    ],
    ids=lambda bomb: f"{bomb[:6].hex()}-{len(bomb)}",
)
def test_bombs(bomb):
    """A few bytes do not claim more memory than they have some right to."""
    packer = our_packer._Packer()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            packer.unpackb(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20


def test_every_truncation_is_refused():
    packer = our_packer._Packer()
    packed = packer.packb(({"a": (1.5, "text", b"bin", 2**40)}, TIMES[0], None))
    for end in range(len(packed)):
        with pytest.raises(ValueError):
            packer.unpackb(packed[:end])
    with pytest.raises(ValueError):
        packer.unpackb(packed + b"\xc0")

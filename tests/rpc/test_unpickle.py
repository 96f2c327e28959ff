"""Pickles of datetime objects are read, and nothing else."""

import builtins
import datetime
import os
import pickle
import random
import subprocess
import tracemalloc
import zoneinfo

import msgpack
import pytest

from aiozmq_speedups.rpc import _unpickle
from aiozmq_speedups.rpc._unpickle import loads
from aiozmq_speedups.rpc.packer import _Packer

PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)


def random_values(count):
    rnd = random.Random(5)
    zones = [
        None,
        datetime.UTC,
        datetime.timezone(datetime.timedelta(hours=-5), "EST"),
        zoneinfo.ZoneInfo("Europe/Berlin"),
    ]
    for _ in range(count):
        moment = datetime.datetime.fromordinal(rnd.randrange(1, 3652059)).replace(
            hour=rnd.randrange(24),
            minute=rnd.randrange(60),
            second=rnd.randrange(60),
            microsecond=rnd.randrange(1_000_000),
            tzinfo=rnd.choice(zones),
            fold=rnd.randrange(2),
        )
        yield moment
        yield moment.date()
        yield moment.timetz()
        yield datetime.timedelta(
            rnd.randrange(-999999999, 10**9), rnd.randrange(86400), rnd.randrange(10**6)
        )
        yield datetime.timezone(datetime.timedelta(minutes=rnd.randrange(-1439, 1440)))
    yield from (zoneinfo.ZoneInfo("UTC"), zoneinfo.ZoneInfo.no_cache("Asia/Tokyo"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_reads_what_pickle_writes(protocol):
    for value in random_values(200):
        # In C and in Python: they differ in their use of the memo.
        for dumps in (pickle.dumps, pickle._dumps):
            data = dumps(value, protocol)
            read = loads(data)
            expected = pickle.loads(data)
            assert type(read) is type(value)
            if isinstance(value, zoneinfo.ZoneInfo):
                assert read.key == expected.key
                continue
            assert read == expected == value
            if isinstance(value, (datetime.datetime, datetime.time)):
                assert read.fold == expected.fold  # lost before protocol 4
                assert str(read.tzinfo) == str(value.tzinfo)


def test_cached_zones_are_the_same_object():
    zone = zoneinfo.ZoneInfo("Europe/Berlin")
    assert loads(pickle.dumps(zone)) is zone
    assert loads(pickle.dumps(zoneinfo.ZoneInfo.no_cache("Europe/Berlin"))) is not zone


def test_plain_tzinfo():
    assert type(loads(pickle.dumps(datetime.tzinfo()))) is datetime.tzinfo


class Evil:
    def __init__(self, func, *args):
        self.reduced = (func, args)

    def __reduce__(self):
        return self.reduced


ran = []


def run_me(*args):
    ran.append(args)
    return datetime.date(2020, 1, 1)


class SubDate(datetime.date):
    pass


class Zone(datetime.tzinfo):
    pass


EVIL = [
    Evil(run_me),
    Evil(os.system, "true"),
    Evil(subprocess.Popen, ["true"]),
    Evil(eval, "1"),
    Evil(builtins.__import__, "antigravity"),
    Evil(getattr, datetime.date, "today"),
    Evil(getattr, zoneinfo.ZoneInfo, "clear_cache"),
    Evil(getattr, zoneinfo.ZoneInfo, "__init_subclass__"),
    Evil(zoneinfo.ZoneInfo, "UTC"),
    Evil(zoneinfo.ZoneInfo._unpickle, "../../../../etc/passwd", True),
    Evil(zoneinfo.ZoneInfo._unpickle, "/etc/passwd", True),
    Evil(zoneinfo.ZoneInfo._unpickle, b"UTC", True),
    Evil(zoneinfo.ZoneInfo._unpickle, "No/Where", False),
    Evil(bytearray, 10**9),
    Evil(datetime.date.fromtimestamp, 0),
    Evil(datetime.timedelta, "many"),
    Evil(datetime.timedelta, 10**10),
    Evil(datetime.date, b"\xff\xff\xff\xff"),
    Evil(datetime.datetime, 1, 1, 1, 0, 0, 0, 0, 5),
    SubDate(2020, 1, 1),
    Zone(),
    [],
    {},
    5,
    "text",
    b"bytes",
    None,
    (),
    (datetime.date(2020, 1, 1),),
    {datetime.date(2020, 1, 1)},
    datetime.date,
    os.system,
]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("evil", EVIL, ids=lambda e: str(getattr(e, "reduced", e)))
def test_refuses_everything_else(evil, protocol):
    data = pickle.dumps(evil, protocol)
    with pytest.raises(ValueError):
        loads(data)
    for code in range(123, 128):
        packed = msgpack.packb([msgpack.ExtType(code, data)])
        with pytest.raises(ValueError):
            _Packer().unpackb(packed)
    assert not ran


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b"\x80",
        b"\x80\x06N.",
        b"\x80\x00N.",
        b"N.",
        b"\x80\x05\x8c\xff",
        b"X\xff\xff\xff\xff.",
        b"C\xff.",
        b"cdatetime\n",
        b"cdatetime\ndate",
        b"cos\nsystem\n.",
        b"c\xff\n\xff\n.",
        b"h\x00.",
        b"j\xff\xff\xff\xff.",
        b"R.",
        b"\x87.",
        b"\x93.",
        b"NN\x93.",
        b"\x95\xff\xff\xff\xff\xff\xff\xff\xff.",
        b"cdatetime\ndate\nNR.",
        b"cdatetime\ndate\n(lR.",
        b"cdatetime\ndate\nK\x01K\x01K\x01\x87RN.",
        b"cdatetime\ndate\nK\x01K\x01K\x01\x87R",
        b"cdatetime\ndate\n\x81.",
        b"P1\n.",
        b"B\xff\xff\xff\x7f",
        b"\x96\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"r\xff\xff\xff\x7f",
        b"Nr\xff\xff\xff\x7f0.",
    ],
)
def test_malformed(data):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            loads(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_long_pickles_are_refused():
    zone = datetime.timezone(datetime.timedelta(0), "x" * 2000)
    with pytest.raises(ValueError, match="too long"):
        loads(pickle.dumps(zone))


@pytest.mark.parametrize(
    "tail",
    [
        b")R.",  # called
        b"\x8c\x01a\x93.",  # the name of a global's module
        b"\x8c\x08datetimeh\x40\x93.",  # its name
        b"cdatetime\ndate\nh\x40\x85R.",
        b"cdatetime\ntimezone\nh\x40\x85R.",
        b"cdatetime\ndatetime\nh\x40h\x40\x86R.",
        b"cbuiltins\ngetattr\nh\x40h\x40\x86R.",
        b"cbuiltins\ngetattr\nczoneinfo\nZoneInfo\nh\x40\x86R.",
        b"cbuiltins\ngetattr\nczoneinfo\nZoneInfo\n\x8c\x09_unpickle\x86Rh\x40h\x40\x86R.",
        b"c_codecs\nencode\nh\x40h\x40\x86R.",
        b".",
    ],
)
def test_tuples_of_the_same_tuples(tail):
    """A pair of a pair of ... 200 levels deep has 2**200 leaves."""
    data = b"\x80\x05N\x94" + b"".join(b"h%c\x86\x94" % i for i in range(200))
    with pytest.raises(ValueError) as info:
        loads(data + tail)
    assert len(str(info.value)) < 1000


@pytest.mark.parametrize(
    ("value", "state"),
    [
        (datetime.date(2000, 1, 1), b"\x00\x00\x01\x01"),
        (datetime.date(2000, 1, 1), b"\xff\xff\x01\x01"),
        (datetime.date(2000, 1, 1), b"\x07\xd0\x02\x1e"),
        (datetime.date(2000, 1, 1), b"\x07\xd0\x01\x00"),
        (datetime.datetime(2000, 1, 1), b"\x00\x00\x01\x01\0\0\0\0\0\0"),
        (datetime.datetime(2000, 1, 1), b"\x07\xd0\x01\x01\xff\0\0\0\0\0"),
        (datetime.datetime(2000, 1, 1), b"\x07\xd0\x01\x01\0\xff\0\0\0\0"),
        (datetime.datetime(2000, 1, 1), b"\x07\xd0\x01\x01\0\0\0\xff\xff\xff"),
        (datetime.time(1), b"\x01\xff\0\0\0\0"),
        (datetime.time(1), b"\x01\0\xff\0\0\0"),
        (datetime.time(1), b"\x01\0\0\xff\xff\xff"),
    ],
)
def test_fields_out_of_range(value, state):
    """The constructors take them; CPython's date.ctime() then reads out of bounds."""
    data = pickle.dumps(value, 4)
    valid = value.__reduce_ex__(4)[1][0]
    assert valid in data and len(valid) == len(state)
    with pytest.raises(ValueError):
        loads(data.replace(valid, state))


def test_mutations():
    """Broken pickles give a datetime object or ValueError."""
    rnd = random.Random(3)
    allowed = (datetime.date, datetime.time, datetime.timedelta, datetime.tzinfo)
    for value in random_values(40):
        for protocol in PROTOCOLS:
            data = bytearray(pickle.dumps(value, protocol))
            for _ in range(30):
                broken = bytearray(data)
                for _ in range(rnd.randrange(1, 4)):
                    broken[rnd.randrange(len(broken))] = rnd.randrange(256)
                if rnd.random() < 0.2:
                    del broken[rnd.randrange(len(broken)) :]
                try:
                    result = loads(bytes(broken))
                except ValueError:
                    continue
                assert isinstance(result, allowed)
                if isinstance(result, datetime.date):
                    assert result.ctime()


def test_pickle_is_not_imported():
    assert "pickle" not in vars(_unpickle)

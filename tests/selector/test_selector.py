"""EpollSelector and ZmqSelector beside selectors.EpollSelector."""

import asyncio
import collections.abc
import enum
import errno
import gc
import os
import selectors
import socket
import weakref
from selectors import EVENT_READ, EVENT_WRITE

import pytest
from selector_cases import Fileno, c_only

from aiozmq_speedups import _ext
from aiozmq_speedups.selector import EpollSelector, ZmqSelector

# ---- arguments and errors


def test_is_a_base_selector():
    assert issubclass(EpollSelector, selectors.BaseSelector)
    with EpollSelector() as s, ZmqSelector() as z:
        assert isinstance(s, selectors.BaseSelector)
        assert isinstance(z, selectors.BaseSelector)


def test_register_returns_the_key(selector, pair):
    key = selector.register(pair[0], EVENT_READ, "data")
    assert type(key) is selectors.SelectorKey
    assert key == (pair[0], pair[0].fileno(), EVENT_READ, "data")
    assert key._replace(data=1).data == 1
    assert selector.get_key(pair[0]) is key
    assert selector.get_key(pair[0].fileno()) is key
    assert selector.unregister(pair[0]) == key


def test_keyword_arguments(selector, pair):
    key = selector.register(fileobj=pair[0], data=1, events=EVENT_WRITE)
    assert key == (pair[0], pair[0].fileno(), EVENT_WRITE, 1)
    assert selector.select(timeout=0) == [(key, EVENT_WRITE)]
    key = selector.modify(pair[0], events=EVENT_READ)
    assert key == (pair[0], pair[0].fileno(), EVENT_READ, None)
    assert selector.get_key(fileobj=pair[0]) == key
    assert selector.unregister(fileobj=pair[0]) == key


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.register(),
        lambda s: s.register(0),
        lambda s: s.register(0, 1, 2, 3),
        lambda s: s.register(0, 1, events=1),
        lambda s: s.register(0, nothing=1),
        lambda s: s.modify(0),
        lambda s: s.unregister(),
        lambda s: s.unregister(0, 1),
        lambda s: s.get_key(),
        lambda s: s.select(0, 1),
        lambda s: s.select("now"),
        lambda s: s.close(1),
        lambda s: s.get_map(1),
        lambda s: type(s)(1),
        lambda s: type(s)(x=1),
    ],
)
def test_wrong_calls(selector, call):
    with pytest.raises(TypeError):
        call(selector)


@pytest.mark.parametrize(
    "events", [0, 4, 999999, -1, 2**70, -(2**70), None, "", 0.0, "r", 1.0]
)
def test_invalid_events(selector, pair, events):
    error = TypeError if events in ("r", 1.0) else ValueError
    with pytest.raises(error) as caught:
        selector.register(pair[0], events)
    if error is ValueError:
        assert str(caught.value) == f"Invalid events: {events!r}"
    assert len(selector.get_map()) == 0


class Events(enum.IntFlag):
    R = 1
    W = 2


def test_events_may_be_flags_and_bools(selector, pair):
    key = selector.register(pair[1], Events.R | Events.W)
    assert key.events is Events.R | Events.W
    assert selector.select(0) == [(key, EVENT_WRITE)]
    assert selector.modify(pair[1], True).events is True
    assert selector.select(0) == []


@pytest.mark.parametrize("fileobj", ["abc", None, 1.5, object(), Fileno(lambda: "x")])
def test_invalid_file_object(selector, fileobj):
    message = f"Invalid file object: {fileobj!r}"
    for call in (
        lambda: selector.register(fileobj, EVENT_READ),
        lambda: selector.modify(fileobj, EVENT_READ),
        lambda: selector.unregister(fileobj),
        lambda: selector.get_key(fileobj),
        lambda: selector.get_map()[fileobj],
        lambda: selector.get_map().get(fileobj),
        lambda: fileobj in selector.get_map(),
    ):
        with pytest.raises(ValueError) as caught:
            call()
        assert str(caught.value) == message


@pytest.mark.parametrize("fd", [-1, -10, -(2**70)])
def test_invalid_descriptor(selector, fd):
    for fileobj in (fd, Fileno(lambda: fd)):
        with pytest.raises(ValueError) as caught:
            selector.register(fileobj, EVENT_READ)
        assert str(caught.value) == f"Invalid file descriptor: {fd}"


@pytest.mark.parametrize("fd", [2**31, 2**63, 2**100])
def test_descriptor_too_large(epoll, fd):
    with pytest.raises(OverflowError):
        epoll.register(fd, EVENT_READ)
    with pytest.raises(KeyError):
        epoll.unregister(fd)
    assert epoll.get_map().get(fd) is None
    assert len(epoll.get_map()) == 0


def test_not_registered(selector, pair):
    for fileobj in (pair[0], 999999):
        for call in (
            lambda f: selector.modify(f, EVENT_READ),
            lambda f: selector.unregister(f),
            lambda f: selector.get_key(f),
            lambda f: selector.get_map()[f],
        ):
            with pytest.raises(KeyError) as caught:
                call(fileobj)
            assert caught.value.args == (f"{fileobj!r} is not registered",)


def test_registered_twice(selector, pair):
    fd = pair[0].fileno()
    selector.register(pair[0], EVENT_READ)
    for fileobj in (pair[0], fd):
        with pytest.raises(KeyError) as caught:
            selector.register(fileobj, EVENT_WRITE)
        message = f"{fileobj!r} (FD {fd}) is already registered"
        assert caught.value.args == (message,)
    assert selector.get_key(fd).events == EVENT_READ


def test_fileno_is_converted_as_int_does(epoll, pair):
    fd = pair[0].fileno()
    for value in (str(fd), fd + 0.5):
        fileobj = Fileno(lambda value=value: value)
        assert epoll.register(fileobj, EVENT_READ) == (fileobj, fd, EVENT_READ, None)
        assert epoll.unregister(fd).fileobj is fileobj


def test_descriptor_of_an_int_subclass(epoll, pair):
    class Fd(int):
        def __hash__(self):
            raise ZeroDivisionError

        __eq__ = None

    fd = Fd(pair[0].fileno())
    if type(epoll) is selectors.EpollSelector:
        with pytest.raises(ZeroDivisionError):
            epoll.register(fd, EVENT_READ)
    else:  # no look-up runs Python code
        assert epoll.register(fd, EVENT_READ).fd is fd
        assert list(epoll.get_map()) == [pair[0].fileno()]
        epoll.unregister(fd)


def test_bad_descriptor(epoll):
    a, b = socket.socketpair()
    fd = a.fileno()
    a.close()
    b.close()
    with pytest.raises(OSError) as caught:
        epoll.register(fd, EVENT_READ)
    assert caught.value.errno == errno.EBADF
    assert len(epoll.get_map()) == 0


def test_regular_file(epoll, tmp_path):
    with open(tmp_path / "file", "w") as f:
        with pytest.raises(PermissionError):
            epoll.register(f, EVENT_WRITE)
        with pytest.raises(KeyError):
            epoll.get_key(f)


# ---- the mapping


def test_map_is_a_live_mapping(selector, pair):
    keys = selector.get_map()
    assert isinstance(keys, collections.abc.Mapping)
    assert not keys and len(keys) == 0 and list(keys) == []
    assert keys.get(pair[0]) is None and keys.get(pair[0], 1) == 1
    write = selector.register(pair[1], EVENT_WRITE)
    read = selector.register(pair[0], EVENT_READ)
    assert len(keys) == 2 and pair[0] in keys and 999999 not in keys
    assert list(keys) == [pair[1].fileno(), pair[0].fileno()]
    assert list(keys.keys()) == list(keys)
    assert list(keys.values()) == [write, read]
    assert list(keys.items()) == [(write.fd, write), (read.fd, read)]
    assert keys == {write.fd: write, read.fd: read} and keys != {}
    assert keys[pair[0]] is keys.get(read.fd) is read
    assert selector.get_map() is keys
    with pytest.raises(TypeError):
        del keys[pair[0]]
    with pytest.raises(TypeError):
        keys[pair[0]] = read
    with pytest.raises(TypeError):
        hash(keys)
    with pytest.raises(TypeError):
        reversed(keys)
    with pytest.raises(RuntimeError, match="changed size"):
        for _ in keys:
            selector.unregister(pair[0])


def test_map_outlives_the_selector(pair):
    s = EpollSelector()
    keys = s.get_map()
    key = s.register(pair[0], EVENT_READ)
    gone = weakref.ref(s)
    del s
    if _ext.core is not None:
        assert gone() is None
    assert list(keys.values()) == [key]


# ---- modify


def test_modify_events_and_data(selector, pair):
    first = selector.register(pair[1], EVENT_READ, "a")
    assert selector.select(0) == []
    second = selector.modify(pair[1], EVENT_WRITE, "b")
    assert second == (pair[1], pair[1].fileno(), EVENT_WRITE, "b")
    assert selector.get_key(pair[1]) is second
    assert selector.select(0) == [(second, EVENT_WRITE)]
    third = selector.modify(pair[1], EVENT_WRITE, "c")
    assert selector.select(0) == [(third, EVENT_WRITE)]
    assert selector.modify(pair[1], EVENT_WRITE, "c") is third
    assert selector.modify(pair[1].fileno(), EVENT_READ).fileobj is pair[1]
    assert first.data == "a"


def test_modify_to_no_events(epoll, pair):
    epoll.register(pair[1], EVENT_WRITE)
    key = epoll.modify(pair[1], 0)
    assert key.events == 0 and epoll.select(0) == []
    assert epoll.get_key(pair[1]) is key


def test_modify_unregisters_what_epoll_refuses(epoll):
    a, b = socket.socketpair()
    with b:
        key = epoll.register(a, EVENT_READ)
        a.close()
        with pytest.raises(OSError) as caught:
            epoll.modify(a, EVENT_WRITE)
        assert caught.value.errno == errno.EBADF
        assert key.fd not in epoll.get_map()


def test_modify_needs_int_events(epoll, pair):
    epoll.register(pair[0], EVENT_READ)
    with pytest.raises(TypeError):
        epoll.modify(pair[0], "r")
    assert epoll.get_key(pair[0]).events == EVENT_READ


# ---- select


def test_reads_and_writes(selector, pair):
    read = selector.register(pair[0], EVENT_READ | EVENT_WRITE)
    assert selector.select(0) == [(read, EVENT_WRITE)]
    pair[1].send(b"x")
    assert selector.select() == [(read, EVENT_READ | EVENT_WRITE)]
    assert selector.select(-1) == [(read, EVENT_READ | EVENT_WRITE)]
    pair[0].recv(1)
    assert selector.select(0) == [(read, EVENT_WRITE)]


def test_hang_up_wakes_only_those_who_asked(selector):
    a, b = socket.socketpair()
    with a:
        b.close()
        for events in (EVENT_READ, EVENT_WRITE, EVENT_READ | EVENT_WRITE):
            key = selector.register(a, events)
            assert selector.select() == [(key, events)]
            selector.unregister(a)


def test_more_than_one_buffer_of_events(selector):
    with_all = [socket.socketpair() for _ in range(100)]
    try:
        keys = [selector.register(a, EVENT_WRITE) for a, _ in with_all]
        assert sorted(selector.select(0), key=lambda r: r[0].fd) == [
            (key, EVENT_WRITE) for key in sorted(keys, key=lambda k: k.fd)
        ]
    finally:
        for a, b in with_all:
            a.close()
            b.close()


@pytest.mark.parametrize("timeout", [0, -1, -0.5, 0.0, False, 1e-9, 0.001, 1e-300])
def test_short_timeouts(selector, pair, timeout):
    selector.register(pair[0], EVENT_READ)
    assert selector.select(timeout) == []


def test_never_returns_early(selector, pair):
    selector.register(pair[0], EVENT_READ)
    clock = asyncio.new_event_loop()
    for timeout in (0.0001, 0.0015, 0.01):
        end = clock.time() + timeout
        assert selector.select(timeout) == []
        assert clock.time() >= end
    clock.close()


@pytest.mark.parametrize(
    "timeout, error",
    [
        (float("nan"), ValueError),
        (float("inf"), OverflowError),
        (1e300, OverflowError),
        (10**400, OverflowError),
        (2147484.0, OverflowError),
    ],
)
def test_impossible_timeouts(epoll, pair, timeout, error):
    epoll.register(pair[1], EVENT_WRITE)
    with pytest.raises(error):
        epoll.select(timeout)


def test_long_timeout(selector, pair):
    key = selector.register(pair[1], EVENT_WRITE)
    assert selector.select(2147483) == [(key, EVENT_WRITE)]


def test_closed_descriptor_is_forgotten(epoll, pair):
    a, b = socket.socketpair()
    with b:
        key = epoll.register(a, EVENT_WRITE)
        a.close()
        assert epoll.select(0) == []
        # by the object, whose fileno() is -1 now
        assert epoll.get_key(a) is key and epoll.get_map().get(a) is key
        assert epoll.unregister(a) is key
        with pytest.raises(ValueError):
            epoll.unregister(a)


def test_descriptor_closed_and_used_again(selector):
    a, b = socket.socketpair()
    c, d = socket.socketpair()
    fd = a.fileno()
    selector.register(fd, EVENT_WRITE)
    a.close()
    os.dup2(c.fileno(), fd)
    selector.unregister(fd)
    key = selector.register(fd, EVENT_WRITE)
    assert selector.select(0) == [(key, EVENT_WRITE)]
    selector.unregister(fd)
    os.close(fd)
    for s in (b, c, d):
        s.close()


# ---- close


def test_close_is_idempotent(epoll, pair):
    keys = epoll.get_map()
    epoll.register(pair[0], EVENT_READ)
    fd = epoll.fileno()
    os.fstat(fd)
    epoll.close()
    epoll.close()
    with pytest.raises(OSError):
        os.fstat(fd)
    assert epoll.get_map() is None and len(keys) == 0
    assert keys.get(pair[0]) is None
    closed = "I/O operation on closed epoll object"
    for call, error, message in (
        (lambda: epoll.register(pair[0], EVENT_READ), ValueError, closed),
        (lambda: epoll.select(0), ValueError, closed),
        (lambda: epoll.select(), ValueError, closed),
        (lambda: epoll.fileno(), ValueError, closed),
        (lambda: epoll.get_key(pair[0]), RuntimeError, "Selector is closed"),
        (lambda: epoll.unregister(pair[0]), KeyError, "is not registered"),
        (lambda: epoll.modify(pair[0], EVENT_READ), KeyError, "is not registered"),
        (lambda: keys[pair[0]], KeyError, "is not registered"),
    ):
        with pytest.raises(error, match=message):
            call()


def test_exit_calls_the_subclass_close(pair):
    closed = []

    class Sub(EpollSelector):
        def __init__(self, arg):
            super().__init__()
            self.arg = arg

        def close(self):
            closed.append(self.arg)
            super().close()

    with Sub("x") as s:
        s.register(pair[0], EVENT_READ, s)
        weakref.ref(s)
    assert closed == ["x"] and s.get_map() is None


def test_attributes_may_be_set():
    with EpollSelector() as s:
        s.register = lambda *args: args
        assert s.register(1, 2) == (1, 2)
        assert vars(s)["register"]


def test_descriptor_is_not_inherited(epoll):
    assert not os.get_inheritable(epoll.fileno())


@c_only
def test_garbage_cycle_is_collected(pair):
    s = EpollSelector()
    fd = s.fileno()
    s.register(pair[0], EVENT_READ, s)
    s.me = s
    s.register(pair[1], EVENT_WRITE, s.get_map())
    assert s.select(0)
    del s
    gc.collect()
    with pytest.raises(OSError):
        os.fstat(fd)

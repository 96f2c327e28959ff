"""add_reader(), add_writer() and what ends them, beside asyncio's."""

import asyncio
from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.loops("speedups", "asyncio")


def turns(loop, count=5):
    for _ in range(count):
        loop.call_soon(loop.stop)
        loop.run_forever()


@pytest.mark.parametrize("side", ["reader", "writer"])
def test_an_object_that_is_closed_by_now(loop, pair, side):
    """It is found by itself: the registration ends, and its number is free."""
    sock, _ = pair
    add, remove = getattr(loop, f"add_{side}"), getattr(loop, f"remove_{side}")
    add(sock, print)
    sock.close()
    assert remove(sock) is True
    with pytest.raises(ValueError):
        remove(sock)


def test_both_sides_of_an_object_that_is_closed(loop, pair):
    if isinstance(loop, asyncio.SelectorEventLoop) and not hasattr(loop, "stats"):
        pytest.skip("epoll_ctl(2) fails in asyncio's selector")
    sock, _ = pair
    loop.add_reader(sock, print)
    loop.add_writer(sock, print)
    sock.close()
    assert loop.remove_reader(sock) is True
    assert loop.remove_writer(sock) is True


def test_an_object_that_loses_its_descriptor(loop, pair):
    """A serial port, say, whose fileno() fails once it is closed."""
    sock, _ = pair
    port = SimpleNamespace(fileno=sock.fileno)
    called = []
    loop.add_reader(port, called.append, 1)
    port.fileno = lambda: -1
    assert loop.remove_reader(port) is True
    pair[1].send(b"x")
    turns(loop)
    assert not called


def test_what_was_never_there(loop, pair):
    sock, _ = pair
    assert loop.remove_reader(sock) is False
    sock.close()
    with pytest.raises(ValueError):
        loop.remove_reader(sock)
    with pytest.raises(ValueError):
        loop.remove_reader(-1)


def test_an_object_is_kept_as_long_as_it_is_watched(loop, pair):
    sock, _ = pair

    class File:
        def fileno(self):
            return sock.fileno()

        def __del__(self):
            gone.append(1)

    gone = []
    loop.add_reader(File(), print)
    assert not gone
    assert loop.remove_reader(sock.fileno()) is True
    assert gone


@pytest.mark.parametrize("side", ["reader", "writer"])
def test_a_handle_that_is_cancelled_by_itself(loop, pair, side):
    """It watches no more once its descriptor is ready."""
    a, b = pair
    called = []
    handle = getattr(loop, f"_add_{side}")(a, called.append, 1)
    b.send(b"x")
    handle.cancel()
    turns(loop)
    assert not called
    assert getattr(loop, f"remove_{side}")(a) is False

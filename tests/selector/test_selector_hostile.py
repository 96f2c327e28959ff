"""Selectors under callbacks, signals and threads that pull the rug away."""

import gc
import os
import selectors
import signal
import socket
import sys
import threading
import time
from selectors import EVENT_READ, EVENT_WRITE

import pytest
from selector_cases import Fileno, c_only

from aiozmq_speedups import _ext
from aiozmq_speedups.selector import EpollSelector

# ---- hostile file objects and data


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError,
        KeyError,
        OSError,
        KeyboardInterrupt,
        SystemExit,
        GeneratorExit,
    ],
)
def test_what_fileno_raises_goes_through(selector, error):
    def fileno():
        raise error

    fileobj = Fileno(fileno)
    for call in (
        lambda: selector.register(fileobj, EVENT_READ),
        lambda: selector.unregister(fileobj),
        lambda: selector.modify(fileobj, EVENT_READ),
        lambda: selector.get_key(fileobj),
    ):
        with pytest.raises(error):
            call()
    assert len(selector.get_map()) == 0


def test_file_object_with_a_hostile_repr(epoll):
    class Evil:
        def fileno(self):
            raise ValueError

        def __repr__(self):
            epoll.close()
            raise ZeroDivisionError

    for call in (epoll.unregister, lambda f: epoll.register(f, EVENT_READ)):
        # PyErr_Format() of 3.11.2 puts its own over what the repr raised
        with pytest.raises((ZeroDivisionError, ValueError)) as caught:
            call(Evil())
        if sys.version_info >= (3, 11, 3):
            assert caught.type is ZeroDivisionError


def test_fileno_closes_the_selector(epoll, pair):
    def fileno():
        epoll.close()
        return pair[0].fileno()

    # the standard one looks the file object up again to take it out
    with pytest.raises((ValueError, KeyError)):
        epoll.register(Fileno(fileno), EVENT_READ)
    assert epoll.get_map() is None


@pytest.mark.parametrize("name", ["unregister", "get_key", "modify"])
@pytest.mark.parametrize("act", ["close", "unregister"])
def test_fileno_takes_its_own_registration_away(epoll, pair, name, act):
    fileobj = Fileno(pair[0].fileno)
    epoll.register(fileobj, EVENT_READ)

    def fileno():
        if act == "close":
            epoll.close()
        elif pair[0] in epoll.get_map():
            epoll.unregister(pair[0])
        return pair[0].fileno()

    fileobj.fileno = fileno
    args = (fileobj, EVENT_WRITE) if name == "modify" else (fileobj,)
    with pytest.raises(KeyError):
        getattr(epoll, name)(*args)


def test_fileno_registers_the_same_descriptor(epoll, pair):
    def fileno():
        if pair[0] not in epoll.get_map():
            epoll.register(pair[0], EVENT_WRITE)
        return pair[0].fileno()

    with pytest.raises(KeyError, match="already registered"):
        epoll.register(Fileno(fileno), EVENT_READ)
    assert epoll.get_key(pair[0]).events == EVENT_WRITE


@pytest.mark.parametrize("act", ["close", "unregister", "register", "raise"])
def test_data_with_a_hostile_comparison(pair, act):
    class Evil:
        def __eq__(self, other):
            if act == "close":
                s.close()
            elif act == "raise":
                raise ZeroDivisionError
            else:
                s.unregister(pair[0])
                if act == "register":
                    s.register(pair[0], EVENT_READ, "new")
            return False

    with EpollSelector() as s:
        s.register(pair[0], EVENT_READ, Evil())
        if act == "register":
            assert s.modify(pair[0], EVENT_WRITE, Evil()).events == EVENT_WRITE
            assert s.get_key(pair[0]).events == EVENT_WRITE
        elif _ext.core is not None or act == "raise":
            with pytest.raises((KeyError, ZeroDivisionError)):
                s.modify(pair[0], EVENT_WRITE, Evil())


@pytest.mark.parametrize("act", ["close", "unregister", "modify", "del"])
def test_data_whose_end_uses_the_selector(epoll, pair, act):
    seen = []

    class Evil:
        def __del__(self):
            seen.append(len(epoll.get_map() or ()))
            epoll.close()

    epoll.register(pair[0], EVENT_READ, Evil())
    epoll.register(pair[1], EVENT_WRITE, Evil())
    epoll.select(0)
    if act == "close":
        epoll.close()
    elif act == "unregister":
        epoll.unregister(pair[0])
    elif act == "modify":
        epoll.modify(pair[0], EVENT_WRITE, "x")
    else:
        epoll.get_key(pair[0])
        gc.collect()
        epoll.close()
    assert len(seen) == 2 and epoll.get_map() is None


def test_collector_unregisters_while_results_are_made(pair):
    """The callback of a weak reference runs in any allocation before 3.12."""

    class Cycle:
        def __init__(self):
            self.me = self

        def __del__(self):
            for key in list((s.get_map() or {}).values()):
                s.unregister(key.fd)

    old = gc.get_threshold()
    with EpollSelector() as s:
        for threshold in range(1, 30):
            for end in pair:
                if end not in s.get_map():
                    s.register(end, EVENT_WRITE, object())
            Cycle()
            gc.set_threshold(threshold)
            try:
                for key, events in s.select(0):
                    assert events == EVENT_WRITE and key.fileobj in pair
            finally:
                gc.set_threshold(*old)


# ---- signals, threads, fork


@pytest.fixture
def on_alarm():
    """Sets the handler of SIGALRM, which comes as soon as the main thread waits."""
    waiting = threading.Event()
    senders = []

    def send(main):
        waiting.wait()
        # until the handler has run: a signal that comes before the wait is lost
        while not done:
            time.sleep(0.001)
            signal.pthread_kill(main, signal.SIGALRM)

    done = []  # no Event: the handler may come while its lock is held

    def install(handler):
        def handle(signum, frame):
            if not done:
                done.append(True)
                handler()

        signal.signal(signal.SIGALRM, handle)
        senders.append(
            threading.Thread(target=send, args=(threading.main_thread().ident,))
        )
        senders[0].start()
        waiting.set()

    old = signal.getsignal(signal.SIGALRM)
    yield install
    done.append(True)
    waiting.set()
    for sender in senders:
        sender.join()
    signal.signal(signal.SIGALRM, old)


def test_signal_handler_that_raises(selector, pair, on_alarm):
    def handler():
        raise ZeroDivisionError

    selector.register(pair[0], EVENT_READ)
    with pytest.raises(ZeroDivisionError):
        on_alarm(handler)
        selector.select()


def test_signal_handler_that_raises_interrupted_error(epoll, pair, on_alarm):
    def handler():
        raise InterruptedError

    epoll.register(pair[0], EVENT_READ)
    try:
        on_alarm(handler)
    except InterruptedError:
        pytest.skip("the signal came before the wait")
    assert epoll.select() == []


def test_select_goes_on_after_a_signal(selector, pair, on_alarm):
    key = selector.register(pair[0], EVENT_READ)
    on_alarm(lambda: pair[1].send(b"x"))
    assert selector.select() == [(key, EVENT_READ)]


def test_select_in_a_signal_handler(selector, pair, on_alarm):
    inner = []
    key = selector.register(pair[0], EVENT_READ)

    def handler():
        inner.append(selector.select(0))
        pair[1].send(b"x")
        inner.append(selector.select())

    on_alarm(handler)
    assert selector.select() == [(key, EVENT_READ)]
    assert inner == [[], [(key, EVENT_READ)]]


def test_signal_handler_closes_the_selector(epoll, pair, on_alarm):
    epoll.register(pair[0], EVENT_READ)
    on_alarm(epoll.close)
    # the standard one calls epoll_wait on fd -1
    with pytest.raises((ValueError, OSError)):
        epoll.select()


def test_other_threads_run_while_it_waits(selector, pair):
    key = selector.register(pair[0], EVENT_READ)
    thread = threading.Thread(target=pair[1].send, args=(b"x",))
    thread.start()
    assert selector.select() == [(key, EVENT_READ)]
    thread.join()


def test_two_threads_select_at_once(epoll, pair):
    key = epoll.register(pair[0], EVENT_READ)
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(epoll.select()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    pair[1].send(b"x")
    for thread in threads:
        thread.join()
    assert results == [[(key, EVENT_READ)]] * 4


def test_thread_changes_the_registrations(epoll, pair):
    key = epoll.register(pair[0], EVENT_READ, "a")
    more = [socket.socketpair() for _ in range(200)]

    def change():
        for a, _ in more:
            epoll.register(a, EVENT_READ)
        for a, _ in more:
            epoll.unregister(a)
        epoll.modify(pair[0], EVENT_READ, "b")
        pair[1].send(b"x")

    thread = threading.Thread(target=change)
    thread.start()
    assert epoll.select() == [(key._replace(data="b"), EVENT_READ)]
    thread.join()
    for a, b in more:
        a.close()
        b.close()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_fork(epoll, pair):
    """The child may end, or close its copy: the parent goes on."""
    key = epoll.register(pair[0], EVENT_READ)
    pid = os.fork()
    if pid == 0:
        try:
            epoll.close()
            with type(epoll)() as s:
                s.register(pair[1], EVENT_WRITE)
                assert s.select(0)
            pair[1].send(b"x")
            os._exit(0)
        finally:
            os._exit(1)
    assert epoll.select() == [(key, EVENT_READ)]
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert epoll.select(0) == [(key, EVENT_READ)]


# ---- leaks


@c_only
def test_nothing_is_left_after_many_rounds(pair):
    def rounds(n):
        for i in range(n):
            with EpollSelector() as s:
                s.register(pair[0], EVENT_READ, i)
                s.register(pair[1], EVENT_WRITE, [i])
                s.select(0)
                s.modify(pair[1], EVENT_READ | EVENT_WRITE, (i,))
                s.select(0)
                s.get_map().get(pair[0])
                for call in (
                    lambda: s.register(pair[0], EVENT_READ),
                    lambda: s.register(-1, EVENT_READ),
                    lambda: s.register("x", EVENT_READ),
                    lambda: s.register(pair[0], 7),
                    lambda: s.modify(pair[0], "x"),
                    lambda: s.unregister(1000),
                    lambda: s.select("x"),
                ):
                    try:
                        call()
                    except (KeyError, ValueError, TypeError):
                        pass
                s.unregister(pair[0])
        gc.collect()

    rounds(10)
    counted = [pair[0], pair[1], selectors.SelectorKey, EpollSelector, None, 1, "x"]
    before = [sys.getrefcount(x) for x in counted], sys.getallocatedblocks()
    rounds(300)
    after = [sys.getrefcount(x) for x in counted], sys.getallocatedblocks()
    for old, new in zip(before[0], after[0], strict=True):
        assert abs(new - old) < 100
    assert after[1] - before[1] < 200


@c_only
def test_seen_by_the_collector_while_it_is_made():
    """Before Python 3.12 a collection may run in any allocation."""

    def look(phase, info):
        for found in gc.get_objects():
            if type(found) is EpollSelector:
                found.close()
            elif type(found).__name__ == "SelectorMap":
                len(found)

    threshold = gc.get_threshold()
    gc.callbacks.append(look)
    gc.set_threshold(1)
    try:
        for _ in range(3):
            EpollSelector().close()
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(look)

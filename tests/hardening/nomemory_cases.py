"""Lets the n-th allocation of an operation fail, for every n; a process per case.

``python nomemory_cases.py CASE``. An operation may raise MemoryError or succeed,
and must leave the loop able to work. Anything else, a crash above all, fails.

The operations are single calls into C: Python frames that run out of memory have
crashes of their own in CPython. One that raises must not even be called by a lambda:
where CPython has no memory for the frame of a traceback, it may lose the exception
(SystemError: error return without exception set, for ``len(1)`` as well).

The first NOMEMORY_ALLOCATIONS (of the environment) are tried in turn.
"""

import collections
import contextvars
import faulthandler
import gc
import os
import socket
import sys
import warnings
from _testcapi import remove_mem_hooks, set_nomemory
from functools import partial
from selectors import EVENT_READ, EVENT_WRITE

from aiozmq_speedups import EpollSelector, Loop

ALLOCATIONS = int(os.environ.get("NOMEMORY_ALLOCATIONS", "40"))
CASES = {}

#: Where an operation keeps what it makes: list.append() takes a reference too many on
#: free-threaded CPython 3.15.1 if it has no memory.
Appendable = collections.deque


def case(function):
    CASES[function.__name__] = function
    return function


def nothing(*args):
    pass


def attempt(operation, first, last, errors):
    """True where `operation` did its work though some allocations failed."""
    sys._getframe()  # makes this frame's object, which a traceback needs
    try:
        set_nomemory(first, last)
        try:
            operation()
        finally:
            remove_mem_hooks()
    except MemoryError:
        return False
    except errors:
        return True
    return not errors


def sweep(operation, *, check=nothing, prepare=nothing, errors=(), bind=None):
    """Fails one allocation, then all from one on, for each of the first.

    `errors` are what the operation raises where it has the memory. `bind`, where
    given, returns the operation once all is prepared.
    """
    done = 0
    for first in range(ALLOCATIONS):
        for last in (first + 1, 0):
            prepare()
            if bind is not None:
                operation = bind()
            done += attempt(operation, first, last, errors)
            check()
    assert done > 0, "it never succeeds: raise ALLOCATIONS"


class Alive:
    """A loop, and that it still runs callbacks in order."""

    def __init__(self):
        self.loop = Loop()
        self.loop.set_exception_handler(nothing)
        self.context = contextvars.copy_context()

    def check(self):
        seen = []
        self.loop.call_soon(seen.append, 1)
        self.loop.call_later(0, seen.append, 2)
        self.loop.call_soon(seen.append, 3)
        for _ in range(1000):
            if len(seen) == 3:
                break
            self.loop._run_once()
        assert seen[0] == 1 and sorted(seen) == [1, 2, 3], seen

    def sweep(self, function, *args, prepare=nothing, errors=(), **kwargs):
        operation = partial(function, *args, **kwargs)
        sweep(operation, check=self.check, prepare=prepare, errors=errors)


def with_loop(function):
    def run():
        alive = Alive()
        function(alive)
        alive.check()
        alive.loop.close()

    CASES[function.__name__] = run
    return run


@with_loop
def call_soon(alive):
    loop = alive.loop
    alive.sweep(loop.call_soon, nothing)
    alive.sweep(loop.call_soon, nothing, 1, 2, 3, 4, 5, 6)
    alive.sweep(loop.call_soon, nothing, 1, context=alive.context)
    alive.sweep(loop.call_soon, errors=TypeError)
    alive.sweep(loop.call_soon, nothing, x=1, errors=TypeError)
    alive.sweep(loop.call_soon, nothing, context=1, errors=TypeError)


@with_loop
def call_later(alive):
    loop = alive.loop
    alive.sweep(loop.call_later, 0, nothing, 1)
    alive.sweep(loop.call_later, 1000, nothing, 1, 2, 3, 4, 5)
    alive.sweep(loop.call_at, loop.time(), nothing)
    alive.sweep(loop.time)
    alive.sweep(loop.call_later, None, nothing, errors=TypeError)


@with_loop
def cancelled_timers(alive):
    loop = alive.loop
    handles = []

    def prepare():
        handles[:] = [loop.call_later(1000 + i, nothing) for i in range(150)]
        for handle in handles[1:]:
            handle.cancel()

    # the one that makes the heap throw out what is cancelled, and its successors
    alive.sweep(lambda: handles[0].cancel(), prepare=prepare)
    alive.sweep(loop._run_once, prepare=lambda: (prepare(), loop.call_soon(nothing)))


@with_loop
def call_soon_threadsafe(alive):
    loop = alive.loop
    alive.sweep(loop.call_soon_threadsafe, nothing, 1)
    alive.sweep(loop.call_soon_threadsafe, nothing, 1, 2, 3, 4)

    def prepare():
        for _ in range(200):
            loop.call_soon_threadsafe(nothing)

    alive.sweep(loop._run_once, prepare=prepare)


@with_loop
def handles(alive):
    loop = alive.loop
    handle = loop.call_soon(nothing, 1)
    timer = loop.call_later(500, nothing)
    for h in handle, timer:
        alive.sweep(h.cancelled)
        alive.sweep(h.get_context)
    alive.sweep(timer.when)
    alive.sweep(timer.cancel)
    alive.sweep(handle.cancel)


@with_loop
def readers_and_writers(alive):
    loop = alive.loop
    a, b = socket.socketpair()

    def clear():
        loop.remove_reader(a)
        loop.remove_writer(a)

    def watched():
        loop.add_reader(a, nothing)
        loop.add_writer(a, nothing)

    with a, b:
        for fd in a, a.fileno():
            alive.sweep(loop._add_reader, fd, nothing, 1, prepare=clear)
            alive.sweep(loop._add_writer, fd, nothing, 1, prepare=clear)
            alive.sweep(loop._add_writer, fd, nothing, 1, prepare=watched)
            alive.sweep(loop._remove_reader, fd, prepare=watched)
            alive.sweep(loop._remove_writer, fd, prepare=watched)
            alive.sweep(loop._watched, fd, prepare=watched)
        alive.sweep(loop._add_reader, "x", nothing, errors=ValueError)
        alive.sweep(loop._add_reader, -1, nothing, errors=ValueError)
        watched()
        alive.sweep(loop._run_once)
        clear()


@with_loop
def turns(alive):
    loop = alive.loop
    seen = []

    def prepare():
        loop.call_soon(seen.append, 1)
        loop.call_soon(seen.__delitem__, slice(None))
        loop.call_later(0, seen.append, 2)

    alive.sweep(loop._run_once, prepare=prepare)


@with_loop
def futures(alive):
    loop = alive.loop
    alive.sweep(loop.create_future)
    future = loop.create_future()

    def prepare():
        nonlocal future
        future = loop.create_future()
        future.add_done_callback(nothing)

    alive.sweep(lambda: future.set_result(1), prepare=prepare)


@case
def closing_a_loop():
    loops = []

    def prepare():
        loops.append(Loop())
        loops[0].call_soon(nothing)
        loops[0].call_later(10, nothing)
        loops[0].call_soon_threadsafe(nothing)

    def check():
        loops.pop().close()

    sweep(lambda: loops[0]._dispose(), prepare=prepare, check=check)


@case
def selector():
    a, b = socket.socketpair()
    s = EpollSelector()

    def clear():
        for key in list(s.get_map().values()):
            s.unregister(key.fd)

    def registered():
        clear()
        s.register(a, EVENT_READ, "a")
        s.register(b, EVENT_WRITE, ["b"])

    def check():
        for end in a, b:
            if end in s.get_map():
                assert s.get_key(end).fd == end.fileno()
        assert len(s.select(0)) <= 2

    def run(function, *args, prepare=registered, errors=()):
        sweep(partial(function, *args), prepare=prepare, check=check, errors=errors)

    with a, b:
        keys = s.get_map()
        for fileobj in a, a.fileno():
            run(s.register, fileobj, EVENT_READ, "a", prepare=clear)
            run(s.modify, fileobj, EVENT_READ | EVENT_WRITE, "c")
            run(s.modify, fileobj, EVENT_READ, "c")
            run(s.unregister, fileobj)
            run(s.get_key, fileobj)
            run(keys.get, fileobj)
            run(keys.__getitem__, fileobj)
            run(keys.__contains__, fileobj)
        run(s.select, 0)
        run(s.select, 1e-9, prepare=clear)
        run(iter, keys)
        run(s.get_map)
        run(s.fileno)
        run(s.register, -1, EVENT_READ, errors=ValueError)
        run(s.register, "x", EVENT_READ, errors=ValueError)
        run(s.register, 1 << 18, EVENT_READ, errors=OSError)
        run(s.register, a, EVENT_READ, errors=KeyError)
        run(s.register, 0, 9, errors=ValueError)
        run(s.unregister, 77, errors=KeyError)
        run(s.modify, 77, EVENT_READ, errors=KeyError)
        run(s.select, "x", errors=TypeError)
        clear()
    s.close()
    sweep(EpollSelector, check=gc.collect)


@with_loop
def rpc(alive):
    import struct
    from collections import deque
    from itertools import chain
    from types import SimpleNamespace

    from msgpack import Packer, packb, unpackb

    from aiozmq_speedups._ext import core
    from aiozmq_speedups.rpc import method

    written = deque(maxlen=1)
    # What is asked for the unusual, in C: anything in, something out.
    anything = staticmethod(chain)

    class Client(core.RpcClient):
        _expire_after = _answered = _cannot_unpack = anything
        _msg_received = _send = anything

    class Server(core.RpcServer):
        _failed = _start = _msg_received = check_args = anything

        def dispatch(self, name):
            raise KeyError

    class Spec:
        is_coroutine, min_args, max_args = False, 0, 6

    packer = SimpleNamespace(packb=Packer().pack, unpackb=unpackb)
    client = Client()
    client.packer = packer
    client._create_future = alive.loop.create_future
    client._sweep_at = 1 << 30

    def empty():
        client._calls = {}
        client.max_pending = None
        client._write = written.append

    def waiting():
        empty()
        client._calls[7] = alive.loop.create_future()

    args = (1, "text", b"bytes", 2.5, None, [True, {"a": -(2**40)}])
    alive.sweep(client.send, b"f", args, {}, None, prepare=empty)
    alive.sweep(client.send, b"f", args, {"k": 1}, 5.0, prepare=empty)
    for packed in (packb(args), packb(None), packb({"a": {"b": [1.5]}})):
        answer = [struct.pack("=HHLd?", 1, 2, 7, 3.0, False), packed]
        alive.sweep(client.msg_received, answer, prepare=waiting)

    @method
    def func(*args):
        return args

    server = Server()
    server.packer = packer
    server.handler = {"f": func}
    server._write = written.append
    found = func, Spec()
    Server.dispatch = staticmethod({"f": found}.__getitem__)
    request = [b"id", struct.pack("=HHLd", 1, 2, 3, 4.0), b"f", packb(args), b"\x80"]
    alive.sweep(server.msg_received, request, prepare=written.clear)
    assert written
    Server.dispatch = anything  # it is known now
    alive.sweep(server.msg_received, request)
    request[-1] = packb({"a": 1})
    alive.sweep(server.msg_received, request)


def main():
    faulthandler.enable()
    warnings.simplefilter("ignore")
    sys.unraisablehook = nothing
    CASES[sys.argv[1]]()
    print("done")


if __name__ == "__main__":
    main()

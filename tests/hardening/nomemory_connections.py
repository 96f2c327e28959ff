"""The sweeps of nomemory_transports.py over what makes connections; a process per case.

``python nomemory_connections.py CASE``.
"""

import asyncio
import gc
import socket
import weakref
from _testcapi import remove_mem_hooks, set_nomemory
from contextlib import suppress
from functools import partial

from nomemory_cases import ALLOCATIONS, nothing, sweep
from nomemory_transports import Calls, _core, checked, main

CASES = {}


def case(function):
    CASES[function.__name__] = checked(function)
    return function


class Connecting:
    """A coroutine that connects, taken through its steps."""

    def __init__(self, alive, stack):
        self.alive, self.loop = alive, alive.loop
        self.listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.listener.setblocking(False)
        self.protocol = Calls()
        self.coroutine = self.waiter = None
        self.woken = []
        # Python code must not run without memory.
        factory = partial({0: self.protocol}.get, 0)
        self.new = partial(self.loop._connect, factory, self.listener.getsockname())

    def turn(self):
        self.loop.call_soon(nothing)
        self.loop._run_once()

    def step(self):
        self.waiter = self.coroutine.send(None)
        self.woken.clear()
        self.waiter.add_done_callback(self.woken.append)

    def finish_step(self):
        for _ in range(1000):
            if self.woken:
                break
            self.turn()
        assert self.woken == [self.waiter]

    def begin(self):
        self.coroutine = self.new()

    def begun(self):
        self.begin()
        self.step()

    def connected(self):
        self.begun()
        self.finish_step()

    def making(self):
        self.connected()
        self.step()

    def made(self):
        self.making()
        self.finish_step()

    def check(self):
        """Whatever came of it, it can end."""
        if self.coroutine is not None:
            self.coroutine.close()
        self.coroutine = self.waiter = None
        self.woken.clear()
        for transport in self.protocol.made:
            transport.abort()
        self.protocol.made.clear()
        self.alive.check()
        self.turn()
        assert not self.loop.stats()["transports"]
        with suppress(BlockingIOError):
            while True:
                self.listener.accept()[0].close()

    def sweep_send(self, prepare, errors=()):
        sweep(
            None,
            prepare=prepare,
            bind=lambda: partial(self.coroutine.send, None),
            check=self.check,
            errors=errors,
        )

    def sweep_turns(self, prepare):
        """One allocation at a time: whoever waits is woken all the same."""
        # No handle is left to be used again.
        self.held = [self.loop.call_soon([].copy) for _ in range(5000)]
        for first in range(ALLOCATIONS):
            prepare()
            self.held += [self.loop.call_soon([].copy) for _ in range(20)]
            with suppress(MemoryError):
                set_nomemory(first, first + 1)
                try:
                    self.loop._run_once()
                finally:
                    remove_mem_hooks()
            self.finish_step()
            self.check()


@case
def connecting(alive, stack):
    connection = Connecting(alive, stack)
    sweep(connection.new, check=alive.check)
    connection.sweep_send(connection.begin)
    connection.sweep_send(connection.connected)
    connection.sweep_send(connection.made, errors=StopIteration)
    connection.sweep_turns(connection.begun)
    connection.sweep_turns(connection.making)
    for prepare in connection.begun, connection.making, connection.made:
        sweep(
            None,
            prepare=prepare,
            bind=lambda: connection.coroutine.close,
            check=connection.check,
        )


@case
def accepting_for_a_server(alive, stack):
    loop = alive.loop
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    listener.setblocking(False)
    protocol = Calls()
    factory = partial({0: protocol}.get, 0)
    server = asyncio.base_events.Server(loop, [listener], factory, None, 5, None)
    stack.callback(server.close)
    clients, listening = [], [None]  # a place: append() may have no memory

    def listen():
        listening[0] = loop._listen(factory, listener, server, 5)

    def fresh():
        if listening[0] is not None:
            listening[0].stop()
        if hasattr(server, "_clients"):
            server._clients = weakref.WeakSet()

    stack.callback(fresh)
    sweep(listen, prepare=fresh, check=alive.check)
    fresh()
    listen()

    def connect():
        clients.append(socket.create_connection(listener.getsockname()))

    def accepted(count):
        """So many transports, that are open."""
        while True:
            there = [one for one in protocol.made if not one.is_closing()]
            if len(there) >= count:
                return there
            connect()
            for _ in range(3):
                loop.call_soon(nothing)
                loop._run_once()

    def check():
        for client in clients:
            client.close()
        clients.clear()
        for transport in gc.get_objects():
            if type(transport) is _core.StreamTransport:
                transport.abort()
        protocol.made.clear()
        for _ in range(3):
            alive.check()
        assert not loop.stats()["transports"]
        if hasattr(server, "_clients"):
            assert not server._clients

    sweep(loop._run_once, prepare=connect, check=check)

    def leaving():
        loop.call_soon(nothing)  # lest it wait
        accepted(2)[0].abort()  # with the last one Python code runs

    sweep(loop._run_once, prepare=leaving, check=check)
    transport, _ = accepted(2)
    for name in "copy", "__iter__", "__len__":
        if hasattr(server, "_clients"):
            sweep(getattr(server._clients, name), check=alive.check)
    for name in "_server", "_extra":
        sweep(partial(getattr, transport, name), check=alive.check)
    del transport, _
    check()
    server.close()


if __name__ == "__main__":
    main(CASES)

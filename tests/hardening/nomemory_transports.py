"""The sweeps of nomemory_cases.py over transports; a process per case.

``python nomemory_transports.py CASE``. An operation that had no memory leaves its
transport usable, or closed in order; and no C object is left at the end. What the
protocols are called back with is C too: Python code without memory crashes CPython
itself (`def`: PyFunction_NewWithQualName) or never ends (the handlers of `with` and
`except`, which keep their place in an int), 3.12 and 3.13 at least.
"""

import asyncio
import faulthandler
import gc
import itertools
import os
import socket
import sys
import warnings
from _testcapi import remove_mem_hooks, set_nomemory
from contextlib import ExitStack, suppress
from functools import partial

import zmq
from nomemory_cases import ALLOCATIONS, Alive, Appendable, nothing, sweep

from aiozmq_speedups._ext import core as _core
from aiozmq_speedups._zmq.accelerated import _CZmqTransport
from aiozmq_speedups.core import SocketEvent

BIG = b"b" * 100 * 1024
CASES = {}


def live_objects():
    gc.collect()
    counts = getattr(_core, "_live_objects", dict)()
    if hasattr(_core, "_zmq_release"):
        _core._zmq_release()
    return counts


def checked(function):
    """The case as it is run: with a loop, and what is left of it counted."""

    def run():
        before = live_objects()
        with ExitStack() as stack:
            alive = Alive()
            stack.callback(alive.loop.close)
            function(alive, stack)
            alive.check()
        del alive, stack
        after = live_objects()
        assert after == before, (before, after)

    return run


def case(function):
    CASES[function.__name__] = checked(function)
    return function


class Calls:
    """A protocol of any kind, whose methods are C and note their arguments."""

    def __init__(self):
        self.made, self.lost, self.got, self.errors = [], [], [], []
        self.connection_made = self.made.append
        self.connection_lost = self.lost.append
        self.data_received = self.msg_received = self.got.append
        self.event_received = self.got.append
        self.error_received = self.errors.append
        self.datagram_received = max  # any two arguments
        self.eof_received = self.pause_writing = self.resume_writing = [].copy


class BufferedCalls(Calls, asyncio.BufferedProtocol):
    get_buffer = buffer_updated = None

    def __init__(self):
        super().__init__()
        self.get_buffer = {-1: bytearray(100)}.get
        self.buffer_updated = self.got.append


class Pair:
    """A transport and its peer, made anew once the transport has closed."""

    def __init__(self, alive, stack, protocol=Calls):
        self.alive, self.new_protocol = alive, protocol
        self.loop = alive.loop
        self.transport = self.peer = None
        stack.callback(self.end)

    def open(self):
        a, b = socket.socketpair()
        a.setblocking(False)
        b.setblocking(False)
        return self.loop._make_socket_transport(a, self.protocol), b

    def fresh(self):
        if self.transport is not None and not self.transport.is_closing():
            return
        self.end()
        self.protocol = self.new_protocol()
        self.transport, self.peer = self.open()
        self.turn()

    def turn(self):
        self.loop.call_soon(nothing)
        self.loop._run_once()

    def drain(self):
        """Takes what the peer has got, until nothing comes."""
        while True:
            self.turn()
            try:
                if self.peer.fileno() < 0 or not self.peer.recv(1 << 20):
                    break
            except BlockingIOError:
                if not self.transport.get_write_buffer_size():
                    break

    def end(self):
        transport, self.transport = self.transport, None
        if transport is not None:
            transport._force_close(None)
            self.turn()
            self.turn()
            # Told once, unless the very call had no memory.
            assert len(self.protocol.lost) <= 1, self.protocol.lost
            assert transport.get_protocol() is None, transport
            self.peer.close()

    def sweep(self, name, *args, errors=(), **kwargs):
        def bind():
            return partial(getattr(self.transport, name), *args, **kwargs)

        self.sweep_call(None, bind=bind, errors=errors)

    def sweep_call(self, operation, prepare=nothing, errors=(), **kwargs):
        def make_ready():
            self.fresh()
            prepare()

        def check():
            self.alive.check()
            if self.transport is not None and not self.transport.is_closing():
                self.drain()

        sweep(operation, prepare=make_ready, check=check, errors=errors, **kwargs)

    def sweep_turn(self, prepare):
        """A turn of the loop, in which the transport has something to do."""

        def something():
            self.loop.call_soon(nothing)  # lest it wait
            prepare()

        self.sweep_call(self.loop._run_once, something)


@case
def stream_write(alive, stack):
    pair = Pair(alive, stack)
    for data in b"x", bytearray(b"x"), memoryview(b"xyz")[1:], BIG, bytearray(BIG):
        pair.sweep("write", data)
    pair.sweep("writelines", [b"a", bytearray(b"b"), BIG])
    pair.sweep("writelines", (bytes([i]) for i in range(3)))
    pair.sweep("writelines", [b"x" * 50] * 200)
    # A peer that does not read: everything is queued.
    queued = bytearray(1 << 20)

    def blocked():
        pair.transport.write(queued)

    pair.sweep_call(lambda: pair.transport.write(b"x"), blocked)
    pair.sweep_call(lambda: pair.transport.writelines([b"x", b"y"]), blocked)

    def blocked_afresh():
        pair.end()
        pair.fresh()
        blocked()

    pair.sweep_call(lambda: pair.transport.write_eof(), blocked_afresh)


@case
def stream_methods(alive, stack):
    pair = Pair(alive, stack)
    pair.sweep("set_write_buffer_limits", high=1000)
    pair.sweep("set_write_buffer_limits", 1000, 10)
    for name in "peername", "sockname", "socket", "other":
        pair.sweep("get_extra_info", name)
    pair.sweep("set_protocol", Calls())
    for name in (
        *("get_write_buffer_size", "get_write_buffer_limits", "__repr__"),
        *("pause_reading", "is_reading", "resume_reading", "is_closing"),
        *("get_protocol", "can_write_eof", "write_eof"),
    ):
        pair.sweep(name)
        pair.end()
    pair.sweep("close")
    pair.sweep("abort")
    pair.sweep("_force_close", ValueError())


@case
def stream_making(alive, stack):
    loop = alive.loop
    made = Appendable()
    a, b = socket.socketpair()
    stack.enter_context(a)
    stack.enter_context(b)
    a.setblocking(False)
    for protocol in Calls, BufferedCalls, asyncio.Protocol:

        def make(protocol=protocol):
            made.append(loop._make_socket_transport(a.dup(), protocol()))

        def check():
            alive.check()
            for transport in made:
                transport.abort()
            made.clear()
            alive.check()

        warnings.simplefilter("ignore", ResourceWarning)
        sweep(make, check=check)


@case
def stream_input(alive, stack):
    for protocol in Calls, BufferedCalls:
        pair = Pair(alive, stack, protocol)
        pair.sweep_turn(lambda pair=pair: pair.peer.send(b"x" * 20))

        def send(pair=pair):
            with suppress(BlockingIOError):
                pair.peer.send(BIG)

        pair.sweep_turn(send)
        pair.sweep_turn(lambda pair=pair: pair.peer.shutdown(socket.SHUT_WR))
        pair.sweep_turn(lambda pair=pair: pair.peer.close())
        pair.end()


@case
def stream_output_in_a_turn(alive, stack):
    pair = Pair(alive, stack)

    def room():
        pair.transport.write(bytearray(1 << 20))
        pair.peer.recv(1 << 18)

    pair.sweep_turn(room)
    pair.sweep_turn(lambda: (room(), pair.transport.close()))
    pair.sweep_turn(lambda: (room(), pair.transport.abort()))
    pair.sweep_turn(lambda: (room(), pair.peer.close()))


@case
def stream_reader(alive, stack):
    class Protocol(asyncio.StreamReaderProtocol):
        pass

    def new_protocol():
        pair.reader = asyncio.StreamReader(limit=1000, loop=alive.loop)
        protocol = asyncio.StreamReaderProtocol(pair.reader, loop=alive.loop)
        protocol.lost = [None]  # end() looks at it
        return protocol

    pair = Pair(alive, stack, new_protocol)

    def waited_for():
        pair.reader._buffer.clear()
        pair.reader._waiter = alive.loop.create_future()
        pair.peer.send(b"x" * 50)

    def too_much():
        pair.reader._buffer.extend(bytes(2000))
        with suppress(BlockingIOError):  # reading stays paused at times
            pair.peer.send(b"x")

    pair.sweep_turn(waited_for)
    pair.sweep_turn(too_much)
    pair.reader.set_exception(ConnectionError())  # nobody else asks
    pair.reader._waiter = None


@case
def accepting(alive, stack):
    loop = alive.loop
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    listener.setblocking(False)
    serving = loop._listen(Calls, listener, None, 5)
    stack.callback(serving.stop)
    clients = []

    def connect():
        serving.start()
        clients.append(socket.create_connection(listener.getsockname()))

    def check():
        for client in clients:
            client.close()
        clients.clear()
        for _ in range(1000):
            alive.check()
            if loop.stats()["transports"] == 0:
                break
        for transport in gc.get_objects():
            if type(transport) is _core.StreamTransport:
                transport.abort()
        alive.check()

    sweep(loop._run_once, prepare=connect, check=check)
    sweep(serving.start, check=alive.check)


class UdpPair(Pair):
    connected = False

    def open(self):
        a, b = (socket.socket(type=socket.SOCK_DGRAM) for _ in range(2))
        for sock in a, b:
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
        self.address, self.own = b.getsockname(), a.getsockname()
        if self.connected:
            a.connect(self.address)
        return self.loop._make_datagram_transport(a, self.protocol), b

    def drain(self):
        self.turn()


@case
def datagrams(alive, stack):
    pair = UdpPair(alive, stack)
    for data in b"x", bytearray(b"x"), b"x" * 30_000:
        pair.sweep_call(lambda data=data: pair.transport.sendto(data, pair.address))
        pair.sweep_call(
            lambda data=data: pair.transport.sendto(data, ("localhost", pair.own[1]))
        )
        pair.sweep_turn(lambda data=data: pair.peer.sendto(data, pair.own))
    pair.sweep_turn(lambda: [pair.peer.sendto(b"x", pair.own) for _ in range(20)])
    pair.sweep_call(lambda: pair.transport.sendto(BIG, pair.address))  # too long
    pair.sweep("close")
    pair.sweep("abort")
    pair.end()
    pair.connected = True
    pair.sweep("sendto", b"x")
    pair.sweep_call(lambda: pair.transport.sendto(b"x"), lambda: pair.peer.close())


class PipePair(Pair):
    """`transport` writes to it or reads from it."""

    def __init__(self, alive, stack, writes):
        super().__init__(alive, stack)
        self.writes = writes

    def open(self):
        reader, writer = os.pipe()
        own, other = (writer, reader) if self.writes else (reader, writer)
        make = (
            self.loop._make_write_pipe_transport
            if self.writes
            else self.loop._make_read_pipe_transport
        )
        os.set_blocking(other, False)
        mode = "wb" if self.writes else "rb"
        transport = make(open(own, mode, 0), self.protocol)
        return transport, open(other, "rb" if self.writes else "wb", 0)

    def drain(self):
        self.turn()
        while self.writes and self.peer.read(1 << 20):
            self.turn()


@case
def pipes(alive, stack):
    pair = PipePair(alive, stack, writes=True)
    for data in b"x", bytearray(b"x"), BIG:
        pair.sweep("write", data)
    pair.sweep_turn(lambda: (pair.transport.write(BIG), pair.peer.read(5000)))
    pair.sweep_turn(lambda: (pair.transport.write(BIG), pair.peer.close()))
    pair.sweep("close")
    pair.sweep("abort")
    pair = PipePair(alive, stack, writes=False)
    pair.sweep_turn(lambda: pair.peer.write(b"x" * 50))
    pair.sweep_turn(lambda: pair.peer.close())
    pair.sweep("pause_reading")
    pair.sweep("resume_reading")


# ---- ZeroMQ


class ZmqPair(Pair):
    types = zmq.DEALER, zmq.DEALER
    numbers = itertools.count()

    def __init__(self, alive, stack, protocol=Calls):
        super().__init__(alive, stack, protocol)
        self.context = zmq.Context()
        stack.callback(lambda: self.context.destroy(linger=0))
        # Before the context ends.
        stack.callback(self.end)

    def socket(self, kind):
        sock = self.context.socket(kind)
        sock.linger = 0
        return sock

    def open(self):
        sock, peer = map(self.socket, self.types)
        # One that is closed gives its name back a little later.
        self.endpoint = f"inproc://{next(self.numbers)}"
        peer.bind(self.endpoint)
        sock.connect(self.endpoint)
        return _CZmqTransport(self.loop, self.types[0], sock, self.protocol), peer

    def drain(self):
        self.turn()
        while True:
            try:
                self.peer.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                break
        self.turn()


@case
def zmq_write(alive, stack):
    pair = ZmqPair(alive, stack)
    for message in (
        *([b"x"], (b"x",), [b"x", b"y"], [b"x"] * 20, [BIG], [b"x", BIG] * 5),
        *([bytearray(b"x"), memoryview(b"y")], [b"x", bytearray(b"y")] * 10),
    ):
        pair.sweep("write", message)
    pair.sweep("write", iter([b"x", b"y"]))
    pair.sweep("write", [1], errors=TypeError)


@case
def zmq_write_without_a_peer(alive, stack):
    """Nobody to send to: everything is queued."""
    pair = ZmqPair(alive, stack)
    pair.fresh()
    pair.transport._zmq_sock.disconnect(pair.endpoint)
    for message in [b"x"], (b"x", b"y"), [b"x"] * 20, [BIG]:
        pair.sweep("write", message)
        if pair.transport.is_closing():
            pair.fresh()
            pair.transport._zmq_sock.disconnect(pair.endpoint)


@case
def zmq_receive(alive, stack):
    pair = ZmqPair(alive, stack)
    for message in [b"x"], [b"x"] * 20, [BIG, b"y"]:

        def receive(message=message):
            pair.turn()
            pair.peer.send_multipart(message)
            pair.transport._arm()

        pair.sweep_turn(receive)
        pair.sweep_call(lambda: pair.transport._on_fd(), receive)


@case
def zmq_receive_events(alive, stack):
    pair = ZmqPair(alive, stack)
    for message in [b"\1\0\1\2\3\4", b"tcp://x"], [b"no", b"event"]:

        def receive(message=message):
            pair.turn()
            pair.transport._receive_events(SocketEvent)
            pair.peer.send_multipart(message)
            pair.transport._arm()

        pair.sweep_turn(receive)


@case
def zmq_methods(alive, stack):
    pair = ZmqPair(alive, stack)
    for name, *args in (
        *(["set_write_buffer_limits", 100, 10], ["get_write_buffer_size"]),
        *(["is_closing"], ["get_protocol"], ["_arm"], ["_maybe_pause_protocol"]),
        *(["set_protocol", Calls()], ["close"], ["abort"], ["_force_close", None]),
    ):
        pair.sweep(name, *args)
        pair.end()
    pair.sweep_call(
        lambda: pair.transport.resume_reading(),
        lambda: pair.transport._paused or pair.transport.pause_reading(),
    )
    pair.sweep_call(
        lambda: pair.transport.pause_reading(),
        lambda: pair.transport._paused and pair.transport.resume_reading(),
    )


@case
def zmq_making(alive, stack):
    pair = ZmqPair(alive, stack)
    sockets, made = [], Appendable()

    def prepare():
        sockets.append(pair.socket(zmq.DEALER))

    def make():
        made.append(_CZmqTransport(alive.loop, zmq.DEALER, sockets[-1], Calls()))

    def check():
        alive.check()
        for transport in [*made, *alive.loop._zmq_transports]:
            transport.abort()
        made.clear()
        alive.check()
        sockets.pop().close()

    sweep(make, prepare=prepare, check=check)


@case
def stream_reads(alive, stack):
    """The coroutines of a StreamReader; what feeds one has its waiter called."""
    loop, readers = alive.loop, []

    def protocol():
        reader = asyncio.StreamReader(limit=100, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        protocol.lost = []
        readers[:] = [reader]
        return protocol

    pair = Pair(alive, stack, protocol)
    for name, *args in (
        ("read", 10),
        ("readexactly", 10),
        ("readuntil", b"ne\n"),
        ("readline",),
    ):

        def start(name=name, args=args):
            return getattr(readers[0], name)(*args)

        def there():
            readers[0]._buffer[:] = b"first line\nsecond"

        def not_there():
            readers[0]._buffer[:] = b""

        pair.sweep_call(lambda: start().close(), not_there)
        pair.sweep_call(
            None, there, StopIteration, bind=lambda: partial(start().send, None)
        )
        pair.sweep_call(lambda: start().send(None), not_there)
        assert readers[0]._waiter is None
        # One allocation at a time: asyncio's own Python code ends the connection.
        for first in range(ALLOCATIONS):
            pair.fresh()
            not_there()
            coroutine, woken = start(), []
            waiter = coroutine.send(None)
            waiter.add_done_callback(woken.append)
            pair.peer.send(b"first line\nsecond")
            with suppress(MemoryError):
                set_nomemory(first, first + 1)
                try:
                    loop._run_once()
                finally:
                    remove_mem_hooks()
            for _ in range(4):
                pair.turn()
            assert woken == [waiter], first
            with suppress(StopIteration, MemoryError):
                coroutine.send(None)
            if not pair.transport.is_closing():
                pair.drain()
            del coroutine, waiter, woken
        pair.end()
    readers.clear()


def main(cases):
    faulthandler.enable()
    warnings.simplefilter("ignore")
    sys.unraisablehook = nothing
    cases[sys.argv[1]]()
    print("done")


if __name__ == "__main__":
    main(CASES)

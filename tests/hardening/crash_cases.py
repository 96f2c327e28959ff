"""What once crashed the interpreter, or might; a process per case.

``python crash_cases.py CASE``. Each must come to its end, by whatever exceptions.
"""

import asyncio
import contextlib
import contextvars
import faulthandler
import gc
import os
import resource
import socket
import struct
import sys
import weakref

import zmq

from aiozmq_speedups import EpollSelector, Loop, ZmqProtocol, _core, rpc, run
from aiozmq_speedups._zmq.accelerated import _CZmqTransport
from aiozmq_speedups.rpc import _fast
from aiozmq_speedups.rpc.packer import _Packer

CASES = {}
LONG = 200_000


def case(function):
    CASES[function.__name__] = function
    return function


def nothing(*args):
    pass


def refused(*exceptions):
    """A context that must raise one of these."""

    class Refused(contextlib.AbstractContextManager):
        def __exit__(self, kind, exc, tb):
            assert kind is not None and issubclass(kind, exceptions), kind
            return True

    return Refused()


# ---- chains whose links free each other: the C stack must not grow


def chain(schedule):
    handle = None
    for i in range(LONG):
        handle = schedule(i, handle)


@case
def chain_of_timers():
    loop = Loop()
    chain(lambda i, handle: loop.call_later(1e6 + i, nothing, handle))
    loop.close()


@case
def chain_of_handles():
    loop = Loop()
    chain(lambda i, handle: loop.call_soon(nothing, handle))
    loop.close()


@case
def chain_of_callbacks():
    loop = Loop()
    chain(lambda i, handle: loop.call_later(1e6 + i, getattr(handle, "cancel", print)))
    loop.close()


@case
def chain_of_operations():
    loop = Loop()
    a, b = socket.socketpair()
    a.setblocking(False)
    with a, b:
        operation = b""
        for _ in range(LONG):
            operation = loop.sock_sendall(a, operation)
        del operation
    loop.close()


@case
def chain_of_waiters():
    loop = Loop()
    a, b = socket.socketpair()
    a.setblocking(False)
    with a, b:
        waiter = None
        for _ in range(LONG):
            operation = loop.sock_recv(a, 1)
            before, waiter = waiter, operation.send(None)
            waiter.add_done_callback(before, context=contextvars.Context())
            operation.close()
        del operation, before, waiter
    loop.close()


@case
def chain_of_loops():
    loop = None
    for _ in range(LONG):
        before, loop = loop, _core.Loop()
        loop._dispose()
        loop._before_poll = before


@case
def chain_of_listeners():
    loop = Loop()
    listener = None
    with socket.create_server(("127.0.0.1", 0)) as sock:
        for _ in range(LONG):
            listener = loop._listen(listener, sock, None, 1)
            listener.stop()
        del listener
    loop.close()


def chain_of_transports(make):
    """By the slot that asyncio's class has."""
    loop = Loop()
    transport = None
    for _ in range(LONG):
        before, transport = transport, make(loop)
        transport.close()
        loop._run_once()
        asyncio.BaseTransport._extra.__set__(transport, before)
    del before, transport
    loop.close()


@case
def chain_of_stream_transports():
    make = Loop._make_socket_transport
    chain_of_transports(lambda loop: make(loop, socket.socket(), asyncio.Protocol()))


@case
def chain_of_datagram_transports():
    def make(loop):
        sock = socket.socket(type=socket.SOCK_DGRAM)
        return loop._make_datagram_transport(sock, asyncio.DatagramProtocol())

    chain_of_transports(make)


@case
def chain_of_pipe_transports():
    def make(loop):
        pipe = open("/dev/zero", "rb", 0)
        return loop._make_read_pipe_transport(pipe, asyncio.Protocol())

    chain_of_transports(make)


@case
def chain_of_zmq_transports():
    transport = None
    for _ in range(LONG):
        before, transport = transport, _core.ZmqTransport.__new__(_core.ZmqTransport)
        asyncio.BaseTransport._extra.__set__(transport, before)


@case
def chain_with_finalizers():
    """Each link's end runs Python code that makes and frees other handles."""
    loop = Loop()
    ended = 0

    class Link:
        def __init__(self, before):
            self.before = before

        def __del__(self):
            nonlocal ended
            ended += 1
            loop.call_soon(nothing, loop.call_soon(nothing)).cancel()

    chain(lambda i, handle: loop.call_soon(nothing, Link(handle)))
    loop._run_once()
    assert ended == LONG
    loop.close()


# ---- timers


@case
def weakref_callbacks_in_the_heaps_compaction():
    loop = Loop()
    rounds = 0

    def on_end(ref):
        nonlocal rounds
        if rounds < 3:
            rounds += 1
            more = [loop.call_later(1 + i, nothing) for i in range(600)]
            for timer in more[:-1]:
                timer.cancel()

    timers = [loop.call_later(1000 + i, nothing) for i in range(400)]
    refs = [weakref.ref(timer, on_end) for timer in timers]
    while timers:
        timers.pop(0).cancel()
    assert rounds == 3 and not any(ref() for ref in refs)
    assert len(loop._scheduled) < 200
    loop.close()


# ---- descriptors that are no descriptors


@case
def huge_descriptors():
    """No table may grow to their size."""
    limit = 4 << 30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    loop = Loop()
    selector = EpollSelector()
    for fd in 1 << 20, 1 << 24, (1 << 26) - 1, 1 << 30, 2**31 - 1:
        with refused(OSError):
            loop.add_reader(fd, nothing)
        with refused(OSError):
            loop.add_writer(fd, nothing)
        with refused(OSError):
            selector.register(fd, 1)
        assert loop.remove_reader(fd) is False
    assert len(selector.get_map()) == 0
    selector.close()
    loop.close()


# ---- arguments of the private methods that asyncio's code calls


@case
def extra_information_that_is_no_dict():
    loop = Loop()
    a, b = socket.socketpair()
    u = socket.socket(type=socket.SOCK_DGRAM)
    reader, writer = os.pipe()
    with a, b, u, open(reader, "rb", 0) as r, open(writer, "wb", 0) as w:
        for sock in a, u:
            sock.setblocking(False)
        for extra in 1, [], "peername":
            for make, file in (
                (loop._make_socket_transport, a),
                (loop._make_datagram_transport, u),
                (loop._make_read_pipe_transport, r),
                (loop._make_write_pipe_transport, w),
            ):
                with refused(TypeError):
                    make(file, asyncio.Protocol(), extra=extra)
    loop.close()


# ---- the last reference goes in the middle of a call


def run_ready(loop):
    for _ in range(3):
        loop.call_soon(loop.stop)
        loop.run_forever()


@case
def repr_that_ends_the_transport_of_its_descriptor():
    """The message shows both; the transport comes second."""
    loop = Loop()
    a, b = socket.socketpair()
    a.setblocking(False)
    fd = a.fileno()
    transport = loop._make_socket_transport(a, asyncio.Protocol())
    run_ready(loop)

    class File:
        def fileno(self):
            return fd

        def __repr__(self):
            nonlocal transport
            transport.abort()
            transport = None
            run_ready(loop)
            return "<file>"

    with b, refused(RuntimeError):
        loop.add_reader(File(), nothing)
    loop.close()


@case
def end_of_a_writers_method_that_sets_a_protocol():
    """It ends as another protocol is set: the one before goes meanwhile."""

    async def main():
        loop = asyncio.get_running_loop()
        made = loop.create_future()
        server = await asyncio.start_server(
            lambda _, writer: made.set_result(writer), "127.0.0.1", 0
        )
        with socket.create_connection(server.sockets[0].getsockname()):
            writer = await made
            transport, writer._protocol = writer.transport, None
            before = weakref.ref(transport.get_protocol())
            gone = []

            def on_end(_):
                transport.set_protocol(asyncio.Protocol())
                gone.append(before() is None)

            ref = weakref.ref(writer.drain, on_end)
            other = asyncio.Protocol()
            transport.set_protocol(other)
            assert transport.get_protocol() is other
            assert ref() is None and gone and before() is None
            transport.abort()
        server.close()

    run(main())


@case
def connection_that_enters_a_server_after_its_end():
    """The server knows it until it is freed, and its weak references tell of that."""

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            made.append(transport)
            transport.abort()

    made, seen = [], []

    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Protocol, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()):
            while not made:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.001)
            transport = made.pop()
            server._clients.add(transport)
            ref = weakref.ref(transport, lambda _: seen.extend(server._clients.copy()))
            del transport
            assert ref() is None and seen == []
        server.close()

    if sys.version_info >= (3, 13):
        run(main())


@case
def recvfrom_that_returns_something_else():
    """A family that only the socket module knows, and a subclass of its sockets."""
    received = []
    results = [None, [], (), (b"x",), "ab", (bytearray(b"y"), "address"), ("z", 1)]

    class Socket(socket.socket):
        def recvfrom(self, size):
            data, address = super().recvfrom(size)
            assert data == b"datagram"
            return self.result

    class Protocol(asyncio.DatagramProtocol):
        def datagram_received(self, data, addr):
            received.append((data, addr))

        def connection_lost(self, exc):
            received.append(type(exc))

    async def talk(result):
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(nothing)
        kind = socket.AF_NETLINK, socket.SOCK_DGRAM, 2  # NETLINK_USERSOCK
        with Socket(*kind) as sock, socket.socket(*kind) as peer:
            sock.result = result
            sock.bind((0, 0))
            sock.setblocking(False)
            try:
                peer.sendto(b"datagram", sock.getsockname())
            except OSError:
                return  # not for everybody
            transport, _ = await loop.create_datagram_endpoint(Protocol, sock=sock)
            while not received:
                await asyncio.sleep(0.001)
            transport.abort()
            await asyncio.sleep(0.001)

    for result in results:
        received.clear()
        run(talk(result))


def transports_of(loop):
    """What Python code finds while one is made."""
    names = "StreamTransport", "DatagramTransport"
    return [o for o in gc.get_referrers(loop) if type(o).__name__ in names]


@case
def getsockname_that_ends_the_transport():
    class Socket(socket.socket):
        def getsockname(self):
            for transport in transports_of(loop):
                transport.abort()
            run_ready(loop)
            return super().getsockname()

    loop = Loop()
    sock = Socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 2)  # NETLINK_USERSOCK
    with sock, contextlib.suppress(OSError):
        loop._make_datagram_transport(sock, asyncio.DatagramProtocol())
    run_ready(loop)
    loop.close()


@case
def protocol_that_ends_its_transport_and_fails():
    class Protocol:
        @property
        def __class__(self):
            for transport in transports_of(loop):
                transport.abort()
            run_ready(loop)
            raise ZeroDivisionError

        def connection_made(self, transport):
            pass

        def connection_lost(self, exc):
            pass

    loop = Loop()
    a, b = socket.socketpair()
    a.setblocking(False)
    with a, b, refused(ZeroDivisionError):
        loop._make_socket_transport(a, Protocol())
    run_ready(loop)
    assert loop.stats()["transports"] == 0
    loop.close()


@case
def end_of_a_servers_set_that_has_a_transport_enter_another():
    """Of asyncio's Server, of which the set is ours since Python 3.13."""

    class End:
        def __del__(self):
            ended.append(True)
            servers[0]._clients.add(transports[0])

    def serve():
        server = asyncio.Server(loop, [], asyncio.Protocol, None, 1, None)
        server._clients.others = End() if end else None
        sock = socket.create_server(("127.0.0.1", 0))
        listener = loop._listen(asyncio.Protocol, sock, server, 1)
        listener.stop()
        sock.close()
        return server

    loop = Loop()
    if sys.version_info < (3, 13):
        loop.close()
        return
    ended, transports, end = [], [], False
    servers = [serve(), serve()]
    end = True
    servers.append(serve())
    a, b = socket.socketpair()
    a.setblocking(False)
    with a, b:
        transports.append(loop._make_socket_transport(a, asyncio.Protocol()))
        run_ready(loop)
        servers[2]._clients.add(transports[0])
        del servers[2]
        gc.collect()
        assert not ended
        servers[1]._clients.add(transports[0])
        assert ended
        assert [len(server._clients) for server in servers] == [0, 1]
        transports[0].abort()
        run_ready(loop)
    loop.close()


@case
def futures_that_are_made_for_an_empty_queue_at_once():
    class Nested(Loop):
        def create_future(self):
            if len(made) < 2:
                made.append(None)
                with contextlib.suppress(RuntimeError):
                    made.append(transport._make_empty_waiter())
            return super().create_future()

    loop = Nested()
    made = []
    a, b = socket.socketpair()
    a.setblocking(False)
    with a, b:
        transport = loop._make_socket_transport(a, asyncio.Protocol())
        run_ready(loop)
        with refused(RuntimeError):
            transport._make_empty_waiter()
        transport._reset_empty_waiter()
        future = weakref.ref(made.pop())
        gc.collect()
        assert future() is None
        transport.abort()
        run_ready(loop)
    loop.close()


# ---- ZeroMQ


@case
def socket_that_lies_about_its_address():
    class Liar(zmq.Socket):
        underlying = property(lambda self: 0xDEAD0)

    loop = Loop()
    with zmq.Context() as context, Liar(context, zmq.DEALER) as sock:
        transport = _CZmqTransport(loop, zmq.DEALER, sock, ZmqProtocol())
        sock.bind("inproc://x")
        transport.write([b"x"])
        transport.abort()
        loop._run_once()
    loop.close()


@case
def socket_that_was_never_initialized():
    loop = Loop()
    sock = zmq.Socket.__new__(zmq.Socket)
    with contextlib.suppress(Exception):
        _CZmqTransport(loop, zmq.DEALER, sock, ZmqProtocol()).write([b"x"])
    loop.close()


# ---- rpc protocols whose members go while they are in use


class Key:
    """Equal to nothing, and asks `act` before it says so."""

    def __init__(self, value, act):
        self.value = value
        self.act = act

    def __hash__(self):
        return hash(self.value)

    def __eq__(self, other):
        self.act()
        return False


def reply_frames(packed):
    return [struct.pack("=HHLd?", 1, 2, 3, 4.0, False), bytes([*packed, 1])[:-1]]


@case
def chain_of_rpc_protocols():
    server, client = _core.RpcServer, _core.RpcClient
    for cls, member in ((server, "handler"), (client, "_write"), (client, "_calls")):
        last = None
        for _ in range(LONG):
            head = cls()
            setattr(head, member, last)
            last = head
        del head, last


@case
def rpc_client_whose_table_goes():
    loop = asyncio.new_event_loop()
    for of_found in (False, True):
        client = _fast.client_protocol(loop)
        frames = reply_frames(b"\x91\x01")

        def act(client=client, frames=frames):
            client._calls = {}
            frames.clear()

        client._calls = {Key(3, act): None}
        if of_found:
            client._calls[3] = loop.create_future()
        client.msg_received(frames)
        # The same where a call gets its id.
        client._calls = {Key(client.counter + 1, act): None}
        client._write = nothing
        client.send(b"func", (), {}, None).cancel()
    loop.close()


@case
def rpc_client_whose_future_factory_goes():
    loop = asyncio.new_event_loop()
    client = _fast.client_protocol(loop)

    class Factory:
        def __call__(self):
            del client._create_future
            return loop.create_future()

    client._create_future = Factory()
    client._write = nothing
    client.send(b"func", (), {}, None).cancel()
    loop.close()


@case
def rpc_server_whose_handler_goes():
    loop = asyncio.new_event_loop()
    func = rpc.method(nothing)
    server = _fast.server_protocol(loop, {"func": func})
    server._write = nothing
    frames = [struct.pack("=HHLd", 1, 2, 3, 4.0), b"func", b"\x90", b"\x80"]
    server.msg_received([*frames])  # the function is known by now

    def act():
        server.handler = {"func": func}

    server.handler = {Key("func", act): func}
    server.msg_received([*frames])
    # Of another check of the arguments nothing is taken for granted.
    for checked in ((), None, ((), None), ([], {})):
        server.check_args = lambda *args, checked=checked: checked
        server.msg_received([*frames[:-1], b"\x81\xa1a\x01"])
    loop.close()


@case
def rpc_packer_that_goes_in_a_collection():
    """CPython 3.11 collects where a container is made, later ones between steps."""
    loop = asyncio.new_event_loop()
    client = _fast.client_protocol(loop)
    client._write = nothing

    class Garbage:
        def __init__(self):
            self.me = self

        def __del__(self):
            client.packer = _Packer()

    gc.set_threshold(1, 1, 1)
    for _ in range(20):
        call = client.send(b"func", (), {}, None)
        header = struct.pack("=HHLd?", 1, 2, client.counter, 4.0, False)
        Garbage()
        client.msg_received([header, b"\x93" + b"\x91\x01" * 2 + b"\xc7\x01\x05x"])
        assert call.done()
    loop.close()


@case
def timers_cancelled_in_the_making():
    """Code that runs while a handle's stack is taken must not find it: it is in no
    heap yet, and the heap's count of the cancelled would be wrong."""
    loop = Loop()
    loop.set_debug(True)

    def callback():
        pass

    def cancel_all(frame, event, arg):
        if event != "call" or frame.f_code.co_name != "extract_stack":
            return
        sys.setprofile(None)
        for found in gc.get_referrers(callback):
            if isinstance(found, kind):
                found.cancel()
        sys.setprofile(cancel_all)

    kind = type(loop.call_later(0, print))
    gc.disable()
    timers = [loop.call_later(1000 + i, print) for i in range(150)]
    sys.setprofile(cancel_all)
    for i in range(60):
        loop.call_later(2000 + i, callback)
    sys.setprofile(None)
    timers.append(loop.call_later(9000, print))
    for timer in timers[:-1]:
        timer.cancel()
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()


def main():
    faulthandler.enable()
    CASES[sys.argv[1]]()
    print("done")


if __name__ == "__main__":
    main()

"""Makers and protocols of transports that fail half-way: nothing comes afterwards."""

import asyncio
import contextlib
import errno
import gc
import os
import resource
import socket
import sys
import warnings

import pytest
from waiting import run_ready

from aiozmq_speedups import _ext, new_event_loop

pytestmark = pytest.mark.loops("speedups", "asyncio", closed_at_once=True)

core = _ext.core


#: asyncio leaves what is half made to the garbage collector.
ours = pytest.mark.loops("speedups", closed_at_once=True)


class Shy:
    """isinstance(), which must ask it, fails the first time."""

    def __init__(self, calls):
        self.calls = calls
        self.asked = False

    @property
    def __class__(self):
        if not self.asked:
            self.asked = True
            raise ZeroDivisionError
        return type(self)

    def connection_made(self, transport):
        self.calls.append("made")

    def connection_lost(self, exc):
        self.calls.append("lost")


@ours
def test_a_protocol_that_cannot_be_classified(loop):
    calls = []
    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        with pytest.raises(ZeroDivisionError):
            loop._make_socket_transport(a, Shy(calls))
        run_ready(loop)
        assert calls == []
        a.send(b"the socket is the caller's still")


def test_a_pipe_protocol_that_cannot_be_classified():
    """asyncio does not ask what pipes' protocols are."""
    loop = new_event_loop()
    calls = []
    r, w = os.pipe()
    with open(r, "rb", 0) as reader, open(w, "wb", 0) as writer:
        for make, file in (
            (loop._make_read_pipe_transport, reader),
            (loop._make_write_pipe_transport, writer),
        ):
            try:
                transport = make(file, Shy(calls))
            except ZeroDivisionError:
                run_ready(loop)
                assert calls == []
            else:
                transport.close()
                run_ready(loop)
                assert calls == ["made", "lost"]
    loop.close()


@ours
def test_an_accepted_protocol_that_cannot_be_classified(loop, contexts):
    calls = []

    async def main():
        server = await loop.create_server(lambda: Shy(calls), "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()[:2]) as client:
            client.setblocking(False)
            assert await asyncio.wait_for(loop.sock_recv(client, 10), 100) == b""
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())
    assert calls == []


class Busy(Shy):
    """Finds its transport first, and writes more than the socket takes."""

    def pause_writing(self):
        pass

    @property
    def __class__(self):
        for transport in gc.get_objects():
            if type(transport) is core.StreamTransport and not self.asked:
                if transport.get_protocol() is self:
                    transport.write(b"x" * (1 << 24))
        return Shy.__dict__["__class__"].fget(self)


@ours
@pytest.mark.parametrize("side", ["made", "connected", "accepted"])
def test_a_transport_that_waits_for_room_and_is_taken_back(loop, contexts, side):
    """It is not watched any more, and all its descriptors are closed."""
    calls = []

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            before = loop.stats()["fds"]
            if side == "made":
                with socket.create_connection(listener.getsockname()) as sock:
                    sock.setblocking(False)
                    with pytest.raises(ZeroDivisionError):
                        loop._make_socket_transport(sock, Busy(calls))
            elif side == "connected":
                with pytest.raises(ZeroDivisionError):
                    await loop.create_connection(
                        lambda: Busy(calls), *listener.getsockname()
                    )
            else:
                server = await loop.create_server(lambda: Busy(calls), sock=listener)
                with socket.create_connection(listener.getsockname()):
                    while loop.stats()["accepted"] == 0:
                        await asyncio.sleep(0.001)
                server.close()
            await asyncio.sleep(0.01)
            assert loop.stats()["fds"] == before

    loop.run_until_complete(main())
    assert calls == contexts == []


@ours
@pytest.mark.parametrize("error", [ValueError, OSError])
def test_a_factory_that_stops_its_server_and_fails(loop, contexts, error):
    async def main():
        def factory():
            server.close()
            raise error

        server = await loop.create_server(factory, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()[:2]) as client:
            client.setblocking(False)
            assert await asyncio.wait_for(loop.sock_recv(client, 10), 100) == b""

    loop.set_debug(True)
    loop.run_until_complete(main())
    assert [type(c["exception"]) for c in contexts] == [error]


class Interrupted(BaseException):
    pass


@contextlib.contextmanager
def interrupted_making_a_socket():
    """The next socket.__init__, which is Python code, once it has its descriptor."""
    code = socket.socket.__init__.__code__

    def trace(frame, event, arg):
        if frame.f_code is not code:
            return None
        if event == "line" and frame.f_locals["self"].fileno() >= 0:
            sys.settrace(None)
            raise Interrupted
        return trace

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(None)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_accepting_is_interrupted_with_the_descriptor_taken(loop):
    """An exception there must not close it twice."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        with socket.create_connection(listener.getsockname()) as client:
            operation = loop.sock_accept(listener)
            try:
                with interrupted_making_a_socket():
                    operation.send(None)
            except Interrupted as exc:
                # Had it been closed, another file would have its number now, ...
                others = [os.dup(0) for _ in range(4)]
                exc.with_traceback(None)
            del operation
            gc.collect()
            # ... and the end of the socket object would close that.
            for fd in others:
                os.close(fd)
            assert client.recv(1) == b""


@ours
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_showing_the_socket_is_interrupted(loop, contexts):
    """It is made when it is asked for; the descriptor stays the transport's."""

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            try:
                with interrupted_making_a_socket():
                    transport.get_extra_info("socket")
            except Interrupted as exc:
                exc.with_traceback(None)
                interrupted.append(True)
            gc.collect()
            sock = transport.get_extra_info("socket")
            assert sock.getpeername() == transport.get_extra_info("peername")
            transport.write(b"hello")
            transport.close()

    interrupted = []

    async def main():
        server = await loop.create_server(Protocol, "127.0.0.1", 0)
        with socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, server.sockets[0].getsockname())
            assert await asyncio.wait_for(loop.sock_recv(client, 10), 100) == b"hello"
            assert await asyncio.wait_for(loop.sock_recv(client, 10), 100) == b""
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())
    assert interrupted
    assert not contexts


@pytest.mark.parametrize("low", [2**61, 2**62, 2**63, 2**100])
def test_a_huge_low_water_mark(low):
    """asyncio's marks have no upper bound; ours end at sys.maxsize."""
    loop = new_event_loop()
    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        transport = loop._make_socket_transport(a, asyncio.Protocol())
        transport.set_write_buffer_limits(low=low)
        marks = min(low, sys.maxsize), min(4 * low, sys.maxsize)
        assert transport.get_write_buffer_limits() == marks
        with pytest.raises(ValueError):
            transport.set_write_buffer_limits(low=-low)
        transport.abort()
        run_ready(loop)
    loop.close()


class Watched(asyncio.Protocol):
    def __init__(self, calls):
        self.calls = calls

    def connection_made(self, transport):
        self.calls.append("made")

    def connection_lost(self, exc):
        self.calls.append(type(exc))


@ours
@pytest.mark.parametrize("kind", ["socket", "datagram", "read_pipe", "write_pipe"])
@pytest.mark.skipif(
    not hasattr(core, "_inject_fault"), reason="a debug build can make calls fail"
)
def test_a_descriptor_that_cannot_be_watched(loop, kind):
    """epoll has no more room, say: the connection ends with that error."""
    calls = []

    async def main():
        type = socket.SOCK_DGRAM if kind == "datagram" else socket.SOCK_STREAM
        a, b = socket.socketpair(type=type)
        with a, b:
            a.setblocking(False)
            waiter = loop.create_future()
            make = getattr(loop, f"_make_{kind}_transport")
            transport = make(a, Watched(calls), waiter=waiter)
            core._inject_fault("epoll_ctl", errno.ENOSPC)
            await asyncio.wait_for(waiter, 100)
            core._inject_fault("", 0, 0)
            assert transport.is_closing()
            await asyncio.sleep(0)
            assert calls == ["made", OSError]

    loop.run_until_complete(main())


@ours
@pytest.mark.parametrize("kind", ["socket", "datagram", "read_pipe"])
@pytest.mark.skipif(
    not hasattr(core, "_inject_fault"), reason="a debug build can make calls fail"
)
def test_resuming_without_room_to_watch(loop, kind):
    """resume_reading() raises, as asyncio's; pausing and resuming tries again."""
    got = []

    class Protocol(asyncio.Protocol, asyncio.DatagramProtocol):
        def data_received(self, data):
            got.append(data)

        def datagram_received(self, data, addr):
            got.append(data)

    async def main():
        type = socket.SOCK_DGRAM if kind == "datagram" else socket.SOCK_STREAM
        a, b = socket.socketpair(type=type)
        with a, b:
            a.setblocking(False)
            waiter = loop.create_future()
            make = getattr(loop, f"_make_{kind}_transport")
            transport = make(a, Protocol(), waiter=waiter)
            await asyncio.wait_for(waiter, 100)
            transport.pause_reading()
            await asyncio.sleep(0.001)  # until epoll was told
            core._inject_fault("epoll_ctl", errno.ENOSPC)
            with pytest.raises(OSError, match="No space left"):
                transport.resume_reading()
            assert not transport.is_closing()
            b.send(b"x")
            transport.pause_reading()
            transport.resume_reading()
            async with asyncio.timeout(100):
                while not got:
                    await asyncio.sleep(0.001)
            transport.close()
            await asyncio.sleep(0)

    loop.run_until_complete(main())


@ours
@pytest.mark.parametrize("meanwhile", ["asked", "closed"])
def test_a_socket_object_that_is_made_twice(loop, meanwhile):
    """An audit hook asks for it while it is made, or ends the transport."""
    transports, shown = [], []

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            transports.append(transport)

    make_socket = loop._transport_socket

    def hook(fd):
        if len(shown) == 0:
            shown.append(None)
            if meanwhile == "closed":
                transports[0].abort()
                run_ready(loop)
            shown[0] = transports[0].get_extra_info("socket")
        return make_socket(fd)

    server = loop.run_until_complete(loop.create_server(Protocol, "127.0.0.1", 0))
    with socket.create_connection(server.sockets[0].getsockname()) as client:
        while not transports:
            run_ready(loop)
        loop._transport_socket = hook
        info = transports[0].get_extra_info("socket")
        del loop._transport_socket
        assert info is shown[0]
        assert transports[0].get_extra_info("socket") is info
        if meanwhile == "closed":
            assert info.fileno() == -1
        gc.collect()  # the other, which closes nothing
        if meanwhile == "asked":
            transports[0].write(b"x")
            assert client.recv(9) == b"x"
            transports[0].close()
        server.close()
        run_ready(loop)


@ours
def test_a_descriptor_with_the_writer_of_another(loop, contexts):
    """Closed without remove_writer(), and used again."""
    calls = []

    async def main():
        old, peer = socket.socketpair()
        with old, peer:
            old.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    old.send(bytes(100_000))
            fd = old.fileno()
            loop.add_writer(old, print)
            await asyncio.sleep(0)
            a, b = socket.socketpair()
            os.dup2(a.fileno(), fd)
            with a, b:
                transport, _ = await loop.create_connection(
                    lambda: Watched(calls), sock=old
                )
                await asyncio.sleep(0)
                assert transport.is_closing()
                assert calls == ["made", RuntimeError]
            loop._remove_writer(fd)

    loop.run_until_complete(main())
    assert [type(c["exception"]) for c in contexts] == [RuntimeError]


def test_writing_is_interrupted_by_pause_writing(loop):
    """What was written goes out all the same, and close() waits for it."""

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            self.transport.set_write_buffer_limits(high=0)
            with pytest.raises(KeyboardInterrupt):
                self.transport.write(bytes(60_000))
            interrupted.append(True)
            self.transport.close()

        def pause_writing(self):
            raise KeyboardInterrupt

    interrupted, received = [], 0
    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        loop._make_socket_transport(a, Protocol())
        b.send(b"x")
        run_ready(loop)
        run_ready(loop)
        assert interrupted
        while chunk := b.recv(100_000):
            received += len(chunk)
            run_ready(loop)
    assert received == 60_000


# ---- Ctrl-C on the way


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("how", ["accepted", "given"])
def test_connection_made_is_interrupted(loop, how, error):
    """Whoever runs the loop once more has a connection as any other."""
    received, results = [], []

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport
            raise error

        def data_received(self, data):
            received.append(data)
            self.transport.abort()
            loop.stop()

    async def give(sock):
        results.append(await loop.create_connection(Protocol, sock=sock))

    async def stop():
        server.close()

    with contextlib.ExitStack() as stack:
        if how == "accepted":
            server = loop.run_until_complete(
                loop.create_server(Protocol, "127.0.0.1", 0)
            )
            peer = stack.enter_context(
                socket.create_connection(server.sockets[0].getsockname())
            )
        else:
            sock, peer = socket.socketpair()
            stack.enter_context(peer)
            sock.setblocking(False)
            task = loop.create_task(give(sock))
        with pytest.raises(error):
            loop.run_forever()
        peer.send(b"hello")
        loop.run_forever()
        run_ready(loop)
        assert received == [b"hello"]
        if how == "accepted":
            loop.run_until_complete(stop())
        else:
            assert task.done()
            assert len(results) == 1


@ours
def test_the_report_of_no_descriptors_is_interrupted(loop, monkeypatch):
    """The server goes on all the same. (asyncio tries again at once, as well.)"""
    monkeypatch.setattr("asyncio.constants.ACCEPT_RETRY_DELAY", 0.001)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    def interrupt(loop, context):
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        raise KeyboardInterrupt

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            transport.abort()
            loop.stop()

    loop.set_exception_handler(interrupt)
    server = loop.run_until_complete(loop.create_server(Protocol, "127.0.0.1", 0))
    with socket.create_connection(server.sockets[0].getsockname()):
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
        try:
            with pytest.raises(KeyboardInterrupt):
                loop.run_forever()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        loop.run_forever()
    server.close()
    run_ready(loop)


@ours
def test_the_warning_about_an_open_transport_closes_it(loop, monkeypatch):
    """It runs the loop until connection_lost() has been called."""
    calls = []

    def show(message):
        message.source.abort()
        run_ready(loop)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "_showwarnmsg", show)
        with open("/dev/null", "wb", 0) as file:
            # Nothing is ever read from it: the loop does not keep it.
            transport = loop._make_write_pipe_transport(file, Watched(calls))
            run_ready(loop)
            assert loop.stats()["transports"] == 1
            del transport
            gc.collect()
            run_ready(loop)
            assert file.closed
    assert loop.stats()["transports"] == 0
    assert calls == ["made", type(None)]

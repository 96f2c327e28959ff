"""Stream transports: the same behaviour on asyncio's loop and on ours."""

import asyncio
import contextvars
import gc
import os
import socket
import ssl
import sys
import weakref

import pytest
from waiting import until

from aiozmq_speedups.loop import Loop

pytestmark = pytest.mark.loops("speedups", "asyncio")


NEW_LOOP = {"speedups": Loop, "asyncio": asyncio.SelectorEventLoop}


class Recorder(asyncio.Protocol):
    """Notes every callback in order."""

    def __init__(self):
        self.events = []
        self.data = b""
        self.transport = None
        self.lost = asyncio.get_running_loop().create_future()
        self.keep_open = False

    def connection_made(self, transport):
        self.transport = transport
        self.events.append("made")

    def data_received(self, data):
        assert type(data) is bytes
        self.data += data

    def eof_received(self):
        self.events.append("eof")
        return self.keep_open

    def pause_writing(self):
        self.events.append("pause")

    def resume_writing(self):
        self.events.append("resume")

    def connection_lost(self, exc):
        self.events.append("lost")
        assert not self.lost.done(), "connection_lost twice"
        self.lost.set_result(exc)


class BufferedRecorder(Recorder, asyncio.BufferedProtocol):
    data_received = None

    def connection_made(self, transport):
        super().connection_made(transport)
        self.buffer = bytearray(1000)

    def get_buffer(self, sizehint):
        assert sizehint == -1
        return self.buffer

    def buffer_updated(self, nbytes):
        self.data += self.buffer[:nbytes]


async def connect(family, protocol=Recorder, **kwargs):
    """A transport with its protocol, and the other end as a blocking socket."""
    loop = asyncio.get_running_loop()
    if family == "pair":
        a, b = socket.socketpair()
        a.setblocking(False)
        b.settimeout(100)
        tr, pr = await loop.create_connection(protocol, sock=a, **kwargs)
        return tr, pr, b
    if family == "unix":
        name = f"\0azs-{os.getpid()}-{os.urandom(8).hex()}"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(name)
        listener.listen()
        tr, pr = await loop.create_unix_connection(protocol, name, **kwargs)
    else:
        listener = socket.create_server(("127.0.0.1", 0))
        tr, pr = await loop.create_connection(
            protocol, *listener.getsockname(), **kwargs
        )
    b, _ = listener.accept()
    listener.close()
    b.settimeout(100)
    return tr, pr, b


@pytest.fixture(params=["tcp", "unix", "pair"])
def family(request):
    return request.param


@pytest.fixture(params=[Recorder, BufferedRecorder])
def protocol(request):
    return request.param


def recv_exactly(sock, n):
    chunks = []
    while n:
        chunk = sock.recv(min(n, 1 << 20))
        assert chunk, "connection ended early"
        chunks.append(chunk)
        n -= len(chunk)
    return b"".join(chunks)


def test_round_trip_and_eof(loop, family, protocol):
    async def main():
        tr, pr, peer = await connect(family, protocol)
        with peer:
            assert isinstance(tr, asyncio.Transport)
            assert tr.get_protocol() is pr and not tr.is_closing() and tr.is_reading()
            peer.sendall(b"hello" * 1000)
            await until(lambda: len(pr.data) == 5000)
            assert pr.data == b"hello" * 1000
            tr.write(b"a")
            tr.write(bytearray(b"bc"))
            tr.write(memoryview(b"xdex")[1:3])
            tr.writelines([b"f", bytearray(b"g"), memoryview(b"h")])
            assert recv_exactly(peer, 8) == b"abcdefgh"
            peer.shutdown(socket.SHUT_WR)
            assert await pr.lost is None
            assert tr.is_closing()
            assert pr.events == ["made", "eof", "lost"]
            assert peer.recv(1) == b""

    loop.run_until_complete(main())


def test_half_close_keeps_the_other_direction(loop, family):
    async def main():
        tr, pr, peer = await connect(family)
        with peer:
            pr.keep_open = True
            peer.shutdown(socket.SHUT_WR)
            await until(lambda: "eof" in pr.events)
            tr.write(b"still here")
            assert recv_exactly(peer, 10) == b"still here"
            assert tr.can_write_eof()
            tr.write_eof()
            tr.write_eof()
            assert peer.recv(1) == b""
            with pytest.raises(RuntimeError, match="write_eof"):
                tr.write(b"x")
            with pytest.raises(RuntimeError, match="write_eof"):
                tr.writelines([b"x"])
            tr.close()
            tr.close()
            assert await pr.lost is None

    loop.run_until_complete(main())


def test_big_writes_flow_control_and_flush_on_close(loop, family):
    async def main():
        tr, pr, peer = await connect(family)
        with peer:
            assert tr.get_write_buffer_limits() == (16384, 65536)
            big = os.urandom(1 << 20)
            for _ in range(8):
                tr.write(big)
            assert tr.get_write_buffer_size() > 65536
            assert pr.events == ["made", "pause"]
            tr.close()
            assert tr.is_closing() and not pr.lost.done()
            got = await loop.run_in_executor(None, recv_exactly, peer, 8 << 20)
            assert got == big * 8
            assert await pr.lost is None
            assert pr.events == ["made", "pause", "resume", "lost"]

    loop.run_until_complete(main())


def test_mutable_buffers_are_snapshotted(loop, loop_kind):
    if loop_kind == "asyncio":
        pytest.skip("asyncio holds a view: resizing fails, changes are sent")

    async def main():
        tr, pr, peer = await connect("pair")
        with peer:
            tr.write(b"x" * (4 << 20))
            buf = bytearray(b"before")
            tr.write(buf)
            tr.writelines([buf])
            buf[:] = b"AFTER!"  # asyncio's keeps a view and would send this
            buf.extend(b"resized")
            got = await loop.run_in_executor(None, recv_exactly, peer, (4 << 20) + 12)
            assert got[-12:] == b"beforebefore"
            tr.abort()
            await pr.lost

    loop.run_until_complete(main())


def test_water_marks(loop):
    async def main():
        tr, pr, peer = await connect("pair")
        with peer:
            tr.set_write_buffer_limits(high=100)
            assert tr.get_write_buffer_limits() == (25, 100)
            tr.set_write_buffer_limits(low=10)
            assert tr.get_write_buffer_limits() == (10, 40)
            tr.set_write_buffer_limits()
            assert tr.get_write_buffer_limits() == (16384, 65536)
            with pytest.raises(ValueError, match="must be >= low"):
                tr.set_write_buffer_limits(high=1, low=2)
            with pytest.raises(ValueError, match="must be >= low"):
                tr.set_write_buffer_limits(high=-1)
            tr.abort()
            await pr.lost

    loop.run_until_complete(main())


def test_what_a_callback_wrote_is_no_backlog(loop):
    """Marks that are set after a small write, which was sent already."""

    class Protocol(Recorder):
        def data_received(self, data):
            self.transport.write(b"x" * 20)
            self.transport.set_write_buffer_limits(high=10)

    async def main():
        tr, pr, peer = await connect("pair", Protocol)
        with peer:
            peer.sendall(b"x")
            await loop.run_in_executor(None, recv_exactly, peer, 20)
            tr.close()
            await pr.lost
            assert pr.events == ["made", "lost"]

    loop.run_until_complete(main())


def test_pause_and_resume_reading(loop, family, protocol):
    async def main():
        tr, pr, peer = await connect(family, protocol)
        with peer:
            tr.pause_reading()
            tr.pause_reading()
            assert not tr.is_reading()
            peer.sendall(b"later")
            await asyncio.sleep(0.01)
            assert pr.data == b""
            tr.resume_reading()
            tr.resume_reading()
            assert tr.is_reading()
            await until(lambda: pr.data == b"later")
            tr.close()
            await pr.lost
            assert not tr.is_reading()

    loop.run_until_complete(main())


def test_abort_drops_the_buffer(loop, family):
    async def main():
        tr, pr, peer = await connect(family)
        with peer:
            tr.write(b"x" * (8 << 20))
            tr.abort()
            assert tr.get_write_buffer_size() == 0
            assert tr.is_closing()
            assert "lost" not in pr.events
            assert await pr.lost is None
            for _ in range(8):
                tr.write(b"nobody listens")

    loop.run_until_complete(main())


def test_reset_reaches_connection_lost(loop, protocol):
    async def main():
        tr, pr, peer = await connect("tcp", protocol)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
        assert isinstance(await pr.lost, ConnectionResetError)

    loop.run_until_complete(main())


def test_write_to_a_dead_peer(loop):
    async def main():
        tr, pr, peer = await connect("unix")
        pr.keep_open = True
        peer.close()
        await until(lambda: "eof" in pr.events or pr.lost.done())
        while not tr.is_closing():
            tr.write(b"x")
            await asyncio.sleep(0)
        assert isinstance(await pr.lost, (BrokenPipeError, ConnectionResetError))

    loop.run_until_complete(main())


def test_extra_info(loop):
    async def main():
        listener = socket.create_server(("127.0.0.1", 0))
        tr, pr = await loop.create_connection(Recorder, *listener.getsockname())
        peer, peer_addr = listener.accept()
        with peer, listener:
            assert tr.get_extra_info("peername") == listener.getsockname()
            assert tr.get_extra_info("sockname") == peer_addr
            sock = tr.get_extra_info("socket")
            assert sock.fileno() >= 0 and sock.family == socket.AF_INET
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert tr.get_extra_info("nothing") is None
            assert tr.get_extra_info("nothing", 1) == 1
            assert tr.get_extra_info(name="nothing", default=2) == 2
            tr.close()
            await pr.lost
            assert tr.get_extra_info("peername") == listener.getsockname()

    loop.run_until_complete(main())


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_socket_of_a_closed_transport(loop, family, tmp_path):
    """It is there, if of no use, whether or not somebody had asked before."""

    async def main():
        listener = socket.socket(family)
        with listener:
            unix = family == socket.AF_UNIX
            listener.bind(str(tmp_path / "socket") if unix else ("127.0.0.1", 0))
            protocol = Recorder()
            server = await loop.create_server(lambda: protocol, sock=listener)
            with socket.socket(family) as peer:
                peer.connect(listener.getsockname())
                await until(lambda: protocol.transport is not None)
            assert await protocol.lost is None
            sock = protocol.transport.get_extra_info("socket")
            await until(lambda: sock.fileno() == -1)  # asyncio closes it after that
            assert sock.family == family and sock.type == socket.SOCK_STREAM
            assert protocol.transport.get_extra_info("socket") is sock
            with pytest.raises(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            server.close()

    loop.run_until_complete(main())


def test_attributes_and_weak_references(loop):
    async def main():
        tr, pr, peer = await connect("pair")
        with peer:
            tr.mine = 1
            assert tr.mine == 1
            ref = weakref.ref(tr)
            assert ref() is tr
            assert "Transport" in repr(tr)
            tr.close()
            await pr.lost
            assert "closed" in repr(tr)

    loop.run_until_complete(main())


def test_wrong_types(loop):
    async def main():
        tr, pr, peer = await connect("pair")
        with peer:
            for bad in ("text", 1, None, [b"x"]):
                with pytest.raises(TypeError):
                    tr.write(bad)
            # asyncio keeps the first from Python 3.15 on, and hangs on what follows.
            if sys.version_info < (3, 15) or isinstance(loop, Loop):
                with pytest.raises(TypeError):
                    tr.writelines([b"never sent", "text"])
            with pytest.raises(TypeError):
                tr.writelines(5)
            tr.write(b"")
            tr.writelines([])
            tr.write(b"!")
            assert recv_exactly(peer, 1) == b"!"
            tr.close()
            await pr.lost

    loop.run_until_complete(main())


def test_set_protocol_switches_kind(loop):
    async def main():
        tr, first, peer = await connect("pair")
        with peer:
            second = BufferedRecorder()
            second.buffer = bytearray(100)
            peer.sendall(b"one")
            await until(lambda: first.data == b"one")
            tr.set_protocol(second)
            assert tr.get_protocol() is second
            peer.sendall(b"two")
            await until(lambda: second.data == b"two")
            tr.set_protocol(first)
            peer.sendall(b"three")
            await until(lambda: first.data == b"onethree")
            tr.close()
            await first.lost

    loop.run_until_complete(main())


def test_callbacks_run_in_the_context_of_the_connection(loop):
    var = contextvars.ContextVar("var", default="none")
    seen = []

    class Protocol(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            seen.append(var.get())

        def data_received(self, data):
            super().data_received(data)
            seen.append(var.get())

        def connection_lost(self, exc):
            super().connection_lost(exc)
            seen.append(var.get())

    async def main():
        var.set("creator")
        tr, pr, peer = await connect("pair", Protocol)
        var.set("later")
        with peer:
            peer.sendall(b"x")
            await until(lambda: pr.data)
            tr.pause_reading()
            tr.resume_reading()
            peer.close()
            await pr.lost
        assert seen[:2] == ["creator", "creator"]

    loop.run_until_complete(main())


def test_accepted_connections_run_in_a_context_of_the_server(loop):
    """That of create_server() from Python 3.15 on, of start_serving() before."""
    var = contextvars.ContextVar("var", default="none")
    seen = loop.create_future()

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            seen.set_result(var.get())
            transport.close()

    async def main():
        var.set("create")
        server = await loop.create_server(Protocol, "127.0.0.1", 0, start_serving=False)
        var.set("start")
        await server.start_serving()
        with socket.create_connection(server.sockets[0].getsockname()) as peer:
            assert await seen == ("create" if sys.version_info >= (3, 15) else "start")
            peer.setblocking(False)
            assert await loop.sock_recv(peer, 1) == b""
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())


# ---- hostile protocols ----


@pytest.mark.parametrize("action", ["close", "abort", "raise", "eof", "swap", "drop"])
@pytest.mark.parametrize("where", ["made", "data", "pause", "resume", "eof", "lost"])
def test_hostile_callbacks(loop, where, action):
    """Whatever a callback does, connection_lost comes once and nothing crashes."""
    if (
        not isinstance(loop, Loop)
        and where == "resume"
        and action
        in (
            "close",
            "abort",
        )
    ):
        pytest.skip("asyncio calls connection_lost twice here")
    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))

    class Hostile(Recorder):
        def act(self, name):
            if name != where:
                return
            tr = self.transport
            if action == "raise":
                raise ZeroDivisionError(name)
            if action == "close":
                tr.write(b"w")
                tr.close()
            elif action == "abort":
                tr.write(b"w")
                tr.abort()
            elif action == "eof":
                tr.write(b"w")
                tr.write_eof()
            elif action == "swap":
                other = Recorder()
                other.lost = self.lost
                other.transport = tr
                tr.set_protocol(other)
            elif action == "drop":
                self.transport = None
                del tr
                gc.collect()

        def connection_made(self, transport):
            super().connection_made(transport)
            self.act("made")

        def data_received(self, data):
            super().data_received(data)
            self.act("data")

        def eof_received(self):
            super().eof_received()
            self.act("eof")

        def pause_writing(self):
            super().pause_writing()
            self.act("pause")

        def resume_writing(self):
            super().resume_writing()
            self.act("resume")

        def connection_lost(self, exc):
            super().connection_lost(exc)
            try:
                self.act("lost")
            except RuntimeError:
                pass  # write_eof() on what is gone

    async def main():
        tr, pr, peer = await connect("pair", Hostile)
        lost = pr.lost
        with peer:
            try:
                peer.sendall(b"data")
            except BrokenPipeError:
                assert where == "made"
            await asyncio.sleep(0.005)
            if not tr.is_closing():
                try:
                    tr.write(b"x" * (4 << 20))
                except RuntimeError:
                    pass  # written off by write_eof()
            peer.setblocking(False)
            for _ in range(2000):
                try:
                    if not peer.recv(1 << 20):
                        break
                except BlockingIOError:
                    if tr.get_write_buffer_size() == 0:
                        break
                await asyncio.sleep(0)
        del tr, pr
        await asyncio.wait_for(lost, 100)

    loop.run_until_complete(main())
    for context in contexts:
        assert isinstance(context["exception"], (ZeroDivisionError, OSError))


def test_buffered_protocol_that_misbehaves(loop):
    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))

    class Bad(BufferedRecorder):
        kind = "empty"

        def get_buffer(self, sizehint):
            if self.kind == "empty":
                return bytearray()
            if self.kind == "readonly":
                return b"readonly"
            if self.kind == "none":
                return None
            self.transport.abort()
            return bytearray(10)

    async def main():
        for kind in ("empty", "readonly", "none", "abort"):
            tr, pr, peer = await connect("pair", Bad)
            with peer:
                pr.kind = kind
                peer.sendall(b"x")
                await pr.lost

    loop.run_until_complete(main())
    assert len(contexts) >= 3


def test_unclosed_transport_warns_once():
    """Dropped with the loop: a ResourceWarning and no descriptor left."""
    for kind in ("speedups", "asyncio"):
        loop = NEW_LOOP[kind]()

        async def main():
            tr, pr, peer = await connect("pair")
            return peer

        peer = loop.run_until_complete(main())
        with peer, pytest.warns(ResourceWarning, match="unclosed"):
            loop.close()
            del loop
            gc.collect()


# ---- servers and streams ----


@pytest.mark.parametrize("where", ["tcp", "unix"])
def test_streams_echo(loop, where):
    async def echo(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main():
        if where == "tcp":
            server = await asyncio.start_server(echo, "127.0.0.1", 0)
            open_it = lambda: asyncio.open_connection(  # noqa: E731
                *server.sockets[0].getsockname()
            )
        else:
            name = f"\0azs-{os.getpid()}-{os.urandom(8).hex()}"
            server = await asyncio.start_unix_server(echo, name)
            open_it = lambda: asyncio.open_unix_connection(name)  # noqa: E731

        async def client(n):
            reader, writer = await open_it()
            payload = os.urandom(n)
            for _ in range(20):
                writer.write(payload)
                await writer.drain()
                assert await reader.readexactly(n) == payload
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

        await asyncio.gather(*(client(n) for n in (1, 10, 1000, 70_000, 300_000)))
        server.close()
        await asyncio.wait_for(server.wait_closed(), 100)

    loop.run_until_complete(main())


def test_many_connections_in_one_go(loop):
    made = []

    class Echo(asyncio.Protocol):
        def connection_made(self, transport):
            made.append(transport)
            self.transport = transport

        def data_received(self, data):
            self.transport.write(data)

    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=256)
        addr = server.sockets[0].getsockname()

        async def client():
            reader, writer = await asyncio.open_connection(*addr)
            writer.write(b"ping")
            assert await reader.readexactly(4) == b"ping"
            writer.close()
            await writer.wait_closed()

        await asyncio.gather(*(client() for _ in range(200)))
        assert len(made) == 200
        await until(lambda: all(t.is_closing() for t in made))
        server.close()
        await asyncio.wait_for(server.wait_closed(), 100)
        made.clear()

    loop.run_until_complete(main())


def test_closed_loop_refuses_transports():
    loop = Loop()
    loop.close()
    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        with pytest.raises(RuntimeError, match="closed"):
            loop._make_socket_transport(a, object())


def test_fd_of_a_transport_is_taken(loop):
    async def main():
        tr, pr, peer = await connect("pair")
        with peer:
            await asyncio.sleep(0)
            fd = tr.get_extra_info("socket").fileno()
            for method in (loop.add_reader, loop.add_writer):
                with pytest.raises(RuntimeError, match="used by transport"):
                    method(fd, print)
            for method in (loop.remove_reader, loop.remove_writer):
                with pytest.raises(RuntimeError, match="used by transport"):
                    method(fd)
            tr.close()
            await pr.lost

    loop.run_until_complete(main())


def test_start_tls_handshake_failure_is_reported(loop):
    async def main():
        tr, pr, peer = await connect("pair")
        with peer:
            context = ssl.create_default_context()
            task = loop.create_task(
                loop.start_tls(tr, pr, context, server_hostname="x")
            )
            await asyncio.sleep(0.01)
            peer.sendall(b"this is not TLS at all\r\n" * 10)
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.wait_for(task, 100)

    loop.run_until_complete(main())

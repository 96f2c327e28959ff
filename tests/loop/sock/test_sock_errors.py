"""What sock_* refuse, with asyncio's words."""

import asyncio
import errno
import os
import resource
import socket
import threading

import pytest
from sock_cases import fill, pending, readable, turns

from aiozmq_speedups.loop import Loop


def test_arguments_are_refused_with_the_same_words(pair, udp_pair):
    """Each call on asyncio and here; what it raises, at once or when awaited."""
    a, b = pair
    u, _ = udp_pair
    b.send(b"abc")
    calls = [
        ("sock_recv", a, -1),
        ("sock_recv", a, "10"),
        ("sock_recv", a, 1.5),
        ("sock_recv", a, None),
        ("sock_recv", a, 1 << 70),
        ("sock_recv", a),
        ("sock_recv", None, 10),
        ("sock_recv", 3, 10),
        ("sock_recv", a, 10, 10),
        ("sock_recv_into", a, b"readonly"),
        ("sock_recv_into", a, memoryview(b"readonly")),
        ("sock_recv_into", a, memoryview(bytearray(9))[::2]),
        ("sock_recv_into", a, 5),
        ("sock_recv_into", a, "text"),
        ("sock_recv_into", object(), bytearray(5)),
        ("sock_recvfrom", u, -1),
        ("sock_recvfrom", u, "10"),
        ("sock_recvfrom", u),
        ("sock_recvfrom_into", u, b"readonly"),
        ("sock_recvfrom_into", u, bytearray(5), 10),
        ("sock_recvfrom_into", u, bytearray(5), -1),
        ("sock_recvfrom_into", u, bytearray(5), "1"),
        ("sock_recvfrom_into", u, 5),
        ("sock_sendall", a, "text"),
        ("sock_sendall", a, 5),
        ("sock_sendall", a, None),
        ("sock_sendall", a, memoryview(b"abcdef")[::2]),
        ("sock_sendall", a),
        ("sock_sendall", "socket", b"abc"),
        ("sock_sendto", u, "text", ("127.0.0.1", 9)),
        ("sock_sendto", u, b"abc", None),
        ("sock_sendto", u, b"abc", ("127.0.0.1", 70000)),
        ("sock_sendto", u, b"abc", ("127.0.0.1",)),
        ("sock_sendto", u, b"abc", "127.0.0.1"),
        ("sock_sendto", u, b"abc"),
        ("sock_accept", a),
        ("sock_accept",),
        ("sock_accept", None),
        ("sock_connect", a),
        ("sock_connect", None, ("127.0.0.1", 9)),
    ]

    def outcome(loop, name, args):
        try:
            coro = getattr(loop, name)(*args)
        except Exception as exc:
            at = "call"
            caught = exc
        else:
            at = "await"
            try:
                loop.run_until_complete(coro)
            except Exception as exc:
                caught = exc
            else:
                caught = None
        text = str(caught)
        for prefix in ("BaseSelectorEventLoop.", "Loop."):
            text = text.removeprefix(prefix)
        return at, type(caught), text

    theirs, ours = asyncio.SelectorEventLoop(), Loop()
    try:
        for name, *args in calls:
            assert outcome(ours, name, args) == outcome(theirs, name, args), (
                name,
                args,
            )
    finally:
        theirs.close()
        ours.close()


def test_keywords(loop, pair, udp_pair):
    a, b = pair
    u, v = udp_pair

    async def main():
        await loop.sock_sendall(sock=b, data=b"abcdef")
        assert await loop.sock_recv(sock=a, n=2) == b"ab"
        assert await loop.sock_recv(a, n=1) == b"c"
        buf = bytearray(10)
        assert await loop.sock_recv_into(sock=a, buf=buf) == 3
        await loop.sock_sendto(sock=u, data=b"abc", address=v.getsockname())
        assert await loop.sock_recvfrom_into(v, buf, nbytes=2) == (2, u.getsockname())

    loop.run_until_complete(main())


def test_debug_mode_wants_non_blocking_sockets(loop, pair, udp_pair, listener):
    a, _ = pair
    u, v = udp_pair
    loop.set_debug(True)
    for timeout in (None, 5.0):
        for sock in (a, u, listener):
            sock.settimeout(timeout)

        async def main():
            for coro in (
                loop.sock_recv(a, 10),
                loop.sock_recv_into(a, bytearray(10)),
                loop.sock_recvfrom(u, 10),
                loop.sock_recvfrom_into(u, bytearray(10)),
                loop.sock_sendall(a, b"abc"),
                loop.sock_sendto(u, b"abc", v.getsockname()),
                loop.sock_accept(listener),
                loop.sock_connect(a, listener.getsockname()),
                loop.sock_sendfile(a, None),
            ):
                with pytest.raises(ValueError, match="must be non-blocking"):
                    await coro

        loop.run_until_complete(main())


def test_ssl_sockets_are_refused(loop, pair, listener):
    ssl = pytest.importorskip("ssl")
    context = ssl.create_default_context()
    a, b = pair
    wrapped = context.wrap_socket(a, server_hostname="x", do_handshake_on_connect=False)

    async def main():
        for coro in (
            loop.sock_recv(wrapped, 10),
            loop.sock_recv_into(wrapped, bytearray(10)),
            loop.sock_recvfrom(wrapped, 10),
            loop.sock_recvfrom_into(wrapped, bytearray(10)),
            loop.sock_sendall(wrapped, b"abc"),
            loop.sock_sendto(wrapped, b"abc", b.getsockname()),
            loop.sock_accept(wrapped),
            loop.sock_connect(wrapped, listener.getsockname()),
            loop.sock_sendfile(wrapped, None),
        ):
            with pytest.raises(TypeError, match="cannot be of type SSLSocket"):
                await coro

    with wrapped:
        loop.run_until_complete(main())


def test_a_transport_owns_its_descriptor(loop, pair):
    a, _b = pair

    async def main():
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=a)
        transport.pause_reading()
        fill(a)
        for coro in (
            loop.sock_recv(a, 10),
            loop.sock_recv_into(a, bytearray(10)),
            loop.sock_sendall(a, b"abc"),
        ):
            with pytest.raises(RuntimeError, match="is used by transport"):
                await coro
        transport.abort()
        await turns()

    loop.run_until_complete(main())


def test_a_socket_that_becomes_a_transport(loop, pair):
    a, b = pair

    class Reader(asyncio.Protocol):
        def __init__(self):
            self.got = loop.create_future()

        def data_received(self, data):
            self.got.set_result(data)

    async def main():
        task = asyncio.create_task(loop.sock_recv(a, 100))
        await turns()
        b.send(b"abc")
        assert await task == b"abc"
        transport, protocol = await loop.create_connection(Reader, sock=a)
        b.send(b"def")
        assert await protocol.got == b"def"
        transport.close()
        await turns()

    loop.run_until_complete(main())


def test_subclasses_of_socket_keep_their_methods(loop):
    class Shouting(socket.socket):
        def recv(self, *args):
            return super().recv(*args).upper()

    left, right = socket.socketpair()
    a = Shouting(fileno=left.detach())

    async def main():
        task = asyncio.create_task(loop.sock_recv(a, 100))
        await turns()
        right.send(b"abc")
        assert await task == b"ABC"

    with a, right:
        a.setblocking(False)
        loop.run_until_complete(main())


def test_a_blocking_listener_does_not_block_the_loop(loop, ours, listener):
    """asyncio would."""

    async def main():
        for timeout in (None, 30.0):
            listener.settimeout(timeout)
            task = asyncio.create_task(loop.sock_accept(listener))
            await pending(task)
            with socket.create_connection(listener.getsockname()):
                conn, _ = await task
                conn.close()

    loop.run_until_complete(main())


def test_blocking_datagram_sockets_do_not_block_the_loop(loop, ours, udp_pair):
    """asyncio would."""
    a, b = udp_pair

    async def main():
        for timeout in (None, 30.0):
            b.settimeout(timeout)
            task = asyncio.create_task(loop.sock_recvfrom(b, 10))
            await pending(task)
            await loop.sock_sendto(a, b"abc", b.getsockname())
            assert (await task)[0] == b"abc"

    loop.run_until_complete(main())


def test_blocking_sockets_do_not_block_the_loop(loop, ours):
    """asyncio would."""
    a, b = socket.socketpair()

    async def main():
        for timeout in (None, 30.0):
            a.settimeout(timeout)
            task = asyncio.create_task(loop.sock_recv(a, 100))
            await pending(task)
            b.send(b"abc")
            assert await task == b"abc"
            buf = bytearray(10)
            task = asyncio.create_task(loop.sock_recv_into(a, buf))
            await pending(task)
            b.send(b"abc")
            assert await task == 3
        a.settimeout(0)
        left = fill(a)
        a.settimeout(None)
        task = asyncio.create_task(loop.sock_sendall(a, b"abc"))
        await pending(task)
        while left:
            left -= len(b.recv(65536))
        await task

    with a, b:
        loop.run_until_complete(main())


def test_no_descriptors_left_to_accept_with(loop, listener):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def main():
        with socket.create_connection(listener.getsockname()):
            await readable(listener)
            taken = []
            limit = listener.fileno() + 60
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            try:
                with pytest.raises(OSError) as caught:
                    while True:
                        taken.append(os.dup(0))
                assert caught.value.errno == errno.EMFILE
                with pytest.raises(OSError) as caught:
                    await loop.sock_accept(listener)
                assert caught.value.errno == errno.EMFILE
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                for fd in taken:
                    os.close(fd)
            conn, _ = await loop.sock_accept(listener)
            conn.close()

    loop.run_until_complete(main())


def test_not_connected(loop):
    async def main():
        with socket.socket() as sock:
            sock.setblocking(False)
            with pytest.raises(OSError) as caught:
                await loop.sock_recv(sock, 10)
            assert caught.value.errno == errno.ENOTCONN
            with pytest.raises(OSError) as caught:
                await loop.sock_sendall(sock, b"")
            assert caught.value.errno in (errno.ENOTCONN, errno.EPIPE)

    loop.run_until_complete(main())


def test_broken_pipe(loop, pair):
    a, b = pair
    b.close()

    async def main():
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(10):
                await loop.sock_sendall(a, b"abc")

    loop.run_until_complete(main())


def test_broken_pipe_while_it_waits(loop, pair):
    a, b = pair
    fill(a)

    async def main():
        task = asyncio.create_task(loop.sock_sendall(a, b"abc"))
        await pending(task)
        b.close()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            await task

    loop.run_until_complete(main())


def test_a_closed_loop(loop_kind, pair):
    a, b = pair
    loop = Loop() if loop_kind == "speedups" else asyncio.SelectorEventLoop()
    waits = loop.sock_recv(a, 100)
    sends = loop.sock_sendall(b, b"abc")
    receives = loop.sock_recv(a, 100)
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        waits.send(None)
    with pytest.raises(StopIteration):
        sends.send(None)
    while True:
        try:
            receives.send(None)
        except StopIteration as stop:
            assert stop.value == b"abc"
            break


def test_awaited_in_the_loop_of_another_thread(loop, pair):
    a, _ = pair
    outcome = []

    def thread():
        async def main():
            with pytest.raises(RuntimeError, match="attached to a different loop"):
                await loop.sock_recv(a, 100)
            outcome.append(True)

        asyncio.run(main())

    thread = threading.Thread(target=thread)
    thread.start()
    thread.join()
    assert outcome == [True]

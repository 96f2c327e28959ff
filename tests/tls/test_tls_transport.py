"""What a program sees of a TLS connection, whoever makes it."""

import asyncio
import concurrent.futures
import gc
import os
import socket
import ssl
import sys
import time
import weakref

import pytest
from recorder import Recorder
from waiting import until

from aiozmq_speedups._loop import tls as _tls


class Small(Recorder, asyncio.BufferedProtocol):
    """Pauses after each buffer, to go on in the next turn."""

    size = 100

    def __init__(self):
        super().__init__()
        self.buffer = bytearray(self.size)
        self.received = 0

    def get_buffer(self, sizehint):
        return self.buffer

    def buffer_updated(self, nbytes):
        self.received += nbytes
        self.transport.pause_reading()
        asyncio.get_running_loop().call_soon(self.transport.resume_reading)


class Big(Small):
    size = 65536


@pytest.mark.parametrize("family", ["tcp", "unix"])
@pytest.mark.parametrize("debug", [False, True])
def test_both_ways(loop, run, connected, family, debug, tmp_path):
    loop.set_debug(debug)

    async def main():
        path = str(tmp_path / "socket") if family == "unix" else None
        async with connected(path=path) as (client, server):
            client.transport.write(b"to the server")
            server.transport.writelines([b"to the ", bytearray(b"client")])
            await until(lambda: server.data == b"to the server")
            await until(lambda: client.data == b"to the client")
            client.transport.close()
            assert await client.lost is None
            assert await server.lost is None
            assert client.events == server.events == ["eof", "lost"]

    run(main())


def test_what_is_known_of_it(run, connected, tls):
    async def main():
        async with connected() as (client, server):
            info = client.transport.get_extra_info
            assert info("sslcontext") is tls.client
            assert ("DNS", "localhost") in info("peercert")["subjectAltName"]
            assert info("cipher")[1] == info("ssl_object").version() == "TLSv1.3"
            assert info("ssl_object").getpeercert(binary_form=True)
            assert info("ssl_object").selected_alpn_protocol() is None
            assert info("compression") is None
            assert info("nothing", 7) == 7
            peer = server.transport.get_extra_info
            assert peer("sslcontext") is tls.server
            assert peer("peercert") is None
            assert peer("peername") == info("sockname") != info("peername")
            assert peer("socket").fileno() != info("socket").fileno()
            for transport in client.transport, server.transport:
                assert isinstance(transport, asyncio.Transport)
                assert not transport.can_write_eof()
                with pytest.raises(NotImplementedError):
                    transport.write_eof()
                with pytest.raises(TypeError):
                    transport.write("text")
                assert transport.is_reading() and not transport.is_closing()
                assert transport.get_write_buffer_size() == 0

    run(main())


@pytest.mark.parametrize("protocol", [Small, Big])
def test_a_buffered_protocol_that_pauses_gets_all(run, connected, protocol):
    """aiofastnet alone ends the first with an error, the second too early."""

    async def main():
        async with connected(client=protocol) as (client, server):
            size = 1_000_000
            server.transport.write(b"x" * size)
            server.transport.close()
            await client.lost
            assert client.received == size
            assert client.events == ["eof", "lost"]

    run(main())


def test_the_end_without_close_notify(run, connected):
    """aiofastnet alone does not call eof_received()."""

    async def main():
        async with connected() as (client, server):
            client.transport.write(b"last words")
            with socket.socket(
                fileno=os.dup(client.transport.get_extra_info("socket").fileno())
            ) as sock:
                sock.shutdown(socket.SHUT_WR)
            assert await server.lost is None
            assert server.data == b"last words"
            assert server.events == ["eof", "lost"]
            assert server.transport.is_closing()

    run(main())


def test_closed_while_reading_is_paused(run, connected):
    """aiofastnet alone waits for the whole shutdown timeout."""

    async def main():
        async with connected() as (client, server):
            client.transport.pause_reading()
            client.transport.close()
            assert await client.lost is None
            assert await server.lost is None

    run(main())


def test_closed_as_soon_as_reading_is_resumed(run, connected):
    """As StreamReader.readexactly() does, and a caller who has then all he wants."""

    async def main():
        async with connected() as (client, server):
            client.transport.pause_reading()
            client.transport.resume_reading()
            client.transport.close()
            assert await client.lost is None
            assert await server.lost is None

    run(main())


def test_paused_until_the_peer_has_gone(run, connected):
    async def main():
        async with connected() as (client, server):
            server.transport.pause_reading()
            client.transport.write(b"x" * 100_000)
            client.transport.close()
            for _ in range(20):
                await asyncio.sleep(0)
            assert server.data == b"" and server.events == []
            server.transport.resume_reading()
            assert await server.lost is None
            assert server.data == b"x" * 100_000
            assert server.events == ["eof", "lost"]

    run(main())


def test_lines_of_a_generator(run, connected):
    """aiofastnet alone sends nothing."""

    async def main():
        async with connected() as (client, server):
            client.transport.writelines(part for part in (b"a", b"b"))
            await until(lambda: server.data == b"ab")

    run(main())


def test_the_peer_has_reset(run, connected):
    async def main():
        async with connected() as (client, server):
            sock = client.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1" + bytes(7))
            client.transport.abort()
            assert isinstance(await server.lost, ConnectionResetError)
            assert server.transport.is_closing()
            server.transport.write(b"nobody reads it")
            assert server.events == ["lost"]

    run(main())


def test_flow_control(run, connected):
    async def main():
        async with connected() as (client, server):
            client.transport.pause_reading()
            server.transport.set_write_buffer_limits(high=1000)
            assert server.transport.get_write_buffer_limits() == (250, 1000)
            size = 0
            while server.events != ["pause"]:
                server.transport.write(b"x" * 100_000)
                size += 100_000
            assert server.transport.get_write_buffer_size() > 1000
            client.transport.resume_reading()
            await until(lambda: len(client.data) == size)
            assert server.events == ["pause", "resume"]
            assert server.transport.get_write_buffer_size() == 0

    run(main())


def test_an_exception_of_the_protocol(loop, run, connected):
    class Bad(Recorder):
        def data_received(self, data):
            raise ZeroDivisionError

    async def main():
        async with connected(server=Bad) as (client, server):
            client.transport.write(b"x")
            assert isinstance(await server.lost, ZeroDivisionError)

    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))
    run(main())
    assert [type(c["exception"]) for c in contexts] == [ZeroDivisionError]
    contexts.clear()


def test_sendfile(loop, run, connected, tmp_path):
    content = os.urandom(300_000)
    (tmp_path / "file").write_bytes(content)

    async def main():
        async with connected() as (client, server):
            with open(tmp_path / "file", "rb") as file:
                send = loop.sendfile
                assert await send(server.transport, file, 10, 200_000) == 200_000
                assert file.tell() == 200_010
                with pytest.raises(RuntimeError, match="fallback is disabled"):
                    await send(server.transport, file, fallback=False)
                assert await send(server.transport, file, 200_010) == 99_990
            assert server.transport.get_protocol() is server
            assert server.transport.is_reading()
            await until(lambda: len(client.data) == 299_990)
            assert client.data == content[10:]
            server.transport.close()
            with open(tmp_path / "file", "rb") as file:
                with pytest.raises(RuntimeError, match="closing"):
                    await send(server.transport, file)

    run(main())


def test_sendfile_to_a_peer_that_goes(loop, run, connected, tmp_path):
    (tmp_path / "file").write_bytes(bytes(20_000_000))

    async def main():
        async with connected() as (client, server):
            client.transport.pause_reading()
            with open(tmp_path / "file", "rb") as file:
                sending = loop.create_task(loop.sendfile(server.transport, file))
                await until(lambda: server.transport.get_write_buffer_size())
                client.transport.abort()
                with pytest.raises(ConnectionError):
                    await sending
            await server.lost

    run(main())


def test_a_server_knows_its_connections(loop, run, tls):
    async def main():
        server = await loop.create_server(Recorder, "127.0.0.1", 0, ssl=tls.server)
        where = server.sockets[0].getsockname()
        _, client = await loop.create_connection(
            Recorder, *where, ssl=tls.client, server_hostname="localhost"
        )
        server.close()
        if sys.version_info >= (3, 12, 1):
            waiting = loop.create_task(server.wait_closed())
            for _ in range(5):
                await asyncio.sleep(0)
            assert not waiting.done()
        if sys.version_info >= (3, 13):
            server.close_clients()
        else:
            client.transport.close()
        assert await client.lost is None
        await server.wait_closed()

    run(main())


# -- handshakes that do not come to their end --


class Silent:
    """A server that accepts, and says nothing."""

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        return self.listener.getsockname()

    def __exit__(self, *exc):
        self.listener.close()


def test_a_handshake_is_cancelled(loop, run):
    """aiofastnet alone keeps the context for as long as the handshake may take."""

    async def main():
        context = ssl.create_default_context()
        ref = weakref.ref(context)
        with Silent() as where:
            connecting = loop.create_task(
                loop.create_connection(Recorder, *where, ssl=context)
            )
            while not loop._timers_of_test():
                await asyncio.sleep(0)
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
        del context, connecting
        for _ in range(5):
            await asyncio.sleep(0)
        gc.collect()
        assert ref() is None

    handshakes = []
    call_later = loop.call_later
    loop.call_later = lambda delay, *args, **kwargs: (
        handshakes.append(delay == 60) or call_later(delay, *args, **kwargs)
    )
    loop._timers_of_test = lambda: any(handshakes)
    try:
        run(main())
    finally:
        del loop.call_later, loop._timers_of_test


def test_a_handshake_takes_too_long(loop, run):
    async def main():
        with Silent() as where:
            with pytest.raises(ConnectionAbortedError, match=r"longer than 0\.01"):
                await loop.create_connection(
                    Recorder,
                    *where,
                    ssl=ssl.create_default_context(),
                    ssl_handshake_timeout=0.01,
                )

    run(main())


@pytest.mark.parametrize("name", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
def test_a_timeout_must_be_positive(loop, run, tls, name):
    async def main():
        a, b = socket.socketpair()
        with a, b:
            with pytest.raises(ValueError, match=name):
                await loop.create_connection(
                    Recorder, sock=a, ssl=tls.client, server_hostname="x", **{name: 0}
                )

    run(main())


def test_a_certificate_for_another(loop, run, connected):
    async def main():
        with pytest.raises(ssl.SSLCertVerificationError):
            async with connected(server_hostname="example.org"):
                pass

    run(main())


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.0\r\n\r\n", b"", b"\x16\x03\x01"])
def test_the_peer_says_something_else_and_goes(loop, run, tls, errors, sent):
    """aiofastnet alone reports it to the exception handler, and by a class."""

    async def main():
        a, b = socket.socketpair()
        with b:
            b.send(sent)
            b.shutdown(socket.SHUT_WR)
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                await loop.connect_accepted_socket(Recorder, a, ssl=tls.server)

    run(main())


# -- contexts that only asyncio's code may take --


def server_context(tls):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls.cert, tls.key)
    return context


def client_context(tls, cls=None):
    if cls is None:
        return ssl.create_default_context(cafile=str(tls.cert))
    context = cls(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(tls.cert)
    return context


class CountingContext(ssl.SSLContext):
    """As truststore's: it does something of its own to what it wraps."""

    wrapped = 0

    def wrap_bio(self, *args, **kwargs):
        self.wrapped += 1
        return super().wrap_bio(*args, **kwargs)


def talk(run, connected, client, server):
    """Returns the server's SSL object after a message."""

    async def main():
        options = {"ssl": client, "server_context": server}
        async with connected(**options) as (a, b):
            a.transport.write(b"hello")
            await until(lambda: b.data == b"hello")
            return [p.transport.get_extra_info("ssl_object") for p in (a, b)]

    return run(main())


def test_a_context_that_asks_for_the_name(run, connected, tls):
    """aiofastnet alone ends the process."""
    server, names = server_context(tls), []
    server.sni_callback = lambda obj, name, context: names.append((type(obj), name))
    _, obj = talk(run, connected, client_context(tls), server)
    assert names == [(ssl.SSLObject, "localhost")]
    assert isinstance(obj, ssl.SSLObject)


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_context_that_logs_keys(run, connected, tls, tmp_path, side, monkeypatch):
    """aiofastnet alone ends the process."""
    client, server = client_context(tls), server_context(tls)
    log = tmp_path / "keys"
    {"client": client, "server": server}[side].keylog_filename = str(log)
    talk(run, connected, client, server)
    assert "CLIENT_HANDSHAKE_TRAFFIC_SECRET" in log.read_text()


def test_the_environment_asks_for_keys(loop, run, monkeypatch, tmp_path):
    """Contexts made where none is given log them as well."""
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))

    async def main():
        with Silent() as where:
            with pytest.raises(ConnectionAbortedError):
                await loop.create_connection(
                    Recorder, *where, ssl=True, ssl_handshake_timeout=0.01
                )

    run(main())


def test_a_context_that_sees_the_records(run, connected, tls):
    """aiofastnet alone ends the process."""
    client, seen = client_context(tls), []
    client._msg_callback = lambda obj, *what: seen.append(type(obj))
    talk(run, connected, client, server_context(tls))
    assert set(seen) == {ssl.SSLObject}


def test_a_subclass_is_asked(run, connected, tls):
    """aiofastnet alone takes what is beneath: nothing would be verified."""
    client = client_context(tls, CountingContext)
    obj, _ = talk(run, connected, client, server_context(tls))
    assert client.wrapped == 1
    assert isinstance(obj, ssl.SSLObject)


def test_which_contexts_are_plain(tls, tmp_path):
    def change(**attributes):
        context = server_context(tls)
        for name, value in attributes.items():
            setattr(context, name, value)
        return context

    class Other(ssl.SSLObject):
        pass

    assert _tls.is_plain(tls.server) and _tls.is_plain(tls.client)
    assert not _tls.is_plain(CountingContext(ssl.PROTOCOL_TLS_CLIENT))
    assert not _tls.is_plain(change(sni_callback=print))
    assert not _tls.is_plain(change(keylog_filename=str(tmp_path / "keys")))
    assert not _tls.is_plain(change(_msg_callback=print))
    assert not _tls.is_plain(change(post_handshake_auth=True))
    assert not _tls.is_plain(change(sslobject_class=Other))


@pytest.fixture
def late_peer(tls):
    """A server that answers a close many turns later; it outlives the loop."""

    def serve():
        connection = listener.accept()[0]
        connection.settimeout(100)
        with tls.server.wrap_socket(connection, server_side=True) as connection:
            assert connection.recv(1) == b""
            time.sleep(0.05)

    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        served = []

        def start():
            served.append(pool.submit(serve))
            return listener.getsockname()

        yield start
        for server in served:  # none where the test was skipped
            server.result(100)


def test_closed_in_the_last_line(late_peer, loop, run, tls):
    """The fixture `loop` waits: asyncio's does not close by itself what is left."""

    async def main():
        _, client = await asyncio.open_connection(
            *late_peer(), ssl=tls.client, server_hostname="localhost"
        )
        client.close()

    run(main())

"""A connection that becomes TLS, and TLS in TLS."""

import asyncio
import socket
import ssl

import pytest
from recorder import Recorder
from waiting import until


async def upgrade(loop, a, b, tls):
    """start_tls() of both protocols' transports, which they get in place."""
    client = loop.start_tls(
        a.transport, a, tls.client, server_hostname="localhost", ssl_shutdown_timeout=99
    )
    server = loop.start_tls(
        b.transport, b, tls.server, server_side=True, ssl_shutdown_timeout=99
    )
    # The server first: what is to be its handshake must not reach the protocol.
    b.transport, a.transport = await asyncio.gather(server, client)


async def plain_pair(loop):
    x, y = socket.socketpair()
    _, a = await loop.create_connection(Recorder, sock=x)
    _, b = await loop.connect_accepted_socket(Recorder, y)
    return a, b


async def talk(a, b):
    a.data = b.data = b""
    a.transport.write(b"hello")
    await until(lambda: b.data == b"hello")
    b.transport.write(b"x" * 300_000)
    await until(lambda: len(a.data) == 300_000)


@pytest.mark.parametrize("debug", [False, True])
def test_upgrade(loop, run, tls, debug):
    loop.set_debug(debug)

    async def main():
        a, b = await plain_pair(loop)
        await talk(a, b)
        raw = a.transport
        await upgrade(loop, a, b, tls)
        assert raw.get_protocol() is not a
        assert a.transport.get_protocol() is a
        assert a.transport.get_extra_info("peercert")
        assert a.transport.get_extra_info("socket").fileno() > 0
        await talk(a, b)
        a.transport.close()
        assert await a.lost is None and await b.lost is None
        assert a.events[-2:] == b.events[-2:] == ["eof", "lost"]

    run(main())


def test_tls_in_tls(loop, run, tls, connected):
    async def main():
        async with connected() as (a, b):
            await talk(a, b)
            await upgrade(loop, a, b, tls)
            await talk(a, b)
            b.transport.pause_reading()
            a.transport.write(b"y" * 1_000_000)
            for _ in range(10):
                await asyncio.sleep(0)
            b.transport.resume_reading()
            await until(lambda: b.data.endswith(b"y" * 1_000_000))
            a.transport.close()
            assert await a.lost is None and await b.lost is None

    run(main())


def test_paused_and_lost(loop, run, tls):
    """A StreamReader resumes its transport when it is read, lost or not."""

    async def main():
        a, b = await plain_pair(loop)
        await upgrade(loop, a, b, tls)
        a.transport.pause_reading()
        b.transport.abort()
        a.transport.abort()
        await a.lost
        await b.lost
        for method in "pause_reading", "resume_reading", "close", "abort":
            getattr(a.transport, method)()
        assert a.transport.is_closing()

    run(main())


def test_the_end_without_close_notify(loop, run, tls):
    async def main():
        a, b = await plain_pair(loop)
        raw = a.transport
        await upgrade(loop, a, b, tls)
        a.transport.write(b"last words")
        raw.close()
        await b.lost
        assert b.data == b"last words"
        assert b.events[-2:] == ["eof", "lost"]
        await a.lost

    run(main())


def test_cancelled(loop, run, tls):
    async def main():
        a, b = await plain_pair(loop)
        task = loop.create_task(
            loop.start_tls(a.transport, a, tls.client, server_hostname="localhost")
        )
        await until(lambda: b.data)  # the handshake has begun
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await b.lost
        b.transport.abort()

    run(main())


def test_wrong_arguments(loop, run, tls):
    async def main():
        a, b = await plain_pair(loop)
        with pytest.raises(TypeError, match="sslcontext"):
            await loop.start_tls(a.transport, a, None)
        with pytest.raises(TypeError, match="not supported by start_tls"):
            await loop.start_tls(object(), a, tls.client)
        for name in "ssl_handshake_timeout", "ssl_shutdown_timeout":
            with pytest.raises(ValueError, match=name):
                await loop.start_tls(
                    a.transport, a, tls.client, server_hostname="x", **{name: -1}
                )
        await talk(a, b)
        for protocol in a, b:
            protocol.transport.abort()
            await protocol.lost

    run(main())


def test_streams(loop, run, tls):
    async def main():
        done = loop.create_future()

        async def serve(reader, writer):
            assert await reader.readline() == b"STARTTLS\n"
            writer.write(b"OK\n")
            await writer.start_tls(tls.server)
            writer.write((await reader.readline()).upper())
            writer.close()
            done.set_result(await reader.read())

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            where = server.sockets[0].getsockname()
            reader, writer = await asyncio.open_connection(*where)
            writer.write(b"STARTTLS\n")
            assert await reader.readline() == b"OK\n"
            await writer.start_tls(tls.client, server_hostname="localhost")
            writer.write(b"hello\n")
            assert await reader.read() == b"HELLO\n"
            writer.close()
            await writer.wait_closed()
            assert await done == b""

    run(main())


def test_the_handshake_has_come_already(loop_kind, loop, run, tls):
    """gh-142352: asyncio before 3.13.12 and 3.14.3 waits for it forever."""
    if loop_kind == "asyncio":
        pytest.skip("newer ones only")

    async def main():
        async def serve(reader, writer):
            assert await reader.readline() == b"STARTTLS\n"
            # The client does not wait for an answer.
            await until(lambda: reader._buffer)
            await writer.start_tls(tls.server)
            assert writer.get_extra_info("cipher")
            writer.write(await reader.readline())
            writer.close()

        def client(where):
            with socket.create_connection(where) as sock:
                sock.sendall(b"STARTTLS\n")
                with tls.client.wrap_socket(sock, server_hostname="localhost") as s:
                    s.sendall(b"at once\n")
                    return s.recv(100)

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            where = server.sockets[0].getsockname()
            assert await asyncio.to_thread(client, where) == b"at once\n"

    run(main())


def test_a_context_that_only_asyncio_may_take(loop, run, tls):
    class Context(ssl.SSLContext):
        pass

    async def main():
        a, b = await plain_pair(loop)
        context = Context(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(tls.cert)
        mixed = type(tls)(server=tls.server, client=context)
        await upgrade(loop, a, b, mixed)
        obj = a.transport.get_extra_info("ssl_object")
        assert isinstance(obj, ssl.SSLObject)
        await talk(a, b)
        await upgrade(loop, a, b, tls)  # aiofastnet's in asyncio's
        await talk(a, b)
        await upgrade(loop, a, b, mixed)  # and asyncio's in that
        await talk(a, b)
        a.transport.close()
        await a.lost
        await b.lost

    run(main())

"""aiohttp's server and client on both loops."""

import asyncio
import contextlib
import hashlib
import os
import socket
import struct

import pytest
from waiting import until

aiohttp = pytest.importorskip("aiohttp")
from aiohttp import web  # noqa: E402

MIB = 1 << 20


async def hello(request):
    return web.Response(text=f"Hello, {request.match_info.get('name', 'world')}!")


async def digest(request):
    """What of a body, and its length, from the chunks in which it came."""
    sha, size = hashlib.sha256(), 0
    async for chunk in request.content.iter_any():
        sha.update(chunk)
        size += len(chunk)
    return web.json_response({"sha256": sha.hexdigest(), "size": size})


async def websocket(request):
    ws = web.WebSocketResponse(max_msg_size=4 * MIB)
    await ws.prepare(request)
    async for message in ws:
        if message.type == aiohttp.WSMsgType.TEXT:
            await ws.send_str(message.data)
        elif message.type == aiohttp.WSMsgType.BINARY:
            await ws.send_bytes(message.data)
    return ws


class Server:
    """An application that is served on 127.0.0.1 or on a Unix socket."""

    def __init__(self, **handlers):
        self.app = web.Application(client_max_size=4 * MIB)
        self.app.router.add_get("/", hello)
        self.app.router.add_get("/hello/{name}", hello)
        self.app.router.add_post("/digest", digest)
        self.app.router.add_get("/ws", websocket)
        for name, handler in handlers.items():
            self.app.router.add_get(f"/{name}", handler)

    async def start(self, *, ssl=None, path=None, shutdown_timeout=20):
        self.runner = web.AppRunner(
            self.app, access_log=None, shutdown_timeout=shutdown_timeout
        )
        await self.runner.setup()
        if path is not None:
            await web.UnixSite(self.runner, path).start()
            return "http://localhost"
        await web.TCPSite(self.runner, "127.0.0.1", 0, ssl_context=ssl).start()
        self.address = self.runner.addresses[0]
        scheme = "http" if ssl is None else "https"
        return f"{scheme}://127.0.0.1:{self.address[1]}"


@contextlib.asynccontextmanager
async def serving(server=None, *, ssl=None, path=None, connections=10, keep=True):
    """(session, URL) of a server; both end with the block."""
    server = server or Server()
    url = await server.start(ssl=None if ssl is None else ssl.server, path=path)
    if path is not None:
        connector = aiohttp.UnixConnector(path, force_close=not keep)
    else:
        connector = aiohttp.TCPConnector(
            limit=connections,
            force_close=not keep,
            ssl=True if ssl is None else ssl.client,
        )
    try:
        async with aiohttp.ClientSession(connector=connector) as session:
            yield session, url
    finally:
        await server.runner.cleanup()


@pytest.fixture(params=["tcp", "unix", "tls"])
def how(request, tmp_path):
    """Arguments of serving() for each kind of connection."""
    if request.param == "tls":
        return {"ssl": request.getfixturevalue("tls")}
    return {"path": str(tmp_path / "http")} if request.param == "unix" else {}


@pytest.mark.parametrize("keep", [True, False], ids=["keep-alive", "close"])
def test_hello(run, errors, how, keep):
    async def fetch(session, url, number):
        async with session.get(f"{url}/hello/{number}") as response:
            assert response.status == 200
            assert await response.text() == f"Hello, {number}!"

    async def main():
        async with serving(keep=keep, **how) as (session, url):
            for base in range(0, 300 if keep else 60, 30):
                async with asyncio.TaskGroup() as group:
                    for number in range(base, base + 30):
                        group.create_task(fetch(session, url, number))

    run(main())


def test_chunked_upload(run, errors, how):
    async def chunks(data):
        for start in range(0, len(data), 10_000):
            yield data[start : start + 10_000]

    async def main():
        data = os.urandom(MIB)
        async with serving(**how) as (session, url):
            for body in (chunks(data), data):
                async with session.post(f"{url}/digest", data=body) as response:
                    assert await response.json() == {
                        "sha256": hashlib.sha256(data).hexdigest(),
                        "size": MIB,
                    }

    run(main())


def test_large_download(run, errors, how):
    data = os.urandom(4 * MIB)

    async def stream(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for start in range(0, len(data), 100_000):
            await response.write(data[start : start + 100_000])
        await response.write_eof()
        return response

    async def main():
        async with serving(Server(stream=stream), **how) as (session, url):
            async with session.get(f"{url}/stream") as response:
                assert await response.read() == data

    run(main())


def test_file(run, errors, how, tmp_path):
    """sendfile() where it is plain TCP or a Unix socket."""
    data = os.urandom(2 * MIB + 17)
    (tmp_path / "file").write_bytes(data)

    async def file(request):
        return web.FileResponse(tmp_path / "file", chunk_size=100_000)

    async def main():
        async with serving(Server(file=file), **how) as (session, url):
            for headers, part in (
                ({}, data),
                ({"Range": "bytes=100-"}, data[100:]),
                ({}, data),
            ):
                async with session.get(f"{url}/file", headers=headers) as response:
                    assert await response.read() == part

    run(main())


def test_websocket(run, errors, how):
    async def main():
        async with serving(**how) as (session, url):
            async with session.ws_connect(f"{url}/ws", max_msg_size=4 * MIB) as ws:
                for size in (0, 1, 125, 126, 65535, 65536, MIB):
                    message = os.urandom(size)
                    await ws.send_bytes(message)
                    assert await ws.receive_bytes() == message
                await ws.send_str("text")
                assert await ws.receive_str() == "text"
            assert ws.close_code == aiohttp.WSCloseCode.OK

    run(main())


def listens(address):
    """Is there somebody? (The connection is in the backlog at best.)"""
    with socket.socket() as sock:
        return sock.connect_ex(address) == 0


def test_graceful_shutdown(run, errors):
    """A request in flight is answered, then the server is gone."""

    async def main():
        started, go_on = asyncio.Event(), asyncio.Event()

        async def slow(request):
            started.set()
            await go_on.wait()
            return web.Response(text="done")

        server = Server(slow=slow)
        url = await server.start()
        async with aiohttp.ClientSession() as session:
            request = asyncio.create_task(session.get(f"{url}/slow"))
            await started.wait()
            cleanup = asyncio.create_task(server.runner.cleanup())
            await until(lambda: not listens(server.address))
            assert not request.done()
            go_on.set()
            async with await request as response:
                assert await response.text() == "done"
            await cleanup

    run(main())


@pytest.mark.parametrize("end", ["close", "reset"])
def test_client_leaves_mid_response(run, errors, end):
    """The handler is told, and the server goes on."""

    async def main():
        loop = asyncio.get_running_loop()
        outcome = loop.create_future()

        async def endless(request):
            response = web.StreamResponse()
            await response.prepare(request)
            try:
                while True:
                    await response.write(b"x" * 100_000)
            except BaseException as exc:
                outcome.set_result(type(exc))
                raise

        server = Server(endless=endless)
        async with serving(server) as (session, url):
            sock = socket.socket()
            sock.setblocking(False)
            await loop.sock_connect(sock, server.address)
            await loop.sock_sendall(sock, b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await loop.sock_recv(sock, 100)).startswith(b"HTTP/1.1 200")
            if end == "reset":
                linger = struct.pack("ii", 1, 0)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            sock.close()
            async with asyncio.timeout(100):
                raised = await outcome
            assert issubclass(raised, (ConnectionError, asyncio.CancelledError))
            async with session.get(url) as response:
                assert await response.text() == "Hello, world!"

    run(main())


def test_server_leaves_mid_response(run, errors):
    """The client is told."""

    async def main():
        async def broken(request):
            response = web.StreamResponse(headers={"Content-Length": "1000"})
            await response.prepare(request)
            await response.write(b"x")
            request.transport.abort()
            return response

        async with serving(Server(broken=broken)) as (session, url):
            with pytest.raises(aiohttp.ClientError):
                async with session.get(f"{url}/broken") as response:
                    await response.read()

    run(main())


def test_pipelined_requests(run, errors):
    """Many requests in one segment, answered in order."""

    async def main():
        server = Server()
        async with serving(server):
            reader, writer = await asyncio.open_connection(*server.address)
            for number in range(50):
                writer.write(b"GET /hello/%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
            for number in range(50):
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200")
                expected = b"Hello, %d!" % number
                assert await reader.readexactly(len(expected)) == expected
            writer.close()
            await writer.wait_closed()

    run(main())


def test_tls_refuses_what_it_does_not_trust(run, tls, loop):
    loop.set_exception_handler(lambda loop, context: None)  # of the server

    async def main():
        async with serving(ssl=tls) as (_, url):
            async with aiohttp.ClientSession() as distrustful:
                with pytest.raises(aiohttp.ClientConnectorCertificateError):
                    await distrustful.get(url)

    run(main())

"""uvicorn with httptools and with h11 on both loops."""

import asyncio
import contextlib
import hashlib
import os
import socket

import pytest
from waiting import until

from aiozmq_speedups.loop import Loop

uvicorn = pytest.importorskip("uvicorn")
aiohttp = pytest.importorskip("aiohttp")

MIB = 1 << 20


class App:
    """An ASGI application; `waits` and `streams` are under the tests' control."""

    def __init__(self):
        self.started, self.go_on = asyncio.Event(), asyncio.Event()
        self.streamed = asyncio.get_running_loop().create_future()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "websocket":
            await self.websocket(receive, send)
        else:
            await getattr(self, scope["path"].strip("/") or "hello")(receive, send)

    async def answer(self, send, body, *headers):
        length = (b"content-length", str(len(body)).encode())
        start = {"type": "http.response.start", "status": 200}
        await send({**start, "headers": [length, *headers]})
        await send({"type": "http.response.body", "body": body})

    async def hello(self, receive, send):
        await self.answer(send, b"Hello, world!")

    async def digest(self, receive, send):
        sha, more = hashlib.sha256(), True
        while more:
            message = await receive()
            sha.update(message["body"])
            more = message.get("more_body", False)
        await self.answer(send, sha.digest())

    async def slow(self, receive, send):
        self.started.set()
        await self.go_on.wait()
        await self.answer(send, b"done")

    async def stream(self, receive, send):
        """100 MB, or until the client leaves."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        body = {"type": "http.response.body", "body": bytes(100_000)}
        leaving = asyncio.ensure_future(self._left(receive))
        for _ in range(1000):
            if leaving.done():
                break
            await send({**body, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b""})
        leaving.cancel()
        self.streamed.set_result(leaving.done() and not leaving.cancelled())

    async def _left(self, receive):
        while (await receive())["type"] != "http.disconnect":
            pass

    async def websocket(self, receive, send):
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "bytes": message["bytes"]})


@contextlib.asynccontextmanager
async def serving(http="httptools", **options):
    """(application, server, URL): the server runs in a task until the block ends."""
    app = App()
    config = uvicorn.Config(
        app, http=http, lifespan="off", log_level="critical", access_log=False,
        **{"ws": "none", **options},
    )  # fmt: skip
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        # Without IPPROTO_TCP asyncio leaves Nagle's algorithm on.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = asyncio.ensure_future(server.serve([sock]))
        await until(lambda: server.started or task.done())
        scheme = "https" if config.is_ssl else "http"
        try:
            yield app, server, f"{scheme}://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


@pytest.fixture(params=["httptools", "h11"])
def http(request):
    pytest.importorskip(request.param)
    return request.param


@pytest.mark.parametrize("keep", [True, False], ids=["keep-alive", "close"])
def test_hello(run, errors, http, keep):
    async def fetch(session, url):
        async with session.get(url) as response:
            assert response.status == 200
            assert await response.read() == b"Hello, world!"

    async def main():
        connector = aiohttp.TCPConnector(limit=10, force_close=not keep)
        async with (
            serving(http) as (_, _, url),
            aiohttp.ClientSession(connector=connector) as session,
        ):
            for _ in range(10 if keep else 2):
                async with asyncio.TaskGroup() as group:
                    for _ in range(30):
                        group.create_task(fetch(session, url))

    run(main())


def test_tls(run, errors, http, tls):
    async def main():
        files = {"ssl_certfile": str(tls.cert), "ssl_keyfile": str(tls.key)}
        connector = aiohttp.TCPConnector(ssl=tls.client)
        async with (
            serving(http, **files) as (_, _, url),
            aiohttp.ClientSession(connector=connector) as session,
        ):
            for _ in range(20):
                async with session.get(url) as response:
                    assert await response.read() == b"Hello, world!"

    run(main())


def test_chunked_upload(run, errors, http):
    async def main():
        data = os.urandom(MIB)

        async def chunks():
            for start in range(0, MIB, 10_000):
                yield data[start : start + 10_000]

        async with (
            serving(http) as (_, _, url),
            aiohttp.ClientSession() as session,
            session.post(f"{url}/digest", data=chunks()) as response,
        ):
            assert await response.read() == hashlib.sha256(data).digest()

    run(main())


def test_websocket(run, errors):
    pytest.importorskip("websockets")

    async def main():
        async with (
            serving(ws="websockets-sansio") as (_, _, url),
            aiohttp.ClientSession() as session,
            session.ws_connect(url, max_msg_size=2 * MIB) as ws,
        ):
            for size in (0, 1, 1000, 100_000, MIB):
                message = os.urandom(size)
                await ws.send_bytes(message)
                assert await ws.receive_bytes() == message

    run(main())


def test_graceful_shutdown(run, errors, http):
    """A request in flight is answered, then the server is gone."""

    async def main():
        async with (
            serving(http) as (app, server, url),
            aiohttp.ClientSession() as session,
        ):
            request = asyncio.create_task(session.get(f"{url}/slow"))
            await app.started.wait()
            server.should_exit = True
            # Its listeners are closed first.
            await until(lambda: not any(s.is_serving() for s in server.servers))
            assert not request.done()
            app.go_on.set()
            async with await request as response:
                assert await response.read() == b"done"

    run(main())


def test_client_leaves_mid_response(run, errors, http):
    """The application is told, and the server goes on."""

    async def main():
        async with (
            serving(http) as (app, _, url),
            aiohttp.ClientSession() as session,
        ):
            response = await session.get(f"{url}/stream")
            assert await response.content.readexactly(100_000) == bytes(100_000)
            response.close()  # and with it the connection
            async with asyncio.timeout(100):
                assert await app.streamed
            async with session.get(url) as response:
                assert await response.read() == b"Hello, world!"

    run(main())


def test_the_loop_that_it_is_told_to_use():
    """By --loop aiozmq_speedups:new_event_loop, as in the README."""
    config = uvicorn.Config(App, loop="aiozmq_speedups:new_event_loop")
    if not hasattr(config, "get_loop_factory"):
        pytest.skip("an older uvicorn, which knows its own loops only")
    loop = config.get_loop_factory()()
    assert isinstance(loop, Loop)
    loop.close()

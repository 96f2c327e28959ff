"""Tornado's servers and clients: its streams are on the loop's readers."""

import asyncio
import socket

import pytest

pytest.importorskip("tornado")
from tornado import (
    httpclient,
    httpserver,
    ioloop,
    iostream,
    tcpclient,
    tcpserver,
    testing,
    web,
    websocket,
)

MIB = 1 << 20


class Backwards(web.RequestHandler):
    async def post(self):
        await asyncio.sleep(0)
        self.write(self.request.body[::-1])


class Echo(websocket.WebSocketHandler):
    async def on_message(self, message):
        await self.write_message(message, binary=isinstance(message, bytes))


@pytest.fixture(params=["tcp", "tls"])
def secure(request):
    return request.getfixturevalue("tls") if request.param == "tls" else None


class Served:
    """An HTTP server on a port of the kernel's; `url`, `client`."""

    def __init__(self, tls):
        self.tls = tls

    async def __aenter__(self):
        app = web.Application([("/", Backwards), ("/ws", Echo)])
        options = self.tls and self.tls.server
        self.server = httpserver.HTTPServer(app, ssl_options=options)
        sock, port = testing.bind_unused_port()
        self.server.add_socket(sock)
        self.url = f"http{'s' if self.tls else ''}://127.0.0.1:{port}/"
        self.client = httpclient.AsyncHTTPClient(force_instance=True)
        return self

    def request(self, url, **options):
        context = self.tls and self.tls.client
        request = httpclient.HTTPRequest(url, ssl_options=context, **options)
        return request

    async def __aexit__(self, *exc_info):
        self.client.close()
        self.server.stop()
        await self.server.close_all_connections()


def test_http(run, secure):
    async def main():
        async with Served(secure) as served:

            async def post(body):
                kind = {"Content-Type": "application/octet-stream"}
                request = served.request(
                    served.url, method="POST", headers=kind, body=body
                )
                assert (await served.client.fetch(request)).body == body[::-1]

            bodies = [b"", b"xyz", bytes(range(256)) * 4096]
            async with asyncio.TaskGroup() as group:
                for number in range(60):
                    group.create_task(post(bodies[number % 3]))

    run(main())


def test_websocket(run, secure):
    async def main():
        async with Served(secure) as served:
            url = served.url.replace("http", "ws") + "ws"
            ws = await websocket.websocket_connect(served.request(url))
            for message in ("text", b"", b"x" * 65536, b"y" * MIB):
                await ws.write_message(message, isinstance(message, bytes))
                assert await ws.read_message() == message
            ws.close()
            assert await ws.read_message() is None

    run(main())


def test_streams(run):
    """Megabytes both ways; a peer that leaves is seen."""

    async def main():
        class Server(tcpserver.TCPServer):
            async def handle_stream(self, stream, address):
                try:
                    while True:
                        await stream.write(await stream.read_bytes(MIB, partial=True))
                except iostream.StreamClosedError:
                    closed.set_result(None)

        closed = asyncio.get_running_loop().create_future()
        server = Server()
        sock, port = testing.bind_unused_port()
        server.add_socket(sock)
        client = tcpclient.TCPClient()
        stream = await client.connect("127.0.0.1", port, af=socket.AF_INET)
        data = bytes(range(256)) * (4 * MIB // 256)
        written = asyncio.ensure_future(stream.write(data))
        assert await stream.read_bytes(len(data)) == data
        await written
        stream.close()
        await closed
        server.stop()
        client.close()

    run(main())


def test_ioloop(run):
    """Callbacks of every kind of IOLoop."""

    async def main():
        io_loop = ioloop.IOLoop.current()
        assert io_loop.asyncio_loop is asyncio.get_running_loop()
        done = asyncio.Event()
        calls = []

        def tick():
            calls.append("tick")
            if len(calls) == 3:
                done.set()

        periodic = ioloop.PeriodicCallback(tick, 1)
        periodic.start()
        await done.wait()
        periodic.stop()
        called = asyncio.Event()
        timeout = io_loop.call_later(60, calls.append)
        io_loop.remove_timeout(timeout)
        await io_loop.run_in_executor(None, io_loop.add_callback, called.set)
        await called.wait()

    run(main())

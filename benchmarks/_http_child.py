"""A hello-world HTTP server for http.py.

    _http_child.py SERVER LOOP

Prints ``{"address": "http://127.0.0.1:..."}`` when it listens and runs until its
standard input ends. ``SERVER`` is aiohttp, or uvicorn with httptools.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

if not __package__:
    # A script's own folder comes first, and http.py in it would hide http.
    _here = Path(__file__).resolve().parent
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != _here]
    sys.path.insert(0, str(_here.parent))

from benchmarks import _loops

BODY = b"Hello, world!"
BACKLOG = 1024


def answer(**values: Any) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def bind() -> tuple[socket.socket, str]:
    # asyncio sets TCP_NODELAY only where the protocol number is given; without
    # it uvicorn's two writes for a response meet a delayed ACK, 40 ms each time.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock, f"http://127.0.0.1:{sock.getsockname()[1]}"


async def serve_aiohttp() -> None:
    from aiohttp import web

    async def hello(request: web.Request) -> web.Response:
        return web.Response(body=BODY, content_type="text/plain")

    app = web.Application()
    app.router.add_get("/", hello)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    sock, url = bind()
    await web.SockSite(runner, sock, backlog=BACKLOG).start()
    answer(address=url)
    await asyncio.get_running_loop().create_future()


async def hello_asgi(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[Any]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"13")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


async def serve_uvicorn() -> None:
    import uvicorn

    sock, url = bind()

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            answer(address=url)

    config = uvicorn.Config(
        hello_asgi,
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="critical",
        backlog=BACKLOG,
    )
    await Server(config).serve([sock])


SERVERS = {"aiohttp": serve_aiohttp, "uvicorn": serve_uvicorn}


def main(server: str, loop_name: str) -> int:
    # This thread only waits in read() without the GIL, so it costs nothing; it
    # leaves at once, since some loops cannot be stopped in every state.
    threading.Thread(
        target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True
    ).start()
    loop = _loops.KINDS[loop_name].create()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(SERVERS[server]())
    except NotImplementedError as exc:
        answer(error=f"not implemented{f': {exc}' if str(exc) else ''}")
    except Exception as exc:
        answer(error=f"{type(exc).__name__}: {exc}")
    threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

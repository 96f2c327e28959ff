"""Servers under ``run``: each picks a loop in its own way, and starts its workers."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import aiozmq_speedups

# Which loop answers, in which process; and the request takes time, so that others may.
APP = """
import asyncio, os

def about():
    loop = type(asyncio.get_running_loop())
    return f"{loop.__module__}.{loop.__qualname__} {os.getpid()}"

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            step = (await receive())["type"]
            await send({"type": step + ".complete"})
            if step == "lifespan.shutdown":
                return
    start = {"type": "http.response.start", "status": 200, "headers": []}
    await send(start)
    await send({"type": "http.response.body", "body": about().encode()})

def aiohttp_app():
    from aiohttp import web

    async def answer(request):
        return web.Response(text=about())

    app = web.Application()
    app.router.add_get("/", answer)
    return app

def sanic_app():
    from sanic import Sanic, text

    app = Sanic("About")

    @app.get("/")
    async def answer(request):
        return text(about())

    return app
"""

GUNICORN = "gunicorn -b unix:{path} --no-control-socket"
SANIC = "sanic app:sanic_app --factory --unix={path} --no-motd"
GRANIAN = "granian --interface asgi --uds {path} app:asgi"
# What is needed, the command, whether another process of it answers.
SERVERS = [
    ("uvicorn", "uvicorn app:asgi --uds {path}", False),
    ("uvicorn", "uvicorn app:asgi --uds {path} --loop uvloop", False),
    ("uvicorn", "uvicorn app:asgi --uds {path} --workers 2", True),
    ("uvicorn", "uvicorn app:asgi --uds {path} --reload", True),
    ("uvicorn_worker", GUNICORN + " -k uvicorn_worker.UvicornWorker app:asgi", True),
    ("gunicorn.asgi", GUNICORN + " -k asgi app:asgi", True),
    ("aiohttp", GUNICORN + " -k aiohttp.GunicornWebWorker app:aiohttp_app()", True),
    (
        "aiohttp",
        GUNICORN + " -k aiohttp.GunicornUVLoopWebWorker app:aiohttp_app()",
        True,
    ),
    ("sanic", SANIC + " --single-process", False),
    ("sanic", SANIC + " --workers 2", True),
    ("hypercorn", "hypercorn -b unix:{path} app:asgi", True),
    ("hypercorn", "hypercorn -b unix:{path} --workers 2 -k uvloop app:asgi", True),
    ("granian", GRANIAN + " --loop asyncio", True),
    ("granian", GRANIAN + " --loop uvloop", True),
]
HAS_PTH = Path(aiozmq_speedups.__file__).parents[1].name == "site-packages"


def ask(path):
    """The answer of the server at `path`, once it is there."""
    request = b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(str(path))
        sock.sendall(request)
        answer = b"".join(iter(lambda: sock.recv(1000), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 200 " in head.partition(b"\r\n")[0], answer
    # The last word of the only line, be it chunked or not.
    return next(line for line in body.decode().splitlines() if "oop" in line).split()


@contextlib.contextmanager
def running(folder, argv, **env):
    """(process, socket's path) of a server, which has its end with the block."""
    (folder / "app.py").write_text(APP)
    path = folder / "s"
    argv = [part.format(path=path) for part in argv]
    process = subprocess.Popen(
        [sys.executable, *argv],
        cwd=folder,
        env=os.environ | env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process, path
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def answer_of(process, path):
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return ask(path)
        except (FileNotFoundError, ConnectionError, TimeoutError):
            time.sleep(0.01)  # not there yet, or Sanic, which binds twice
    os.killpg(process.pid, signal.SIGKILL)
    pytest.fail(process.stdout.read())


@pytest.mark.parametrize(
    "module, command, is_child",
    SERVERS,
    ids=[command.replace("{path}", "S") for _, command, _ in SERVERS],
)
def test_server_is_on_this_loop(tmp_path_factory, module, command, is_child):
    if is_child and not HAS_PTH:
        pytest.skip("the package is not installed: aiozmq_speedups.pth is not there")
    pytest.importorskip(module)
    if command.startswith("gunicorn"):
        pytest.importorskip("gunicorn")
    argv = ["-m", "aiozmq_speedups", "run", "-m", *command.split()]
    with running(tmp_path_factory.mktemp("s"), argv) as (process, path):
        loop, pid = answer_of(process, path)
        assert loop == "aiozmq_speedups.loop.Loop"
        assert (int(pid) != process.pid) == is_child


@pytest.mark.skipif(not HAS_PTH, reason="the package is not installed")
def test_server_is_put_on_this_loop_by_the_environment(tmp_path_factory):
    pytest.importorskip("uvicorn")
    argv = ["-m", "uvicorn", "app:asgi", "--uds", "{path}", "--workers", "2"]
    folder = tmp_path_factory.mktemp("s")
    with running(folder, argv, AIOZMQ_SPEEDUPS_RUN="1") as (process, path):
        assert answer_of(process, path)[0] == "aiozmq_speedups.loop.Loop"


def test_server_that_is_told_to_run_asyncio(tmp_path_factory):
    pytest.importorskip("uvicorn")
    command = "uvicorn app:asgi --uds {path} --loop asyncio --log-level critical"
    argv = ["-m", "aiozmq_speedups", "run", "-m", *command.split()]
    with running(tmp_path_factory.mktemp("s"), argv) as (process, path):
        assert answer_of(process, path)[0].startswith("asyncio.")
        process.terminate()
        assert process.wait(200) in (0, -signal.SIGTERM)
        assert "RuntimeWarning: this program was to run on" in process.stdout.read()

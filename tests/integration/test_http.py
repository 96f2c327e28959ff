"""httpx against uvicorn, hypercorn (HTTP/2) and gunicorn, over TCP, TLS and Unix."""

import asyncio
import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import sys

import pytest

httpx = pytest.importorskip("httpx")

MIB = 1 << 20

APP = '''
import asyncio, hashlib, os

async def app(scope, receive, send):
    """Answers with what was sent, and by whom."""
    if scope["type"] == "lifespan":
        while True:
            step = (await receive())["type"]
            await send({"type": step + ".complete"})
            if step == "lifespan.shutdown":
                return
    sha, more = hashlib.sha256(), True
    while more:
        message = await receive()
        sha.update(message.get("body", b""))
        more = message.get("more_body", False)
    loop = type(asyncio.get_running_loop()).__module__
    words = [scope["scheme"], scope["path"], sha.hexdigest(), str(os.getpid()), loop]
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for word in words:
        await send(
            {"type": "http.response.body", "body": word.encode() + b" ",
             "more_body": True}
        )
    await send({"type": "http.response.body", "body": b""})
'''
namespace = {}
exec(APP, namespace)
app = namespace["app"]


@pytest.fixture(params=["unix", "tcp", "tls"])
def where(request, tmp_path_factory):
    """(a listening socket, the URL, TLS or None, the path of the Unix socket)."""
    tls = request.getfixturevalue("tls") if request.param == "tls" else None
    unix = request.param == "unix"
    with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as sock:
        path = str(tmp_path_factory.mktemp("s") / "s") if unix else None
        sock.bind(path or ("127.0.0.1", 0))
        sock.listen()
        if unix:
            yield sock, "http://localhost", tls, path
        else:
            scheme = "https" if tls else "http"
            yield sock, f"{scheme}://127.0.0.1:{sock.getsockname()[1]}", tls, path


@contextlib.asynccontextmanager
async def uvicorn_server(sock, tls):
    uvicorn = pytest.importorskip("uvicorn")
    files = {"ssl_certfile": tls.cert, "ssl_keyfile": tls.key} if tls else {}
    config = uvicorn.Config(app, log_config=None, lifespan="off", **files)
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext
    task = asyncio.create_task(server.serve([sock]))
    try:
        yield
    finally:
        server.should_exit = True
        await task


@contextlib.asynccontextmanager
async def hypercorn_server(sock, tls):
    hypercorn = pytest.importorskip("hypercorn.asyncio")
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"fd://{os.dup(sock.fileno())}"]
    config.graceful_timeout = 5
    if tls:
        config.certfile, config.keyfile = str(tls.cert), str(tls.key)
    stop = asyncio.Event()
    serving = hypercorn.serve(app, config, shutdown_trigger=stop.wait)
    task = asyncio.create_task(serving)
    try:
        yield
    finally:
        stop.set()
        await task


def client_of(tls, path, **options):
    verify = tls.client if tls else True
    transport = httpx.AsyncHTTPTransport(verify=verify, uds=path, **options)
    return httpx.AsyncClient(transport=transport, timeout=100)


async def check(client, url, body, loop):
    response = await client.post(f"{url}/there", content=body)
    assert response.status_code == 200
    scheme, path, digest, _, module = response.text.split()
    assert (scheme, path) == (url.partition(":")[0], "/there")
    assert digest == hashlib.sha256(body).hexdigest()
    assert module == type(loop).__module__
    return response.http_version


async def check_many(client, url, loop):
    bodies = [b"", b"x", os.urandom(10_000), os.urandom(MIB)]
    async with asyncio.TaskGroup() as group:
        for number in range(60):
            group.create_task(check(client, url, bodies[number % 4], loop))


def test_uvicorn(run, loop, where):
    sock, url, tls, path = where

    async def main():
        async with uvicorn_server(sock, tls), client_of(tls, path) as client:
            await check_many(client, url, loop)

    run(main())


def test_hypercorn(run, loop, where):
    sock, url, tls, path = where

    async def main():
        # HTTP/2 is chosen in the TLS handshake, or known before.
        how = {"http2": True, "http1": tls is not None}
        async with hypercorn_server(sock, tls), client_of(tls, path, **how) as client:
            assert await check(client, url, b"", loop) == "HTTP/2"
            await check_many(client, url, loop)

    run(main())


def test_client_gives_up(run, loop, where):
    """The next request has another connection, or another stream."""
    sock, url, tls, path = where

    async def main():
        started = asyncio.Event()

        async def body():
            yield b"begun"
            started.set()
            await asyncio.get_running_loop().create_future()

        async with uvicorn_server(sock, tls), client_of(tls, path) as client:
            for _ in range(3):
                task = asyncio.create_task(client.post(url, content=body()))
                await started.wait()
                started.clear()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await check(client, url, b"x", loop)

    run(main())


@contextlib.contextmanager
def gunicorn(folder, tls):
    """(process, path) of a gunicorn with two uvicorn workers on this loop."""
    (folder / "app.py").write_text(APP)
    command = f"""-m aiozmq_speedups run -m gunicorn -b unix:{folder}/s --workers 2
        --no-control-socket -k uvicorn_worker.UvicornWorker app:app"""
    if tls:
        command += f" --certfile {tls.cert} --keyfile {tls.key}"
    process = subprocess.Popen(
        [sys.executable, *command.split()],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        for line in process.stdout:
            if "startup complete" in line:
                break
        yield process, f"{folder}/s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_gunicorn_with_uvicorn_workers(run, tmp_path_factory, request, secure):
    """Answers on this loop; takes new workers on SIGHUP; ends well."""
    pytest.importorskip("gunicorn")
    pytest.importorskip("uvicorn_worker")
    tls = request.getfixturevalue("tls") if secure else None
    url = "https://localhost" if secure else "http://localhost"

    async def ask(path):
        while True:
            try:
                async with client_of(tls, path) as client:
                    scheme, _, _, pid, loop = (await client.get(url)).text.split()
            except httpx.TransportError:
                continue  # a worker that ends hangs up on who has not asked yet
            break
        assert scheme == ("https" if secure else "http")
        assert loop == "aiozmq_speedups.loop"
        return pid

    async def main():
        with gunicorn(tmp_path_factory.mktemp("s"), tls) as (process, path):
            before = {await ask(path) for _ in range(20)}
            process.send_signal(signal.SIGHUP)
            while await ask(path) in before:
                pass
            await asyncio.gather(*[ask(path) for _ in range(40)])
            process.terminate()
            assert await asyncio.to_thread(process.wait, 200) == 0

    run(main())

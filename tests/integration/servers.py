"""PostgreSQL and Redis, each in a folder and on a port of its own for a session."""

import contextlib
import glob
import os
import pwd
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from ports import held_port

USER, PASSWORD = "tester", "secret"


def nobody():
    """Arguments of Popen() for who is not root, which PostgreSQL refuses."""
    if os.getuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@contextlib.contextmanager
def short_folder():
    """One that who is not root may enter, of a short path: it gets Unix sockets."""
    folder = Path(tempfile.mkdtemp(prefix="azs-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def running(argv, ready, **options):
    """A server that has printed a line with `ready`; it has its end with the block."""
    process = subprocess.Popen(
        [str(part) for part in argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )
    log = []
    is_ready = threading.Event()

    def read():
        for line in process.stdout:
            log.append(line)
            if ready in line:
                is_ready.set()
        is_ready.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        assert is_ready.wait(60) and process.poll() is None, "".join(log)
        yield process
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()


def copy_for(owner, source, folder):
    """A copy of a file that its owner alone may read, as PostgreSQL wants a key."""
    target = folder / source.name
    shutil.copy(source, target)
    target.chmod(0o600)
    if owner:
        os.chown(target, owner["user"], owner["group"])
    return target


@pytest.fixture(scope="session")
def postgres(tls):
    """Where PostgreSQL listens: `folder` (of its Unix socket), `port`, and `cert`."""
    found = [shutil.which("initdb"), *glob.glob("/usr/lib/postgresql/*/bin/initdb")]
    initdb = next((Path(path).resolve() for path in found if path), None)
    if initdb is None:
        pytest.skip("PostgreSQL is not installed (apt install postgresql)")
    owner = nobody()
    with short_folder() as folder, held_port() as port:
        password = folder / "password"
        password.write_text(PASSWORD)
        if owner:
            os.chown(folder, owner["user"], owner["group"])
            os.chown(password, owner["user"], owner["group"])
        data = folder / "data"
        subprocess.run(
            [initdb, "-D", data, "-U", USER, f"--pwfile={password}", "--no-sync"]
            + ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"],
            check=True,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            **owner,
        )
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": folder,
            "fsync": "off",
            "ssl": "on",
            "ssl_cert_file": copy_for(owner, tls.cert, folder),
            "ssl_key_file": copy_for(owner, tls.key, folder),
        }
        argv = [initdb.with_name("postgres"), "-D", data]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        with running(argv, "ready to accept connections", cwd=folder, **owner):
            yield SimpleNamespace(folder=folder, port=port, cert=tls.cert)


@pytest.fixture(scope="session")
def redis_server(tls):
    """Where Redis listens: `path`, `port` and `tls_port`, and `cert`."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("Redis is not installed (apt install redis-server)")
    with short_folder() as folder, held_port() as port, held_port() as tls_port:
        settings = {
            "bind": "127.0.0.1",
            "port": port,
            "tls-port": tls_port,
            "tls-cert-file": tls.cert,
            "tls-key-file": tls.key,
            "tls-auth-clients": "no",
            "unixsocket": folder / "s",
            "save": "",
            "dir": folder,
        }
        argv = [program]
        for name, value in settings.items():
            argv += [f"--{name}", value]
        with running(argv, "eady to accept connections"):
            yield SimpleNamespace(
                path=folder / "s", port=port, tls_port=tls_port, cert=tls.cert
            )

"""The C programs in load/ and the processes that are measured with them."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from benchmarks import _common

SOURCES = Path(__file__).resolve().parent / "load"

FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall")
TLS_FLAGS = ("-DWITH_TLS",)
LIBRARIES = ("-lm",)
TLS_LIBRARIES = ("-lssl", "-lcrypto")

START_SECONDS = 100.0
"""Seconds until a process that does not listen counts as hung: valgrind is slow."""

GRACE_SECONDS = 60.0
"""Seconds a run may take beyond its own before it counts as hung."""


class LoadError(Exception):
    """A program ended, or did not answer; the text is one line."""


# --- programs ----------------------------------------------------------------


def compiler() -> list[str] | None:
    """The C compiler's command: $CC, or cc."""
    command = shlex.split(os.environ.get("CC", "cc"))
    return command if command and shutil.which(command[0]) else None


def why_no_compiler() -> str | None:
    if compiler() is None:
        return "there is no C compiler (on Debian: apt install gcc)"
    return None


def cache() -> Path:
    """Where the programs are kept between runs: a folder of this user alone."""
    path = Path(tempfile.gettempdir()) / f"aiozmq-speedups-load-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    info = path.lstat()
    if info.st_uid != os.getuid() or not path.is_dir() or info.st_mode & 0o022:
        raise LoadError(f"{path} is not a folder that only this user can write to")
    return path


@dataclass(frozen=True)
class Programs:
    """The load generator, the reference server, and what TLS needs."""

    client: Path
    server: Path
    why_no_tls: str | None
    certificate: Path
    key: Path


def build() -> Programs:
    """Compiles what is not in the cache yet."""
    why_no_tls = None
    try:
        client, server = _compile("echo_client", True), _compile("echo_server", True)
    except LoadError:
        why_no_tls = "no OpenSSL headers (on Debian: apt install libssl-dev)"
        client, server = _compile("echo_client", False), _compile("echo_server", False)
    certificate, key = cache() / "certificate.pem", cache() / "key.pem"
    if why_no_tls is None and not (certificate.exists() and key.exists()):
        why_no_tls = _make_certificate(certificate, key)
    return Programs(client, server, why_no_tls, certificate, key)


def _compile(name: str, tls: bool) -> Path:
    command = compiler()
    if command is None:
        raise LoadError(str(why_no_compiler()))
    command = [*command, *FLAGS, *(TLS_FLAGS if tls else ())]
    libraries = [*(TLS_LIBRARIES if tls else ()), *LIBRARIES]
    source, header = SOURCES / f"{name}.c", SOURCES / "common.h"
    content = json.dumps([*command, *libraries]).encode()
    digest = hashlib.sha256(content + source.read_bytes() + header.read_bytes())
    program = cache() / f"{name}-{digest.hexdigest()[:16]}"
    if not program.exists():
        # Renamed when complete: another run may be looking for it.
        unfinished = program.with_name(f"{program.name}.{os.getpid()}")
        result = subprocess.run(
            [*command, str(source), "-o", str(unfinished), *libraries],
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            raise LoadError(f"{source.name} does not compile:\n{result.stderr.strip()}")
        unfinished.replace(program)
    return program


def _make_certificate(certificate: Path, key: Path) -> str | None:
    """Writes a self-signed pair; returns why not where it cannot."""
    if shutil.which("openssl") is None:
        return "no openssl command (on Debian: apt install openssl)"
    names = [
        path.with_name(f"{path.name}.{os.getpid()}") for path in (certificate, key)
    ]
    result = subprocess.run(
        ["openssl", "req", "-x509", "-nodes", "-days", "3650", "-subj", "/CN=localhost"]
        + ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        + ["-out", str(names[0]), "-keyout", str(names[1])],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        return f"openssl made no certificate: {_last_line(result.stderr)}"
    names[1].replace(key)
    names[0].replace(certificate)
    return None


# --- processes ---------------------------------------------------------------


def split_cores() -> tuple[int, int]:
    """The server's core and the client's; the same where there is one only."""
    available = _common.cores()
    return available[-1], available[0]


def why_unreliable() -> str | None:
    server, client = split_cores()
    if server == client:
        return "there is one core only: client and server take turns on it"
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if busy > 1.0:
        return f"the machine is busy (load average {busy:.1f}): figures will vary"
    return None


def raise_descriptor_limit() -> int:
    """Lets this process and its children have the most descriptors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Process:
    """A child on one core that prints one JSON object a line.

    It ends when its standard input does, so it cannot outlive this process.
    """

    def __init__(self, command: Sequence[str], core: int) -> None:
        # A file, not a pipe that could fill up and block the child.
        self._stderr: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8")
        own = _common.cores()
        _common.pin([core])  # inherited by the child and all its threads
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
            )
        finally:
            _common.pin(own)
        self._rest = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    def read(self, seconds: float) -> dict[str, Any]:
        """The next object; LoadError where none comes in time."""
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        while b"\n" not in self._rest:
            if not select.select([fd], [], [], seconds)[0]:
                raise LoadError(f"no answer within {seconds:.0f} s")
            data = os.read(fd, 65536)
            if not data:
                raise LoadError(self._why_ended())
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise LoadError(answer["error"])
        return answer

    def _why_ended(self) -> str:
        code = self._process.wait()
        self._stderr.seek(0)
        text = _last_line(self._stderr.read())
        if code < 0:
            return f"ended with {signal.Signals(-code).name} {text}".strip()
        return text or f"ended with code {code}"

    def rss(self) -> int:
        """Resident memory in bytes (proc(5), statm)."""
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    def cpu_ns(self) -> int:
        """Processor time of the main thread so far (proc(5), schedstat)."""
        try:
            with open(f"/proc/{self.pid}/schedstat", encoding="ascii") as file:
                return int(file.read().split()[0])
        except FileNotFoundError:  # a kernel without CONFIG_SCHED_INFO
            return 0

    def finish(self, seconds: float = START_SECONDS) -> None:
        """Lets the child end by itself, so that a tracer can write its report."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise LoadError(f"did not end within {seconds:.0f} s") from None

    def close(self) -> None:
        """Ends the child at once; twice is harmless."""
        if self._process.poll() is None:
            self._process.kill()
        for file in (self._process.stdin, self._process.stdout, self._stderr):
            assert file is not None
            file.close()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def python_child(script: str, *arguments: str) -> list[str]:
    return [sys.executable, str(_common.HERE / script), *arguments]


def run_client(
    programs: Programs,
    address: str,
    *options: str,
    seconds: float,
    grace: float = GRACE_SECONDS,
) -> dict[str, Any]:
    """One run of the load generator on the client's core."""
    command = [str(programs.client), address, *options, "--seconds", str(seconds)]
    with Process(command, split_cores()[1]) as client:
        return client.read(seconds + grace)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""

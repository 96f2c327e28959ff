"""The rows of echo.py and how each of them is measured."""

from __future__ import annotations

import fnmatch
import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks import _load

C = "c"
"""The name of the plain C epoll server, the limit of what a loop can reach."""

LOCALHOST = "127.0.0.1"
MAX_DATAGRAM = 65507  # 65535 less the headers of IPv4 and UDP
WARM_UP_SECONDS = 0.1
AT_A_TIME = 10
"""Connections that the accept and connect rows open at a time."""
IDLE_CONNECTIONS = 1000


@dataclass(frozen=True)
class Row:
    """One kind of server, or of client for the connect row."""

    id: str
    title: str
    family: str
    """tcp, unix, tls or udp."""
    style: str
    """How the Python side is written: protocol, buffered, streams, sock."""
    kind: str = "echo"
    """echo, accept, connect or memory: what is counted."""
    byte: bool = False

    @property
    def unit(self) -> str:
        if self.kind == "memory":
            return "KiB"
        return "echoes/s" if self.kind == "echo" else "conns/s"


FAMILIES = {"tcp": "TCP", "unix": "Unix", "tls": "TLS"}
STYLES = {
    "protocol": "Protocol",
    "buffered": "BufferedProtocol",
    "streams": "streams",
    "sock": "sock_recv and sock_sendall",
}

ROWS = {
    row.id: row
    for row in (
        *(
            Row(
                f"{family}-{style}",
                f"{FAMILIES[family]}, {STYLES[style]}",
                family,
                style,
            )
            for family, style in itertools.product(FAMILIES, STYLES)
            if (family, style) != ("tls", "sock")  # TLS has no sock_* calls
        ),
        Row("udp", "UDP, DatagramProtocol", "udp", "protocol"),
        Row("accept", "accept, nothing sent", "tcp", "protocol", "accept"),
        Row(
            "accept-byte", "accept, one byte echoed", "tcp", "protocol", "accept", True
        ),
        Row("accept-unix", "accept, nothing sent, Unix", "unix", "protocol", "accept"),
        Row("connect", "create_connection and close", "tcp", "protocol", "connect"),
        Row("memory", "memory per idle connection", "tcp", "protocol", "memory"),
        Row("memory-streams", "the same, streams", "tcp", "streams", "memory"),
        Row("memory-tls", "the same, TLS", "tls", "protocol", "memory"),
    )
}


def select(patterns: Sequence[str]) -> list[Row]:
    """Rows by id or pattern, in the table's order; KeyError names an unknown one."""
    chosen: set[str] = set()
    for pattern in patterns:
        found = fnmatch.filter(ROWS, pattern)
        if not found:
            raise KeyError(pattern)
        chosen.update(found)
    return [row for row in ROWS.values() if not chosen or row.id in chosen]


@dataclass(frozen=True)
class Case:
    """One line of the table: a row with a message size and connections."""

    row: Row
    size: int
    connections: int

    @property
    def key(self) -> str:
        if self.row.kind == "echo":
            return f"{self.row.id}/{self.size}/{self.connections}"
        return self.row.id


def cases(row: Row, sizes: Sequence[int], connections: Sequence[int]) -> list[Case]:
    if row.kind == "memory":
        return [Case(row, 64, IDLE_CONNECTIONS)]
    if row.kind != "echo":
        return [Case(row, 1, AT_A_TIME)]
    return [
        Case(row, size, count)
        for size, count in itertools.product(sizes, connections)
        if row.family != "udp" or size <= MAX_DATAGRAM
    ]


class Server:
    """A server for one row: a loop's, or the plain C one.

    ``wrapper`` is a command put in front, for strace and valgrind. For the
    connect row this is always the C server, and the client is what differs.
    """

    def __init__(
        self,
        programs: _load.Programs,
        row: Row,
        loop: str,
        wrapper: Sequence[str] = (),
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="aiozmq-speedups-")
        address = LOCALHOST
        if row.family == "unix":
            address = str(Path(self._folder.name) / "socket")
        pem = [str(programs.certificate), str(programs.key)]
        if loop == C or row.kind == "connect":
            prefix = "tcp" if row.family == "tls" else row.family
            full = f"{prefix}:{address}" + ("" if row.family == "unix" else ":0")
            command = [str(programs.server), full]
            if row.family == "tls":
                command = [command[0], "--tls", full, *pem]
            if row.kind == "connect":
                command.append("--reset")
        else:
            arguments = ["serve", loop, row.family, row.style, address]
            if row.family == "tls":
                arguments += pem
            command = _load.python_child("_echo_child.py", *arguments)
        self.process = _load.Process([*wrapper, *command], _load.split_cores()[0])
        self.address = ""

    def wait(self) -> None:
        """Until it listens; several servers start at the same time."""
        self.address = self.process.read(_load.START_SECONDS)["address"]

    def close(self) -> None:
        self.process.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def client_options(case: Case, server: Server) -> list[str]:
    options = ["--connections", str(case.connections), "--size", str(case.size)]
    options += ["--server", str(server.process.pid)]
    if case.row.family == "tls":
        options.append("--tls")
    if case.row.kind in ("accept", "connect"):
        options += ["--mode", "connect"]
    if case.row.byte:
        options.append("--byte")
    return options


def measure(
    programs: _load.Programs, case: Case, loop: str, server: Server, seconds: float
) -> dict[str, Any]:
    """One sample: what the load generator printed, with ``value`` added."""
    if case.row.kind == "memory":
        return _measure_memory(programs, case, server)
    if case.row.kind == "connect" and loop != C:
        result = _measure_connect(case, loop, server, seconds)
    else:
        options = client_options(case, server)
        options += ["--warm-up", str(min(WARM_UP_SECONDS, seconds))]
        result = _load.run_client(programs, server.address, *options, seconds=seconds)
        if case.row.kind == "connect":
            # The time of the server, where the other loops tell the client's.
            del result["server_cpu_us"]
    result["value"] = result["per_second"]
    return result


def _measure_connect(
    case: Case, loop: str, server: Server, seconds: float
) -> dict[str, Any]:
    host, port = server.address.removeprefix("tcp:").split(":")
    arguments = ["connect", loop, host, port, str(case.connections), str(seconds)]
    command = _load.python_child("_echo_child.py", *arguments)
    with _load.Process(command, _load.split_cores()[1]) as client:
        return client.read(seconds + _load.GRACE_SECONDS)


def _measure_memory(
    programs: _load.Programs, case: Case, server: Server
) -> dict[str, Any]:
    """Growth of resident memory over N connections that had one message each."""
    options = ["--mode", "idle", "--size", str(case.size)]
    if case.row.family == "tls":
        options.append("--tls")
    command = [str(programs.client), server.address, *options, "--connections"]
    core = _load.split_cores()[1]
    # What the first connections allocate once is not counted.
    with _load.Process([*command, str(AT_A_TIME)], core) as client:
        client.read(_load.START_SECONDS)
        before = server.process.rss()
        with _load.Process([*command, str(case.connections)], core) as idle:
            idle.read(_load.START_SECONDS)
            growth = server.process.rss() - before
    return {"value": growth / case.connections / 1024}

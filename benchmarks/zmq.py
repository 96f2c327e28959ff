#!/usr/bin/env python3
"""ZeroMQ between two processes, each on a core of its own.

Round trips with 1 and 64 requests in flight, messages and large frames one
way, and RPC, for libzmq alone, pyzmq, aiozmq and aiozmq_speedups.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

if not __package__:
    # A script's own folder comes first, and this file would hide pyzmq.
    _here = Path(__file__).resolve().parent
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != _here]
    sys.path.insert(0, str(_here.parent))

from benchmarks import _common, _load, _stats
from benchmarks._simple_rows import LOOPS_IN_C

ROUNDS, SECONDS = 5, 0.5
TIMEOUT = 60.0
"""Seconds after which a load counts as hung, beside the time it should take."""

PURE = "AIOZMQ_SPEEDUPS_PURE"
BINDS = {"tcp": "tcp://127.0.0.1:*", "ipc": "ipc://*"}


@dataclass(frozen=True)
class Workload:
    id: str
    title: str
    kind: str
    """trip, oneway, rpc, sub or busy."""
    unit: str
    size: int
    window: int
    hwm: int
    probe: int
    """Operations of the first run, which only finds out how many fit."""


SMALL_HWM = 1000
BIG_HWM = 16
"""1000 frames of 1 MiB would be a gigabyte on each side."""

WORKLOADS = [
    Workload(
        "trip-1",
        "DEALER/ROUTER, 1 in flight",
        *("trip", "round trips/s", 200, 1, SMALL_HWM, 300),
    ),
    Workload(
        "trip-64",
        "DEALER/ROUTER, 64 in flight",
        *("trip", "round trips/s", 200, 64, SMALL_HWM, 2000),
    ),
    Workload(
        "oneway",
        "PUSH/PULL, 100 bytes one way",
        *("oneway", "messages/s", 100, 1, SMALL_HWM, 5000),
    ),
    Workload(
        "rpc-1",
        "RPC, 1 in flight",
        *("rpc", "calls/s", 200, 1, SMALL_HWM, 300),
    ),
    Workload(
        "rpc-64",
        "RPC, 64 in flight",
        *("rpc", "calls/s", 200, 64, SMALL_HWM, 1000),
    ),
    Workload(
        "oneway-1m",
        "PUSH/PULL, 1 MiB frames one way",
        *("oneway", "MiB/s", 2**20, 1, BIG_HWM, 100),
    ),
    Workload(
        "sub",
        "A SUB that drinks from a fast PUB, 100 bytes",
        *("sub", "messages/s", 100, 1, SMALL_HWM, 5000),
    ),
    Workload(
        "echo-1m",
        "DEALER/ROUTER, 1 MiB, copy=False, 1 in flight",
        *("trip", "round trips/s", 2**20, 1, BIG_HWM, 50),
    ),
    Workload(
        "busy",
        "DEALER/ROUTER, 1,000 sockets of which 10 are busy",
        *("busy", "round trips/s", 200, 10, SMALL_HWM, 300),
    ),
]

SOCKETS = ("raw", "asyncio", "zmq_asyncio")
"""The APIs that have sockets, and so the last three rows."""


@dataclass(frozen=True)
class Peer:
    id: str
    title: str
    family: str
    """c, pyzmq, aiozmq, speedups-python or speedups-c."""
    api: str
    """libzmq, raw, asyncio, zmq_asyncio, core, stream or rpc."""
    loop: str | None = None

    @property
    def package(self) -> str | None:
        if self.family == "aiozmq":
            return "aiozmq"
        return "aiozmq_speedups" if self.family.startswith("speedups") else None

    def does(self, workload: Workload) -> bool:
        # What has no RPC makes the plain round trips that RPC is compared with.
        if workload.kind == "rpc":
            return self.api == "rpc" or self.id == "raw"
        if workload.id in ("sub", "echo-1m", "busy"):
            return self.api in SOCKETS
        return self.api != "rpc"

    def baseline(self) -> str | None:
        """Pure aiozmq's counterpart."""
        if self.package is None:
            return None
        return "aiozmq-rpc-asyncio" if self.api == "rpc" else "aiozmq-core-asyncio"


LOOP_PACKAGES = {"asyncio": None, "uvloop": "uvloop", "speedups": "aiozmq_speedups"}
"""What a peer's loop needs; "own" is that of its package."""


def _all_peers() -> Iterator[Peer]:
    yield Peer("libzmq", "C on libzmq", "c", "libzmq")
    yield Peer("raw", "raw pyzmq", "pyzmq", "raw")
    for loop in LOOP_PACKAGES:
        title = f"zmq.asyncio ({loop})"
        yield Peer(f"zmq.asyncio-{loop}", title, "pyzmq", "asyncio", loop)
    for loop in ("own", "uvloop", "asyncio"):
        label = "own loop" if loop == "own" else loop
        title = f"zmq_asyncio (C, {label})"
        yield Peer(f"c-zmq_asyncio-{loop}", title, "speedups-c", "zmq_asyncio", loop)
    for api, name, loops in (
        ("core", "core aiozmq", ("asyncio", "uvloop", "own")),
        ("stream", "aiozmq stream", ("asyncio",)),
        ("rpc", "aiozmq.rpc", ("asyncio", "uvloop")),
    ):
        for loop in loops:
            label = "own loop" if loop == "own" else loop
            yield Peer(f"aiozmq-{api}-{loop}", f"{name} ({label})", "aiozmq", api, loop)
    for api in ("core", "stream", "rpc"):
        for loop, label in LOOPS_IN_C.items():
            title = f"speedups {api} ({label})"
            yield Peer(f"c-{api}-{loop}", title, "speedups-c", api, loop)
        title = f"speedups {api} (pure Python, asyncio)"
        yield Peer(f"python-{api}-asyncio", title, "speedups-python", api, "asyncio")


PEERS = {peer.id: peer for peer in _all_peers()}


# --- the C program -----------------------------------------------------------


@contextmanager
def c_program() -> Iterator[tuple[str | None, str]]:
    """The compiled load/zmq_load.c and libzmq's version, or None and why not."""
    compiler = _load.compiler()
    if compiler is None:
        yield None, str(_load.why_no_compiler())
        return
    with tempfile.TemporaryDirectory(prefix="zmq_load-") as folder:
        program = os.path.join(folder, "zmq_load")
        source = str(_common.HERE / "load" / "zmq_load.c")
        done = subprocess.run(
            [*compiler, *_load.FLAGS, "-o", program, source, "-lzmq"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            yield None, "no libzmq headers (on Debian: apt install libzmq3-dev)"
            return
        version = subprocess.check_output([program, "version"], text=True)
        yield program, version.strip()


# --- one run -----------------------------------------------------------------


class Failed(Exception):
    """A run that gave no result; str() is a sentence."""


class Runner:
    def __init__(self, program: str | None, transport: str = "tcp") -> None:
        self._program = program
        self._transport = transport
        cores = _common.cores()
        self.cores = {"server": [cores[0]], "client": [cores[-1]]}

    def rate(self, peer: Peer, workload: Workload, count: int) -> float:
        """Operations per second of one run between two fresh processes."""
        warm_up = max(min(count // 10, 1000), workload.window, 1)
        with self._end("server", peer, workload, count, warm_up, None) as server:
            endpoint = server.line()
            with self._end(
                "client", peer, workload, count, warm_up, endpoint
            ) as client:
                measures = server if workload.kind in ("oneway", "sub") else client
                answer = json.loads(measures.line())
        return float(count / answer["seconds"])

    def _end(
        self,
        role: str,
        peer: Peer,
        workload: Workload,
        count: int,
        warm_up: int,
        endpoint: str | None,
    ) -> _End:
        kind = workload.kind
        if kind == "rpc" and peer.api != "rpc":
            kind = "trip"
        # The end that is not measured is the same for all.
        if (kind, role) in (("sub", "client"), ("busy", "server")):
            peer = PEERS["raw"]
        job = {
            "role": role,
            "workload": kind,
            "count": count,
            "warm_up": warm_up,
            "size": workload.size,
            "window": workload.window,
            "hwm": workload.hwm,
        }
        env = {name: value for name, value in os.environ.items() if name != PURE}
        env["ZMQ_BENCH_BIND"] = BINDS[self._transport]
        if peer.family == "speedups-python":
            env[PURE] = "1"
        if peer.api == "libzmq":
            assert self._program is not None
            command = [self._program, *map(str, job.values())]
            command += map(str, self.cores[role])
            command += [endpoint] if endpoint else []
        else:
            details = {
                **job,
                "api": peer.api,
                "package": peer.package,
                "loop": peer.loop,
                "cores": self.cores[role],
                "endpoint": endpoint,
            }
            script = str(_common.HERE / "_zmq_peers.py")
            command = [sys.executable, script, json.dumps(details)]
        return _End(role, command, env)


class _End:
    """A process of a load, which is told to stop by the end of its stdin."""

    def __init__(self, role: str, command: list[str], env: dict[str, str]) -> None:
        self._role = role
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=env,
        )
        self._watchdog = threading.Timer(TIMEOUT, self._process.kill)
        self._watchdog.start()

    def line(self) -> str:
        assert self._process.stdout is not None
        text = self._process.stdout.readline().strip()
        if not text:
            raise Failed(self._why())
        return text

    def _why(self) -> str:
        hung = not self._watchdog.is_alive()
        code = self._process.wait()
        if hung:
            return f"the {self._role} gave no result within {TIMEOUT:.0f} s"
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return f"the {self._role} ended with {code}: {lines[-1] if lines else ''}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        if kind is not None:
            self._process.kill()
        self._process.stdin.close()
        code = self._process.wait()
        hung = not self._watchdog.is_alive()
        self._watchdog.cancel()
        self._process.stdout.close()
        try:
            if kind is None and code != 0:
                raise Failed(
                    f"the {self._role} hung after its work" if hung else self._why()
                )
        finally:
            self._errors.close()


# --- the plan ----------------------------------------------------------------


def why_skipped(peer: Peer) -> str | None:
    for module in (peer.package, LOOP_PACKAGES.get(peer.loop or "")):
        reason = _common.why_missing(module) if module else None
        if reason is not None:
            return reason
    return _common.why_no_c_transport() if peer.family == "speedups-c" else None


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        epilog="implementations: " + ", ".join(PEERS),
    )
    parser.add_argument(
        "workloads", nargs="*", metavar="workload",
        help=", ".join(w.id for w in WORKLOADS) + "; all of them",
    )  # fmt: skip
    parser.add_argument(
        "-i", "--only", action="append", metavar="PATTERN", default=[],
        help="implementations ('c-*'), may be repeated; raw is always measured",
    )  # fmt: skip
    parser.add_argument(
        "-r", "--rounds", type=int, default=ROUNDS,
        help=f"measured runs of each pair ({ROUNDS})",
    )  # fmt: skip
    parser.add_argument(
        "-s", "--seconds", type=float, default=SECONDS,
        help=f"how long one run should take ({SECONDS})",
    )  # fmt: skip
    parser.add_argument(
        "-t", "--transport", choices=BINDS, default="tcp",
        help="what the processes are connected by (tcp)",
    )  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="where the samples go")
    args = parser.parse_args(argv)
    known = [w.id for w in WORKLOADS]
    for name in args.workloads:
        if not fnmatch.filter(known, name):
            parser.error(f"no such workload: {name!r}; choose from {', '.join(known)}")
    args.chosen = [
        w
        for w in WORKLOADS
        if not args.workloads
        or any(fnmatch.fnmatchcase(w.id, name) for name in args.workloads)
    ]
    for pattern in args.only:
        if not fnmatch.filter(PEERS, pattern):
            parser.error(
                f"no such implementation: {pattern!r}; choose from {', '.join(PEERS)}"
            )
    args.peers = [
        peer
        for peer in PEERS.values()
        if not args.only
        or peer.id == "raw"
        or any(fnmatch.fnmatchcase(peer.id, pattern) for pattern in args.only)
    ]
    return args


def measure(
    runner: Runner,
    pairs: list[tuple[Workload, Peer]],
    args: argparse.Namespace,
    report: dict[str, Any],
) -> None:
    """Fills the report's rows and errors."""
    progress = _common.Progress(len(pairs) * (args.rounds + 1))
    counts: dict[tuple[str, str], int] = {}
    rates: dict[tuple[str, str], list[float]] = {(w.id, p.id): [] for w, p in pairs}
    errors: dict[str, str] = {}
    for round_number in range(args.rounds + 1):
        # Each round has an order of its own, and every pair once.
        for workload, peer in random.sample(pairs, len(pairs)):
            key = workload.id, peer.id
            label = f"{workload.id} {peer.id}"
            if label not in errors:
                try:
                    rate = runner.rate(peer, workload, counts.get(key, workload.probe))
                except Failed as exc:
                    errors[label] = str(exc)
                    progress.say(f"{label}: {exc}")
                else:
                    if round_number:
                        rates[key].append(rate)
                    # By the best rate so far: a slow trial must not leave the
                    # later runs too short to be measured. A power of two, so
                    # that another run is likely to have the same size.
                    wanted = max(int(rate * args.seconds), 10)
                    count = 1 << (wanted.bit_length() - 1)
                    counts[key] = max(count, counts.get(key, 0))
            progress.step(label)
    progress.close()
    report["errors"] = errors
    for workload, peer in pairs:
        samples = rates[workload.id, peer.id]
        if samples:
            report["rows"].append(
                {
                    "workload": workload.id,
                    "id": peer.id,
                    "name": peer.title,
                    "family": peer.family,
                    "api": peer.api,
                    "loop": peer.loop,
                    "count": counts[workload.id, peer.id],
                    "rates": samples,
                    "median": _stats.median(samples),
                }
            )


def add_ratios(rows: Sequence[dict[str, Any]]) -> None:
    medians = {(row["workload"], row["id"]): row["median"] for row in rows}
    for row in rows:
        row["ratio"] = {}
        for key, name in (("raw", "raw"), ("aiozmq", PEERS[row["id"]].baseline())):
            base = medians.get((row["workload"], name)) if name else None
            row["ratio"][key] = row["median"] / base if base else None


def print_results(report: dict[str, Any]) -> None:
    def ratio(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    print()
    print("Medians; a ratio above 1 is faster. x raw: to raw pyzmq (for RPC, to its")
    print("plain round trips). x aiozmq: to aiozmq's own counterpart on asyncio.")
    for workload in report["settings"]["workloads"]:
        rows = [row for row in report["rows"] if row["workload"] == workload["id"]]
        if not rows:
            continue
        rows.sort(key=lambda row: -row["median"])
        header = [
            workload["title"],
            workload["unit"],
            "min .. max",
            "x raw",
            "x aiozmq",
        ]
        lines = [
            [
                row["name"],
                f"{row['median']:,.0f}",
                f"{min(row['rates']):,.0f} .. {max(row['rates']):,.0f}",
                ratio(row["ratio"]["raw"]),
                ratio(row["ratio"]["aiozmq"]),
            ]
            for row in rows
        ]
        print()
        print(_common.table(header, lines))


def main(argv: Sequence[str]) -> int:
    args = parse(argv)
    with c_program() as (program, detail):
        peers, skipped = [], []
        for peer in args.peers:
            if peer.api == "libzmq":
                reason = None if program else detail
            else:
                reason = why_skipped(peer)
            if reason is None:
                peers.append(peer)
            else:
                skipped.append({"id": peer.id, "name": peer.title, "reason": reason})
                print(f"Skipped {peer.title}: {reason}")
        runner = Runner(program, args.transport)
        report = _common.new_report(
            "zmq",
            {
                "rounds": args.rounds,
                "seconds": args.seconds,
                "workloads": [dataclasses.asdict(w) for w in args.chosen],
                "cores": runner.cores,
            },
            _common.ZMQ_PEERS,
        )
        report["skipped"] = skipped
        if program is not None:
            report["versions"]["libzmq (C program)"] = detail
        pairs = [(w, p) for w in args.chosen for p in peers if p.does(w)]
        print(_common.describe(report))
        print(f"{len(pairs)} pairs, a trial and {args.rounds} rounds")
        if runner.cores["server"] == runner.cores["client"]:
            report["warnings"].append("both processes share the only core")
        debug = _common.debug_build_warning(report["versions"])
        report["warnings"] += [debug] if debug else []
        measure(runner, pairs, args, report)
    add_ratios(report["rows"])
    print_results(report)
    print()
    for warning in report["warnings"]:
        print(f"Warning: {warning}")
    for label, error in report["errors"].items():
        print(f"Failed: {label}: {error}")
    path = args.json or _common.result_path("zmq")
    _common.write_json(report, path)
    print(f"Results are in {path}")
    return 1 if report["errors"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

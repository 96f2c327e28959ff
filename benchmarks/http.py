#!/usr/bin/env python3
"""Hello-world HTTP servers on every event loop, under wrk.

aiohttp's server and uvicorn with httptools, each in a process on one core; wrk
runs on another. Rounds are interleaved.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

if not __package__:
    # A script's own folder comes first, and this file would hide http there.
    _here = Path(__file__).resolve().parent
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != _here]
    sys.path.insert(0, str(_here.parent))

from benchmarks import _common, _load, _loops, _stats
from benchmarks._loops import OURS

SERVERS = {"aiohttp": ["aiohttp"], "uvicorn": ["uvicorn", "httptools"]}
CONNECTIONS = (10, 100)
ROUNDS, SECONDS = 3, 2
WARM_UP_SECONDS = 1
"""wrk knows no shorter run."""

UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--servers", type=_one_of(SERVERS), default=list(SERVERS), metavar="S,...",
        help=f"servers ({','.join(SERVERS)})",
    )  # fmt: skip
    parser.add_argument(
        "--loops", type=_one_of(_loops.KINDS), default=list(_loops.KINDS),
        metavar="L,...", help=f"loops ({','.join(_loops.KINDS)})",
    )  # fmt: skip
    parser.add_argument(
        "--connections", type=_numbers, default=list(CONNECTIONS), metavar="N,...",
        help=f"connections at a time ({','.join(map(str, CONNECTIONS))})",
    )  # fmt: skip
    parser.add_argument(
        "--rounds", type=_positive, default=ROUNDS, help=f"runs of each ({ROUNDS})"
    )
    parser.add_argument(
        "--seconds", type=_positive, default=SECONDS,
        help=f"length of a run ({SECONDS})",
    )  # fmt: skip
    parser.add_argument(
        "--json", metavar="FILE", help="where the samples go (benchmarks/results/)"
    )
    return parser.parse_args(argv)


def _one_of(known: Any) -> Any:
    def convert(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(
                    f"{name!r} is unknown; choose from {', '.join(known)}"
                )
        return names

    return convert


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def _numbers(text: str) -> list[int]:
    return [_positive(word) for word in text.split(",") if word]


# --- wrk ---------------------------------------------------------------------


def wrk(url: str, connections: int, seconds: int) -> dict[str, Any]:
    """One run of wrk on the client's core."""
    command = ["wrk", "--threads", "1", "--connections", str(connections)]
    command += ["--duration", f"{seconds}s", "--latency", url]
    own = _common.cores()
    _common.pin([_load.split_cores()[1]])  # inherited
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=seconds + _load.GRACE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _load.LoadError(f"no answer within {seconds} s") from None
    finally:
        _common.pin(own)
    return parse_wrk(done.stdout or done.stderr)


def parse_wrk(text: str) -> dict[str, Any]:
    rate = re.search(r"^Requests/sec:\s+([\d.]+)", text, re.MULTILINE)
    total = re.search(r"^\s*(\d+) requests in", text, re.MULTILINE)
    if rate is None or total is None or int(total[1]) == 0:
        raise _load.LoadError(f"wrk: {text.strip().splitlines()[-1:]}")
    for problem in ("Socket errors", "Non-2xx"):
        found = re.search(rf"^\s*({problem}.*)$", text, re.MULTILINE)
        if found is not None:
            raise _load.LoadError(f"wrk: {found[1]}")
    latency = {
        f"p{share}": float(number) * UNITS[unit]
        for share, number, unit in re.findall(
            r"^\s+(50|90|99)%\s+([\d.]+)(us|ms|s|m)$", text, re.MULTILINE
        )
    }
    return {
        "per_second": float(rate[1]),
        "requests": int(total[1]),
        "latency_us": latency,
    }


# --- running -----------------------------------------------------------------


class Benchmark:
    def __init__(self, servers: Sequence[str], loops: Sequence[str], args: Any) -> None:
        self._servers = servers
        self._loops = loops
        self._args = args
        runs = len(servers) * len(args.connections) * len(loops) * args.rounds
        self._progress = _common.Progress(runs)
        self.skipped: list[dict[str, str]] = []
        self._failed: set[tuple[str, str]] = set()
        self._samples: dict[tuple[str, int], dict[str, list[dict[str, Any]]]] = {}

    def run(self) -> None:
        for number in range(self._args.rounds):
            for server in self._servers:
                self._run_server(server, first=number == 0)
        self._progress.close()

    def _run_server(self, server: str, first: bool) -> None:
        with ExitStack() as stack:
            running: dict[str, tuple[_load.Process, str]] = {}
            for loop in self._loops:
                if (server, loop) in self._failed:
                    continue
                command = _load.python_child("_http_child.py", server, loop)
                process = _load.Process(command, _load.split_cores()[0])
                stack.enter_context(process)
                try:
                    url = process.read(_load.START_SECONDS)["address"]
                    wrk(url, 2, WARM_UP_SECONDS)
                    running[loop] = (process, url)
                except _load.LoadError as exc:
                    self._fail(server, loop, exc)
            for connections in self._args.connections:
                for loop in random.sample(self._loops, len(self._loops)):
                    self._progress.step(f"{server} {connections} {loop}")
                    if loop in running:
                        try:
                            sample = self._measure(*running[loop], connections)
                        except _load.LoadError as exc:
                            self._fail(server, loop, exc)
                            del running[loop]
                        else:
                            case = self._samples.setdefault((server, connections), {})
                            case.setdefault(loop, []).append(sample)

    def _measure(
        self, process: _load.Process, url: str, connections: int
    ) -> dict[str, Any]:
        before = process.cpu_ns()
        sample = wrk(url, connections, self._args.seconds)
        spent = process.cpu_ns() - before
        sample["cpu_us"] = spent / sample["requests"] / 1e3
        return sample

    def _fail(self, server: str, loop: str, reason: object) -> None:
        self._failed.add((server, loop))
        self.skipped.append({"row": server, "loop": loop, "reason": str(reason)})
        self._progress.say(f"Skipped, {server} on {loop}: {reason}")

    def results(self) -> list[dict[str, Any]]:
        return [
            summarise(server, connections, samples)
            for (server, connections), samples in self._samples.items()
        ]


def summarise(
    server: str, connections: int, samples: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    medians = {
        loop: _stats.median([sample["per_second"] for sample in taken])
        for loop, taken in samples.items()
    }
    best = max((m for loop, m in medians.items() if loop != OURS), default=None)
    loops = {}
    for loop, taken in samples.items():
        loops[loop] = {
            "median": medians[loop],
            "of_best_peer": medians[loop] / best if best else None,
            "cpu_us": _stats.median([sample["cpu_us"] for sample in taken]),
            "latency_us": {
                name: _stats.median([s["latency_us"].get(name, 0.0) for s in taken])
                for name in ("p50", "p90", "p99")
            },
            "samples": [sample["per_second"] for sample in taken],
        }
    return {
        "id": f"{server}/{connections}",
        "row": server,
        "connections": connections,
        "unit": "requests/s",
        "loops": loops,
    }


def print_results(rows: Sequence[dict[str, Any]]) -> None:
    lines = []
    for row in rows:
        ordered = sorted(row["loops"].items(), key=lambda item: -item[1]["median"])
        for loop, entry in ordered:
            ratio = entry["of_best_peer"]
            lines.append(
                [f"{row['row']} on {loop}", str(row["connections"])]
                + [f"{entry['median']:,.0f}"]
                + ["-" if ratio is None else f"{ratio:.2f}"]
                + [f"{entry['cpu_us']:.1f}"]
                + [f"{entry['latency_us'][n]:,.0f}" for n in ("p50", "p99")]
            )
    print("\nx peer: to the best loop but this package's; cpu us: of the server.\n")
    header = ["", "conns", "requests/s", "x peer", "cpu us", "p50 us", "p99 us"]
    print(_common.table(header, lines))


def main(argv: Sequence[str]) -> int:
    args = parse(argv)
    if shutil.which("wrk") is None:
        print("Skipped: wrk is not installed (on Debian: apt install wrk)")
        return 0
    missing = []
    servers, loops = [], []
    for server in args.servers:
        reasons = [_common.why_missing(module) for module in SERVERS[server]]
        reasons = [reason for reason in reasons if reason is not None]
        if reasons:
            missing.append(f"{server}: {reasons[0]}")
        else:
            servers.append(server)
    for loop in args.loops:
        reason = _loops.why_missing(loop)
        if reason is None:
            loops.append(loop)
        else:
            missing.append(f"{loop}: {reason}")
    for line in missing:
        print(f"Skipped, {line}")
    if not servers or not loops:
        print("Nothing is left to run.")
        return 0
    report = _common.new_report(
        "http",
        {
            "servers": servers,
            "loops": loops,
            "connections": args.connections,
            "rounds": args.rounds,
            "seconds": args.seconds,
        },
        peers=(*_loops.PACKAGES, "aiohttp", "uvicorn", "httptools"),
    )
    warnings = [
        _common.debug_build_warning(report["versions"]),
        _load.why_unreliable(),
    ]
    report["warnings"] = [text for text in warnings if text]
    report["missing"] = missing
    print(_common.describe(report))
    benchmark = Benchmark(servers, loops, args)
    benchmark.run()
    report["rows"] = benchmark.results()
    report["skipped"] = benchmark.skipped
    if report["rows"]:
        print_results(report["rows"])
    for warning in report["warnings"]:
        print(f"Warning: {warning}")
    path = args.json or _common.result_path("http")
    _common.write_json(report, path)
    print(f"\nResults are in {path}")
    return 0 if report["rows"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

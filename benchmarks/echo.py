#!/usr/bin/env python3
"""Echo servers on every event loop, beside a plain C epoll server.

The load generator is a C program in its own process on its own core; each
server is a process on another core. Rounds are interleaved: every loop is
measured once before any is measured again.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

if not __package__:
    # A script's own folder comes first, and http.py in it would hide http.
    _here = Path(__file__).resolve().parent
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != _here]
    sys.path.insert(0, str(_here.parent))

from benchmarks import (
    _common,
    _echo_rows,
    _echo_tools,
    _load,
    _loops,
    _stats,
)
from benchmarks._echo_rows import C, Case, Row, Server
from benchmarks._loops import OURS

SIZES = (1024, 10240, 102400)
CONNECTIONS = (1, 10, 1000)
ROUNDS, SECONDS = 3, 0.5
TOOL_ROW, TOOL_SIZE, TOOL_CONNECTIONS = "tcp-protocol", 1024, 10

Values = dict[str, list[float]]


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        epilog="rows: " + ", ".join(_echo_rows.ROWS)
        + "; loops: " + ", ".join([*_loops.ALL, C]),
    )  # fmt: skip
    parser.add_argument(
        "--rows", type=_words, metavar="R,...", default=[],
        help="ids or patterns such as 'tcp-*' (all)",
    )  # fmt: skip
    parser.add_argument(
        "--loops", type=_words, metavar="L,...",
        help=f"loops; {C} is the C server, the limit (all that are installed)",
    )  # fmt: skip
    parser.add_argument(
        "--sizes", type=_numbers, metavar="N,...",
        help=f"bytes of a message ({','.join(map(str, SIZES))})",
    )  # fmt: skip
    parser.add_argument(
        "--connections", type=_numbers, metavar="N,...",
        help=f"connections at a time ({','.join(map(str, CONNECTIONS))})",
    )  # fmt: skip
    parser.add_argument(
        "--rounds", type=_positive, default=ROUNDS, help=f"runs of each ({ROUNDS})"
    )
    parser.add_argument(
        "--seconds", type=_seconds, default=SECONDS,
        help=f"length of a run ({SECONDS})",
    )  # fmt: skip
    parser.add_argument(
        "--json", metavar="FILE", help="where the samples go (benchmarks/results/)"
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true",
        help="print the server's processor time and latencies too",
    )  # fmt: skip
    for tool, what in (
        ("strace", "system calls per echo, by strace -c"),
        ("callgrind", "instructions per echo in user space, by valgrind"),
    ):
        parser.add_argument(
            f"--{tool}", dest="tools", action="append_const", const=tool,
            help=f"instead of the time: {what} ({TOOL_ROW}, unless --rows)",
        )  # fmt: skip
    args = parser.parse_args(argv)
    if args.tools:
        args.rows = args.rows or [TOOL_ROW]
        args.sizes = args.sizes or [TOOL_SIZE]
        args.connections = args.connections or [TOOL_CONNECTIONS]
    args.sizes = args.sizes or list(SIZES)
    args.connections = args.connections or list(CONNECTIONS)
    try:
        args.rows = _echo_rows.select(args.rows)
    except KeyError as exc:
        parser.error(f"no such row: {exc}; choose from {', '.join(_echo_rows.ROWS)}")
    known = [*_loops.ALL, C]
    for name in args.loops or ():
        if name not in known:
            parser.error(f"no such loop: {name!r}; choose from {', '.join(known)}")
    return args


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def _numbers(text: str) -> list[int]:
    return [_positive(word) for word in _words(text)]


def _seconds(text: str) -> float:
    number = float(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


# --- which loops can run -----------------------------------------------------


def choose_loops(wanted: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The loops to run, and a line for each that cannot."""
    loops, missing = [], []
    for name in wanted or [*_loops.KINDS, C]:
        reason = None if name == C else _loops.why_missing(name)
        if reason is None:
            loops.append(name)
        else:
            missing.append(f"{name}: {reason}")
    return loops, missing


class Skipped:
    """What could not run: said once, kept for the report, not tried again."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.entries: list[dict[str, str]] = []
        self._keys: set[tuple[str, str]] = set()

    def add(self, loop: str, what: str, reason: object) -> None:
        self._keys.add((loop, what))
        self.entries.append({"loop": loop, "row": what, "reason": str(reason)})
        self._say(f"Skipped, {loop} on {what}: {reason}")

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key in self._keys


# --- timing ------------------------------------------------------------------


class Timing:
    """Collects samples: case key -> loop -> what measure() returned."""

    def __init__(
        self,
        programs: _load.Programs,
        loops: Sequence[str],
        args: argparse.Namespace,
    ) -> None:
        self._programs = programs
        self._loops = loops
        self._seconds: float = args.seconds
        self._rounds: int = args.rounds
        self.cases = {
            row: _echo_rows.cases(row, args.sizes, args.connections)
            for row in args.rows
        }
        total = sum(map(len, self.cases.values())) * len(loops) * args.rounds
        self._progress = _common.Progress(total)
        self.skipped = Skipped(self._progress.say)
        self.samples: dict[str, dict[str, list[dict[str, Any]]]] = {}

    def run(self) -> None:
        for _ in range(self._rounds):
            for row, row_cases in self.cases.items():
                self._run_row(row, row_cases)
        self._progress.close()

    def _run_row(self, row: Row, row_cases: Sequence[Case]) -> None:
        """New processes each round, so that the luck of one is not the row's."""
        with ExitStack() as stack:
            servers: dict[str, Server] = {}
            for loop in self._loops:
                if (loop, row.id) not in self.skipped:
                    server = Server(self._programs, row, loop)
                    servers[loop] = stack.enter_context(server)
            for loop, server in list(servers.items()):
                try:
                    server.wait()
                except _load.LoadError as exc:
                    del servers[loop]
                    self.skipped.add(loop, row.id, exc)
            for case in row_cases:
                for loop in random.sample(self._loops, len(self._loops)):
                    self._progress.step(f"{case.key} {loop}")
                    if loop in servers and (loop, case.key) not in self.skipped:
                        self._measure(case, loop, servers)

    def _measure(self, case: Case, loop: str, servers: dict[str, Server]) -> None:
        server = servers[loop]
        try:
            sample = _echo_rows.measure(
                self._programs, case, loop, server, self._seconds
            )
        except _load.LoadError as exc:
            self.skipped.add(loop, case.key, exc)
            # It may still be busy with the connections of the failed run.
            server.close()
            del servers[loop]
            fresh = Server(self._programs, case.row, loop)
            try:
                fresh.wait()
            except _load.LoadError:
                fresh.close()
            else:
                servers[loop] = fresh
            return
        self.samples.setdefault(case.key, {}).setdefault(loop, []).append(sample)

    def results(self) -> list[dict[str, Any]]:
        rows = []
        for row_cases in self.cases.values():
            for case in row_cases:
                if case.key in self.samples:
                    rows.append(summarise(case, self.samples[case.key]))
        return rows


def summarise(case: Case, samples: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians by loop, with the share of the limit and of the best peer."""
    lower_is_better = case.row.kind == "memory"
    result: dict[str, Any] = {
        "id": case.key,
        "name": case.row.title,
        "row": case.row.id,
        "size": case.size,
        "connections": case.connections,
        "unit": case.row.unit,
        "loops": {},
    }
    medians = {
        loop: _stats.median([sample["value"] for sample in taken])
        for loop, taken in samples.items()
    }
    peers = [
        m for loop, m in medians.items() if not loop.startswith(OURS) and loop != C
    ]
    best = (min if lower_is_better else max)(peers) if peers else None
    for loop, taken in samples.items():
        entry: dict[str, Any] = {
            "median": medians[loop],
            "of_limit": _ratio(medians[loop], medians.get(C)),
            "of_best_peer": _ratio(medians[loop], best),
            "samples": [sample["value"] for sample in taken],
        }
        if all("latency_us" in sample for sample in taken):
            entry["latency_us"] = {
                name: _stats.median([sample["latency_us"][name] for sample in taken])
                for name in taken[0]["latency_us"]
            }
            entry["lost"] = sum(sample["lost"] for sample in taken)
        if all("server_cpu_us" in sample for sample in taken):
            entry["cpu_us"] = _stats.median([s["server_cpu_us"] for s in taken])
        result["loops"][loop] = entry
    return result


def _ratio(value: float, reference: float | None) -> float | None:
    return value / reference if reference else None


# --- counting ----------------------------------------------------------------


def count(
    programs: _load.Programs,
    loops: Sequence[str],
    all_cases: Sequence[Case],
    tools: Iterable[str],
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """System calls and instructions per message, printed as they come."""
    rows: list[dict[str, Any]] = []
    skipped = Skipped(print)
    for tool in tools:
        reason = _echo_tools.why_missing(tool)
        for case in all_cases:
            if reason is not None:
                skipped.add("every loop", f"{case.key} under {tool}", reason)
                continue
            print(f"\n{tool}, {case.row.title}, {case.size} bytes, ", end="")
            print(f"{case.connections} connections; for each message:")
            for loop in loops:
                try:
                    counts = _echo_tools.TOOLS[tool](programs, case, loop)
                except _load.LoadError as exc:
                    skipped.add(loop, f"{case.key} under {tool}", exc)
                    continue
                text = _echo_tools.describe(tool, counts)
                print(f"  {loop:<11} {text}", flush=True)
                rows.append(
                    {"id": case.key, "tool": tool, "loop": loop, "counts": counts}
                )
    return rows, skipped.entries


# --- results -----------------------------------------------------------------


def print_results(rows: Sequence[dict[str, Any]], loops: Sequence[str]) -> None:
    columns = [loop for loop in loops if loop != C]
    header = ["", "bytes", "conns", "limit", *columns, "x peer"]

    def cell(row: dict[str, Any], loop: str) -> str:
        entry = row["loops"].get(loop)
        if entry is None:
            return "-"
        if entry["of_limit"] is None or row["unit"] == "KiB":
            return f"{entry['median']:,.{1 if row['unit'] == 'KiB' else 0}f}"
        return f"{entry['of_limit']:.2f}"

    lines = []
    for row in rows:
        limit, ours = row["loops"].get(C), row["loops"].get(OURS)
        ratio = ours["of_best_peer"] if ours else None
        digits = 1 if row["unit"] == "KiB" else 0
        lines.append(
            [
                f"{row['row']} {row['unit']}",
                f"{row['size']:,}",
                f"{row['connections']:,}",
            ]
            + ["-" if limit is None else f"{limit['median']:,.{digits}f}"]
            + [cell(row, loop) for loop in columns]
            + ["-" if ratio is None else f"{ratio:.2f}"]
        )
    print()
    print("limit: the C server, per second; a loop's figure is its share of the limit.")
    print(f"x peer: {OURS} divided by the best of the others; KiB rows are absolute.")
    print()
    print(_common.table(header, lines))


def print_details(rows: Sequence[dict[str, Any]], loops: Sequence[str]) -> None:
    """What other work on the machine disturbs least, and the latencies."""
    lines = []
    for row in rows:
        for loop in loops:
            entry = row["loops"].get(loop)
            if entry is None or "cpu_us" not in entry:
                continue
            latency = entry.get("latency_us", {})
            lines.append(
                [f"{row['id']} {loop}", f"{entry['median']:,.0f}"]
                + [f"{entry['cpu_us']:.2f}"]
                + [
                    f"{latency[n]:,.0f}" if n in latency else "-"
                    for n in ("p50", "p99")
                ]
            )
    if lines:
        print("\ncpu us: processor time of the measured process for each message.\n")
        header = ["", "per second", "cpu us", "p50 us", "p99 us"]
        print(_common.table(header, lines))


def debug_or_busy(report: dict[str, Any]) -> list[str]:
    found = [
        _common.debug_build_warning(report["versions"]),
        _load.why_unreliable(),
    ]
    return [text for text in found if text]


def main(argv: Sequence[str]) -> int:
    args = parse(argv)
    reason = _load.why_no_compiler()
    if reason is not None:
        print(f"Cannot run: {reason}", file=sys.stderr)
        return 1
    programs = _load.build()
    loops, missing = choose_loops(args.loops)
    for line in missing:
        print(f"Skipped, {line}")
    if programs.why_no_tls is not None:
        args.rows = [row for row in args.rows if row.family != "tls"]
        print(f"Skipped, TLS rows: {programs.why_no_tls}")
    if not loops or not args.rows:
        print("Nothing is left to run.", file=sys.stderr)
        return 1
    limit = _load.raise_descriptor_limit()
    fitting = [n for n in args.connections if n + 64 <= limit]
    if fitting != args.connections:
        print(f"Skipped, connections beyond the {limit} descriptors of ulimit -Hn")
        args.connections = fitting
    report = _common.new_report(
        "echo",
        {
            "rows": [row.id for row in args.rows],
            "loops": loops,
            "sizes": args.sizes,
            "connections": args.connections,
            "rounds": args.rounds,
            "seconds": args.seconds,
        },
        peers=_loops.PACKAGES,
    )
    report["warnings"] = debug_or_busy(report)
    print(_common.describe(report))
    if args.tools:
        cases = [
            case
            for row in args.rows
            if row.kind == "echo"
            for case in _echo_rows.cases(row, args.sizes, args.connections)
        ]
        report["rows"], report["skipped"] = count(programs, loops, cases, args.tools)
        stem = "echo-" + "-".join(args.tools)
    else:
        timing = Timing(programs, loops, args)
        timing.run()
        report["rows"] = timing.results()
        report["skipped"] = timing.skipped.entries
        stem = "echo"
        if report["rows"]:
            print_results(report["rows"], loops)
            if args.verbose:
                print_details(report["rows"], loops)
    report["missing"] = missing
    for warning in report["warnings"]:
        print(f"Warning: {warning}")
    path = args.json or _common.result_path(stem)
    _common.write_json(report, path)
    print(f"\nResults are in {path}")
    return 0 if report["rows"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

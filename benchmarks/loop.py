#!/usr/bin/env python3
"""Callbacks, timers, tasks and basic I/O on every event loop there is."""

from __future__ import annotations

import argparse
import fnmatch
import json
import random
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:
    # A script's own folder comes first, and zmq.py in it would hide pyzmq.
    _here = Path(__file__).resolve().parent
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != _here]
    sys.path.insert(0, str(_here.parent))

from benchmarks import _common, _loops, _stats
from benchmarks._loop_rows import ROWS
from benchmarks._loops import OURS

ROUNDS, SECONDS = 5, 0.2
TIMEOUT = 30.0
"""Seconds without a sign of life after which a row counts as hung."""

# aiofastnet is uvloop in all that is measured here.
LOOPS = tuple(name for name in _loops.KINDS if name != "aiofastnet")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0], epilog="rows: " + ", ".join(ROWS)
    )
    parser.add_argument(
        "rows", nargs="*", metavar="row", help="rows or patterns of rows; all of them"
    )
    parser.add_argument(
        "-l", "--loop", action="append", choices=LOOPS, metavar="LOOP", dest="loops",
        help=f"may be repeated; all of {', '.join(LOOPS)} that are installed",
    )  # fmt: skip
    parser.add_argument(
        "-r", "--rounds", type=int, default=ROUNDS,
        help=f"measured runs of each row ({ROUNDS})",
    )  # fmt: skip
    parser.add_argument(
        "-s", "--seconds", type=float, default=SECONDS,
        help=f"how long one run should take ({SECONDS})",
    )  # fmt: skip
    parser.add_argument(
        "--no-pin", action="store_true", help="let the system choose the core"
    )
    parser.add_argument("--json", metavar="FILE", help="where the samples go")
    args = parser.parse_args(argv)
    for pattern in args.rows:
        if not fnmatch.filter(ROWS, pattern):
            parser.error(f"no such row: {pattern!r}; choose from {', '.join(ROWS)}")
    args.chosen = [
        name
        for name in ROWS
        if not args.rows or any(fnmatch.fnmatchcase(name, p) for p in args.rows)
    ]
    return args


class Child:
    """A process that runs rows on one loop, until one of them kills it."""

    def __init__(self, loop: str, core: int | None, seconds: float) -> None:
        self.alive = True
        script = str(_common.HERE / "_loop_rows.py")
        command = [sys.executable, script, loop, str(seconds)]
        self._process = subprocess.Popen(
            command + ([] if core is None else [str(core)]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, row: str) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        watchdog = threading.Timer(TIMEOUT, self._process.kill)
        watchdog.start()
        try:
            self._process.stdin.write(row + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        hung = not watchdog.is_alive()
        watchdog.cancel()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        code = self.close()
        if hung:
            return {"error": f"hung for {TIMEOUT:.0f} s"}
        return {"error": f"the process ended with {code}"}

    def close(self) -> int:
        self.alive = False
        # What was written to a dead process is lost, and that is fine.
        self._process.communicate()
        return self._process.returncode


def measure(
    loops: Sequence[str],
    rows: Sequence[str],
    core: int | None,
    args: argparse.Namespace,
) -> tuple[dict[str, dict[str, list[float]]], dict[str, dict[str, str]]]:
    """Rates and errors by row and loop."""
    rates: dict[str, dict[str, list[float]]]
    rates = {name: {loop: [] for loop in loops} for name in rows}
    errors: dict[str, dict[str, str]] = {name: {} for name in rows}
    progress = _common.Progress(args.rounds * len(loops) * len(rows))
    for _ in range(args.rounds):
        children: dict[str, Child] = {}
        # Row by row the loops take turns, in an order of its own each time.
        for name in rows:
            for loop in random.sample(loops, len(loops)):
                progress.step(f"{loop} {name}")
                if loop in errors[name]:
                    continue
                child = children.get(loop)
                if child is None or not child.alive:
                    child = children[loop] = Child(loop, core, args.seconds)
                answer = child.ask(name)
                if "error" in answer:
                    errors[name][loop] = answer["error"]
                    progress.say(f"{loop}: {name}: {answer['error']}")
                else:
                    rates[name][loop].append(answer["count"] / answer["seconds"])
        for child in children.values():
            if child.alive:
                child.close()
    progress.close()
    return rates, errors


def summarise(
    rates: dict[str, dict[str, list[float]]], errors: dict[str, dict[str, str]]
) -> list[dict[str, Any]]:
    rows = []
    for name, by_loop in rates.items():
        medians = {loop: _stats.median(r) for loop, r in by_loop.items() if r}
        peers = {loop: rate for loop, rate in medians.items() if loop != OURS}
        best = max(peers, key=lambda loop: peers[loop], default=None)
        ratio = None
        if best is not None and OURS in medians:
            ratio = medians[OURS] / peers[best]
        rows.append(
            {
                "id": name,
                "name": ROWS[name].title,
                "unit": ROWS[name].unit,
                "rates": by_loop,
                "medians": medians,
                "best_peer": best,
                "ratio": ratio,
                "errors": errors[name],
            }
        )
    return rows


def print_results(rows: Sequence[dict[str, Any]], loops: Sequence[str]) -> None:
    print()
    print("Operations per second, medians; the last column is this package divided")
    print("by the best of the others: above 1 is faster.")
    print()
    header = ["", *loops, "x best peer"]
    lines = []
    for row in rows:
        line = [row["name"]]
        for loop in loops:
            rate = row["medians"].get(loop)
            missing = "failed" if loop in row["errors"] else "-"
            line.append(missing if rate is None else _common.short(rate))
        ratio = row["ratio"]
        line.append("-" if ratio is None else f"{ratio:.2f} ({row['best_peer']})")
        lines.append(line)
    print(_common.table(header, lines))


def main(argv: Sequence[str]) -> int:
    args = parse(argv)
    skipped = []
    loops = []
    for loop in args.loops or LOOPS:
        reason = _loops.why_missing(loop)
        if reason is None:
            loops.append(loop)
        else:
            skipped.append({"id": loop, "reason": reason})
            print(f"Skipped {loop}: {reason}")
    if not loops:
        print("No loop is left to measure.", file=sys.stderr)
        return 1
    core = None if args.no_pin else _common.cores()[-1]
    report = _common.new_report(
        "loop",
        {"rounds": args.rounds, "seconds": args.seconds, "core": core, "loops": loops},
        _loops.PACKAGES,
    )
    report["skipped"] = skipped
    debug = _common.debug_build_warning(report["versions"])
    report["warnings"] += [debug] if debug else []
    print(_common.describe(report))
    print(f"{len(loops)} loops, {len(args.chosen)} rows, {args.rounds} rounds")
    rates, errors = measure(loops, args.chosen, core, args)
    report["rows"] = summarise(rates, errors)
    print_results(report["rows"], loops)
    print()
    for warning in report["warnings"]:
        print(f"Warning: {warning}")
    failed = False
    for name, by_loop in errors.items():
        for loop, error in by_loop.items():
            failed = failed or loop == OURS
            print(f"Failed: {loop}: {name}: {error}")
    path = args.json or _common.result_path("loop")
    _common.write_json(report, path)
    print(f"Results are in {path}")
    # What a peer cannot do is a result; what we cannot do is a failure.
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

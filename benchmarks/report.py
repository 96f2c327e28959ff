#!/usr/bin/env python3
"""Renders the JSON files of the benchmarks as reStructuredText tables."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if not __package__:
    # A script's own folder comes first, and zmq.py in it would hide pyzmq.
    _here = Path(__file__).resolve().parent
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != _here]
    sys.path.insert(0, str(_here.parent))

from benchmarks import _common
from benchmarks._loops import OURS

Report = dict[str, Any]
NOTHING = "\\-"
"""A bare hyphen would begin a list in a cell."""


def simple_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that is readable as text, too; an empty first cell is escaped."""
    lines = [[cell or "\\" for cell in line] for line in [list(header), *rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    rule = "  ".join("=" * width for width in widths)
    text = [rule]
    for number, line in enumerate(lines):
        cells = [line[0].ljust(widths[0])]
        cells += [c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)]
        text.append("  ".join(cells).rstrip())
        if number == 0:
            text.append(rule)
    return "\n".join([*text, rule])


def ratio(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def of_simple(report: Report) -> list[str]:
    settings = report["settings"]
    rows = sorted(report["rows"], key=lambda row: -float(row["rps"]["mean"]))
    header = ["row", "round trips/s", "95 % interval", "mean µs", "sd µs", "median µs"]
    table = simple_table(
        [*header, "× raw", "× aiozmq"],
        [
            [
                row["name"],
                f"{row['rps']['mean']:,.0f}",
                f"{row['rps']['low']:,.0f} … {row['rps']['high']:,.0f}",
                f"{row['us']['mean']:.1f}",
                f"{row['us']['stdev']:.1f}",
                f"{row['us']['median']:.1f}",
                ratio(row["ratio"]["raw"]),
                ratio(row["ratio"]["aiozmq"]),
            ]
            for row in rows
        ],
    )
    return [
        f"DEALER/ROUTER in one process, {settings['tries']} runs of "
        f"{settings['count']:,} round trips of 200 bytes, in random order. "
        "× raw: speed relative to single thread raw zmq; × aiozmq: relative to "
        "pure-Python aiozmq on asyncio (medians).",
        table,
    ]


def of_zmq(report: Report) -> list[str]:
    settings = report["settings"]
    blocks = [
        "Two processes, each on a core of its own; medians of "
        f"{settings['rounds']} interleaved runs. × raw: speed relative to raw "
        "pyzmq (RPC: to its plain round trips); × aiozmq: relative to aiozmq on "
        "asyncio."
    ]
    for workload in settings["workloads"]:
        rows = [row for row in report["rows"] if row["workload"] == workload["id"]]
        rows.sort(key=lambda row: -float(row["median"]))
        if not rows:
            continue
        blocks.append(f"**{workload['title']}**")
        blocks.append(
            simple_table(
                ["implementation", workload["unit"], "× raw", "× aiozmq"],
                [
                    [
                        row["name"],
                        f"{row['median']:,.0f}",
                        ratio(row["ratio"]["raw"]),
                        ratio(row["ratio"]["aiozmq"]),
                    ]
                    for row in rows
                ],
            )
        )
    return blocks


def of_loop(report: Report) -> list[str]:
    loops = report["settings"]["loops"]
    rows = []
    for row in report["rows"]:
        cells = [row["name"]]
        for loop in loops:
            rate = row["medians"].get(loop)
            missing = "failed" if loop in row["errors"] else NOTHING
            cells.append(missing if rate is None else _common.short(rate))
        best = "" if row["ratio"] is None else f" ({row['best_peer']})"
        rows.append([*cells, ratio(row["ratio"]) + best])
    return [
        f"Operations per second, medians of {report['settings']['rounds']} "
        f"interleaved rounds; the last column is {OURS} divided by the best of "
        "the others.",
        simple_table(["row", *loops, "× best peer"], rows),
    ]


def of_echo(report: Report) -> list[str]:
    loops = [loop for loop in report["settings"]["loops"] if loop != "c"]
    rows = []
    for row in report["rows"]:
        if "loops" not in row:
            continue  # counts of instructions or system calls have no rate
        limit, ours = row["loops"].get("c"), row["loops"].get(OURS)
        cells = [row["name"], f"{row['size']:,}", f"{row['connections']:,}"]
        cells.append(f"{limit['median']:,.0f} {row['unit']}" if limit else NOTHING)
        for loop in loops:
            entry = row["loops"].get(loop)
            if entry is None:
                cells.append(NOTHING)
            elif entry["of_limit"] is None:
                cells.append(f"{entry['median']:,.1f}")
            else:
                cells.append(f"{entry['of_limit']:.2f}")
        rows.append([*cells, ratio(ours["of_best_peer"] if ours else None)])
    header = ["row", "bytes", "connections", "C server", *loops, "× best peer"]
    return [
        "The C server's rate is the limit, and a loop's figure its share of that; "
        f"the last column is {OURS} divided by the best of the others.",
        simple_table(header, rows),
    ]


RENDERERS: dict[str, Callable[[Report], list[str]]] = {
    "simple": of_simple,
    "zmq": of_zmq,
    "loop": of_loop,
    "echo": of_echo,
}


def render(report: Report) -> str:
    """One file's tables, with the machine and what went wrong beneath."""
    blocks = RENDERERS[report["benchmark"]](report)
    day = report["created"].partition("T")[0]
    blocks.append(f"Measured on {day}: {_common.describe(report)}.")
    skipped: dict[str, list[str]] = {}
    for entry in report["skipped"]:
        if "reason" in entry and ("name" in entry or "id" in entry):
            name = entry.get("name") or entry["id"]
            skipped.setdefault(entry["reason"], []).append(name)
    for reason, names in skipped.items():
        blocks.append(f"Left out ({reason}): {', '.join(names)}.")
    for warning in report["warnings"]:
        blocks.append(f".. warning:: {warning}")
    return "\n\n".join(blocks) + "\n"


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "files", nargs="*", metavar="FILE",
        help="result files; all in benchmarks/results/",
    )  # fmt: skip
    parser.add_argument("-o", "--output", metavar="FILE", help="instead of stdout")
    args = parser.parse_args(argv)
    files = args.files or sorted(map(str, _common.RESULTS.glob("*.json")))
    if not files:
        parser.error("there are no results yet: run one of the benchmarks first")
    texts = []
    for name in files:
        try:
            report = json.loads(Path(name).read_text(encoding="utf-8"))
            known = report["benchmark"] in RENDERERS
        except (OSError, ValueError, KeyError, TypeError) as exc:
            parser.error(f"{name} is not a result file: {exc}")
        if not known:
            print(f"Skipped {name}: no table for {report['benchmark']}")
        elif report["format"] != _common.FORMAT:
            parser.error(f"{name} has another layout: run the benchmark again")
        else:
            texts.append(render(report))
    text = "\n\n".join(texts)
    if args.output:
        Path(args.output).write_text(text, encoding="utf-8")
        print(f"The tables are in {args.output}")
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

#!/usr/bin/env python3
"""DEALER/ROUTER round trips in one process: pyzmq, aiozmq, aiozmq_speedups.

The successor of aiozmq's benchmarks/simple.py: the same options, the same
loads, and beside the original's rows this package's in pure Python and in C.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if not __package__:
    # A script's own folder comes first, and zmq.py in it would hide pyzmq.
    _here = Path(__file__).resolve().parent
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != _here]
    sys.path.insert(0, str(_here.parent))

from benchmarks import _common, _plot, _simple_rows, _stats, _worker
from benchmarks._simple_rows import Row

COUNT, TRIES = 1000, 33
"""Without -n and -t: about three minutes for every row on two cores."""

PURE = "AIOZMQ_SPEEDUPS_PURE"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        epilog="tests: " + ", ".join(_simple_rows.ROWS),
    )
    parser.add_argument(
        "-n", "--count", type=_positive, default=COUNT,
        help=f"round trips in a run ({COUNT})",
    )  # fmt: skip
    parser.add_argument(
        "-t", "--tries", type=_positive, default=TRIES,
        help=f"runs of each row ({TRIES})",
    )  # fmt: skip
    parser.add_argument(
        "-p", "--save-plot", "--plot-file-name", metavar="FILE", dest="plot",
        help="write a bar plot (needs matplotlib)",
    )  # fmt: skip
    parser.add_argument(
        "--json", metavar="FILE",
        help="where the samples go (benchmarks/results/simple-...json)",
    )  # fmt: skip
    parser.add_argument(
        "-j", "--jobs", type=_positive, metavar="N",
        help="runs at the same time (half of the cores)",
    )  # fmt: skip
    parser.add_argument(
        "-v", "--verbose", action="count", default=0,
        help="print every sample; with -vv show the plot in a window too",
    )  # fmt: skip
    parser.add_argument(
        "--without-multiprocessing", action="store_true",
        help="every run in this process, one after another",
    )  # fmt: skip
    parser.add_argument(
        "tests", nargs="*", metavar="test",
        help="rows, as ids, patterns of ids ('c-*') or aiozmq's test names; all",
    )  # fmt: skip
    args = parser.parse_args(argv)
    try:
        args.rows = _simple_rows.select(args.tests)
    except KeyError as exc:
        parser.error(f"no such test: {exc}; choose from {', '.join(_simple_rows.ROWS)}")
    return args


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


# --- which rows can run ------------------------------------------------------


def why_skipped(row: Row) -> str | None:
    for module in row.needs:
        reason = _common.why_missing(module)
        if reason is not None:
            return reason
    if row.family in ("speedups-c", "speedups-native"):
        return _common.why_no_c_transport()
    return None


# --- where the runs happen ----------------------------------------------------


class Workers:
    """A few processes that run rows; each has cores of its own.

    A row in pure Python needs AIOZMQ_SPEEDUPS_PURE at import, so each place
    may have two processes, of which one at a time is busy.
    """

    TIMEOUT = 120.0
    """Seconds before a run counts as hung, plus SECONDS_PER_TRIP each."""
    SECONDS_PER_TRIP = 0.01

    def __init__(self, jobs: int | None) -> None:
        available = _common.cores()
        most = max(1, len(available) // 2)
        self.places = min(jobs, len(available)) if jobs else most
        share = len(available) // self.places
        self._cores = [
            available[i * share : (i + 1) * share] for i in range(self.places)
        ]

    def run(self, plan: Sequence[Row], count: int, results: queue.Queue[Any]) -> None:
        """Puts (row, answer) into ``results`` for every element of the plan."""
        todo: queue.SimpleQueue[Row] = queue.SimpleQueue()
        for row in plan:
            todo.put(row)
        for place in range(self.places):
            threading.Thread(
                target=self._serve, args=(place, todo, count, results), daemon=True
            ).start()

    def _serve(
        self,
        place: int,
        todo: queue.SimpleQueue[Row],
        count: int,
        results: queue.Queue[Any],
    ) -> None:
        processes: dict[bool, subprocess.Popen[str]] = {}
        try:
            while True:
                row = todo.get_nowait()
                process = processes.get(row.pure)
                if process is None:
                    process = processes[row.pure] = self._start(place, row.pure)
                answer = self._ask(process, row, count)
                if process.poll() is not None:
                    del processes[row.pure]
                results.put((row, answer))
        except queue.Empty:
            pass
        except Exception as exc:
            results.put((None, exc))
        finally:
            for process in processes.values():
                assert process.stdin is not None
                process.stdin.close()
                process.wait()

    def _start(self, place: int, pure: bool) -> subprocess.Popen[str]:
        env = {name: value for name, value in os.environ.items() if name != PURE}
        if pure:
            env[PURE] = "1"
        return subprocess.Popen(
            [sys.executable, str(_common.HERE / "_worker.py")]
            + [",".join(map(str, self._cores[place]))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )

    def _ask(
        self, process: subprocess.Popen[str], row: Row, count: int
    ) -> dict[str, Any]:
        assert process.stdin is not None and process.stdout is not None
        seconds = self.TIMEOUT + self.SECONDS_PER_TRIP * count
        watchdog = threading.Timer(seconds, process.kill)
        watchdog.start()
        try:
            process.stdin.write(json.dumps({"row_id": row.id, "count": count}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            hung = not watchdog.is_alive()
            watchdog.cancel()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        code = process.wait()
        if hung:
            return {"error": f"no answer within {seconds:.0f} s"}
        died = f"signal {signal.Signals(-code).name}" if code < 0 else f"code {code}"
        return {"error": f"the process ended with {died}"}


class ThisProcess:
    """Runs rows here; the C and the pure-Python package take turns."""

    places = 1

    def __init__(self) -> None:
        self._modules: dict[bool, dict[str, Any]] = {False: {}, True: {}}

    def run(self, plan: Sequence[Row], count: int, results: queue.Queue[Any]) -> None:
        for row in plan:
            with self._package(row.pure):
                results.put((row, _worker.measure(row.id, count)))

    @contextmanager
    def _package(self, pure: bool) -> Iterator[None]:
        """Makes ``import aiozmq_speedups`` find one of two separate copies."""
        self._take_out()
        sys.modules.update(self._modules[pure])
        if pure:
            os.environ[PURE] = "1"
        try:
            yield
        finally:
            os.environ.pop(PURE, None)
            self._modules[pure] = self._take_out()

    @staticmethod
    def _take_out() -> dict[str, Any]:
        names = [n for n in sys.modules if n.partition(".")[0] == "aiozmq_speedups"]
        return {name: sys.modules.pop(name) for name in names}


def collect(
    rows: Sequence[Row], runner: Workers | ThisProcess, args: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, str], list[str]]:
    """Seconds by row id, errors by row id, warnings."""
    plan: list[Row] = []
    for _ in range(args.tries):
        # Each round in an order of its own: what disturbs the machine for a
        # while then touches every row alike.
        plan += random.sample(rows, len(rows))
    progress = _common.Progress(len(plan))
    samples: dict[str, list[float]] = {row.id: [] for row in rows}
    errors: dict[str, str] = {}
    warnings: list[str] = []
    results = _Results(progress, samples, errors, warnings)
    runner.run(plan, args.count, results)
    results.wait(len(plan))
    progress.close()
    return samples, errors, warnings


class _Results(queue.Queue[Any]):
    """Takes the answers: at once from this process, in turn from the threads."""

    def __init__(
        self,
        progress: _common.Progress,
        samples: dict[str, list[float]],
        errors: dict[str, str],
        warnings: list[str],
    ) -> None:
        super().__init__()
        self._progress = progress
        self._samples = samples
        self._errors = errors
        self._warnings = warnings
        self._taken = 0
        self._main = threading.get_ident()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if threading.get_ident() == self._main:
            self._take(*item)
        else:
            super().put(item, block, timeout)

    def wait(self, total: int) -> None:
        while self._taken < total:
            self._take(*self.get())

    def _take(self, row: Row | None, answer: Any) -> None:
        if row is None:
            raise answer
        self._taken += 1
        if "error" in answer:
            if row.id not in self._errors:
                self._errors[row.id] = answer["error"]
                self._progress.say(f"{row.title}: {last_line(answer['error'])}")
        else:
            self._samples[row.id].append(answer["seconds"])
            for leak in answer["leaks"]:
                text = f"{row.title}: a run left a {leak} behind"
                if text not in self._warnings:
                    self._warnings.append(text)
        self._progress.step(row.title)


# --- results -----------------------------------------------------------------


def last_line(error: str) -> str:
    return error.strip().splitlines()[-1]


def summarise(row: Row, seconds: Sequence[float], count: int) -> dict[str, Any]:
    rates = [count / s for s in seconds]
    micros = [s / count * 1e6 for s in seconds]
    low, high = _stats.confidence_interval(rates)
    return {
        "id": row.id,
        "name": row.title,
        "family": row.family,
        "api": row.api,
        "loop": row.loop,
        "rps": {"mean": _stats.fmean(rates), "low": low, "high": high},
        "us": {
            "mean": _stats.fmean(micros),
            "stdev": _stats.spread(micros),
            "median": _stats.median(micros),
        },
        "samples_s": list(seconds),
    }


def add_ratios(rows: Sequence[dict[str, Any]]) -> None:
    """Speed relative to raw pyzmq and to pure aiozmq: quotients of medians."""
    medians = {row["id"]: row["us"]["median"] for row in rows}
    for row in rows:
        baseline = _simple_rows.ROWS[row["id"]].baseline
        names = {"raw": _simple_rows.RAW_BASELINE, "aiozmq": baseline}
        row["ratio"] = {
            key: medians[name] / medians[row["id"]] if name in medians else None
            for key, name in names.items()
        }


def print_results(rows: Sequence[dict[str, Any]], verbose: int) -> None:
    def ratio(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    print()
    print(
        "RPS is the mean with its 95 % confidence interval; a ratio above 1 is faster."
    )
    print("x raw: to 'single thread raw zmq'; x aiozmq: to aiozmq on asyncio.")
    print()
    header = ["", "RPS", "95 % CI", "mean us", "sd us", "median us"]
    header += ["x raw", "x aiozmq"]
    ordered = sorted(rows, key=lambda row: float(row["rps"]["mean"]), reverse=True)
    lines = [
        [
            row["name"],
            f"{row['rps']['mean']:,.0f}",
            f"{row['rps']['low']:,.0f} .. {row['rps']['high']:,.0f}",
            f"{row['us']['mean']:.1f}",
            f"{row['us']['stdev']:.1f}",
            f"{row['us']['median']:.1f}",
            ratio(row["ratio"]["raw"]),
            ratio(row["ratio"]["aiozmq"]),
        ]
        for row in ordered
    ]
    print(_common.table(header, lines))
    if verbose:
        for row in ordered:
            count = len(row["samples_s"])
            each = row["us"]["mean"] / _stats.fmean(row["samples_s"])
            print(f"\n{row['name']}: {count} samples in us")
            print(" ".join(f"{s * each:.1f}" for s in row["samples_s"]))


def save_plot(report: dict[str, Any], args: argparse.Namespace) -> str | None:
    """Writes the plot; returns why not where it cannot."""
    missing = _common.why_missing("matplotlib")
    if missing is not None:
        return f"no plot: {missing} (pip install matplotlib)"
    title = (
        "DEALER/ROUTER round trips in one process, 200 bytes, "
        f"{args.tries} runs of {args.count:,}"
    )
    Path(args.plot).resolve().parent.mkdir(parents=True, exist_ok=True)
    subtitle = _common.describe(report)
    _plot.save(report["rows"], title, subtitle, args.plot, show=args.verbose > 1)
    return None


def main(argv: Sequence[str]) -> int:
    args = parse(argv)
    rows, skipped = [], []
    for row in args.rows:
        reason = why_skipped(row)
        if reason is None:
            rows.append(row)
        else:
            skipped.append({"id": row.id, "name": row.title, "reason": reason})
    by_reason: dict[str, list[str]] = {}
    for entry in skipped:
        by_reason.setdefault(entry["reason"], []).append(entry["name"])
    for reason, names in by_reason.items():
        print(f"Skipped, {reason}: {', '.join(names)}")
    if not rows:
        print("No row is left to run.", file=sys.stderr)
        return 1
    runner = ThisProcess() if args.without_multiprocessing else Workers(args.jobs)
    report = _common.new_report(
        "simple",
        {
            "count": args.count,
            "tries": args.tries,
            "processes": runner.places,
            "in_this_process": args.without_multiprocessing,
        },
        _common.ZMQ_PEERS,
    )
    print(_common.describe(report))
    where = "in this process" if args.without_multiprocessing else "at a time"
    print(
        f"{len(rows)} rows, {args.tries} runs of {args.count} round trips each, "
        f"{runner.places} {where}"
    )
    samples, errors, warnings = collect(rows, runner, args)
    report["skipped"] = skipped
    report["rows"] = [
        summarise(row, samples[row.id], args.count) for row in rows if samples[row.id]
    ]
    report["errors"] = errors
    add_ratios(report["rows"])
    debug = _common.debug_build_warning(report["versions"])
    report["warnings"] = warnings + ([debug] if debug else [])
    if report["rows"]:
        print_results(report["rows"], args.verbose)
    for warning in report["warnings"]:
        print(f"Warning: {warning}")
    for name, error in errors.items():
        text = error.strip() if args.verbose else last_line(error)
        print(f"Failed: {_simple_rows.ROWS[name].title}: {text}")
    path = args.json or _common.result_path(f"simple-{args.count}x{args.tries}")
    _common.write_json(report, path)
    print(f"\nResults are in {path}")
    if args.plot and report["rows"]:
        problem = save_plot(report, args)
        print(problem or f"The plot is in {args.plot}")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

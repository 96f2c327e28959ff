"""What the benchmarks share: machine facts, progress, cores and JSON."""

from __future__ import annotations

import datetime
import importlib
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

FORMAT = 1
"""The version of the JSON files' layout."""

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"

ZMQ_PEERS = ("aiozmq", "uvloop")


# --- what is installed -----------------------------------------------------


def why_missing(module: str) -> str | None:
    """None where the module imports, otherwise the reason in one line."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as exc:
        name = exc.name or module
        if name == module:
            return f"{module} is not installed"
        return f"{module} does not import: {exc}"
    except Exception as exc:
        # aiozmq 1.0.0 on Python 3.14 is an ImportError about SafeChildWatcher;
        # a package that breaks in another way must not stop the others.
        version = ".".join(map(str, sys.version_info[:2]))
        detail = f"{exc}".splitlines()[0] if f"{exc}" else type(exc).__name__
        return f"{module} does not import on Python {version}: {detail}"
    return None


def why_no_extension() -> str | None:
    """None where this package's C extension works, otherwise the reason."""
    reason = why_missing("aiozmq_speedups")
    if reason is not None:
        return reason
    ext = importlib.import_module("aiozmq_speedups._ext")
    return None if ext.core is not None else str(ext.reason)


def why_no_c_transport() -> str | None:
    """None where ZeroMQ messages go through C, otherwise the reason."""
    reason = why_no_extension()
    if reason is not None:
        return reason
    zmq = importlib.import_module("aiozmq_speedups._zmq.accelerated")
    info = str(zmq.transport_info)
    return None if info.startswith("C") else f"the zmq transport is {info}"


def versions(peers: Iterable[str]) -> dict[str, str]:
    found = {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "compiler": platform.python_compiler(),
    }
    try:
        import zmq

        found["pyzmq"] = zmq.__version__
        found["libzmq"] = zmq.zmq_version()
    except ImportError:
        pass
    for name in ("msgpack", *peers):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    try:
        import aiozmq_speedups
        from aiozmq_speedups import _ext
    except ImportError:
        return found
    found["aiozmq_speedups"] = aiozmq_speedups.__version__
    found["extension"] = getattr(_ext.core, "BUILD_FLAVOUR", "none")
    return found


# --- the machine -----------------------------------------------------------


def _first_line(path: str, key: str | None = None) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                if key is None:
                    return line.strip()
                name, _, value = line.partition(":")
                if name.strip() == key:
                    return value.strip()
    except OSError:
        pass
    return None


def cores() -> list[int]:
    """The cores this process may use, in ascending order."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def pin(which: Iterable[int]) -> None:
    """Keeps this process, and the threads it will start, on the given cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, which)


def machine() -> dict[str, Any]:
    """What a reader needs in order to compare; no names, no paths."""
    memory = _first_line("/proc/meminfo", "MemTotal")
    flags = (_first_line("/proc/cpuinfo", "flags") or "").split()
    distribution = None
    if hasattr(platform, "freedesktop_os_release"):
        try:
            distribution = platform.freedesktop_os_release().get("PRETTY_NAME")
        except OSError:
            pass
    return {
        "cpu": _first_line("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": len(cores()),
        "mhz": _first_line("/proc/cpuinfo", "cpu MHz"),
        "governor": _first_line(
            "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
        ),
        "virtual": "hypervisor" in flags,
        "memory_gib": round(int(memory.split()[0]) / 2**20) if memory else None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "distribution": distribution,
    }


def load_average() -> float | None:
    """Runnable tasks over the last minute: above the cores the figures suffer."""
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def describe(report: dict[str, Any]) -> str:
    """The machine and the versions of a result file, in one line."""
    info, found = report["machine"], report["versions"]
    parts = [
        f"{info['cpu']}, {info['cores']} cores" + (" (VM)" if info["virtual"] else ""),
        info["system"],
        f"Python {found['python']}",
    ]
    hidden = ("python", "implementation", "compiler", "msgpack", "extension")
    parts += [f"{name} {value}" for name, value in found.items() if name not in hidden]
    return ", ".join(parts)


def debug_build_warning(found: dict[str, str]) -> str | None:
    flavour = found.get("extension", "none")
    if flavour in ("none", "release"):
        return None
    return (
        f"the extension is a {flavour} build: its rows do not show the speed of "
        "a release build"
    )


# --- result files ----------------------------------------------------------


def new_report(
    benchmark: str, settings: dict[str, Any], peers: Iterable[str]
) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC)
    return {
        "benchmark": benchmark,
        "format": FORMAT,
        "created": now.isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(peers),
        "settings": settings,
        "load_average": {"before": load_average(), "after": None},
        "rows": [],
        "skipped": [],
        "warnings": [],
    }


def result_path(stem: str) -> Path:
    """results/<stem>-py3.13.json: another run of the same size replaces it."""
    version = ".".join(map(str, sys.version_info[:2]))
    return RESULTS / f"{stem}-py{version}.json"


def write_json(report: dict[str, Any], path: str | os.PathLike[str]) -> None:
    report["load_average"]["after"] = load_average()
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "w", encoding="utf-8") as file:
        json.dump(report, file, indent=1)
        file.write("\n")


# --- progress --------------------------------------------------------------


class Progress:
    """A bar with the time left on a terminal, otherwise a dot per run."""

    WIDTH = 40
    DOTS_PER_LINE = 66

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._total = total
        self._done = 0
        self._start = time.monotonic()
        self._bar = self._stream.isatty()
        self._draw("")

    def step(self, label: str = "") -> None:
        self._done += 1
        if self._bar:
            self._draw(label)
            return
        self._stream.write(".")
        if self._done % self.DOTS_PER_LINE == 0 and self._done < self._total:
            self._stream.write(f" {self._done}/{self._total}\n")
        self._stream.flush()

    def say(self, text: str) -> None:
        """Prints a line of its own without tearing the bar."""
        self._stream.write(f"\r\x1b[K{text}\n" if self._bar else f"\n{text}\n")
        self._draw("")

    def close(self) -> None:
        seconds = time.monotonic() - self._start
        end = f" {self._done}/{self._total} in {seconds:.0f} s\n"
        self._stream.write(f"\r\x1b[K{end.lstrip()}" if self._bar else end)
        self._stream.flush()

    def _draw(self, label: str) -> None:
        if not self._bar:
            return
        share = self._done / self._total if self._total else 1.0
        full = int(share * self.WIDTH)
        left = ""
        if self._done:
            spent = time.monotonic() - self._start
            left = f" {spent / self._done * (self._total - self._done):4.0f} s left"
        bar = "#" * full + "-" * (self.WIDTH - full)
        # Longer than 80 columns would wrap and leave debris behind.
        self._stream.write(
            f"\r\x1b[K[{bar}] {self._done}/{self._total}{left} {label[:20]}"
        )
        self._stream.flush()


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as they need; the first to the left, numbers to the right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    text = []
    for number, line in enumerate(lines):
        cells = [line[0].ljust(widths[0])]
        cells += [
            cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)
        ]
        text.append("  ".join(cells).rstrip())
        if number == 0:
            text.append("  ".join("-" * width for width in widths))
    return "\n".join(text)


def short(rate: float) -> str:
    """1234567 as 1.23 M, 4567 as 4.57 k."""
    for size, letter in ((1e6, " M"), (1e3, " k")):
        if rate >= size:
            return f"{rate / size:.3g}{letter}"
    return f"{rate:.3g}"

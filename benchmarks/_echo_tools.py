"""System calls and instructions per echo: the counts that no noise disturbs.

Both run a server under a tool twice, with few and with many messages; the
difference is what the messages cost, without the start and the connections.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import _echo_rows, _load
from benchmarks._echo_rows import Case

FEW, MANY = 500, 3500
"""Messages of the two runs, for each ten connections."""

RUN_SECONDS = 120.0

_STRACE_LINE = re.compile(
    r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(?P<calls>\d+)\s+(?:(?P<errors>\d+)\s+)?(?P<name>\w+)$"
)


def why_missing(tool: str) -> str | None:
    package = {"callgrind": "valgrind"}.get(tool, tool)
    if shutil.which(package) is None:
        return f"{package} is not installed (on Debian: apt install {package})"
    return None


def _difference(
    programs: _load.Programs,
    case: Case,
    loop: str,
    wrapper: Callable[[Path], Sequence[str]],
    parse: Callable[[str], dict[str, int]],
) -> dict[str, float]:
    """Counts per message, as ``parse`` finds them in the tool's report."""
    counts = []
    scale = max(1, case.connections // 10)
    for messages in (FEW * scale, MANY * scale):
        with tempfile.TemporaryDirectory(prefix="aiozmq-speedups-") as folder:
            report = Path(folder) / "report"
            server = _echo_rows.Server(programs, case.row, loop, wrapper(report))
            with server:
                server.wait()
                options = _echo_rows.client_options(case, server)
                options += ["--messages", str(messages)]
                _load.run_client(
                    programs, server.address, *options, seconds=0.0, grace=RUN_SECONDS
                )
                server.process.finish()
            counts.append(parse(report.read_text(encoding="utf-8")))
    few, many = counts
    extra = (MANY - FEW) * scale
    return {
        name: (many[name] - few.get(name, 0)) / extra
        for name in many
        if many[name] != few.get(name, 0)
    }


def strace(programs: _load.Programs, case: Case, loop: str) -> dict[str, float]:
    """System calls per message, by name; those that failed as ``name!``."""

    def parse(report: str) -> dict[str, int]:
        counts = {}
        for line in report.splitlines():
            found = _STRACE_LINE.match(line)
            if found is not None and found["name"] != "total":
                counts[found["name"]] = int(found["calls"])
                if found["errors"]:
                    counts[f"{found['name']}!"] = int(found["errors"])
        return counts

    def wrapper(report: Path) -> Sequence[str]:
        return ["strace", "-f", "-c", "-o", str(report)]

    return _difference(programs, case, loop, wrapper, parse)


def callgrind(programs: _load.Programs, case: Case, loop: str) -> dict[str, float]:
    """Instructions per message in user space."""

    def parse(report: str) -> dict[str, int]:
        found = re.search(r"^(?:summary|totals): (\d+)", report, re.MULTILINE)
        if found is None:
            raise _load.LoadError("callgrind's report has no total")
        return {"instructions": int(found[1])}

    def wrapper(report: Path) -> Sequence[str]:
        return ["valgrind", "--tool=callgrind", "-q", f"--callgrind-out-file={report}"]

    return _difference(programs, case, loop, wrapper, parse)


TOOLS = {"strace": strace, "callgrind": callgrind}


def describe(tool: str, counts: dict[str, Any]) -> str:
    if tool == "callgrind":
        return f"{counts['instructions']:,.0f} instructions"
    # What rounds to nothing is the threads' and the start's, not the messages'.
    calls = sorted(
        ((n, name) for name, n in counts.items() if n >= 0.005), reverse=True
    )
    return ", ".join(f"{n:.2f} {name}" for n, name in calls)

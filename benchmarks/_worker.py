"""One run of a simple.py row, and the process in which many of them happen.

As a program it reads a JSON object a line (``{"row": id, "count": n}``) and
answers each with ``{"seconds": s, "leaks": [...]}`` or ``{"error": text}``.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

if not __package__:
    # A script's own folder comes first, and zmq.py in it would hide pyzmq.
    _here = Path(__file__).resolve().parent
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != _here]
    sys.path.insert(0, str(_here.parent))

import zmq

from benchmarks import _common, _simple_rows

WARM_UP = 20
"""Round trips before a row's first measured run in a process: imports, caches
and lazily opened descriptors then count neither as time nor as leaks."""

GRACE_SECONDS = 20.0
"""How long a thread may take to end after it was joined by its owner."""


def end_run() -> list[str]:
    """Ends every zmq context, and names the sockets that were still open.

    aiozmq and this package share ``zmq.Context.instance()``, which owns
    two threads; a fresh one is made for the next run.
    """
    gc.collect()
    leaks = []
    shared: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    contexts = [o for o in gc.get_objects() if isinstance(o, zmq.Context)]
    for context in contexts:
        if context.closed:
            continue
        sockets = [s for s in context._sockets if not s.closed]
        leaks += [f"socket {s.type!r}" for s in sockets]
        if context is not shared and not context._shadow:
            leaks.append("zmq context")
        context.destroy(linger=0)
    return leaks


class ResourceCheck:
    """Compares descriptors, threads and zmq contexts before and after a run."""

    def __init__(self) -> None:
        self._before = self._count()

    @staticmethod
    def _count() -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {"descriptor": {}, "thread": {}}
        if not os.path.isdir("/proc/self/fd"):
            found["thread"] = {str(t.ident): t.name for t in threading.enumerate()}
            return found
        for number in os.listdir("/proc/self/fd"):
            try:
                found["descriptor"][number] = os.readlink(f"/proc/self/fd/{number}")
            except OSError:
                continue  # the descriptor that listdir itself had open
        for number in os.listdir("/proc/self/task"):
            try:
                with open(f"/proc/self/task/{number}/comm", encoding="ascii") as file:
                    found["thread"][number] = file.read().strip()
            except OSError:
                continue  # it ended meanwhile
        return found

    def finish(self) -> list[str]:
        """What the run left behind, empty where it freed everything."""
        leaks = end_run()
        deadline = time.monotonic() + GRACE_SECONDS
        while True:
            after = self._count()
            rest = [
                f"{kind} {name}"
                for kind, now in after.items()
                for number, name in now.items()
                if number not in self._before[kind]
            ]
            if not rest or time.monotonic() > deadline:
                return leaks + rest
            time.sleep(0.001)


_warm: set[str] = set()


def measure(row_id: str, count: int) -> dict[str, Any]:
    """Runs a row once; what goes wrong is part of the answer."""
    row = _simple_rows.ROWS[row_id]
    try:
        if row_id not in _warm:
            _simple_rows.run(row, WARM_UP)
            end_run()
            _warm.add(row_id)
        check = ResourceCheck()
        seconds = _simple_rows.run(row, count)
        return {"seconds": seconds, "leaks": check.finish()}
    except Exception:
        return {"error": traceback.format_exc()}


def main() -> int:
    # Whatever a library prints goes to stderr: the answers own stdout.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if len(sys.argv) > 1:
        _common.pin(map(int, sys.argv[1].split(",")))
    for line in sys.stdin:
        answers.write(json.dumps(measure(**json.loads(line))) + "\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Drives runner.py: one process per module, more where one crashes."""

import json
import os
import pathlib
import subprocess
import sys
from dataclasses import dataclass

import aiozmq_speedups

HERE = pathlib.Path(__file__).resolve().parent
# Of the package under test: an installed one, or the checkout's.
ROOT = pathlib.Path(aiozmq_speedups.__file__).resolve().parents[1]
SECONDS_PER_PROCESS = 900


@dataclass
class Outcome:
    """What became of one test."""

    id: str
    outcome: str  # "ok", "skip", "fail" or "crash"
    loops: int = 0  # how many of the loops under test it made
    detail: str = ""


def _run_once(module, kind, directory, skip, only):
    out, skip_file = directory / "results", directory / "skip"
    skip_file.write_text("\n".join(skip))
    command = [sys.executable, str(HERE / "runner.py"), module, f"--loop={kind}"]
    command += [f"--out={out}", f"--skip={skip_file}"]
    if only is not None:
        (directory / "only").write_text("\n".join(only))
        command.append(f"--only={directory / 'only'}")
    out.write_text("")
    # The tests may leave files; some look at PYTHONPATH or the environment.
    work = directory / "work"
    work.mkdir(exist_ok=True)
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    env.pop("PYTHONASYNCIODEBUG", None)
    kind, _, tls = kind.partition("-")
    command[3] = f"--loop={kind}"
    env["AIOZMQ_SPEEDUPS_TLS"] = tls or "asyncio"
    try:
        process = subprocess.run(
            command,
            check=False,
            cwd=work,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=SECONDS_PER_PROCESS,
        )
        code, stderr = process.returncode, process.stderr
    except subprocess.TimeoutExpired as exc:
        code, stderr = "time limit", exc.stderr or b""
    events = [json.loads(line) for line in out.read_text().splitlines()]
    return events, f"exit: {code}\n{stderr.decode(errors='replace')[-6000:]}"


def run_module(module, kind, directory, *, skip=(), only=None):
    """{test id: Outcome} of a module of test.test_asyncio on the loop `kind`.

    "speedups-aiofastnet" is our loop with aiofastnet's TLS, "speedups" with asyncio's.
    """
    results, skip = {}, set(skip)
    while True:
        events, tail = _run_once(module, kind, directory, sorted(skip), only)
        running, done = None, False
        for event in events:
            if event["event"] == "start":
                running = event["id"]
            elif event["event"] == "end":
                fields = {k: event[k] for k in ("id", "outcome", "loops", "detail")}
                results[event["id"]] = Outcome(**fields)
                if event["id"] == running:
                    running = None
            else:
                done = True
        if done:
            return results
        if running is None:
            results[module] = Outcome(module, "crash", detail=tail)
            return results
        results[running] = Outcome(running, "crash", detail=tail)
        # on with the others
        skip |= results.keys()


def stdlib_modules():
    """Names of the test modules that this interpreter ships."""
    try:
        import test.test_asyncio
    except ImportError:
        return []
    directory = pathlib.Path(test.test_asyncio.__file__).parent
    return sorted(path.stem for path in directory.glob("test_*.py"))

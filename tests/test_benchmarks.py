"""The benchmarks run, at a tiny size, and write what they promise.

No figure is looked at: how fast something is never decides a test.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aiozmq_speedups import _ext

ROOT = Path(__file__).resolve().parents[1]
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
PYZMQ_ROWS = ["raw", "poller", "threads"]

pytestmark = pytest.mark.skipif(
    not (ROOT / "benchmarks").is_dir(), reason="installed without benchmarks/"
)


def run(*args, ok=True, env=None):
    """A benchmark's output; its command line is what a reader would type."""
    done = subprocess.run(
        [sys.executable, *map(str, args)],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=250,
        check=False,
    )
    if ok:
        assert done.returncode == 0, done.stdout
    return done.stdout


def load(path, benchmark):
    report = json.loads(path.read_text())
    assert report["benchmark"] == benchmark
    assert report["format"] == 1
    assert report["machine"]["cores"] >= 1
    assert report["versions"]["python"]
    assert report["settings"]
    assert report["rows"]
    return report


# --- simple.py ---------------------------------------------------------------


@pytest.mark.parametrize("how", [[], ["--without-multiprocessing"]])
def test_simple(tmp_path, how):
    out = tmp_path / "out.json"
    text = run("benchmarks/simple.py", "-n5", "-t2", "--json", out, *how, *PYZMQ_ROWS)
    report = load(out, "simple")
    assert sorted(row["id"] for row in report["rows"]) == sorted(PYZMQ_ROWS)
    assert not report["errors"]
    assert not [text for text in report["warnings"] if "build" not in text]
    for row in report["rows"]:
        assert len(row["samples_s"]) == 2
        assert row["rps"]["low"] <= row["rps"]["mean"] <= row["rps"]["high"]
        assert row["us"]["mean"] > 0
        assert row["name"] in text
    assert next(r for r in report["rows"] if r["id"] == "raw")["ratio"]["raw"] == 1


@pytest.mark.parametrize("how", [[], ["--without-multiprocessing"]])
def test_simple_measures_both_variants(tmp_path, how):
    """C and pure Python, in one process too, without a mix-up or a leak."""
    out = tmp_path / "out.json"
    rows = ["python-*"] + (["c-*-own", "c-*-asyncio"] if _ext.core is not None else [])
    run("benchmarks/simple.py", "-n20", "-t3", "--json", out, *how, *rows)
    report = load(out, "simple")
    assert not report["errors"]
    warnings = [text for text in report["warnings"] if "build" not in text]
    assert not warnings
    assert len(report["rows"]) == (9 if _ext.core is not None else 3)
    assert all(len(row["samples_s"]) == 3 for row in report["rows"])


def test_simple_as_a_module(tmp_path):
    out = tmp_path / "out.json"
    run("-m", "benchmarks.simple", "-n5", "-t1", "--json", out, "raw")
    load(out, "simple")


def test_simple_accepts_the_names_of_aiozmq(tmp_path):
    out = tmp_path / "out.json"
    run("benchmarks/simple.py", "-n5", "-t1", "--json", out, "test_raw_zmq")
    assert [row["id"] for row in load(out, "simple")["rows"]] == ["raw"]


def test_simple_unknown_row():
    text = run("benchmarks/simple.py", "no-such-row", ok=False)
    assert "no such test: 'no-such-row'" in text


@pytest.mark.parametrize("option", ["-p", "--save-plot", "--plot-file-name"])
def test_simple_plot(tmp_path, option):
    pytest.importorskip("matplotlib")
    plot = tmp_path / "deeper" / "plot.png"
    args = ["-n5", "-t2", "--json", tmp_path / "out.json", option, plot, *PYZMQ_ROWS]
    run("benchmarks/simple.py", *args)
    assert plot.read_bytes().startswith(PNG_MAGIC)


def hide(tmp_path, module):
    """An environment in which the module is there but does not import."""
    (tmp_path / f"{module}.py").write_text("raise ImportError('hidden by a test')\n")
    return {"PYTHONPATH": str(tmp_path)}


def test_simple_without_matplotlib_and_scipy(tmp_path):
    out = tmp_path / "out.json"
    env = hide(tmp_path, "matplotlib") | hide(tmp_path, "scipy")
    args = ["-n5", "-t2", "--json", out, "-p", tmp_path / "x.png", "raw"]
    text = run("benchmarks/simple.py", *args, env=env)
    assert "no plot: matplotlib does not import" in text
    assert "scipy does not import (hidden by a test): the confidence" in text
    assert "single thread raw zmq" in text
    rate = load(out, "simple")["rows"][0]["rps"]
    assert rate["low"] < rate["mean"] < rate["high"]


def test_simple_without_aiozmq(tmp_path):
    out = tmp_path / "out.json"
    env = hide(tmp_path, "aiozmq")
    args = ["-n5", "-t1", "--json", out, "raw", "aiozmq-*"]
    text = run("benchmarks/simple.py", *args, env=env)
    assert "Skipped, aiozmq does not import" in text
    assert len(load(out, "simple")["skipped"]) == 6


# --- the statistics -----------------------------------------------------------

INTERVAL = """
import sys
sys.path.insert(0, {root!r})
from benchmarks._stats import confidence_interval
# 12.706 and 2.262: the 0.975 quantiles of 1 and 9 degrees of freedom in any table.
low, high = confidence_interval([1, 3])
assert abs(high - 14.706) < 1e-3 and abs(low + 10.706) < 1e-3, (low, high)
low, high = confidence_interval([-1] * 5 + [1] * 5)
assert abs(high - 2.262 / 3) < 1e-3 and low == -high, (low, high)
assert confidence_interval([7]) == (7, 7)
"""


def test_confidence_interval_is_that_of_the_tables():
    pytest.importorskip("scipy")
    run("-c", INTERVAL.format(root=str(ROOT)))


# --- zmq.py ------------------------------------------------------------------

TINY = ["--rounds", "1", "--seconds", "0.001"]


@pytest.mark.parametrize("start", [["benchmarks/zmq.py"], ["-m", "benchmarks.zmq"]])
def test_zmq_finds_pyzmq(start):
    assert "two processes" in run(*start, "--help")


@pytest.mark.parametrize(
    ("workload", "only"),
    [
        ("trip-1", "zmq.asyncio-asyncio"),
        ("trip-1", "zmq.asyncio-speedups"),
        ("trip-64", "python-core-asyncio"),
        ("oneway", "python-stream-asyncio"),
        ("oneway-1m", "python-core-asyncio"),
        ("rpc-64", "python-rpc-asyncio"),
        ("sub", "zmq.asyncio-asyncio"),
        ("echo-1m", "zmq.asyncio-asyncio"),
        ("busy", "zmq.asyncio-asyncio"),
    ],
)
def test_zmq(tmp_path, workload, only):
    out = tmp_path / "out.json"
    args = ["--json", out, *TINY, workload, "-i", only, "-i", "libzmq"]
    text = run("benchmarks/zmq.py", *args)
    report = load(out, "zmq")
    assert not report["errors"]
    rows = {row["id"]: row for row in report["rows"]}
    # libzmq is there where its headers and a compiler are.
    expected = {"raw", only} | (rows.keys() & {"libzmq"})
    assert rows.keys() == expected
    for row in rows.values():
        assert row["workload"] == workload
        assert len(row["rates"]) == 1 and row["median"] > 0
        assert row["name"] in text
    assert rows["raw"]["ratio"]["raw"] == 1


def test_zmq_unknown_names():
    assert "no such workload" in run("benchmarks/zmq.py", "nothing", ok=False)
    text = run("benchmarks/zmq.py", "-i", "nothing", ok=False)
    assert "no such implementation" in text


# --- loop.py -----------------------------------------------------------------


def test_loop(tmp_path):
    out = tmp_path / "out.json"
    loops = ["asyncio"] + (["speedups"] if _ext.core is not None else [])
    args = [word for loop in loops for word in ("-l", loop)]
    run("benchmarks/loop.py", *TINY, *args, "--json", out)
    report = load(out, "loop")
    assert len(report["rows"]) > 15
    for row in report["rows"]:
        assert not row["errors"]
        assert sorted(row["medians"]) == sorted(loops)


def test_threads(tmp_path):
    path = tmp_path / "threads.json"
    args = ["-s", "0.02", "-r", "1", "-l", "asyncio", "--json", path]
    args += ["-l", "speedups"] if _ext.core is not None else []
    table = run("benchmarks/threads.py", *args)
    report = json.loads(path.read_text())
    rows = {(row["row"], row["threads"]) for row in report["rows"]}
    assert ("echo", 1) in rows and ("call_soon", 2) in rows
    assert all(row["rates"][0] > 0 for row in report["rows"])
    assert "x one" in table


def test_loop_survives_a_dying_row(tmp_path):
    """A loop that takes its process down loses that row, not the others."""
    out = tmp_path / "out.json"
    (tmp_path / "uvloop.py").write_text(
        "import asyncio, os\n"
        "class Loop(asyncio.SelectorEventLoop):\n"
        "    def create_future(self):\n"
        "        os.abort()\n"
        "new_event_loop = Loop\n"
    )
    args = ["-l", "uvloop", "-l", "asyncio", "--json", out, "future", "call_soon_0"]
    env = {"PYTHONPATH": str(tmp_path)}
    text = run("benchmarks/loop.py", *TINY, *args, env=env)
    rows = {row["id"]: row for row in load(out, "loop")["rows"]}
    assert rows["future"]["errors"].keys() == {"uvloop"}
    assert rows["future"]["medians"].keys() == {"asyncio"}
    assert rows["call_soon_0"]["medians"].keys() == {"asyncio", "uvloop"}
    assert "failed" in text


# --- report.py ---------------------------------------------------------------


def test_report(tmp_path):
    files = [tmp_path / f"{name}.json" for name in ("simple", "zmq", "loop")]
    run("benchmarks/simple.py", "-n5", "-t2", "--json", files[0], *PYZMQ_ROWS)
    run("benchmarks/zmq.py", *TINY, "trip-1", "-i", "raw", "--json", files[1])
    args = ["-l", "asyncio", "call_soon_0", "sleep_0", "--json", files[2]]
    run("benchmarks/loop.py", *TINY, *args)
    out = tmp_path / "out.rst"
    run("benchmarks/report.py", *files, "-o", out)
    text = out.read_text()
    for expected in ("single thread raw zmq", "raw pyzmq", "call_soon batch"):
        assert expected in text
    assert text == run("benchmarks/report.py", *files)
    docutils = pytest.importorskip("docutils.core")
    # A warning of docutils is an error here.
    docutils.publish_doctree(text, settings_overrides={"halt_level": 2})


def test_report_of_something_else(tmp_path):
    other = tmp_path / "other.json"
    other.write_text("[]")
    assert "not a result file" in run("benchmarks/report.py", other, ok=False)

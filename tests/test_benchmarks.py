"""The benchmarks run, at a tiny size, and write what they promise.

No figure is looked at: how fast something is never decides a test.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
        timeout=50,
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
    assert not report["warnings"] and not report["errors"]
    for row in report["rows"]:
        assert len(row["samples_s"]) == 2
        assert row["rps"]["low"] <= row["rps"]["mean"] <= row["rps"]["high"]
        assert row["us"]["mean"] > 0
        assert row["name"] in text
    assert next(r for r in report["rows"] if r["id"] == "raw")["ratio"]["raw"] == 1


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


def test_simple_without_matplotlib(tmp_path):
    args = ["-n5", "-t1", "--json", tmp_path / "out.json", "-p", tmp_path / "x.png"]
    env = hide(tmp_path, "matplotlib")
    text = run("benchmarks/simple.py", *args, "raw", env=env)
    assert "no plot: matplotlib does not import" in text
    assert "single thread raw zmq" in text


def test_simple_without_aiozmq(tmp_path):
    out = tmp_path / "out.json"
    env = hide(tmp_path, "aiozmq")
    args = ["-n5", "-t1", "--json", out, "raw", "aiozmq-*"]
    text = run("benchmarks/simple.py", *args, env=env)
    assert "Skipped, aiozmq does not import" in text
    assert len(load(out, "simple")["skipped"]) == 6


# --- the statistics -----------------------------------------------------------

QUANTILES = """
import sys
sys.path.insert(0, {root!r})
from scipy import stats
from benchmarks._stats import t_quantile
for freedom in (1, 2, 3, 5, 10, 32, 99, 1000):
    for probability in (0.9, 0.975, 0.995):
        ours = t_quantile(probability, freedom)
        theirs = stats.t.ppf(probability, freedom)
        assert abs(ours / theirs - 1) < 1e-8, (probability, freedom, ours, theirs)
"""


def test_t_quantile_agrees_with_scipy():
    pytest.importorskip("scipy")
    run("-c", QUANTILES.format(root=str(ROOT)))

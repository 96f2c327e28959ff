"""benchmarks/echo.py and http.py run, at a tiny size, and write what they promise.

No figure is looked at: how fast something is never decides a test.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aiozmq_speedups import _ext

ROOT = Path(__file__).resolve().parents[1]

pytestmark = [
    pytest.mark.skipif(
        not (ROOT / "benchmarks").is_dir(), reason="installed without benchmarks/"
    ),
    pytest.mark.skipif(
        shutil.which(os.environ.get("CC", "cc")) is None, reason="no C compiler"
    ),
]

TINY = ["--rounds", "1", "--seconds", "0.01"]
LOOPS = ["asyncio", "c"] + (["speedups"] if _ext.core is not None else [])


def run(script, *args, cache, code=0, env=None):
    done = subprocess.run(
        [sys.executable, f"benchmarks/{script}.py", *map(str, args)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(cache), **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Where the C programs are compiled to, once for all tests."""
    return tmp_path_factory.mktemp("load")


@pytest.fixture
def echo(tmp_path, cache):
    """Runs echo.py and returns its report."""

    def run_echo(*args, loops=LOOPS):
        out = tmp_path / "out.json"
        names = ["--loops", ",".join(loops)] if loops else []
        text = run("echo", *TINY, *names, *args, "--json", out, cache=cache)
        report = json.loads(out.read_text())
        assert report["benchmark"] == "echo"
        assert report["machine"]["cores"] >= 1
        assert report["versions"]["python"]
        assert report["rows"], text
        return report

    return run_echo


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_stream_rows(echo, family):
    sizes = ["--sizes", "64,200000", "--connections", "1,5"]
    report = echo("--rows", f"{family}-*", *sizes)
    assert not report["skipped"]
    assert len(report["rows"]) == 4 * 2 * 2
    for row in report["rows"]:
        assert sorted(row["loops"]) == sorted(LOOPS)
        for entry in row["loops"].values():
            assert len(entry["samples"]) == 1
            assert entry["median"] > 0
            assert entry["latency_us"]["p50"] <= entry["latency_us"]["p99"]
            assert entry["cpu_us"] >= 0
        assert row["loops"]["c"]["of_limit"] == 1
        assert row["loops"]["asyncio"]["of_best_peer"] == 1


def test_udp_row(echo):
    report = echo("--rows", "udp", "--sizes", "64,60000,100000", "--connections", "3")
    # What does not fit into a datagram is left out.
    assert [row["size"] for row in report["rows"]] == [64, 60000]
    assert not report["skipped"]


def test_tls_row(echo):
    if shutil.which("openssl") is None:
        pytest.skip("no openssl command to make a certificate")
    if not Path("/usr/include/openssl/ssl.h").exists():
        pytest.skip("no OpenSSL headers")
    report = echo("--rows", "tls-protocol", "--sizes", "100", "--connections", "2")
    assert not report["skipped"]
    assert sorted(report["rows"][0]["loops"]) == sorted(LOOPS)


@pytest.mark.parametrize("row", ["accept", "accept-byte", "accept-unix", "connect"])
def test_connection_rows(echo, row):
    report = echo("--rows", row)
    assert [entry["row"] for entry in report["rows"]] == [row]
    assert sorted(report["rows"][0]["loops"]) == sorted(LOOPS)
    assert report["rows"][0]["unit"] == "conns/s"


def test_memory_row(echo):
    report = echo("--rows", "memory")
    assert report["rows"][0]["unit"] == "KiB"
    assert report["rows"][0]["loops"]["asyncio"]["median"] > 0


def test_a_loop_that_is_not_installed_is_named(echo):
    missing = [
        name for name in ("rloop", "rsloop", "zuvloop", "zloop") if not _installed(name)
    ]
    if not missing:
        pytest.skip("every peer is installed")
    loops = ["asyncio", missing[0]]
    report = echo("--rows", "tcp-protocol", "--connections", "1", loops=loops)
    assert report["missing"] == [f"{missing[0]}: {missing[0]} is not installed"]


def test_what_a_peer_lacks_is_named(echo):
    if not _installed("rloop"):
        pytest.skip("needs rloop, which has no Unix sockets")
    args = ["--rows", "unix-protocol", "--sizes", "64", "--connections", "1"]
    report = echo(*args, loops=["asyncio", "rloop"])
    assert report["skipped"] == [
        {"loop": "rloop", "row": "unix-protocol", "reason": "not implemented"}
    ]


def _installed(name):
    return importlib.util.find_spec(name) is not None


def test_system_calls(echo, tmp_path):
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    tried = ["strace", "-o", str(tmp_path / "strace"), "true"]
    if subprocess.run(tried, capture_output=True, check=False).returncode != 0:
        pytest.skip("strace may not trace here")
    report = echo("--strace", loops=["asyncio", "c"])
    counts = {row["loop"]: row["counts"] for row in report["rows"]}
    # One receive and one send for each message, whatever else a loop does.
    for loop in ("asyncio", "c"):
        assert 0.9 < counts[loop]["recvfrom"] < 1.1
        assert 0.9 < counts[loop]["sendto"] < 1.1


# --- http.py -----------------------------------------------------------------


def test_http(tmp_path, cache):
    if shutil.which("wrk") is None:
        pytest.skip("needs wrk")
    servers = [
        server
        for server, modules in {
            "aiohttp": ["aiohttp"],
            "uvicorn": ["uvicorn", "httptools"],
        }.items()
        if all(map(_installed, modules))
    ]
    if not servers:
        pytest.skip("needs aiohttp, or uvicorn and httptools")
    out = tmp_path / "out.json"
    loops = [loop for loop in LOOPS if loop != "c"]
    args = ["--loops", ",".join(loops), "--servers", servers[-1]]
    run(
        "http",
        *args,
        "--rounds=1",
        "--seconds=1",
        "--connections=2",
        "--json",
        out,
        cache=cache,
    )
    (row,) = json.loads(out.read_text())["rows"]
    assert row["id"] == f"{servers[-1]}/2"
    assert sorted(row["loops"]) == sorted(loops)
    for entry in row["loops"].values():
        assert entry["median"] > 0 and entry["latency_us"]["p99"] > 0


def test_http_without_wrk(tmp_path, cache):
    env = {"PATH": str(tmp_path)}
    assert "apt install wrk" in run("http", cache=cache, env=env)


def test_unknown_names(cache):
    assert "choose from tcp-protocol" in run(
        "echo", "--rows", "nothing", cache=cache, code=2
    )
    assert "choose from speedups" in run("echo", "--loops", "no", cache=cache, code=2)

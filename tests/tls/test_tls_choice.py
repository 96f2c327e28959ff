"""tls=, AIOZMQ_SPEEDUPS_TLS, and what `info` says."""

import asyncio
import os
import subprocess
import sys

import pytest

from aiozmq_speedups import Loop, new_event_loop, run
from aiozmq_speedups._loop import tls as _tls

HAS = _tls.load()[0] is not None
AUTO = "aiofastnet" if HAS else "asyncio"
needs_aiofastnet = pytest.mark.skipif(not HAS, reason=f"aiofastnet: {_tls.load()[1]}")


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch):
    monkeypatch.delenv(_tls.VARIABLE, raising=False)


@pytest.fixture
def without(monkeypatch):
    """As where aiofastnet is not installed."""
    monkeypatch.setattr(_tls, "load", lambda: (None, "it is not installed"))


def tls_of(**options):
    loop = new_event_loop(**options)
    loop.close()
    return loop.tls


def test_what_is_taken(monkeypatch):
    assert tls_of() == tls_of(tls="auto") == AUTO
    assert tls_of(tls="asyncio") == "asyncio"
    monkeypatch.setenv(_tls.VARIABLE, "asyncio")
    assert tls_of() == tls_of(tls="auto") == "asyncio"
    monkeypatch.setenv(_tls.VARIABLE, "auto")
    assert tls_of() == AUTO
    monkeypatch.setenv(_tls.VARIABLE, "")
    assert tls_of() == AUTO


@needs_aiofastnet
def test_aiofastnet_is_taken(monkeypatch):
    assert tls_of(tls="aiofastnet") == "aiofastnet"
    monkeypatch.setenv(_tls.VARIABLE, "aiofastnet")
    assert tls_of() == "aiofastnet"
    assert tls_of(tls="asyncio") == "asyncio"


def test_run():
    async def main():
        return asyncio.get_running_loop().tls

    assert run(main(), tls="asyncio") == "asyncio"
    assert run(main(), tls="asyncio", close_timeout=0) == "asyncio"
    assert run(main()) == AUTO
    coro = main()
    with pytest.raises(ValueError, match="tls is for the loop that run"):
        run(coro, tls="asyncio", loop_factory=new_event_loop)
    coro.close()


@pytest.mark.parametrize("value", ["openssl", "", None, True, 7, "Auto"])
def test_a_wrong_value(value):
    for make in new_event_loop, Loop:
        with pytest.raises(ValueError, match="tls must be one of auto, asyncio, aiof"):
            make(tls=value)


def test_a_wrong_variable(monkeypatch):
    monkeypatch.setenv(_tls.VARIABLE, "openssl")
    with pytest.raises(ValueError, match="AIOZMQ_SPEEDUPS_TLS must be one of auto"):
        new_event_loop()
    assert tls_of(tls="asyncio") == "asyncio"
    assert _tls.describe().startswith("none: AIOZMQ_SPEEDUPS_TLS must be")


def test_not_installed(without, monkeypatch):
    assert tls_of() == "asyncio"
    assert _tls.describe() == "asyncio (aiofastnet: it is not installed)"
    wanted = r"needs aiofastnet>=1.2,<1.3 \(pip install .*tls\]\): it is not installed"
    with pytest.raises(ImportError, match=f"tls='aiofastnet' {wanted}"):
        new_event_loop(tls="aiofastnet")
    monkeypatch.setenv(_tls.VARIABLE, "aiofastnet")
    with pytest.raises(ImportError, match=f"AIOZMQ_SPEEDUPS_TLS=aiofastnet {wanted}"):
        new_event_loop()


@needs_aiofastnet
@pytest.mark.parametrize(
    "version, reason",
    [
        ("1.1.9", "version 1.1.9 was not tested"),
        ("1.3.0", "version 1.3.0 was not tested"),
        ("2.0", "version 2.0 was not tested"),
        ("unknown", "version unknown was not tested"),
    ],
)
def test_a_version_that_was_not_tested(monkeypatch, version, reason):
    monkeypatch.setattr("aiofastnet.__version__", version)
    assert _tls.load.__wrapped__() == (None, reason)


@needs_aiofastnet
def test_openssl_in_the_interpreter(monkeypatch):
    monkeypatch.setattr("aiofastnet.OPENSSL_DYN_LIBS", None)
    assert _tls.load.__wrapped__()[0] is None


@pytest.mark.skipif(sys.version_info >= (3, 15), reason="not tested there, or there")
def test_it_cannot_be_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "aiofastnet", None)
    module, reason = _tls.load.__wrapped__()
    assert module is None
    assert reason == "it is not installed"


def info(**env):
    done = subprocess.run(
        [sys.executable, "-m", "aiozmq_speedups", "info"],
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.split(maxsplit=1) for line in done.stdout.splitlines())["tls"]


def test_info():
    assert info().startswith(AUTO)
    text = info(AIOZMQ_SPEEDUPS_TLS="asyncio")
    assert text == "asyncio (AIOZMQ_SPEEDUPS_TLS is set)"


def test_a_loop_that_makes_no_tls_connection_loads_nothing():
    program = (
        "import sys, asyncio, aiozmq_speedups as a; a.run(asyncio.sleep(0));"
        "print('aiofastnet' in sys.modules)"
    )
    out = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert out == "False\n"

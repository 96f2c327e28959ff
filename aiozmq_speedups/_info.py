"""The facts that ``python -m aiozmq_speedups info`` prints."""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
import sys
import sysconfig

from aiozmq_speedups import _ext
from aiozmq_speedups._startup import VARIABLE
from aiozmq_speedups._version import __version__

#: what users call it: the type in the extension that does it
_ACCELERATED = {
    "event loop": "Loop",
    "epoll selector": "EpollSelector",
    "zmq transport": "ZmqTransport",
}


def _zmq_versions() -> dict[str, str]:
    try:
        import zmq
    except ImportError as exc:
        return {"pyzmq": f"none: {exc}"}
    return {"pyzmq": zmq.pyzmq_version(), "libzmq": zmq.zmq_version()}


def _openssl_version() -> str:
    try:
        import ssl
    except ImportError as exc:
        return f"none: {exc}"
    return ssl.OPENSSL_VERSION


def collect() -> dict[str, str]:
    """Return name: value, in the order to print them."""
    # Not above: main() is to import asyncio as a program does, before this package's
    # loop, which `run` puts there while asyncio is imported.
    from aiozmq_speedups._loop import tls as _tls

    facts = {
        "aiozmq_speedups": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}"
        f" ({sys.executable})",
        "platform": platform.platform(),
        **_zmq_versions(),
        "openssl": _openssl_version(),
    }
    core = _ext.core
    if core is None:
        facts["extension"] = f"none: {_ext.reason}"
    else:
        facts["extension"] = f"{core.BUILD_FLAVOUR} build ({core.__file__})"
    facts["gil"] = _gil()
    for what, name in _ACCELERATED.items():
        facts[what] = "C" if hasattr(core, name) else "Python"
    facts["tls"] = _tls.describe()
    facts["loop of python"] = _what_it_gets()
    facts["loop of run"] = _what_it_gets("aiozmq_speedups", "run", "-m")
    facts["loop of its children"] = _what_it_gets(started_by_run=True)
    return facts


def _gil() -> str:
    """Whether threads run Python code at once, with this package imported."""
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "on: this Python cannot do without"
    is_enabled: bool = sys._is_gil_enabled()  # type: ignore[attr-defined]
    return "on: by PYTHON_GIL, or by an extension module" if is_enabled else "off"


def _what_it_gets(*argv: str, started_by_run: bool = False) -> str:
    """Which loop a new Python with `argv` gets: asked, not deduced."""
    env = dict(os.environ)
    if started_by_run:
        env[VARIABLE] = "1"
    done = subprocess.run(
        [sys.executable, "-m", *argv, "aiozmq_speedups._info"],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    return (done.stdout or done.stderr).strip().rpartition("\n")[2]


def main() -> None:
    """Print which loop this process gets, of asyncio and by uvloop's name."""
    import asyncio

    loop = asyncio.new_event_loop()
    loop.close()
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        by_name = "not installed"
    else:
        is_ours = uvloop.__name__.startswith("aiozmq_speedups")
        by_name = "this package" if is_ours else f"uvloop {uvloop.__version__}"
    print(f"{type(loop).__module__}.{type(loop).__qualname__}; uvloop: {by_name}")


if __name__ == "__main__":
    main()

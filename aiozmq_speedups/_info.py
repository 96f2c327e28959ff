"""The facts that ``python -m aiozmq_speedups info`` prints."""

from __future__ import annotations

import platform
import ssl
import sys

from aiozmq_speedups import _ext
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


def collect() -> dict[str, str]:
    """Return name: value, in the order to print them."""
    facts = {
        "aiozmq_speedups": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}"
        f" ({sys.executable})",
        "platform": platform.platform(),
        **_zmq_versions(),
        "openssl": ssl.OPENSSL_VERSION,
    }
    core = _ext.core
    if core is None:
        facts["extension"] = f"none: {_ext.reason}"
    else:
        facts["extension"] = f"{core.BUILD_FLAVOUR} build ({core.__file__})"
    for what, name in _ACCELERATED.items():
        facts[what] = "C" if hasattr(core, name) else "Python"
    return facts

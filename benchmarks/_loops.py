"""The event loops that are compared, by name."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass


def _asyncio() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop()


def _new_event_loop(module: str) -> Callable[[], asyncio.AbstractEventLoop]:
    def create() -> asyncio.AbstractEventLoop:
        loop: asyncio.AbstractEventLoop = importlib.import_module(
            module
        ).new_event_loop()
        return loop

    return create


def _asyncio_tls() -> asyncio.AbstractEventLoop:
    from aiozmq_speedups import new_event_loop

    return new_event_loop(tls="asyncio")


def _aiofastnet() -> asyncio.AbstractEventLoop:
    import aiofastnet  # type: ignore[import-not-found, unused-ignore]
    import uvloop

    loop: asyncio.AbstractEventLoop = aiofastnet.patch_loop(uvloop.new_event_loop())
    return loop


@dataclass(frozen=True)
class Kind:
    """One column of the tables."""

    name: str
    modules: Sequence[str]
    create: Callable[[], asyncio.AbstractEventLoop]


OURS = "speedups"

KINDS = {
    kind.name: kind
    for kind in (
        Kind(OURS, ["aiozmq_speedups"], _new_event_loop("aiozmq_speedups")),
        Kind("asyncio", [], _asyncio),
        Kind("uvloop", ["uvloop"], _new_event_loop("uvloop")),
        Kind("aiofastnet", ["uvloop", "aiofastnet"], _aiofastnet),
        Kind("rloop", ["rloop"], _new_event_loop("rloop")),
        Kind("rsloop", ["rsloop"], _new_event_loop("rsloop")),
        Kind("zuvloop", ["zuvloop"], _new_event_loop("zuvloop")),
        Kind("zloop", ["zloop"], _new_event_loop("zloop")),
    )
}
"""aiofastnet is uvloop with aiofastnet's transports; rsloop, zuvloop and zloop
are for Python 3.14."""

VARIANTS = {
    "speedups-asyncio": Kind("speedups-asyncio", ["aiozmq_speedups"], _asyncio_tls)
}
"""Only run where they are named: ours with asyncio's TLS, where it has aiofastnet's."""

ALL = KINDS | VARIANTS

PACKAGES = ("uvloop", "aiofastnet", "rloop", "rsloop", "zuvloop", "zloop")


def why_missing(name: str) -> str | None:
    """None where a loop can be created, otherwise the reason in one line."""
    from benchmarks import _common

    for module in ALL[name].modules:
        reason = _common.why_missing(module)
        if reason is not None:
            return reason
    return _common.why_no_extension() if name.startswith(OURS) else None

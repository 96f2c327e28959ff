"""Finds the C extension, or says why there is none.

``core`` is the module ``aiozmq_speedups._core`` or None; ``reason`` is why it
is None, in one sentence that ``python -m aiozmq_speedups info`` prints. Where it
could be there, a warning says so: pip says nothing of a build that failed.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

core: Any = None
reason: str | None = None

if os.environ.get("AIOZMQ_SPEEDUPS_PURE", "") not in ("", "0"):
    reason = "switched off by AIOZMQ_SPEEDUPS_PURE"
else:
    try:
        core = importlib.import_module("aiozmq_speedups._core")
    except ModuleNotFoundError:
        reason = "the C extension was not built"
    except ImportError as exc:
        reason = f"the C extension could not be imported: {exc}"
    could_be = sys.platform.startswith("linux") and sys.implementation.name == "cpython"
    if reason is not None and could_be:
        warnings.warn(
            f"aiozmq_speedups is slow here: {reason}. Install a C compiler and "
            "Python's headers, then 'pip install --force-reinstall --no-deps "
            "--no-cache-dir aiozmq_speedups'; or set AIOZMQ_SPEEDUPS_PURE=1.",
            RuntimeWarning,
            stacklevel=2,
        )

if TYPE_CHECKING or core is None:
    from selectors import EpollSelector as EpollSelector
else:
    EpollSelector = core.EpollSelector

"""The version, in one place, and in the forms that aiozmq has."""

from __future__ import annotations

import sys
from typing import NamedTuple

__version__ = "0.1.0"

#: aiozmq's form: with the version of Python.
version = f"{__version__} , Python {sys.version}"


class VersionInfo(NamedTuple):
    """aiozmq's named tuple, to compare versions with."""

    major: int
    minor: int
    micro: int
    releaselevel: str
    serial: int


version_info = VersionInfo(0, 1, 0, "final", 0)

"""The version, in one place, and in the forms that aiozmq has."""

import re
import sys
from typing import NamedTuple

__version__ = "0.1.0"

version = f"{__version__} , Python {sys.version}"


class VersionInfo(NamedTuple):
    major: int
    minor: int
    micro: int
    releaselevel: str  # "alpha", "beta", "candidate" or "final"
    serial: int


def _parse(text: str) -> VersionInfo:
    match = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)(?:(a|b|rc)(\d+))?(?:\.dev\d+)?", text)
    assert match is not None, text
    *numbers, level, serial = match.groups()
    name = {None: "final", "a": "alpha", "b": "beta", "rc": "candidate"}[level]
    return VersionInfo(*map(int, numbers), name, int(serial or 0))


version_info = _parse(__version__)

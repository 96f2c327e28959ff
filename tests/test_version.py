import sys

import pytest

import aiozmq_speedups
from aiozmq_speedups._version import _parse


def test_version():
    assert aiozmq_speedups.version == (
        f"{aiozmq_speedups.__version__} , Python {sys.version}"
    )
    info = aiozmq_speedups.version_info
    assert aiozmq_speedups.__version__.startswith(
        f"{info.major}.{info.minor}.{info.micro}"
    )


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("1.2.3", (1, 2, 3, "final", 0)),
        ("0.1.0a4", (0, 1, 0, "alpha", 4)),
        ("0.1.0b1", (0, 1, 0, "beta", 1)),
        ("10.20.30rc2", (10, 20, 30, "candidate", 2)),
        ("1.2.3.dev5", (1, 2, 3, "final", 0)),
    ],
)
def test_parse(text, parsed):
    assert _parse(text) == parsed

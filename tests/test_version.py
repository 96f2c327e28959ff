import sys

import aiozmq_speedups


def test_version():
    assert aiozmq_speedups.version == (
        f"{aiozmq_speedups.__version__} , Python {sys.version}"
    )
    info = aiozmq_speedups.version_info
    assert aiozmq_speedups.__version__.startswith(
        f"{info.major}.{info.minor}.{info.micro}"
    )
    assert info.releaselevel in ("alpha", "beta", "candidate", "final")

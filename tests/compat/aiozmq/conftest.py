import os
import sys

import pytest
from parity import impl, ours, pytest_generate_tests, rpc_log

__all__ = ["impl", "ours", "pytest_generate_tests", "rpc_log"]


@pytest.fixture(scope="session")
def child_environment():
    """For a Python child that imports the same aiozmq_speedups."""
    return {
        **os.environ,
        "PYTHONWARNINGS": "ignore" if sys.version_info >= (3, 14) else "default",
    }


@pytest.fixture(scope="session")
def has_aiozmq():
    """Skips where PyPI's aiozmq cannot be imported."""
    pytest.importorskip("aiozmq.core", exc_type=ImportError)

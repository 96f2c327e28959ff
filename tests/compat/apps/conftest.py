"""What the applications' tests share: a certificate, and a clean log."""

import pytest
from certificate import tls  # noqa: F401


@pytest.fixture(autouse=True)
def _no_tracebacks(caplog):
    """What is logged keeps frames, and they the loop, which the leak guard finds."""
    yield
    caplog.get_records("call").clear()

import pytest
from parity import impl, loop_kind, ours, rpc_log

__all__ = ["impl", "loop_kind", "ours", "rpc_log"]


@pytest.fixture
def run(loop):
    return loop.run_until_complete

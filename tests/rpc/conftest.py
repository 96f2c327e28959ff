from parity import impl, ours, pytest_generate_tests, rpc_log

__all__ = ["impl", "ours", "pytest_generate_tests", "rpc_log"]

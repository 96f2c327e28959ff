from parity import impl, loop_kind, rpc_log

__all__ = ["impl", "loop_kind", "rpc_log"]

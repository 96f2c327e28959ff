"""asyncio and ZeroMQ at C speed."""

from aiozmq_speedups._version import __version__

__all__ = ["__version__"]

"""``uvloop.loop``."""

from aiozmq_speedups.loop import Loop

__all__ = ("Loop",)

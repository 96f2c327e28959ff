"""The event loop. Its public names are in ``aiozmq_speedups.loop``."""

"""ZeroMQ transports, streams and selectors.

Their public names are in ``aiozmq_speedups.core``, ``stream`` and ``selector``.
"""

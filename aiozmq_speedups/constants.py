"""ZeroMQ's constants, as ``zmq`` has them, and ``ZMQError``.

They are pyzmq's own, and can be had where pyzmq does not load: in a sub-interpreter
with a GIL of its own (``from aiozmq_speedups import constants as zmq``).
"""

from typing import TYPE_CHECKING

from aiozmq_speedups._zmq.pyzmq import constants, zmq

if TYPE_CHECKING:
    from zmq import ZMQError
    from zmq.constants import *  # noqa: F403
else:
    ZMQError = zmq.ZMQError
    globals().update({name: getattr(zmq, name) for name in constants.__all__})

__all__ = ["ZMQError", *constants.__all__]

"""The package's logger."""

import logging

# "aiozmq_speedups"; its children follow the modules' names, as aiozmq's do.
logger = logging.getLogger(__package__)

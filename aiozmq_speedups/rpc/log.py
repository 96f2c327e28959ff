"""The logger of rpc services."""

from __future__ import annotations

import logging

#: Named as aiozmq names it, so that an existing logging set-up goes on working.
logger: logging.Logger = logging.getLogger("aiozmq.rpc")

"""What a process has at the moment, for tests that it stays as it was."""

import gc
import os

from aiozmq_speedups import _ext


def memory():
    """Resident bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def live_objects():
    """The debug build's counts, once the garbage is collected."""
    gc.collect()
    return getattr(_ext.core, "_live_objects", dict)()

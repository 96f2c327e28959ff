"""What the selector tests share besides fixtures."""

import pytest

from aiozmq_speedups import _ext

c_only = pytest.mark.skipif(_ext.core is None, reason="needs the C extension")


class Fileno:
    """A file object that runs what it is told to from fileno()."""

    def __init__(self, fileno):
        self.fileno = fileno

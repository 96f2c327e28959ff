import subprocess
import sys


def test_extension_is_built():
    from aiozmq_speedups import _core

    assert _core.BUILD_FLAVOUR


def test_children_import_the_same_extension():
    """Else tests that start a process would test another package."""
    from aiozmq_speedups._ext import core

    program = (
        "from aiozmq_speedups import _ext; print(_ext.core and _ext.core.__file__)"
    )
    out = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert out.strip() == str(core and core.__file__)

"""Lets the tests of this folder import c_build.py; the programs they share."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import c_build


@pytest.fixture(scope="session")
def build_c(tmp_path_factory):
    """Compiles a program of this folder from the names of its files, in the flavour in
    hand; skips where there is no compiler."""
    from aiozmq_speedups import _ext

    if c_build.compiler() is None:
        pytest.skip("no C compiler")
    if not c_build.CSRC.exists():
        pytest.skip("the sources are not here")
    flavour = getattr(_ext.core, "BUILD_FLAVOUR", "release")
    flags = {"asan": [*c_build.SANITIZE, "-Werror"], "debug": ["-O1", "-Werror"]}
    folder = tmp_path_factory.mktemp("c")

    def build(name, *files):
        sources = [c_build.HERE / file for file in files]
        return c_build.build(folder / name, sources, flags.get(flavour, ["-O2"]))

    return build


@pytest.fixture(scope="session")
def c_environment():
    """The environment of the programs, with the libsodium of pyzmq's wheel."""
    import zmq

    libs = Path(zmq.__file__).parents[1] / "pyzmq.libs"
    found = sorted(libs.glob("libsodium*")) if libs.exists() else []
    sodium = {"AZS_TEST_LIBSODIUM": str(found[0])} if found else {}
    return c_build.environment() | sodium

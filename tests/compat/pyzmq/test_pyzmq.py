"""pyzmq's own tests of its asyncio part, with zmq_asyncio in zmq.asyncio's place.

They are in its source archive only, which is downloaded; a child runs them.
"""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import zmq

from aiozmq_speedups import zmq_asyncio

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not zmq_asyncio.accelerated, reason="it is pyzmq's own"),
]

MODULES = ["asyncio", "future", "auth", "monitor", "poll", "socket", "zmqstream"]

#: Tests that are not run, with the reason of each.
EXCLUDED = {
    "test_socket.py::TestSocket::test_large_send": "2 GiB, and no asyncio",
    "test_zmqstream.py::test_shadow_socket_close": "no asyncio; closes a socket, "
    "which warns only if its messages have come by then",
}


#: pip asks an archive for its metadata before it hands it out. This is enough of an
#: answer in the place of pyzmq's build system, which would have to be installed.
BUILD_SYSTEM = """
import pathlib

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    path = pathlib.Path(folder, "pyzmq-{version}.dist-info")
    path.mkdir()
    lines = "Metadata-Version: 2.1", "Name: pyzmq", "Version: {version}", ""
    path.joinpath("METADATA").write_text("\\n".join(lines))
    return path.name
"""


@pytest.fixture(scope="module")
def pyzmq_tests(tmp_path_factory):
    """The folder of pyzmq's tests, of the version that is installed."""
    for needed in "pytest_asyncio", "tornado":
        pytest.importorskip(needed)
    folder = tmp_path_factory.mktemp("pyzmq")
    build_system = folder / "path" / "scikit_build_core" / "build.py"
    build_system.parent.mkdir(parents=True)
    build_system.write_text(BUILD_SYSTEM.format(version=zmq.__version__))
    download = subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
        + ["--retries", "1", "--timeout", "10", "--disable-pip-version-check"]
        + ["--no-binary", "pyzmq", "--no-build-isolation", "-d", str(folder)]
        + [f"pyzmq=={zmq.__version__}"],
        env=os.environ | {"PYTHONPATH": str(folder / "path")},
        capture_output=True,
        text=True,
        timeout=200,
    )
    archives = list(folder.glob("pyzmq-*.tar.gz"))
    if not archives:
        pytest.skip(f"no source archive of pyzmq: {download.stderr[-300:]}")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.glob("pyzmq-*/tests"))


@pytest.mark.loops("speedups", "asyncio")
def test_pyzmq(pyzmq_tests, loop_kind):
    modules = [f"test_{name}.py" for name in MODULES]
    present = [name for name in modules if (pyzmq_tests / name).exists()]
    assert "test_asyncio.py" in present
    path = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]

    def run_tests(*options):
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "speedups_plugin"]
            + ["--timeout", "60", "-o", "asyncio_mode=auto", *options, *present]
            + [f"--deselect=tests/{test}" for test in EXCLUDED],
            cwd=pyzmq_tests,
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(path), "SPEEDUPS_LOOP": loop_kind},
            capture_output=True,
            text=True,
            timeout=300,
        )

    ran = run_tests()
    loop = "aiozmq_speedups" if loop_kind == "speedups" else "asyncio"
    assert f"on <class '{loop}." in ran.stdout, ran.stdout + ran.stderr
    if ran.returncode == pytest.ExitCode.TESTS_FAILED:
        # By chance, on a busy machine? Some of them have short limits.
        first, ran = ran, run_tests("--last-failed", "--last-failed-no-failures=none")
        assert ran.returncode == 0, first.stdout[-8000:] + ran.stdout[-8000:]
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]

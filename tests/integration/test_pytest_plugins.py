"""pytest-asyncio and anyio's pytest plugin choose this loop; a child runs them."""

import subprocess
import sys

import pytest

BODY = """
import asyncio, pytest
from aiozmq_speedups import Loop

def check():
    assert type(asyncio.get_running_loop()) is Loop
"""

HOOK = """
from aiozmq_speedups import new_event_loop

def pytest_asyncio_loop_factories(config, item):
    return {"speedups": new_event_loop}
"""

POLICY = """
import asyncio, aiozmq_speedups
aiozmq_speedups.install()
"""

PYTEST_ASYNCIO = (
    BODY
    + """
import pytest_asyncio

@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server():
    async def echo(reader, writer):
        writer.write(await reader.readline())
        writer.close()
        await writer.wait_closed()

    check()
    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()

@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("number", range(3))
async def test_echo(server, number):
    check()
    reader, writer = await asyncio.open_connection(*server)
    writer.write(b"%d\\\\n" % number)
    assert await reader.read() == b"%d\\\\n" % number
    writer.close()
    await writer.wait_closed()

@pytest.mark.asyncio
async def test_alone():
    check()
"""
).replace("\\\\", "\\")

ANYIO = (
    BODY
    + """
from aiozmq_speedups import new_event_loop
pytestmark = pytest.mark.anyio

@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio", {"loop_factory": new_event_loop}

@pytest.fixture(scope="module")
async def value():
    check()
    yield await asyncio.sleep(0, 3)
    check()

@pytest.mark.parametrize("number", range(4))
async def test_it(value, number):
    check()
    assert value == 3
"""
)


def passes(folder, **files):
    """Do the tests in `files` pass, four of them?"""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_mode = strict\n")
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    options = ["-W", "ignore::DeprecationWarning", "-W", "error::ResourceWarning"]
    ran = subprocess.run(
        [*argv, *options, "--rootdir", str(folder), str(folder)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
    assert "4 passed" in ran.stdout, ran.stdout


@pytest.mark.parametrize("how", [HOOK, POLICY], ids=["hook", "policy"])
def test_pytest_asyncio(tmp_path, how):
    pytest_asyncio = pytest.importorskip("pytest_asyncio")
    if how is HOOK and not hasattr(
        pytest_asyncio.plugin.PytestAsyncioSpecs, "pytest_asyncio_loop_factories"
    ):
        pytest.skip("its hook is newer")
    passes(tmp_path, conftest=how, test_asyncio=PYTEST_ASYNCIO)


def test_anyio(tmp_path):
    pytest.importorskip("anyio")
    passes(tmp_path, test_anyio=ANYIO)

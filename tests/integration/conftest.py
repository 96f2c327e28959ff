"""What programs that people use need here: the loops, and real servers."""

import asyncio

import pytest
from certificate import tls  # noqa: F401
from servers import PASSWORD, USER, postgres, redis_server  # noqa: F401


@pytest.fixture
def run(loop, errors):
    """Runs a coroutine; the loop's exception handler must not be called."""

    def run(coro):
        async def within():
            async with asyncio.timeout(100):
                return await coro

        return loop.run_until_complete(within())

    return run


@pytest.fixture(params=["unix", "tcp", "tls"])
def way(request):
    """How a client connects to the server."""
    return request.param


@pytest.fixture
def libpq(postgres, way):  # noqa: F811
    """Arguments of a connection of libpq's."""
    where = {"host": "127.0.0.1", "sslmode": "disable"}
    if way == "unix":
        where = {"host": str(postgres.folder)}
    elif way == "tls":
        where |= {"sslmode": "verify-full", "sslrootcert": str(postgres.cert)}
    return dict(
        where, port=postgres.port, user=USER, password=PASSWORD, dbname="postgres"
    )


@pytest.fixture
def asyncpg_options(postgres, tls, way):  # noqa: F811
    """Arguments of asyncpg.connect() and create_pool()."""
    where = {"host": "127.0.0.1", "ssl": tls.client if way == "tls" else False}
    if way == "unix":
        where = {"host": str(postgres.folder)}
    return dict(
        where, port=postgres.port, user=USER, password=PASSWORD, database="postgres"
    )


@pytest.fixture(autouse=True)
def _no_tracebacks(caplog):
    """What is logged keeps frames, and they the loop, which the leak guard finds."""
    yield
    caplog.get_records("call").clear()

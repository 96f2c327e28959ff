"""asyncio's own objects are changed for speed alone: everything works without that."""

import asyncio
import socket

import pytest

from aiozmq_speedups import _ext
from aiozmq_speedups.loop import new_event_loop

if _ext.core is None:
    pytest.skip("the C code's", allow_module_level=True)


@pytest.fixture(
    params=["drain", "task_wakeup", "future_init", "stop_iteration", "server_clients"]
)
def without(request):
    _ext.core._do_without(request.param)
    yield request.param
    _ext.core._do_without(request.param, False)


async def echo(reader, writer):
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()
    writer.close()


async def streams():
    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname()[:2]
        )
        for i in range(50):
            writer.write(b"%d\n" % i)
            await writer.drain()
            assert await reader.readline() == b"%d\n" % i
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()


async def sockets():
    loop = asyncio.get_running_loop()
    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        b.setblocking(False)
        reading = asyncio.ensure_future(loop.sock_recv(a, 10))
        await asyncio.sleep(0)
        await loop.sock_sendall(b, b"x")
        assert await reading == b"x"


@pytest.mark.parametrize("body", [streams, sockets])
def test_it_works_without(without, body):
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(asyncio.wait_for(body(), 100))


def test_only_what_there_is():
    with pytest.raises(ValueError, match="no patch is called x"):
        _ext.core._do_without("x")

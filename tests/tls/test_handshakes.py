"""Many handshakes, half of which fail: nothing is left.

``AIOZMQ_SPEEDUPS_HANDSHAKES=100000`` sets another number of them, and takes minutes.
"""

import asyncio
import ctypes
import gc
import os
import resource
import ssl

import pytest
from recorder import Recorder

HANDSHAKES = int(os.environ.get("AIOZMQ_SPEEDUPS_HANDSHAKES", 6000))


def kept():
    gc.collect()
    names = ("TLSTransport", "SSLProtocol", "SSLContext", "Recorder", "SSLObject")
    return sum(type(obj).__name__.startswith(names) for obj in gc.get_objects())


def memory():
    """Resident, in KiB, but for what malloc() keeps for later."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() // 1024


async def handshakes(loop, tls, count, at_a_time=20):
    """`count` connections to a server that half of them do not trust."""
    distrusting = ssl.create_default_context()

    async def client(index, where):
        context = tls.client if index % 2 else distrusting
        try:
            transport, protocol = await loop.create_connection(
                Recorder, *where, ssl=context, server_hostname="localhost"
            )
        except ssl.SSLCertVerificationError:
            assert context is distrusting
            return
        assert context is tls.client
        transport.close()
        await protocol.lost

    server = await loop.create_server(Recorder, "127.0.0.1", 0, ssl=tls.server)
    where = server.sockets[0].getsockname()
    for start in range(0, count, at_a_time):
        some = range(start, min(start + at_a_time, count))
        await asyncio.gather(*(client(index, where) for index in some))
    server.close()
    await server.wait_closed()


def test_nothing_is_left(loop, tls):
    loop.run_until_complete(handshakes(loop, tls, 20))
    before = kept()
    loop.run_until_complete(handshakes(loop, tls, 400))
    # What the peers closed last may not have been noticed yet.
    for _ in range(1000):
        if kept() <= before:
            break
        loop.run_until_complete(asyncio.sleep(0.01))
    assert kept() <= before


@pytest.mark.leaks
@pytest.mark.slow
@pytest.mark.timeout(max(600, HANDSHAKES // 50))
def test_memory_is_flat(loop_kind, loop, tls):
    """The first half may let the process grow."""
    if loop_kind == "asyncio":
        pytest.skip("not ours")
    loop.run_until_complete(handshakes(loop, tls, HANDSHAKES // 2))
    before = memory()
    loop.run_until_complete(handshakes(loop, tls, HANDSHAKES // 2))
    assert memory() - before < 4000

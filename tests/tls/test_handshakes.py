"""Many handshakes, half of which fail: nothing is left."""

import asyncio
import gc
import resource
import ssl

import pytest
from tls_recorder import Recorder


def kept():
    gc.collect()
    names = ("SSLTransport", "SSLProtocol", "SSLContext", "Recorder", "SSLObject")
    return sum(type(obj).__name__.startswith(names) for obj in gc.get_objects())


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


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_memory_is_flat(loop_kind, loop, tls):
    """100,000, of which the first tenth may let the process grow."""
    if loop_kind == "asyncio":
        pytest.skip("not ours")
    loop.run_until_complete(handshakes(loop, tls, 10_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loop.run_until_complete(handshakes(loop, tls, 90_000))
    # A peak, in KiB: 90,000 that left 32 bytes each would show.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 3000

"""kill -9 of either end under load: the other ends its calls, lives on, frees all."""

import asyncio
import signal

import pytest
import zmq
from children import Child, endpoint_of
from measuring import live_objects

SERVER = """
import asyncio, sys
from aiozmq_speedups import rpc

class Handler(rpc.AttrHandler):
    @rpc.method
    def add(self, a, b):
        return a + b

    @rpc.method
    async def never(self):
        await asyncio.Event().wait()

async def main():
    # Without a mark: a ROUTER drops the answers that are above it.
    service = await rpc.serve_rpc(Handler(), bind=sys.argv[1], sndhwm=0)
    print(*service.transport.bindings(), flush=True)
    await service.wait_closed()

asyncio.run(main())
"""

CLIENT = """
import asyncio, sys
from aiozmq_speedups import rpc

async def main():
    client = await rpc.connect_rpc(connect=sys.argv[1], sndhwm=0, rcvhwm=0)
    calls = [client.call.wait(i) for i in range(1000)]
    print("sent", flush=True)
    await asyncio.gather(*calls)

asyncio.run(main())
"""


@pytest.fixture(params=["ipc", "tcp"])
def endpoint(request, tmp_path_factory):
    with endpoint_of(request.param, tmp_path_factory) as endpoint:
        yield endpoint


def test_server_killed_and_restarted(ours, run, endpoint):
    rpc = ours.rpc

    async def go():
        with Child(SERVER, endpoint) as first:
            address = await first.line()
            client = await rpc.connect_rpc(
                connect=address, linger=0, reconnect_interval=0.01
            )
            assert await client.call.add(1, 2) == 3
            answered = [client.call.add(i, 1) for i in range(100)]
            assert await asyncio.gather(*answered) == list(range(1, 101))
            hanging = [client.with_timeout(0.1).call.never() for _ in range(100)]
            unlimited = [client.call.never() for _ in range(100)]
            # They are there: requests are received in the order of sending.
            assert await client.call.add(1, 1) == 2
            # More of them on their way.
            hanging += [client.with_timeout(0.1).call.add(1, 1) for _ in range(100)]
            events = client.transport.monitor(zmq.EVENT_HANDSHAKE_SUCCEEDED)
            assert first.kill() == -signal.SIGKILL
        # And while nobody is there.
        hanging += [client.with_timeout(0.1).call.never() for _ in range(100)]
        ends = await asyncio.gather(*hanging, return_exceptions=True)
        assert all(isinstance(end, TimeoutError) or end == 2 for end in ends)
        assert [type(end) for end in ends].count(TimeoutError) >= 200
        assert not any(call.done() for call in unlimited)
        with Child(SERVER, address) as second:
            assert await second.line() == address
            await anext(events)  # what is sent before may go to the dead one
            assert await client.call.add(2, 2) == 4
            calls = [client.call.add(i, 1) for i in range(1000)]
            assert await asyncio.gather(*calls) == list(range(1, 1001))
            assert len(client._proto.calls) == len(unlimited)
            client.close()
            await client.wait_closed()
        assert all(call.cancelled() for call in unlimited)

    run(go())


def test_client_killed_with_calls_in_flight(ours, run, endpoint):
    rpc = ours.rpc

    class Handler(rpc.AttrHandler):
        def __init__(self):
            self.gate = asyncio.Event()
            self.waiting = 0
            self.all_there = asyncio.Event()

        @rpc.method
        async def wait(self, arg):
            self.waiting += 1
            if self.waiting == 1000:
                self.all_there.set()
            await self.gate.wait()
            self.waiting -= 1
            return arg

    async def go():
        handler = Handler()
        service = await rpc.serve_rpc(
            handler, bind=endpoint, linger=0, sndhwm=0, rcvhwm=0
        )
        (address,) = service.transport.bindings()
        before = live_objects()
        with Child(CLIENT, address) as child:
            await child.line()
            await handler.all_there.wait()
            assert child.kill() == -signal.SIGKILL
        # 1000 answers to a peer that is gone.
        handler.gate.set()
        while service._proto.pending_waiters:
            await asyncio.sleep(0)
        assert handler.waiting == 0
        assert service.transport.get_write_buffer_size() == 0
        client = await rpc.connect_rpc(connect=address, linger=0)
        assert await client.call.wait(7) == 7
        client.close()
        await client.wait_closed()
        del client
        await asyncio.sleep(0)
        after = live_objects()
        for kind in ("rpc", "zmq_transport", "transport", "listener"):
            assert after.get(kind) == before.get(kind)
        service.close()
        await service.wait_closed()

    run(go())

"""Socket events."""

import asyncio

import pytest
import zmq
from helpers import Recorder, close, open_transport

from aiozmq_speedups.core import SocketEvent
from aiozmq_speedups.loop import Loop

pytestmark = pytest.mark.usefixtures("errors", "transport_kind")


def kinds(protocol):
    return [event.event for event in protocol.events]


def test_events_of_a_connection(run):
    async def go():
        server, _ = await open_transport(zmq.ROUTER, bind="tcp://127.0.0.1:*")
        (endpoint,) = server.bindings()
        client, client_p = await open_transport(zmq.DEALER)
        await client.enable_monitor()
        await client.enable_monitor()  # harmless
        await client.connect(endpoint)
        await client_p.until(lambda: zmq.EVENT_HANDSHAKE_SUCCEEDED in kinds(client_p))
        seen = [k for k in kinds(client_p) if k != zmq.EVENT_CONNECT_DELAYED]
        assert seen[:2] == [zmq.EVENT_CONNECTED, zmq.EVENT_HANDSHAKE_SUCCEEDED]
        for event in client_p.events:
            assert type(event) is SocketEvent
            assert event.endpoint == endpoint
            assert event == (event.event, event.value, event.endpoint)
        await close(server)
        await client_p.until(lambda: zmq.EVENT_DISCONNECTED in kinds(client_p))
        await client.disable_monitor()
        await client.disable_monitor()
        await close(client)

    run(go())


def test_mask(run):
    async def go():
        server, server_p = await open_transport(zmq.PULL)
        await server.enable_monitor(zmq.EVENT_LISTENING | zmq.EVENT_ACCEPTED)
        endpoint = await server.bind("tcp://127.0.0.1:*")
        client, _ = await open_transport(zmq.PUSH, connect=endpoint)
        await server_p.until(lambda: len(server_p.events) >= 2)
        assert kinds(server_p) == [zmq.EVENT_LISTENING, zmq.EVENT_ACCEPTED]
        await close(client, server)

    run(go())


def test_enable_again_after_disable(run):
    async def go():
        tr, pr = await open_transport(zmq.PULL)
        for i in range(1, 4):
            await tr.enable_monitor(zmq.EVENT_LISTENING)
            await tr.bind("tcp://127.0.0.1:*")
            await pr.until(lambda i=i: len(pr.events) == i)
            await tr.disable_monitor()
        await close(tr)

    run(go())


@pytest.mark.parametrize("how", ["close", "abort"])
def test_closing_with_the_monitor_on(run, how):
    async def go():
        tr, pr = await open_transport(zmq.PULL)
        await tr.enable_monitor()
        await tr.bind("tcp://127.0.0.1:*")
        getattr(tr, how)()
        await pr.lost
        # The monitor's own transport ends in the same turn or the next.
        await asyncio.sleep(0)
        count = len(pr.events)
        await asyncio.sleep(0)
        assert len(pr.events) == count

    run(go())


def test_closing_inside_event_received(run):
    class Closing(Recorder):
        def event_received(self, event):
            super().event_received(event)
            self.transport.close()

    async def go():
        tr, pr = await open_transport(zmq.PULL, Closing)
        await tr.enable_monitor()
        await tr.bind("tcp://127.0.0.1:*")
        await pr.lost
        assert len(pr.events) == 1

    run(go())


def test_event_received_that_raises(run, errors):
    class Failing(Recorder):
        def event_received(self, event):
            super().event_received(event)
            raise RuntimeError("event")

    async def go():
        tr, pr = await open_transport(zmq.PULL, Failing)
        await tr.enable_monitor(zmq.EVENT_LISTENING)
        await tr.bind("tcp://127.0.0.1:*")
        await tr.bind("tcp://127.0.0.1:*")
        await pr.until(lambda: len(pr.events) == 2)
        await asyncio.sleep(0)
        assert [str(c["exception"]) for c in errors] == ["event"] * 2
        errors.clear()
        await close(tr)

    run(go())


def test_another_context_than_the_default_one(run):
    """inproc joins sockets of one context only: aiozmq hears nothing here."""

    async def go():
        context = zmq.Context()
        tr, pr = await open_transport(zmq.PULL, zmq_sock=context.socket(zmq.PULL))
        await tr.enable_monitor()
        await tr.bind("tcp://127.0.0.1:*")
        await pr.until(lambda: zmq.EVENT_LISTENING in kinds(pr))
        await close(tr)
        await asyncio.sleep(0)
        context.term()

    run(go())


def test_old_libraries(run, monkeypatch):
    async def go():
        tr, _ = await open_transport(zmq.PULL)
        with monkeypatch.context() as m:
            m.setattr(zmq, "zmq_version_info", lambda: (3, 2, 5))
            with pytest.raises(NotImplementedError):
                await tr.enable_monitor()
        with monkeypatch.context() as m:
            m.setattr(zmq, "pyzmq_version_info", lambda: (14, 3))
            with pytest.raises(NotImplementedError):
                await tr.enable_monitor()
        await close(tr)

    run(go())


def test_socket_closed_underneath(run):
    async def go():
        tr, pr = await open_transport(zmq.PULL)
        await tr.enable_monitor()
        tr.get_extra_info("zmq_socket").close()
        await tr.disable_monitor()
        await close(tr)

    run(go())


def test_loop_closed_while_monitored(loop):
    """libzmq is left no descriptor of a socket that was monitored."""

    async def go():
        for _ in range(10):
            router, _ = await open_transport(zmq.ROUTER, bind="tcp://127.0.0.1:*")
            dealer, _ = await open_transport(
                zmq.DEALER, connect=list(router.bindings())
            )
            for transport in router, dealer:
                await transport.enable_monitor()
            dealer.write([b"x"])
        await asyncio.sleep(0.05)

    if not isinstance(loop, Loop):
        pytest.skip("a foreign loop does not know its transports")
    loop.run_until_complete(go())
    loop.close()  # the leak guard counts

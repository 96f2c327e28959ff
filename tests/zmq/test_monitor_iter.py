"""Socket events as an asynchronous iterator."""

import asyncio
import gc
import weakref

import pytest
import zmq
from helpers import Recorder, close, open_transport

from aiozmq_speedups import SocketEvent, ZmqMonitor

pytestmark = pytest.mark.usefixtures("errors", "transport_kind")

LISTENING = zmq.EVENT_LISTENING


async def listen(transport, times=1):
    return [await transport.bind("tcp://127.0.0.1:*") for _ in range(times)]


async def take(events, count):
    return [await anext(events) for _ in range(count)]


async def settle():
    """Until what libzmq has said so far is read: it says it in our own thread."""
    for _ in range(5):
        await asyncio.sleep(0.001)  # the loop polls; not in each turn without


def test_life_of_a_connection(run):
    async def go():
        server, _ = await open_transport(zmq.ROUTER)
        (endpoint,) = await listen(server)
        client, client_p = await open_transport(zmq.DEALER)
        names = []
        with client.monitor() as events:
            assert isinstance(events, ZmqMonitor)
            await client.connect(endpoint)
            async for event in events:
                assert type(event) is SocketEvent
                assert event.endpoint == endpoint
                names.append(event.name)
                if event.name == "HANDSHAKE_SUCCEEDED":
                    server.abort()
                if event.name == "DISCONNECTED":
                    break
        assert [n for n in names if n != "CONNECT_DELAYED"] == [
            "CONNECTED",
            "HANDSHAKE_SUCCEEDED",
            "DISCONNECTED",
        ]
        assert client_p.events == []  # enable_monitor() is another matter
        await close(client)

    run(go())


def test_every_event_of_libzmq_has_a_name():
    for name in dir(zmq):
        if name.startswith("EVENT_") and not name.startswith("EVENT_ALL"):
            event = SocketEvent(getattr(zmq, name), 0, "")
            assert event.name == name.removeprefix("EVENT_")
    assert SocketEvent(1 << 20, 0, "").name == "0x100000"


def test_mask(run):
    async def go():
        tr, _ = await open_transport(zmq.PULL)
        events = tr.monitor(LISTENING)
        others = tr.monitor(zmq.EVENT_CLOSED)
        endpoints = await listen(tr, 2)
        assert [e.endpoint for e in await take(events, 2)] == endpoints
        await tr.unbind(endpoints[0])
        assert (await anext(others)).name == "CLOSED"
        await close(tr)
        assert [e async for e in events] == []

    run(go())


def test_events_from_the_call_on_are_kept(run):
    async def go():
        tr, _ = await open_transport(zmq.PULL)
        events = tr.monitor()
        endpoints = await listen(tr, 3)
        await settle()
        tr.close()
        assert [e.endpoint async for e in events] == endpoints
        with pytest.raises(StopAsyncIteration):
            await anext(events)
        await tr.get_protocol().lost

    run(go())


def test_backlog_drops_the_oldest(run):
    async def go():
        tr, _ = await open_transport(zmq.PULL)
        small, large = tr.monitor(backlog=2), tr.monitor(backlog=None)
        endpoints = await listen(tr, 5)
        assert [e.endpoint for e in await take(large, 5)] == endpoints
        assert [e.endpoint for e in await take(small, 2)] == endpoints[3:]
        assert (small.dropped, large.dropped) == (3, 0)
        await close(tr)

    run(go())


def test_more_events_than_a_high_water_mark_do_not_block_the_loop(run):
    """libzmq blocks the thread that has an event to tell, here our own."""

    async def go():
        tr, _ = await open_transport(zmq.PULL)
        events = tr.monitor(backlog=10)
        sock = tr.get_extra_info("zmq_socket")
        for _ in range(1100):
            endpoint = sock.bind("tcp://127.0.0.1:*")
            sock.unbind(sock.getsockopt(zmq.LAST_ENDPOINT))
        del endpoint
        await anext(events)
        await close(tr)

    run(go())


@pytest.mark.parametrize("value", [0, -1])
def test_wrong_backlog(run, value):
    async def go():
        tr, _ = await open_transport(zmq.PULL)
        with pytest.raises(ValueError, match="backlog"):
            tr.monitor(backlog=value)
        with pytest.raises(TypeError):
            tr.monitor(backlog="x")
        with pytest.raises(TypeError):
            tr.monitor("x")
        await close(tr)

    run(go())


def test_beside_the_protocol(run):
    async def go():
        tr, pr = await open_transport(zmq.PULL)
        first = tr.monitor(LISTENING)
        await tr.enable_monitor(LISTENING)
        second = tr.monitor(LISTENING)
        (a,) = await listen(tr)
        await pr.until(lambda: pr.events)
        await tr.disable_monitor()
        (b,) = await listen(tr)
        assert [e.endpoint for e in await take(first, 2)] == [a, b]
        assert [e.endpoint for e in await take(second, 2)] == [a, b]
        first.close()
        second.close()
        await tr.enable_monitor(LISTENING)
        (c,) = await listen(tr)
        await pr.until(lambda: len(pr.events) == 2)
        assert [e.endpoint for e in pr.events] == [a, c]
        await close(tr)

    run(go())


@pytest.mark.parametrize("how", ["close", "abort", "close the iterator", "raw"])
def test_what_ends_a_waiting_iterator(run, how):
    async def go():
        tr, _ = await open_transport(zmq.PULL)
        events = tr.monitor(LISTENING)

        async def collect():
            return [event async for event in events]

        task = asyncio.create_task(collect())
        await asyncio.sleep(0)
        if how == "close the iterator":
            events.close()
            events.close()
        elif how == "raw":
            tr.get_extra_info("zmq_socket").disable_monitor()
        else:
            getattr(tr, how)()
        assert await task == []
        if how == "raw":
            again = tr.monitor()  # a new monitor
            (endpoint,) = await listen(tr)
            assert (await anext(again)).endpoint == endpoint
        await close(tr)

    run(go())


def test_cancel_loses_nothing(run):
    async def go():
        tr, _ = await open_transport(zmq.PULL)
        events = tr.monitor()
        task = asyncio.create_task(anext(events))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another coroutine"):
            await anext(events)
        endpoints = []
        # Cancelled when it is already woken up, but has not run.
        while not task.done():
            endpoints += await listen(tr)
            for _ in range(3):
                await asyncio.sleep(0)
                if events._waiter is None or events._waiter.done():
                    task.cancel()
        try:
            got = [await task]
        except asyncio.CancelledError:
            got = []
        got += await take(events, len(endpoints) - len(got))
        assert [e.endpoint for e in got] == endpoints
        await close(tr)

    run(go())


def test_dropped_iterators_stop_the_monitor(run):
    async def go():
        tr, _ = await open_transport(zmq.PULL)
        for _ in range(3):
            await listen(tr)
            async for _ in _listening(tr):
                break
        kept = tr.monitor()
        await listen(tr, 2)
        await take(kept, 2)
        assert len(tr._monitor._protocol.iterators) == 1
        del kept
        gc.collect()
        await listen(tr)
        await settle()
        assert tr._monitor is None
        await close(tr)

    def _listening(tr):
        events = tr.monitor()
        tr.get_extra_info("zmq_socket").bind("tcp://127.0.0.1:*")
        return events

    run(go())


def test_a_task_that_waits_is_kept(run):
    async def go():
        tr, _ = await open_transport(zmq.PULL)
        seen = []

        async def watch():
            async for event in tr.monitor():
                seen.append(event)

        task = weakref.ref(asyncio.create_task(watch()))
        await settle()
        gc.collect()
        await listen(tr)
        await settle()
        assert len(seen) == 1
        await close(tr)
        await settle()
        gc.collect()
        assert task() is None

    run(go())


def test_ended_iterators_keep_nothing(run):
    async def go():
        tr, _ = await open_transport(zmq.PULL)
        events = tr.monitor()
        await close(tr)
        ref = weakref.ref(tr)
        del tr
        await settle()
        gc.collect()
        assert ref() is None
        assert [e async for e in events] == []

    run(go())


def test_hostile_protocol(run, errors):
    """It raises, closes its transport, and the iterator has its events."""

    class Hostile(Recorder):
        def event_received(self, event):
            self.transport.close()
            raise RuntimeError("event")

    async def go():
        tr, pr = await open_transport(zmq.PULL, Hostile)
        events = tr.monitor()
        await tr.enable_monitor()
        (endpoint,) = await listen(tr)
        assert [e.endpoint async for e in events] == [endpoint]
        await pr.lost
        assert [str(c["exception"]) for c in errors] == ["event"]
        errors.clear()

    run(go())


def test_closed_transport(run):
    async def go():
        tr, _ = await open_transport(zmq.PULL)
        tr.close()
        with pytest.raises(OSError):
            tr.monitor()
        await tr.get_protocol().lost
        for _ in range(2):
            with pytest.raises(OSError):
                tr.monitor()
            with pytest.raises(OSError):
                await tr.enable_monitor()
            await tr.disable_monitor()

    run(go())


def test_socket_closed_underneath(run, errors):
    async def go():
        tr, _ = await open_transport(zmq.PULL)
        events = tr.monitor()
        task = asyncio.create_task(anext(events, None))
        await asyncio.sleep(0)
        tr.get_extra_info("zmq_socket").close()
        event = await task
        assert event is None or event.name == "MONITOR_STOPPED"
        assert [e async for e in events] == []
        tr.abort()
        await settle()
        errors.clear()

    run(go())

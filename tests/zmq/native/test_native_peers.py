"""How peers come and go, and what happens to messages then."""

import asyncio
import errno
import gc
import os
import subprocess
import sys
import textwrap

import pytest
import zmq
from helpers import close, open_transport, raw_socket
from ports import held_port
from raw_peer import RawPeer, RawServer, frame

from aiozmq_speedups import new_event_loop

ANY = "tcp://127.0.0.1:*"


async def bound(kind, **options):
    options.setdefault("linger", 0)
    transport, protocol = await open_transport(kind, bind=ANY, **options)
    return transport, protocol, next(iter(transport.bindings()))


async def named(endpoint, name):
    peer = await RawPeer.connect(endpoint)
    await peer.shake(b"DEALER", Identity=name)
    return peer


def descriptors():
    return len(os.listdir("/proc/self/fd"))


# ---- identities ----


def test_a_known_identity_comes_again(run):
    async def go():
        transport, protocol, endpoint = await bound(zmq.ROUTER)
        for number in range(1, 51):
            peer = await named(endpoint, b"me")
            peer.write(frame(b"%d" % number))
            await protocol.received(number)
            transport.write([b"me", b"%d" % number])
            assert await peer.frame() == (0, b"%d" % number)
            await peer.close()
            await peer.at_end()
        assert [m[0] for m in protocol.messages] == [b"me"] * 50
        await close(transport)

    run(go())


def test_the_second_of_a_name_is_cut_without_handover(run):
    async def go():
        transport, protocol, endpoint = await bound(zmq.ROUTER)
        first = await named(endpoint, b"me")
        second = await named(endpoint, b"me")
        await second.at_end()
        first.write(frame(b"still here"))
        await protocol.received(1)
        transport.write([b"me", b"yes"])
        assert await first.frame() == (0, b"yes")
        await first.close()
        await second.close()
        await close(transport)

    run(go())


def test_a_thousand_handovers_leave_nothing(run):
    async def go():
        transport, protocol, endpoint = await bound(zmq.ROUTER)
        transport.setsockopt(zmq.ROUTER_HANDOVER, 1)
        peer = await named(endpoint, b"me")
        before = descriptors()
        for _ in range(1000):
            next_one = await named(endpoint, b"me")
            await peer.at_end()
            await peer.close()
            peer = next_one
        peer.write(frame(b"last"))
        await protocol.received(1)
        transport.write([b"me", b"yes"])
        assert await peer.frame() == (0, b"yes")
        assert descriptors() <= before
        await peer.close()
        await close(transport)

    run(go())


# ---- endpoints ----


def test_unbind_keeps_who_is_here(run):
    async def go():
        transport, protocol, endpoint = await bound(zmq.ROUTER)
        peer = await named(endpoint, b"me")
        await transport.unbind(endpoint)
        with pytest.raises(ConnectionRefusedError):
            await RawPeer.connect(endpoint)
        peer.write(frame(b"a"))
        await protocol.received(1)
        transport.write([b"me", b"b"])
        assert await peer.frame() == (0, b"b")
        await peer.close()
        await close(transport)

    run(go())


@pytest.mark.parametrize("state", ["connecting", "shaking", "ready", "waiting"])
def test_disconnect_in_each_state(run, state):
    async def go():
        server = RawServer()
        endpoint = await server.listen()
        transport, _ = await open_transport(
            zmq.DEALER, connect=endpoint, linger=0, reconnect_interval=0.01
        )
        if state != "connecting":
            peer = await server.accept()
            if state != "shaking":
                await peer.shake(b"DEALER")
            if state == "waiting":
                await peer.close()
        before = descriptors()
        await transport.disconnect(endpoint)
        if state in ("shaking", "ready"):
            await peer.at_end()
            await peer.close()
        with pytest.raises(OSError) as caught:
            await transport.disconnect(endpoint)
        assert caught.value.errno == errno.ENOENT
        assert descriptors() <= before
        # And again, for good.
        await transport.connect(endpoint)
        while True:
            peer = await server.accept()
            try:
                await peer.shake(b"DEALER")
                break
            except (EOFError, ConnectionError):  # made before disconnect()
                await peer.close()
        transport.write([b"here"])
        while await peer.frame() != (0, b"here"):
            pass
        await peer.close()
        server.close()
        await close(transport)

    run(go())


def test_connecting_twice_is_one_connection_where_libzmq_has_one(run):
    async def go():
        transport, _, endpoint = await bound(zmq.PUB)
        sub, protocol = await open_transport(zmq.SUB, connect=endpoint, linger=0)
        await sub.connect(endpoint)
        sub.subscribe(b"")
        while not protocol.messages:
            transport.write([b"first"])
            await asyncio.sleep(0.005)
        transport.write([b"last"])
        await protocol.until(lambda: [b"last"] in protocol.messages)
        transport.write([b"end"])
        await protocol.until(lambda: [b"end"] in protocol.messages)
        assert protocol.messages.count([b"last"]) == 1
        await close(sub, transport)

    run(go())


@pytest.mark.parametrize("interval", [0, -1])
def test_no_interval_is_no_second_try(run, interval):
    async def go():
        server = RawServer()
        transport, _ = await open_transport(zmq.PUSH, linger=0)
        transport.setsockopt(zmq.RECONNECT_IVL, interval)
        await transport.connect(await server.listen())
        peer = await server.accept()
        await peer.shake(b"PULL")
        await peer.close()
        await asyncio.sleep(0.05)
        assert server._accepted.empty()
        server.close()
        await close(transport)

    run(go())


def test_a_wrong_key_keeps_the_interval(run):
    keys, other = zmq.curve_keypair(), zmq.curve_keypair()

    async def go():
        transport, protocol, endpoint = await bound(
            zmq.PULL,
            curve_server=True,
            curve_publickey=keys[0],
            curve_secretkey=keys[1],
        )
        await transport.enable_monitor()
        loop = asyncio.get_running_loop()
        started = loop.time()
        client, _ = await open_transport(
            zmq.PUSH,
            connect=endpoint,
            linger=0,
            reconnect_interval=0.05,
            curve_serverkey=other[0],
            curve_publickey=other[0],
            curve_secretkey=other[1],
        )
        names = []
        while names.count(zmq.EVENT_ACCEPTED) < 8:
            await asyncio.sleep(0.01)
            names = [e.event for e in protocol.events]
        tries = (loop.time() - started) / 0.05
        assert names.count(zmq.EVENT_ACCEPTED) <= tries + 1
        assert not [
            e for e in protocol.events if e.event == zmq.EVENT_HANDSHAKE_SUCCEEDED
        ]
        await close(client, transport)

    run(go())


def test_disconnect_sends_what_waits(run):
    """To who does not listen yet, and to who reads slowly."""
    messages = [[b"%d" % n, bytes(20_000)] for n in range(300)]

    async def go(endpoint):
        transport, _ = await open_transport(zmq.PUSH, connect=endpoint, sndhwm=0)
        for message in messages:
            transport.write(message)
        await transport.disconnect(endpoint)
        assert transport.connections() == set()
        transport.write([b"nobody's"])
        with raw_socket(zmq.PULL, rcvhwm=1) as pull:
            pull.bind(endpoint)
            received = [await asyncio.to_thread(pull.recv_multipart) for _ in messages]
            assert received == messages
            while transport.get_extra_info("zmq_socket")._leaving:
                await asyncio.sleep(0)
            assert pull.poll(0) == 0
        transport.abort()

    with held_port() as port:
        run(go(f"tcp://127.0.0.1:{port}"))


def test_disconnect_waits_no_longer_than_the_linger_time(run):
    async def go(endpoint):
        for linger in (0, 0.05):
            transport, _ = await open_transport(
                zmq.PUSH, connect=endpoint, linger=linger
            )
            sock = transport.get_extra_info("zmq_socket")
            transport.write([b"lost"])
            await transport.disconnect(endpoint)
            assert bool(sock._leaving) == bool(linger)
            while sock._leaving:
                await asyncio.sleep(0.01)
            await transport.connect(endpoint)
            await close(transport)

    with held_port() as port:
        run(go(f"tcp://127.0.0.1:{port}"))


def test_disconnect_then_close_sends_what_waits(run):
    async def go():
        with raw_socket(zmq.PULL) as pull:
            port = pull.bind_to_random_port("tcp://127.0.0.1")
            transport, protocol = await open_transport(
                zmq.PUSH, connect=f"tcp://127.0.0.1:{port}"
            )
            transport.write([b"first"])
            await transport.disconnect(f"tcp://127.0.0.1:{port}")
            await close(transport)
            assert await asyncio.to_thread(pull.recv) == b"first"

    run(go())


def test_nothing_comes_from_who_was_left(run):
    async def go():
        server = RawServer()
        endpoint = await server.listen()
        transport, protocol = await open_transport(zmq.DEALER, connect=endpoint)
        peer = await server.accept()
        await peer.shake(b"ROUTER")
        peer.write(frame(b"1"))
        await protocol.received(1)
        count = 0
        while transport.get_write_buffer_size() == 0:  # the kernel's are full, too
            transport.write([bytes(200_000)])
            count += 1
            await asyncio.sleep(0)
        await transport.disconnect(endpoint)
        peer.write(frame(b"2") * 100)
        for _ in range(count - 1):
            await peer.frame()
        assert len(protocol.messages) == 1
        transport.abort()
        await peer.close()
        server.close()

    run(go())


# ---- requests ----


def test_late_answers_to_a_relaxed_correlated_request(run):
    async def go():
        server = RawServer()
        transport, protocol = await open_transport(
            zmq.REQ, connect=await server.listen(), linger=0
        )
        transport.setsockopt(zmq.REQ_RELAXED, 1)
        transport.setsockopt(zmq.REQ_CORRELATE, 1)
        peer = await server.accept()
        await peer.shake(b"ROUTER", Identity=b"")
        ids = []
        for text in (b"one", b"two", b"three"):
            transport.write([text])
            flags, number = await peer.frame()
            assert (flags, len(number)) == (1, 4)
            assert await peer.frame() == (1, b"")
            assert await peer.frame() == (0, text)
            ids.append(int.from_bytes(number, sys.byteorder))
        assert ids[1:] == [ids[0] + 1, ids[0] + 2]
        for number, text in zip(ids, (b"one", b"two", b"three"), strict=True):
            raw = number.to_bytes(4, sys.byteorder)
            peer.write(frame(raw, more=True) + frame(b"", more=True) + frame(text))
        await protocol.received(1)
        peer.write(frame(b"stray", more=True) + frame(b"x"))
        transport.write([b"four"])
        flags, number = await peer.frame()
        peer.write(frame(number, more=True) + frame(b"", more=True) + frame(b"4"))
        await protocol.received(2)
        assert protocol.messages == [[b"three"], [b"4"]]
        await peer.close()
        server.close()
        await close(transport)

    run(go())


# ---- high water marks ----


def test_push_pauses_and_goes_on(run):
    async def go():
        server = RawServer()
        transport, protocol = await open_transport(
            zmq.PUSH, connect=await server.listen(), linger=0, sndhwm=5
        )
        transport.set_write_buffer_limits(high=100)
        for number in range(10):
            transport.write([b"%d" % number])
        await protocol.until(lambda: "pause_writing" in protocol.calls)
        peer = await server.accept()
        await peer.shake(b"PULL")
        assert [await peer.frame() for _ in range(10)] == [
            (0, b"%d" % number) for number in range(10)
        ]
        await protocol.until(lambda: "resume_writing" in protocol.calls)
        await peer.close()
        server.close()
        await close(transport)

    run(go())


@pytest.mark.parametrize("mandatory", [0, 1])
def test_what_a_router_does_with_who_does_not_read(run, mandatory):
    async def go():
        transport, protocol, endpoint = await bound(zmq.ROUTER, sndhwm=10)
        transport.setsockopt(zmq.SNDBUF, 4096)
        transport.setsockopt(zmq.ROUTER_MANDATORY, mandatory)
        slow = await named(endpoint, b"slow")
        quick = await named(endpoint, b"quick")
        for peer in (slow, quick):
            peer.write(frame(b"hello"))
        await protocol.received(2)
        if mandatory:
            seen = []
            asyncio.get_running_loop().set_exception_handler(
                lambda loop, context: seen.append(context["exception"].errno)
            )
            transport.write([b"nobody", b"x"])
            assert seen == [errno.EHOSTUNREACH]
            for _ in range(30):
                transport.write([b"slow", b"x" * 100_000])
            assert transport.get_write_buffer_size() > 0  # EAGAIN
            for _ in range(30):
                await slow.frame()
            await quick.close()
            assert seen == [errno.EHOSTUNREACH]
        else:
            for _ in range(30):
                transport.write([b"slow", b"x" * 100_000])
            transport.write([b"quick", b"here"])
            assert await quick.frame() == (0, b"here")
            assert transport.get_write_buffer_size() == 0
        await slow.close()
        await quick.close()
        await close(transport)

    run(go())


def test_a_publisher_drops_for_who_does_not_read_and_serves_others(run):
    async def go():
        transport, protocol, endpoint = await bound(zmq.XPUB, sndhwm=10)
        slow = await RawPeer.connect(endpoint)
        quick = await RawPeer.connect(endpoint)
        for peer in (slow, quick):
            await peer.shake(b"SUB")
        slow.write(frame(b"\1"))
        quick.write(frame(b"\1q"))
        await protocol.received(2)
        for _ in range(100):
            transport.write([b"x" * 100_000])
        transport.write([b"quick"])
        assert await quick.frame() == (0, b"quick")
        assert transport.get_write_buffer_size() == 0
        transport.setsockopt(zmq.XPUB_NODROP, 1)
        transport.write([b"waits"])
        assert transport.get_write_buffer_size() > 0
        while await slow.frame() != (0, b"waits"):
            pass
        await slow.close()
        await quick.close()
        await close(transport)

    run(go())


def test_immediate_waits_for_a_connection(run):
    async def go():
        server = RawServer()
        transport, _ = await open_transport(
            zmq.PUSH, connect=await server.listen(), linger=0, immediate=True
        )
        transport.write([b"a"])
        assert transport.get_write_buffer_size() > 0
        peer = await server.accept()
        await peer.shake(b"PULL")
        assert await peer.frame() == (0, b"a")
        assert transport.get_write_buffer_size() == 0
        await peer.close()
        server.close()
        await close(transport)

    run(go())


def test_messages_wait_for_who_comes_late(run):
    async def go():
        with held_port() as port, raw_socket(zmq.PULL) as sock:
            transport, _ = await open_transport(
                zmq.PUSH,
                connect=f"tcp://127.0.0.1:{port}",
                linger=0,
                reconnect_interval=0.01,
            )
            for number in range(900):
                transport.write([b"%d" % number])
            await asyncio.sleep(0.05)
            sock.bind(f"tcp://127.0.0.1:{port}")
            for number in range(900):
                while not sock.poll(0):
                    await asyncio.sleep(0.001)
                assert sock.recv() == b"%d" % number
            await close(transport)

    run(go())


# ---- the end ----


@pytest.mark.parametrize(("linger", "all_of_them"), [(0, False), (60, True)])
def test_what_close_sends(run, linger, all_of_them):
    async def go():
        server = RawServer()
        transport, _ = await open_transport(
            zmq.PUSH, connect=await server.listen(), linger=linger
        )
        for number in range(500):
            transport.write([b"%d" % number])
        await close(transport)
        peer = await server.accept()
        if all_of_them:
            await peer.shake(b"PULL")
            for number in range(500):
                assert await peer.frame() == (0, b"%d" % number)
        await peer.at_end()
        await peer.close()
        server.close()

    run(go())


def test_the_end_of_the_loop_sends_all_whatever_the_handshake_is_at():
    """An answer of the peer's may be in the old loop's queue then."""
    for turns in range(20):
        with raw_socket(zmq.PULL, rcvhwm=1) as sock:
            port = sock.bind_to_random_port("tcp://127.0.0.1")

            async def write(port=port, turns=turns):
                transport, _ = await open_transport(
                    zmq.PUSH,
                    connect=f"tcp://127.0.0.1:{port}",
                    engine="native",
                    sndhwm=5,
                )
                for number in range(10):
                    transport.write([b"%d" % number])
                for _ in range(turns % 5):
                    await asyncio.sleep(0)

            loop = new_event_loop(close_timeout=60)
            loop.run_until_complete(write())
            loop.close()
            assert [sock.recv() for _ in range(10)] == [b"%d" % n for n in range(10)]


def test_what_the_linger_time_ends_is_told(caplog):
    async def write():
        endpoint = f"tcp://127.0.0.1:{port}"
        transport, _ = await open_transport(
            zmq.PUSH, connect=endpoint, engine="native", linger=0.05
        )
        transport.write([b"lost"])

    loop = new_event_loop(close_timeout=60)
    with held_port() as port:
        loop.run_until_complete(write())
        loop.close()
    assert caplog.messages == [
        "1 messages that waited in 1 closed ZeroMQ sockets are lost"
    ]


CHILD = """
    import asyncio, sys, zmq
    import aiozmq_speedups

    async def main():
        transport, _ = await aiozmq_speedups.create_zmq_connection(
            aiozmq_speedups.ZmqProtocol, zmq.PUSH, connect=sys.argv[1], engine="native"
        )
        for number in range(2000):
            transport.write([b"%d" % number, b"x" * 500])

    with asyncio.Runner(loop_factory=aiozmq_speedups.new_event_loop) as runner:
        runner.run(main())
"""


def test_a_process_that_ends_sends_what_it_has_written():
    with raw_socket(zmq.PULL) as sock:
        port = sock.bind_to_random_port("tcp://127.0.0.1")
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(CHILD), f"tcp://127.0.0.1:{port}"]
        ) as child:
            for number in range(2000):
                assert sock.recv_multipart()[0] == b"%d" % number
            assert child.wait(100) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # libzmq's threads
def test_a_forked_child_never_sends(run):
    async def go():
        transport, protocol, endpoint = await bound(zmq.ROUTER)
        peer = await named(endpoint, b"me")
        peer.write(frame(b"hello"))
        await protocol.received(1)
        transport.write([b"me", b"before"])
        pid = os.fork()
        if pid == 0:
            try:
                transport.get_extra_info("zmq_socket")._send((b"me", b"child"))
                transport.get_extra_info("zmq_socket")._look()
                transport.get_extra_info("zmq_socket").close()
                gc.collect()
            finally:
                os._exit(0)
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            await asyncio.sleep(0.005)
        transport.write([b"me", b"after"])
        assert await peer.frame() == (0, b"before")
        assert await peer.frame() == (0, b"after")
        peer.write(frame(b"and here"))
        await protocol.received(2)
        await peer.close()
        await close(transport)

    run(go())


# ---- events ----


def test_the_events_of_both_sides_are_libzmq_s(run):
    async def go():
        pull, bound_side, endpoint = await bound(zmq.PULL)
        await pull.enable_monitor()
        push, connected_side = await open_transport(
            zmq.PUSH, linger=0, reconnect_interval=0.01
        )
        await push.enable_monitor()
        await push.connect(endpoint)
        done = zmq.EVENT_HANDSHAKE_SUCCEEDED
        for side in (bound_side, connected_side):
            await side.until(
                lambda side=side: side.events and side.events[-1].event == done
            )
        await close(pull)
        await connected_side.until(
            lambda: any(
                e.event == zmq.EVENT_CONNECT_RETRIED for e in connected_side.events
            )
        )
        events = connected_side.events
        names = [e.event for e in events][:5]
        assert names == [
            zmq.EVENT_CONNECT_DELAYED,
            zmq.EVENT_CONNECTED,
            zmq.EVENT_HANDSHAKE_SUCCEEDED,
            zmq.EVENT_DISCONNECTED,
            zmq.EVENT_CONNECT_RETRIED,
        ]
        assert events[0].value == errno.EINPROGRESS
        assert events[1].value == events[3].value > 0
        assert 10 <= events[4].value < 20
        names = [e.event for e in bound_side.events]
        assert names[:2] == [zmq.EVENT_ACCEPTED, zmq.EVENT_HANDSHAKE_SUCCEEDED]
        await close(push)

    run(go())

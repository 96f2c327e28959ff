"""add_reader and add_writer with a zmq.Socket, on this package's loop."""

import asyncio
import errno
import gc
import weakref

import pytest
import zmq
from helpers import close, open_transport, raw_socket

from aiozmq_speedups import Loop, _ext

pytestmark = pytest.mark.usefixtures("errors")

needs_extension = pytest.mark.skipif(
    _ext.core is None, reason="the pure loop behaves as aiozmq's: select() fails"
)


pytestmark = pytest.mark.loops("speedups")


@pytest.fixture
def sockets():
    a, b = raw_socket(zmq.PAIR), raw_socket(zmq.PAIR)
    b.connect(f"tcp://127.0.0.1:{a.bind_to_random_port('tcp://127.0.0.1')}")
    yield a, b
    a.close()
    b.close()


def test_reader_is_level_triggered(loop, sockets):
    a, b = sockets
    got = []

    def read():
        calls.append(len(got))
        if len(calls) % 3 == 0:  # leaves the message twice
            got.append(a.recv(zmq.DONTWAIT))
        if len(got) == 4:
            loop.stop()

    calls = []
    loop.add_reader(a, read)
    for i in range(4):
        b.send(b"%d" % i)
    loop.run_forever()
    assert got == [b"0", b"1", b"2", b"3"]
    assert calls == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert loop.remove_reader(a) is True
    assert loop.remove_reader(a) is False


def test_readiness_taken_by_others_still_wakes(loop, sockets):
    """Reading ZMQ_EVENTS, or sending, silences ZMQ_FD."""
    a, b = sockets
    got = []

    async def go():
        arrived = asyncio.Event()

        def read():
            got.append(a.recv(zmq.DONTWAIT))
            arrived.set()

        loop.add_reader(a, read)
        for i in range(50):
            b.send(b"%d" % i)
            while not a.getsockopt(zmq.EVENTS) & zmq.POLLIN:
                pass
            a.send(b"taken")
            await arrived.wait()
            arrived.clear()
        loop.remove_reader(a)

    loop.run_until_complete(go())
    assert got == [b"%d" % i for i in range(50)]


def test_writer(loop, sockets):
    a, _ = sockets
    calls = []

    def write(arg):
        calls.append(arg)
        if len(calls) == 3:
            assert loop.remove_writer(a) is True
            loop.stop()

    loop.add_writer(a, write, "x")
    loop.run_forever()
    assert calls == ["x"] * 3
    assert loop.remove_writer(a) is False


def test_writer_waits_for_a_peer(loop):
    push, pull = raw_socket(zmq.PUSH), raw_socket(zmq.PULL)

    async def go():
        writable = loop.create_future()
        loop.add_writer(push, writable.set_result, None)
        await asyncio.sleep(0)
        assert not writable.done()
        push.connect(f"tcp://127.0.0.1:{pull.bind_to_random_port('tcp://127.0.0.1')}")
        await writable
        loop.remove_writer(push)

    loop.run_until_complete(go())
    push.close()
    pull.close()


def test_both_directions_and_replacing(loop, sockets):
    a, b = sockets

    async def go():
        read, written = loop.create_future(), loop.create_future()
        loop.add_reader(a, read.set_exception, AssertionError("replaced"))
        loop.add_reader(a, lambda: read.done() or read.set_result(a.recv()))
        loop.add_writer(a, lambda: written.done() or written.set_result(None))
        await written
        b.send(b"message")
        assert await read == b"message"
        assert loop.remove_writer(a)
        assert loop.remove_reader(a)

    loop.run_until_complete(go())


def test_removed_in_the_same_turn(loop, sockets):
    a, b = sockets

    async def go():
        calls = []

        def write():
            calls.append("writer")
            loop.remove_reader(a)

        def read():
            calls.append("reader")
            loop.remove_writer(a)

        b.send(b"x")
        while not a.getsockopt(zmq.EVENTS) & zmq.POLLIN:
            pass
        loop.add_writer(a, write)
        loop.add_reader(a, read)
        # Whoever comes first removes the other one.
        while not calls:
            await asyncio.sleep(0)
        assert len(set(calls)) == 1
        loop.remove_reader(a)
        loop.remove_writer(a)

    loop.run_until_complete(go())


def test_an_exception_is_reported(loop, sockets, errors):
    a, b = sockets

    async def go():
        done = loop.create_future()

        def read():
            a.recv()
            done.set_result(None)
            raise RuntimeError("reader")

        loop.add_reader(a, read)
        b.send(b"x")
        await done
        await asyncio.sleep(0)
        loop.remove_reader(a)
        assert str(errors.pop()["exception"]) == "reader"

    loop.run_until_complete(go())


@needs_extension
def test_a_closed_socket(loop, errors):
    sock = raw_socket(zmq.PULL)

    async def go():
        loop.add_reader(sock, lambda: None)
        sock.close()
        while not errors:
            await asyncio.sleep(0)
        assert errors.pop()["exception"].errno == errno.ENOTSOCK
        assert loop.remove_reader(sock) is False
        with pytest.raises(OSError) as info:
            loop.add_reader(sock, lambda: None)
        assert info.value.errno == errno.ENOTSOCK

    loop.run_until_complete(go())


@needs_extension
def test_a_transports_socket_is_refused(loop):
    async def go():
        tr, _ = await open_transport(zmq.PULL)
        with pytest.raises(RuntimeError, match="is used by transport"):
            loop.add_reader(tr.get_extra_info("zmq_socket"), lambda: None)
        await close(tr)

    loop.run_until_complete(go())


def test_closing_the_loop_forgets_the_watches():
    loop = Loop()
    sock = raw_socket(zmq.PULL)
    loop.add_reader(sock, lambda: None)
    loop.close()
    sock.close()
    ref = weakref.ref(loop)
    del loop
    gc.collect()
    assert ref() is None


def test_descriptors_and_sockets_together(loop, sockets):
    a, b = sockets

    async def go():
        server = await asyncio.start_server(
            lambda r, w: (w.write(b"tcp"), w.close()), "127.0.0.1", 0
        )
        got = loop.create_future()
        loop.add_reader(a, lambda: got.set_result(a.recv()))
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await reader.read() == b"tcp"
        b.send(b"zmq")
        assert await got == b"zmq"
        loop.remove_reader(a)
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    loop.run_until_complete(go())

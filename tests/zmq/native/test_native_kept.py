"""What waits for a peer whose connection is lost, on both engines."""

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import zmq
from helpers import Recorder, close, open_transport, raw_socket
from ports import held_port
from raw_peer import RawServer, frame, greeting, ready

from aiozmq_speedups import new_event_loop

pytestmark = pytest.mark.parametrize("engine", ["libzmq", "native"])


async def connecting(zmq_type, engine, port):
    """A server of raw peers, its endpoint, and a transport that connects to it."""
    server = RawServer()
    endpoint = await server.listen(port)
    transport, protocol = await open_transport(
        zmq_type, connect=endpoint, engine=engine, linger=0, reconnect_interval=0.01
    )
    await transport.enable_monitor()
    return server, endpoint, transport, protocol


def test_a_router_that_connects_keeps_what_it_sends_to_a_lost_peer(run, engine):
    async def go():
        with held_port() as port:
            server, endpoint, transport, protocol = await connecting(
                zmq.ROUTER, engine, port
            )
            for number in range(3):
                peer = await server.accept()
                await peer.shake(b"DEALER", Identity=b"name")
                if number > 0:
                    # Written while nobody was there.
                    assert await peer.frame() == (0, b"%d" % number)
                peer.write(frame(b"hello"))
                await protocol.received(number + 1)
                assert protocol.messages[-1] == [b"name", b"hello"]
                await peer.close()
                await peer.at_end()
                lost = zmq.EVENT_DISCONNECTED
                await protocol.until(
                    lambda: [e.event for e in protocol.events].count(lost) > number
                )
                transport.getsockopt(zmq.EVENTS)
                transport.write([b"name", b"%d" % (number + 1)])
            # Whoever is there now, anonymous, has the name's messages.
            peer = await server.accept()
            await peer.shake(b"DEALER")
            assert await peer.frame() == (0, b"3")
            peer.write(frame(b"hello"))
            await protocol.received(4)
            assert protocol.messages[-1] == [b"name", b"hello"]
            await transport.disconnect(endpoint)
            transport.write([b"name", b"to nobody"])
            await peer.at_end()
            await peer.close()
            await close(transport)
            server.close()

    run(go())


def test_a_rep_that_connects_keeps_its_answer(run, engine):
    async def go():
        with held_port() as port:
            server, _, transport, protocol = await connecting(zmq.REP, engine, port)
            peer = await server.accept()
            await peer.shake(b"REQ")
            peer.write(frame(b"", more=True) + frame(b"question"))
            await protocol.received(1)
            await peer.close()
            await protocol.until(
                lambda: any(e.event == zmq.EVENT_DISCONNECTED for e in protocol.events)
            )
            transport.write([b"answer"])
            peer = await server.accept()
            await peer.shake(b"REQ")
            assert await peer.frame() == (1, b"")
            assert await peer.frame() == (0, b"answer")
            await peer.close()
            await close(transport)
            server.close()

    run(go())


def test_what_a_peer_sent_before_it_went_arrives(run, engine):
    """Though what it is answered fails meanwhile."""
    if engine == "libzmq":
        pytest.skip("it loses what it has read and not delivered")

    class Answers(Recorder):
        def msg_received(self, data):
            super().msg_received(data)
            self.transport.write(data)

    async def go():
        transport, protocol = await open_transport(
            zmq.ROUTER, Answers, engine=engine, linger=0
        )
        transport.setsockopt(zmq.RCVBUF, 1 << 20)
        endpoint = await transport.bind("tcp://127.0.0.1:*")
        loop = asyncio.get_running_loop()
        with socket.socket() as peer:
            peer.setblocking(False)
            host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
            await loop.sock_connect(peer, (host, int(port)))
            await loop.sock_sendall(peer, greeting() + ready(b"DEALER") + frame(b"0"))
            await protocol.received(1)
            # It never reads: where it is closed, its kernel resets the connection.
            peer.settimeout(100)
            for part in range(1, 300):
                peer.sendall(frame(b"%d" % part, more=True) + frame(bytes(1000)))
            while struct.unpack("i", fcntl.ioctl(peer, termios.TIOCOUTQ, bytes(4)))[0]:
                pass  # until our kernel has it all
        await protocol.received(300)
        parts = [int(message[1]) for message in protocol.messages]
        assert parts == list(range(300))
        await close(transport)

    run(go())


@pytest.mark.parametrize("scheme", ["tcp", "ipc"])
def test_a_peer_that_goes_while_nobody_reads_costs_nothing(
    run, engine, scheme, tmp_path
):
    async def go():
        transport, protocol = await open_transport(
            zmq.PULL,
            bind="tcp://127.0.0.1:*" if scheme == "tcp" else f"ipc://{tmp_path}/s",
            engine=engine,
            linger=0,
            rcvhwm=2,
        )
        (endpoint,) = transport.bindings()
        transport.pause_reading()
        with raw_socket(zmq.PUSH, linger=10_000) as sock:
            sock.connect(endpoint)
            for part in range(20):
                sock.send(b"%d" % part)
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.1)
        began = time.process_time()
        await asyncio.sleep(0.3)
        assert time.process_time() - began < 0.2
        transport.resume_reading()
        if engine == "native" or scheme == "tcp":  # libzmq's ipc:// loses the rest
            await protocol.received(20)
        await close(transport)

    run(go())


COUNT, SIZE = 300, 1000
WHOLE = b"".join(frame(b"%d" % i, more=True) + frame(bytes(SIZE)) for i in range(COUNT))


@contextlib.contextmanager
def slow_peer():
    """An endpoint, an event that a socket is there, and a future of all that came."""
    shaken = threading.Event()

    def receive():
        sock, _ = listener.accept()
        with sock:
            sock.settimeout(100)
            sock.sendall(greeting() + ready(b"DEALER"))
            got = bytearray()
            # Who closes with something unread resets the connection. What had arrived
            # here is still to be read; nothing can be sent any more.
            with contextlib.suppress(ConnectionError):
                while data := sock.recv(4096):
                    got += data
                    if b"READY" in got:
                        shaken.set()
                        with contextlib.suppress(ConnectionError):
                            sock.sendall(frame(b"an answer"))
            return bytes(got)

    with socket.socket() as listener, ThreadPoolExecutor(1) as pool:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.settimeout(100)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        endpoint = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        yield endpoint, shaken, pool.submit(receive)


@pytest.mark.parametrize("way", ["close", "disconnect"])
def test_what_tcp_has_still_to_deliver(run, engine, way):
    """TCP drops it where a socket is closed and its peer goes on sending, as libzmq's
    sockets do."""
    if engine == "libzmq":
        pytest.skip("it closes as soon as the kernel has all")

    async def go():
        with slow_peer() as (endpoint, shaken, received):
            transport, _ = await open_transport(
                zmq.DEALER, connect=endpoint, engine=engine, linger=60
            )
            await asyncio.to_thread(shaken.wait)
            for i in range(COUNT):
                transport.write([b"%d" % i, bytes(SIZE)])
            if way == "close":
                transport.close()
            else:
                await transport.disconnect(endpoint)
            assert (await asyncio.wrap_future(received)).endswith(WHOLE)
            transport.close()

    run(go())


def test_what_tcp_has_still_to_deliver_as_the_loop_ends(engine):
    """Within close_timeout, as what the socket has."""
    if engine == "libzmq":
        pytest.skip("it closes as soon as the kernel has all")
    loop = new_event_loop(zmq_engine="native", close_timeout=60)

    async def send():
        transport, _ = await open_transport(
            zmq.DEALER, connect=endpoint, engine=engine, linger=60
        )
        await asyncio.to_thread(shaken.wait)
        for i in range(COUNT):
            transport.write([b"%d" % i, bytes(SIZE)])
        transport.close()

    with slow_peer() as (endpoint, shaken, received):
        loop.run_until_complete(send())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        assert received.result().endswith(WHOLE)

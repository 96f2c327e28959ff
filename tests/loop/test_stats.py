"""Loop.stats(): every count moves by what happened, and by nothing else."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import zmq

import aiozmq_speedups
from aiozmq_speedups import _ext
from aiozmq_speedups.loop import Loop

NOW = {"ready", "timers", "fds", "transports", "zmq_transports"}
TOTALS = {
    *("turns", "polls", "busy_polls", "sleeps"),
    *("callbacks", "transports_made", "accepted"),
    *("bytes_received", "bytes_sent", "packets_received", "packets_sent"),
    *("zmq_messages_received", "zmq_messages_sent"),
    *("busy_ns", "idle_ns"),
}
PEAKS = {"longest_turn_ns", "longest_callback_ns", "lag_ns"}


pytestmark = pytest.mark.loops("speedups")

needs_extension = pytest.mark.skipif(_ext.core is None, reason="no extension")


class Watch:
    """Differences of stats() since it was made or last asked."""

    def __init__(self, loop):
        self._loop = loop
        self._last = loop.stats()

    def __call__(self, *names):
        now, last = self._loop.stats(), self._last
        self._last = now
        return tuple(now[name] - last[name] for name in names)


class Collector(asyncio.Protocol, asyncio.DatagramProtocol):
    """Counts bytes; done once `expected` are there."""

    def __init__(self, expected=0):
        self.left = expected
        self.done = asyncio.get_running_loop().create_future()
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.left -= len(data)
        if self.left <= 0 and not self.done.done():
            self.done.set_result(None)

    def datagram_received(self, data, addr):
        self.data_received(data)

    def connection_lost(self, exc):
        self.lost.set_result(exc)


def test_keys(loop):
    stats = loop.stats()
    assert type(stats) is dict
    assert set(stats) == (NOW | TOTALS | PEAKS if _ext.core else NOW)
    assert all(type(value) is int for value in stats.values())
    assert set(stats.values()) == {0}


def test_a_copy(loop):
    loop.stats().clear()
    assert loop.stats()


def test_ready_and_timers(loop):
    loop.call_soon(lambda: None)
    loop.call_soon_threadsafe(lambda: None)
    timers = [loop.call_later(3600, lambda: None) for _ in range(3)]
    timers[0].cancel()
    stats = loop.stats()
    assert stats["timers"] == 2
    if _ext.core:
        assert 1 <= stats["ready"] <= 2  # one may be in the inbox still
    loop.run_until_complete(asyncio.sleep(0))
    assert loop.stats()["ready"] == 0
    for timer in timers:
        timer.cancel()
    assert loop.stats()["timers"] == 0


def test_fds(loop):
    a, b = socket.socketpair()
    with a, b:
        loop.add_reader(a, lambda: None)
        assert loop.stats()["fds"] == 1
        loop.add_writer(a, lambda: None)
        assert loop.stats()["fds"] == 1
        loop.add_reader(b, lambda: None)
        assert loop.stats()["fds"] == 2
        loop.remove_reader(a)
        loop.remove_writer(a)
        loop.remove_reader(b)
    assert loop.stats()["fds"] == 0


def test_closed_loop():
    loop = Loop()
    loop.run_until_complete(asyncio.sleep(0))
    loop.call_later(3600, lambda: None)
    loop.close()
    stats = loop.stats()
    assert {stats[name] for name in NOW} == {0}
    if _ext.core:
        assert stats["turns"] > 0


@needs_extension
def test_turns_and_callbacks(loop):
    watch = Watch(loop)
    for _ in range(10):
        loop.call_soon(lambda: None)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert watch("turns", "callbacks") == (1, 11)
    assert loop.stats()["polls"] == 1


@needs_extension
def test_turns_exceed_polls(loop):
    watch = Watch(loop)

    async def main():
        for _ in range(5000):
            await asyncio.sleep(0)

    loop.run_until_complete(main())
    turns, polls = watch("turns", "polls")
    assert 5000 <= turns <= 5010
    assert 1 <= polls <= turns


@needs_extension
def test_callback_that_leaves_the_loop(loop):
    watch = Watch(loop)

    def leave():
        raise SystemExit

    loop.call_soon(leave)
    loop.call_soon(lambda: None)
    with pytest.raises(SystemExit):
        loop.run_forever()
    assert watch("callbacks") == (1,)
    loop.run_until_complete(asyncio.sleep(0))


def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@needs_extension
def test_busy_and_idle(loop):
    def times():
        stats = loop.stats()
        return stats["busy_ns"], stats["idle_ns"]

    assert times() == (0, 0)
    while times()[1] < 10_000_000:  # a busy machine may be late to sleep
        loop.run_until_complete(asyncio.sleep(0.02))
    busy, idle = times()
    assert busy > 0
    time.sleep(0.01)
    assert times() == (busy, idle)  # it does not run

    loop.call_soon(spin, 0.02)
    loop.call_soon(loop.stop)
    loop.run_forever()
    busy_now, idle_now = times()
    assert idle_now == idle  # it never had to wait
    assert busy_now - busy >= 20_000_000


@needs_extension
def test_busy_polling_is_idle_time():
    loop = Loop(busy_poll_us=1_000_000)
    while loop.stats()["busy_polls"] < 2 or loop.stats()["idle_ns"] < 10_000_000:
        loop.run_until_complete(asyncio.sleep(0.02))
    assert loop.stats()["sleeps"] == 0
    loop.close()


@needs_extension
def test_times_while_it_runs(loop):
    """In a callback, and from another thread while the loop sleeps."""
    seen = []

    def look(pause):
        spin(pause)
        seen.append(loop.stats())

    async def main():
        loop.call_soon(look, 0.01)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        before = loop.stats()["sleeps"]

        def watch():
            while loop.stats()["sleeps"] == before:  # until it sleeps
                time.sleep(0.001)
            seen.append(loop.stats(reset=True))
            time.sleep(0.01)
            seen.append(loop.stats())

        await asyncio.to_thread(watch)

    loop.run_until_complete(main())
    running, asleep, later = seen
    assert running["busy_ns"] >= 10_000_000
    assert running["longest_turn_ns"] >= 10_000_000
    assert later["idle_ns"] - asleep["idle_ns"] >= 10_000_000
    assert later["busy_ns"] == asleep["busy_ns"] or later["sleeps"] > asleep["sleeps"]
    assert later["longest_turn_ns"] == 0 or later["sleeps"] > asleep["sleeps"]


@needs_extension
def test_longest_turn(loop):
    loop.call_soon(spin, 0.01)
    loop.call_soon(spin, 0.01)
    loop.call_soon(loop.stop)
    loop.run_forever()
    longest = loop.stats()["longest_turn_ns"]
    assert longest >= 20_000_000
    loop.run_until_complete(asyncio.sleep(0))
    assert loop.stats(reset=True)["longest_turn_ns"] == longest
    assert loop.stats()["longest_turn_ns"] == 0


@needs_extension
def test_longest_callback_in_debug_mode(loop):
    loop.set_debug(True)
    loop.slow_callback_duration = 1000
    loop.call_soon(spin, 0.01)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert loop.stats(reset=True)["longest_callback_ns"] >= 10_000_000
    assert loop.stats()["longest_callback_ns"] == 0


@needs_extension
def test_sleep_that_is_interrupted_is_no_turn(loop):
    def interrupt(*_):
        raise KeyboardInterrupt

    def kill():
        while not loop.stats()["sleeps"]:
            time.sleep(0.001)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGALRM)

    old = signal.signal(signal.SIGALRM, interrupt)
    try:
        loop.run_until_complete(asyncio.sleep(0))
        loop.stats(reset=True)
        loop.call_later(3600, lambda: None).cancel()
        thread = threading.Thread(target=kill)
        with pytest.raises(KeyboardInterrupt):
            loop.call_soon(thread.start)
            loop.run_forever()
        thread.join()
    finally:
        signal.signal(signal.SIGALRM, old)
    stats = loop.stats()
    assert stats["idle_ns"] >= 300_000_000
    assert stats["longest_turn_ns"] < stats["idle_ns"]


@needs_extension
def test_lag(loop):
    async def main():
        await asyncio.sleep(0)
        loop.stats(reset=True)
        loop.call_later(0, lambda: None)
        spin(0.02)
        await asyncio.sleep(0.01)
        return loop.stats()["lag_ns"]

    assert loop.run_until_complete(main()) >= 20_000_000


@needs_extension
def test_lag_of_a_time_long_past(loop):
    """What was late before it was set is not the loop's doing."""

    async def main():
        loop.stats(reset=True)
        loop.call_at(loop.time() - 1000, lambda: None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return loop.stats()["lag_ns"]

    assert loop.run_until_complete(main()) < 900 * 10**9


@needs_extension
def test_lag_by_another_clock(loop):
    loop.time = lambda: 1e6
    loop.call_later(-5000, loop.stop)
    loop.run_forever()
    assert loop.stats()["lag_ns"] == 0


@needs_extension
@pytest.mark.parametrize("size", [1, 1000, 3_000_000])
def test_streams(loop, size):
    async def main():
        server_side = Collector(size)
        server = await loop.create_server(lambda: server_side, "127.0.0.1", 0)
        watch = Watch(loop)
        transport, client = await loop.create_connection(
            Collector, *server.sockets[0].getsockname()
        )
        while not hasattr(server_side, "transport"):
            await asyncio.sleep(0)
        assert watch("transports", "transports_made", "accepted") == (2, 2, 1)
        transport.write(b"x" * size)
        await server_side.done
        assert watch("bytes_received", "bytes_sent") == (size, size)
        assert loop.stats()["packets_sent"] >= 1
        if size == 1:
            stats = loop.stats()
            assert stats["packets_received"] == stats["packets_sent"] == 1
        transport.close()
        await client.lost
        await server_side.lost
        await asyncio.sleep(0)
        assert watch("transports") == (-2,)
        server.close()
        await server.wait_closed()
        assert loop.stats()["fds"] == loop.stats()["transports"] == 0

    loop.run_until_complete(main())


@needs_extension
def test_buffered_protocol_and_writelines(loop):
    class Buffered(asyncio.BufferedProtocol):
        def __init__(self):
            self.buffer = bytearray(100)
            self.got = 0
            self.done = loop.create_future()

        def get_buffer(self, sizehint):
            return self.buffer

        def buffer_updated(self, nbytes):
            self.got += nbytes
            if self.got == 4:
                self.done.set_result(None)

    class Writer(asyncio.Protocol):
        def connection_made(self, transport):
            transport.writelines([b"x"] * 4)

    async def main():
        a, b = socket.socketpair()
        reader, protocol = await loop.create_connection(Buffered, sock=a)
        watch = Watch(loop)
        writer, _ = await loop.create_connection(Writer, sock=b)
        await protocol.done
        names = ("bytes_sent", "packets_sent", "bytes_received", "packets_received")
        assert watch(*names) == (4, 1, 4, 1)
        reader.abort()
        writer.abort()

    loop.run_until_complete(main())


@needs_extension
def test_datagrams(loop):
    async def main():
        receiver, protocol = await loop.create_datagram_endpoint(
            lambda: Collector(500), local_addr=("127.0.0.1", 0)
        )
        sender, _ = await loop.create_datagram_endpoint(
            Collector, remote_addr=receiver.get_extra_info("sockname")
        )
        watch = Watch(loop)
        for _ in range(50):
            sender.sendto(b"0123456789")
        await protocol.done
        names = ("bytes_sent", "packets_sent", "bytes_received", "packets_received")
        assert watch(*names) == (500, 50, 500, 50)
        assert loop.stats()["transports"] == 2
        sender.abort()
        receiver.abort()

    loop.run_until_complete(main())


@needs_extension
def test_pipe(loop):
    async def main():
        r, w = os.pipe()
        read_end, protocol = await loop.connect_read_pipe(
            lambda: Collector(5), open(r, "rb", 0)
        )
        write_end, _ = await loop.connect_write_pipe(Collector, open(w, "wb", 0))
        watch = Watch(loop)
        write_end.write(b"hello")
        await protocol.done
        assert watch("bytes_sent", "bytes_received") == (5, 5)
        assert loop.stats()["transports"] == 2
        write_end.close()
        read_end.close()

    loop.run_until_complete(main())


@needs_extension
def test_sock_methods(loop):
    async def main():
        a, b = socket.socketpair()
        with a, b:
            a.setblocking(False)
            b.setblocking(False)
            watch = Watch(loop)
            await loop.sock_sendall(a, b"12345")
            assert await loop.sock_recv(b, 100) == b"12345"
            names = ("bytes_sent", "packets_sent", "bytes_received", "packets_received")
            assert watch(*names) == (5, 1, 5, 1)
            a.shutdown(socket.SHUT_WR)
            assert await loop.sock_recv(b, 100) == b""
            assert watch(*names) == (0, 0, 0, 0)  # the end is no packet

        a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with a:
            a.setblocking(False)
            a.bind(("127.0.0.1", 0))
            for address in (a.getsockname(), ("localhost", a.getsockname()[1])):
                await loop.sock_sendto(a, b"123", address)
                data, _ = await loop.sock_recvfrom(a, 10)
                assert data == b"123"
                assert watch(*names) == (3, 1, 3, 1)

    loop.run_until_complete(main())


def test_zmq(loop):
    from aiozmq_speedups import create_zmq_stream
    from aiozmq_speedups._zmq import accelerated, pure

    async def main():
        a = await create_zmq_stream(zmq.PULL, bind="tcp://127.0.0.1:*")
        (endpoint,) = a.transport.bindings()
        b = await create_zmq_stream(zmq.PUSH, connect=endpoint)
        assert loop.stats()["zmq_transports"] == 2
        for _ in range(10):
            b.write([b"one", b"two"])
        for _ in range(10):
            await a.read()
        stats = loop.stats()
        if accelerated.transport_class is not pure._PyZmqTransport:
            assert stats["zmq_messages_sent"] == 10
            assert stats["zmq_messages_received"] == 10
        a.close()
        b.close()
        while loop.stats()["zmq_transports"]:
            await asyncio.sleep(0)

    loop.run_until_complete(main())


def test_abandoned_transport_is_counted_out(loop, recwarn):
    async def main():
        a, b = socket.socketpair()
        with b:
            transport, _ = await loop.create_connection(Collector, sock=a)
            assert loop.stats()["transports"] == 1
            transport.pause_reading()
            transport.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert loop.stats()["transports"] == 0

    loop.run_until_complete(main())


def test_in_pure_python():
    """The subset that needs no extension."""
    program = f"""
import asyncio
from aiozmq_speedups.loop import Loop
loop = Loop()
loop.call_later(3600, print)
stats = loop.stats()
assert set(stats) == {NOW!r}, stats
assert stats["timers"] == 1 and stats["fds"] == 0, stats
async def main():
    class P(asyncio.Protocol):
        pass
    server = await loop.create_server(P, "127.0.0.1", 0)
    assert loop.stats()["fds"] == 1, loop.stats()
    transport, _ = await loop.create_connection(P, *server.sockets[0].getsockname())
    assert loop.stats()["transports"] >= 1, loop.stats()
    transport.close()
    server.close()
    while loop.stats()["transports"]:
        await asyncio.sleep(0)
loop.run_until_complete(main())
loop.close()
assert set(loop.stats().values()) == {{0}}, loop.stats()
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ
        | {
            "AIOZMQ_SPEEDUPS_PURE": "1",
            # What is tested here, be it a checkout or installed.
            "PYTHONPATH": str(Path(aiozmq_speedups.__file__).parents[1]),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr

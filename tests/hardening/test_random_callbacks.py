"""Stream protocols whose callbacks do anything, at random, with their transport.

Whatever they do: connection_made() comes first, connection_lost() comes once and last,
and what the kernel has for the transport, or room for, is not left lying. A seed that
fails says what it did.
"""

import asyncio
import contextlib
import random
import select
import socket

import pytest

from aiozmq_speedups import _ext, new_event_loop

SEEDS = 400

pytestmark = pytest.mark.skipif(_ext.core is None, reason="needs the C extension")


class Random(asyncio.Protocol):
    def __init__(self, run):
        self.run = run

    def connection_made(self, transport):
        self.run.transport = transport
        self.happened("made")

    def data_received(self, data):
        self.happened("data")

    def eof_received(self):
        self.happened("eof")
        return self.run.stays_open

    def connection_lost(self, exc):
        self.happened("lost")

    def pause_writing(self):
        self.happened("pause")

    def resume_writing(self):
        self.happened("resume")

    def happened(self, what):
        self.run.events.append(what)
        # Not too often, or each would cause the next for ever.
        for _ in range(self.run.chance.choice([0, 0, 0, 1, 2])):
            self.run.act()


class RandomBuffered(Random, asyncio.BufferedProtocol):
    data_received = None

    def get_buffer(self, sizehint):
        self.happened("buffer")
        return bytearray(self.run.chance.choice([100, 10_000]))

    def buffer_updated(self, nbytes):
        self.happened("data")


class Run:
    def __init__(self, loop, seed):
        self.loop = loop
        self.chance = random.Random(seed)
        self.events = []
        self.transport = None
        self.stays_open = self.chance.random() < 0.5

    def make_protocol(self):
        return self.chance.choice([Random, RandomBuffered])(self)

    def act(self):
        transport, chance = self.transport, self.chance
        size = chance.choice([0, 1, 100, 70_000, 300_000])
        actions = [
            lambda: transport.write(bytes(size)),
            lambda: transport.write(bytearray(size)),
            lambda: transport.writelines([bytes(size), b"", b"x"]),
            lambda: transport.set_write_buffer_limits(
                *chance.choice([(), (0,), (9, 3)])
            ),
            lambda: transport.set_protocol(self.make_protocol()),
            lambda: setattr(transport, "attribute", transport),
            transport.write_eof,
            transport.pause_reading,
            transport.resume_reading,
            transport.get_write_buffer_size,
            transport.close,
            transport.abort,
        ]
        weights = [9, 3, 3, 2, 2, 1, 0.3, 3, 9, 1, 0.2, 0.2]
        # OSError and RuntimeError: after write_eof(), or the peer has gone.
        with contextlib.suppress(OSError, RuntimeError):
            chance.choices(actions, weights)[0]()
        if chance.random() < 0.03:
            raise ValueError

    def provoke(self, peer):
        """Something from outside."""
        chance = self.chance
        choice = chance.randrange(10)
        with contextlib.suppress(OSError):
            if choice < 4:
                peer.send(bytes(chance.choice([1, 1000, 50_000])))
            elif choice < 7:
                peer.recv(1 << 20)
            elif choice < 9:
                with contextlib.suppress(ValueError):
                    self.act()
            elif chance.random() < 0.3:
                peer.shutdown(socket.SHUT_WR)

    def is_quiet(self, sock):
        """Nothing is left to do, as far as the kernel knows."""
        if sock.fileno() < 0:
            return self.events[-1] == "lost"
        poll = select.poll()
        poll.register(sock, select.POLLIN | select.POLLOUT)
        ready = dict(poll.poll(0)).get(sock.fileno(), 0)
        reads = self.transport.is_reading() and "eof" not in self.events
        writes = self.transport.get_write_buffer_size() > 0
        return not (
            (ready & select.POLLIN and reads)
            or (ready & select.POLLOUT and writes)
            or (self.transport.is_closing() and not writes)
        )

    async def quiet(self, sock):
        async with asyncio.timeout(100):
            while not self.is_quiet(sock):
                await asyncio.sleep(0)

    async def main(self, sock, peer):
        with sock, peer:
            for s in (sock, peer):
                s.setblocking(False)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
            await self.loop.create_connection(self.make_protocol, sock=sock)
            for _ in range(self.chance.randrange(20)):
                self.provoke(peer)
                await self.quiet(sock)
            self.transport.abort()
            await self.quiet(sock)
        self.transport = None


def tcp_pair():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        return listener.accept()[0], peer


@pytest.mark.parametrize("make_pair", [socket.socketpair, tcp_pair])
def test_random_callbacks(make_pair):
    loop = new_event_loop()
    reported = []
    loop.set_exception_handler(
        lambda loop, context: reported.append(type(context["exception"]))
    )
    for seed in range(SEEDS):
        run = Run(loop, seed)
        try:
            loop.run_until_complete(run.main(*make_pair()))
            assert run.events[0] == "made"
            assert run.events.count("lost") == 1
            assert run.events[-1] == "lost"
            assert set(reported) <= {ValueError}
        except BaseException as exc:
            exc.add_note(f"seed {seed}, {run.events}")
            raise
    loop.close()

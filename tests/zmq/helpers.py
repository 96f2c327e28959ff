"""A protocol that records, and pairs of connected transports."""

from __future__ import annotations

import asyncio
import contextlib

import zmq

from aiozmq_speedups.core import create_zmq_connection
from aiozmq_speedups.interface import ZmqProtocol


class Recorder(ZmqProtocol):
    """Keeps what it is told, and lets a test wait for it."""

    def __init__(self):
        self.transport = None
        self.calls = []
        self.messages = []
        self.events = []
        self.lost = asyncio.get_running_loop().create_future()
        self._changed = asyncio.Event()

    def connection_made(self, transport):
        self.calls.append("connection_made")
        self.transport = transport

    def connection_lost(self, exc):
        self.calls.append("connection_lost")
        self.transport = None
        self.lost.set_result(exc)
        self._changed.set()

    def pause_writing(self):
        self.calls.append("pause_writing")
        self._changed.set()

    def resume_writing(self):
        self.calls.append("resume_writing")
        self._changed.set()

    def msg_received(self, data):
        assert type(data) is list
        assert data and all(type(frame) is bytes for frame in data)
        self.messages.append(data)
        self._changed.set()

    def event_received(self, event):
        self.events.append(event)
        self._changed.set()

    async def until(self, condition):
        """Waits until condition() is true, looking at each change."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def received(self, count):
        await self.until(lambda: len(self.messages) >= count)
        return self.messages


def size_of(*frames):
    """What a message counts in a buffer: libzmq's overhead is 64 bytes a frame."""
    return sum(map(len, frames)) + 64 * len(frames)


async def open_transport(zmq_type, factory=Recorder, **kwargs):
    return await create_zmq_connection(factory, zmq_type, **kwargs)


async def close(*transports):
    """Closes each, and waits for its connection_lost."""
    for transport in transports:
        protocol = transport.get_protocol()
        transport.close()
        if protocol is not None:
            await protocol.lost


@contextlib.asynccontextmanager
async def pair(type1, type2, *, factory1=Recorder, factory2=Recorder, transport="tcp"):
    """(transport1, protocol1, transport2, protocol2): the second connects."""
    address = {"tcp": "tcp://127.0.0.1:*", "ipc": "ipc://*"}.get(transport, transport)
    tr1, pr1 = await open_transport(type1, factory1, bind=address)
    tr1.setsockopt(zmq.LINGER, 0)
    try:
        (endpoint,) = tr1.bindings()
        tr2, pr2 = await open_transport(type2, factory2, connect=endpoint)
        # What was sent to a peer that is gone would keep the socket for ever.
        tr2.setsockopt(zmq.LINGER, 0)
        try:
            yield tr1, pr1, tr2, pr2
        finally:
            tr2.abort()
    finally:
        tr1.abort()
    for protocol in (pr1, pr2):
        lost = getattr(protocol, "lost", None)
        if lost is not None:
            await lost


def raw_socket(zmq_type, **options):
    """A pyzmq socket that gives up after a minute and lingers not."""
    sock = zmq.Context.instance().socket(zmq_type)
    sock.linger = 0
    sock.rcvtimeo = sock.sndtimeo = 100_000
    for name, value in options.items():
        setattr(sock, name, value)
    return sock

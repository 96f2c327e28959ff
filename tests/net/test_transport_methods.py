"""What a transport serves of asyncio's methods, and how it refuses the others."""

import asyncio
import os
import socket
from asyncio import transports
from unittest import mock

import pytest
from datagrams import ASYNCIO_PAUSES

from aiozmq_speedups import new_event_loop

NAMES = sorted(
    {
        name
        for cls in (
            transports.Transport,
            transports.DatagramTransport,
            transports.SubprocessTransport,
        )
        for name in dir(cls)
        if not name.startswith("_")
    }
)
READING = {"is_reading", "pause_reading", "resume_reading"}
ARGUMENTS = {
    "get_extra_info": ("nothing",),
    "get_pipe_transport": (0,),
    "send_signal": (0,),
    "sendto": (b"x", ("127.0.0.1", 1)),
    "set_protocol": (asyncio.Protocol(),),
    "write": (b"x",),
    "writelines": ([b"x", b"y"],),
}


async def make(loop, kind):
    """A transport, and what to close with it."""
    if kind == "stream":
        a, b = socket.socketpair()
        return (await loop.create_connection(asyncio.Protocol, sock=a))[0], b
    if kind == "datagram":
        local = ("127.0.0.1", 0)
        made = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=local
        )
        return made[0], socket.socket()
    r, w = os.pipe()
    r, w = open(r, "rb", 0), open(w, "wb", 0)
    if kind == "read pipe":
        return (await loop.connect_read_pipe(asyncio.Protocol, r))[0], w
    return (await loop.connect_write_pipe(asyncio.Protocol, w))[0], r


async def outcomes(kind):
    loop = asyncio.get_running_loop()
    found = {}
    for name in NAMES:
        transport, peer = await make(loop, kind)
        with peer:
            try:
                getattr(transport, name)(*ARGUMENTS.get(name, ()))
                found[name] = "served"
            except (AttributeError, NotImplementedError) as exc:
                found[name] = type(exc)
            transport.close()
            await asyncio.sleep(0)
    return found


@pytest.mark.parametrize("kind", ["stream", "datagram", "read pipe", "write pipe"])
def test_every_method(kind):
    found = []
    for new_loop in new_event_loop, asyncio.SelectorEventLoop:
        loop = new_loop()
        found.append(loop.run_until_complete(outcomes(kind)))
        loop.close()
    ours, asyncios = found
    if not ASYNCIO_PAUSES and kind in ("datagram", "read pipe"):
        for name in READING:  # served by later versions
            asyncios[name] = ours[name]
    assert ours == asyncios
    assert ours["close"] == "served"


CLASSES = {
    "stream": "Transport",
    "datagram": "DatagramTransport",
    "read pipe": "ReadTransport",
    "write pipe": "WriteTransport",
}


@pytest.mark.loops("speedups", "asyncio")
@pytest.mark.parametrize("cls", ["own", "BaseTransport"])
@pytest.mark.parametrize("kind", CLASSES)
def test_patched_get_extra_info(loop, kind, cls):
    """Tests of programs patch asyncio's classes, with functions and with mocks."""
    cls = getattr(transports, CLASSES[kind] if cls == "own" else cls)
    transport, peer = loop.run_until_complete(make(loop, kind))

    def patch(self, name, default=None):
        return self, name, default

    with peer:
        if isinstance(transport, cls):  # asyncio's was no DatagramTransport in 3.11
            with mock.patch.object(cls, "get_extra_info", patch):
                assert transport.get_extra_info("x", 1) == (transport, "x", 1)
            with mock.patch.object(cls, "get_extra_info", return_value="mocked"):
                assert transport.get_extra_info("x") == "mocked"
        with mock.patch.object(transports.SubprocessTransport, "get_extra_info"):
            assert transport.get_extra_info("x", 2) == 2
        transport.close()
        loop.run_until_complete(asyncio.sleep(0))

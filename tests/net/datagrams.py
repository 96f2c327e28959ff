"""What the tests of datagram transports share: a recording protocol, sockets."""

import asyncio
import contextlib
import os
import socket
import sys

import pytest

#: From this version on empty datagrams are sent and each counts 8 bytes more.
COUNTS_HEADER = sys.version_info >= (3, 13)
HEADER = 8 if COUNTS_HEADER else 0


#: Those of 3.11.2 do not.
ASYNCIO_PAUSES = (
    asyncio.selector_events._SelectorDatagramTransport.pause_reading
    is not asyncio.ReadTransport.pause_reading
)


@pytest.fixture
def can_pause(loop_kind):
    if loop_kind == "asyncio" and not ASYNCIO_PAUSES:
        pytest.skip("asyncio's datagram transports of this Python cannot pause")


def _ipv6_loopback():
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not _ipv6_loopback(), reason="no IPv6 loopback")

#: A loopback address of each family that datagrams are tested with.
HOSTS = {
    "ipv4": (socket.AF_INET, "127.0.0.1"),
    "ipv6": (socket.AF_INET6, "::1"),
}
FAMILIES = ["ipv4", pytest.param("ipv6", marks=needs_ipv6)]
ALL_FAMILIES = [*FAMILIES, "unix", "abstract"]


def is_ours(transport):
    return type(transport).__module__.startswith("aiozmq_speedups")


class Recorder(asyncio.DatagramProtocol):
    """Notes every callback in order; ``on_<callback>`` runs after the note."""

    on_made = on_datagram = on_error = on_lost = on_pause = on_resume = None

    def __init__(self):
        self.calls = []
        self.got = []
        self.errors = []
        self.lost = asyncio.get_running_loop().create_future()

    def _note(self, name, hook, *args):
        self.calls.append(name)
        if hook is not None:
            hook(*args)

    def connection_made(self, transport):
        assert self.calls == []
        self.transport = transport
        self._note("made", self.on_made, transport)

    def datagram_received(self, data, addr):
        assert type(data) is bytes
        assert "lost" not in self.calls
        self.got.append((data, addr))
        self._note("datagram", self.on_datagram, data)

    def error_received(self, exc):
        self.errors.append(exc)
        self._note("error", self.on_error, exc)

    def pause_writing(self):
        self._note("pause", self.on_pause)

    def resume_writing(self):
        self._note("resume", self.on_resume)

    def connection_lost(self, exc):
        assert not self.lost.done(), "connection_lost twice"
        self.lost.set_result(exc)
        self._note("lost", self.on_lost, exc)


def address(family):
    """One to bind to that nobody else has."""
    if family == "abstract":
        return f"\0aiozmq-speedups-{os.getpid()}-{os.urandom(8).hex()}"
    return (HOSTS[family][1], 0)


def bound_socket(family="ipv4", where=None):
    """A blocking socket bound to `where` (a path for "unix") or anywhere."""
    family_number = HOSTS[family][0] if family in HOSTS else socket.AF_UNIX
    sock = socket.socket(family_number, socket.SOCK_DGRAM)
    sock.settimeout(100)
    sock.bind(where or address(family))
    return sock


@contextlib.asynccontextmanager
async def endpoint(family="ipv4", *, factory=Recorder, tmp_path=None, **kwargs):
    """A transport, its protocol and a blocking socket that is connected to it."""
    loop = asyncio.get_running_loop()
    if family in HOSTS:
        where, peer_where = address(family), None
    elif family == "unix":
        where, peer_where = str(tmp_path / "transport"), str(tmp_path / "peer")
        kwargs["family"] = socket.AF_UNIX
    else:
        where = peer_where = None
        kwargs["sock"] = bound_socket("abstract")
    if where is not None:
        kwargs["local_addr"] = where
    tr, pr = await loop.create_datagram_endpoint(factory, **kwargs)
    with bound_socket(family, peer_where) as peer:
        peer.connect(tr.get_extra_info("sockname"))
        try:
            yield tr, pr, peer
        finally:
            tr.close()
            await pr.lost


@contextlib.contextmanager
def refusing_socket(family="ipv4"):
    """At its address nobody listens, and nobody else can: it hears but itself."""
    with bound_socket(family) as sock:
        sock.connect(sock.getsockname())
        yield sock


def backlog(transport):
    """Datagrams wait for the kernel? asyncio's size of the buffer drifts (3.13)."""
    if is_ours(transport):
        return transport.get_write_buffer_size() > 0
    return bool(transport._buffer)


def fill(transport, data, addr=None):
    """Sends `data` until the kernel takes no more; how many datagrams that were.

    Only a Unix socket says so: UDP drops.
    """
    count = 0
    while transport.get_write_buffer_size() == 0:
        transport.sendto(data, addr)
        count += 1
    return count

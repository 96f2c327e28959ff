"""create_datagram_endpoint(): its arguments, what the transport tells, its errors."""

import asyncio
import os
import socket
import stat

import pytest
from datagrams import (
    FAMILIES,
    HOSTS,
    Recorder,
    address,
    bound_socket,
    endpoint,
)
from waiting import until

pytestmark = pytest.mark.loops("speedups", "asyncio")


async def create(factory=Recorder, *args, **kwargs):
    loop = asyncio.get_running_loop()
    return await loop.create_datagram_endpoint(factory, *args, **kwargs)


async def close(tr, pr):
    tr.close()
    assert tr.is_closing()
    tr.close()
    return await pr.lost


def option(tr, level, name):
    return tr.get_extra_info("socket").getsockopt(level, name)


@pytest.mark.parametrize("family", FAMILIES)
def test_local_and_remote_address(loop, family):
    async def main():
        number, host = HOSTS[family]
        with bound_socket(family) as peer:
            tr, pr = await create(
                local_addr=(host, 0), remote_addr=peer.getsockname()[:2]
            )
            sock = tr.get_extra_info("socket")
            assert sock.family == number and sock.type == socket.SOCK_DGRAM
            assert tr.get_extra_info("sockname") == sock.getsockname()
            assert tr.get_extra_info("peername") == peer.getsockname()
            tr.sendto(b"x")
            assert peer.recvfrom(9) == (b"x", sock.getsockname())
            await close(tr, pr)

    loop.run_until_complete(main())


@pytest.mark.parametrize("family", FAMILIES)
def test_family_alone_binds_at_the_first_send(loop, family):
    async def main():
        number, host = HOSTS[family]
        tr, pr = await create(family=number)
        assert tr.get_extra_info("peername") is None
        with bound_socket(family) as peer:
            tr.sendto(b"x", peer.getsockname())
            data, where = peer.recvfrom(9)
            assert data == b"x" and where[0] == host
            peer.sendto(b"y", where)
            await until(lambda: pr.got)
        await close(tr, pr)

    loop.run_until_complete(main())


def test_extra_info(loop):
    async def main():
        async with endpoint() as (tr, pr, peer):
            sock = tr.get_extra_info("socket")
            assert type(sock).__name__ == "TransportSocket"
            assert sock.fileno() >= 0
            assert tr.get_extra_info("sockname") == peer.getpeername()
            assert tr.get_extra_info("peername") is None
            assert tr.get_extra_info("peername", 1) is None
            for name in "pipe", "cipher", "sslcontext", "nonsense", b"socket", 7:
                assert tr.get_extra_info(name) is None
                assert tr.get_extra_info(name, default=1) == 1
            with pytest.raises(TypeError):
                tr.get_extra_info()
            assert tr.get_protocol() is pr
            assert not tr.is_closing()
            name = peer.getpeername()
        # What was known stays known.
        assert tr.is_closing()
        assert tr.get_extra_info("sockname") == name
        assert tr.get_extra_info("peername") is None

    loop.run_until_complete(main())


@pytest.mark.parametrize("reuse_port", [True, False, None])
def test_reuse_port(loop, reuse_port):
    async def main():
        tr, pr = await create(local_addr=("127.0.0.1", 0), reuse_port=reuse_port)
        assert bool(option(tr, socket.SOL_SOCKET, socket.SO_REUSEPORT)) is bool(
            reuse_port
        )
        where = tr.get_extra_info("sockname")
        if reuse_port:
            other, other_pr = await create(local_addr=where, reuse_port=True)
            assert other.get_extra_info("sockname") == where
            await close(other, other_pr)
        else:
            with pytest.raises(OSError, match="in use"):
                await create(local_addr=where)
        await close(tr, pr)

    loop.run_until_complete(main())


@pytest.mark.parametrize("broadcast", [True, False, None])
def test_allow_broadcast(loop, broadcast):
    async def main():
        async with endpoint(allow_broadcast=broadcast) as (tr, pr, _):
            assert bool(option(tr, socket.SOL_SOCKET, socket.SO_BROADCAST)) is bool(
                broadcast
            )
            if not broadcast:
                tr.sendto(b"x", ("127.255.255.255", 9))
                assert [type(exc) for exc in pr.errors] == [PermissionError]

    loop.run_until_complete(main())


def test_allow_broadcast_leaves_the_socket_unconnected(loop):
    """Then a remote address is where datagrams go, and whoever answers is heard."""

    async def main():
        with bound_socket() as peer, bound_socket() as stranger:
            tr, pr = await create(remote_addr=peer.getsockname(), allow_broadcast=True)
            assert tr.get_extra_info("peername") is None
            tr.sendto(b"a")
            tr.sendto(b"b", peer.getsockname())
            with pytest.raises(ValueError, match="must be None or"):
                tr.sendto(b"c", stranger.getsockname())
            data, where = peer.recvfrom(9)
            assert (data, peer.recv(9)) == (b"a", b"b")
            stranger.sendto(b"answer", ("127.0.0.1", where[1]))
            await until(lambda: pr.got)
            assert pr.got == [(b"answer", stranger.getsockname())]
            await close(tr, pr)

    loop.run_until_complete(main())


@pytest.mark.parametrize("connected", [False, True])
def test_a_given_socket(loop, connected):
    async def main():
        with bound_socket() as peer:
            sock = bound_socket()
            if connected:
                sock.connect(peer.getsockname())
            tr, pr = await create(sock=sock)
            assert sock.gettimeout() == 0
            assert tr.get_extra_info("sockname") == sock.getsockname()
            name = peer.getsockname() if connected else None
            assert tr.get_extra_info("peername") == name
            if connected:
                tr.sendto(b"to the peer")
                # As asyncio: the address is ignored.
                tr.sendto(b"to the peer", ("127.0.0.1", 1))
                assert peer.recv(99) == peer.recv(99) == b"to the peer"
            else:
                tr.sendto(b"y", peer.getsockname())
                assert peer.recv(9) == b"y"
            await close(tr, pr)
            assert sock.fileno() == -1

    loop.run_until_complete(main())


def test_unix_paths(loop, tmp_path):
    path = str(tmp_path / "a")

    async def main():
        for _ in range(2):  # the second takes the place of the first one's leftover
            tr, pr = await create(local_addr=path, family=socket.AF_UNIX)
            assert stat.S_ISSOCK(os.stat(path).st_mode)
            assert tr.get_extra_info("sockname") == path
            other, other_pr = await create(remote_addr=path, family=socket.AF_UNIX)
            assert other.get_extra_info("peername") == path
            other.sendto(b"x")
            other.sendto(b"y", path)
            await until(lambda p=pr: len(p.got) == 2)
            assert pr.got == [(b"x", None), (b"y", None)]
            await close(other, other_pr)
            await close(tr, pr)

    loop.run_until_complete(main())


def test_abstract_unix_names(loop):
    async def main():
        name = address("abstract")
        tr, pr = await create(local_addr=name, family=socket.AF_UNIX)
        assert tr.get_extra_info("sockname") == name.encode()
        back = address("abstract")
        other, other_pr = await create(
            local_addr=back, remote_addr=name, family=socket.AF_UNIX
        )
        other.sendto(b"x")
        await until(lambda: pr.got)
        assert pr.got == [(b"x", back.encode())]
        for form in back, back.encode():
            tr.sendto(b"y", form)
        await until(lambda: len(other_pr.got) == 2)
        assert other_pr.got == [(b"y", name.encode())] * 2
        await close(other, other_pr)
        await close(tr, pr)

    loop.run_until_complete(main())


def test_numeric_hosts_need_no_resolver(loop, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("getaddrinfo was asked")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr(loop, "run_in_executor", fail, raising=False)

    async def main():
        async with endpoint() as (tr, _, peer):
            tr.sendto(b"x", peer.getsockname())
            assert peer.recv(9) == b"x"
        with bound_socket() as peer:
            tr, pr = await create(remote_addr=peer.getsockname())
            await close(tr, pr)

    loop.run_until_complete(main())


MODIFIERS = "socket modifier keyword arguments can not be used when sock is specified"


@pytest.mark.parametrize(
    ("kwargs", "error", "words"),
    [
        ({}, ValueError, "unexpected address family"),
        ({"local_addr": "127.0.0.1"}, TypeError, "2-tuple is expected"),
        ({"local_addr": ("127.0.0.1",)}, TypeError, "2-tuple is expected"),
        ({"local_addr": ["127.0.0.1", 0]}, TypeError, "2-tuple is expected"),
        (
            {"local_addr": ("127.0.0.1", 0), "remote_addr": ("::1", 1)},
            ValueError,
            "can not get address information",
        ),
        (
            {"local_addr": ("127.0.0.1", 0), "family": socket.AF_UNIX},
            TypeError,
            "string is expected",
        ),
        ({"local_addr": ("no such host", 0)}, socket.gaierror, None),
        (
            {"local_addr": ("192.0.2.1", 0)},
            OSError,
            "(?i)cannot assign",
        ),
        (
            {"remote_addr": "/no/such/socket", "family": socket.AF_UNIX},
            FileNotFoundError,
            "No such file",
        ),
        ({"local_addr": ("127.0.0.1", 70_000)}, OverflowError, "0-65535"),
    ],
)
def test_wrong_arguments(loop, kwargs, error, words):
    async def main():
        with pytest.raises(error, match=words):
            await create(**kwargs)

    loop.run_until_complete(main())


@pytest.mark.parametrize(
    "kwargs",
    [
        {"local_addr": ("127.0.0.1", 0)},
        {"remote_addr": ("127.0.0.1", 1)},
        {"family": 1},
        {"proto": 1},
        {"flags": 1},
        {"reuse_port": True},
        {"allow_broadcast": True},
    ],
)
def test_a_socket_and_what_modifies_one(loop, kwargs):
    async def main():
        with bound_socket() as sock:
            with pytest.raises(ValueError, match=MODIFIERS):
                await create(sock=sock, **kwargs)
            assert sock.fileno() >= 0

    loop.run_until_complete(main())


def test_a_stream_socket_is_refused(loop):
    async def main():
        with socket.socket() as sock:
            with pytest.raises(ValueError, match=r"(?i)(udp|datagram) socket was e"):
                await create(sock=sock)
            assert sock.fileno() >= 0

    loop.run_until_complete(main())


def test_a_failing_factory(loop):
    async def main():
        with bound_socket() as sock:
            with pytest.raises(ZeroDivisionError):
                await create(lambda: 1 / 0, sock=sock)

    loop.run_until_complete(main())


def test_an_endpoint_whose_maker_was_cancelled(loop):
    """connection_made() has not been called yet: the socket is closed all the same."""

    async def main():
        protocols = []

        def factory():
            protocols.append(Recorder())
            return protocols[-1]

        task = loop.create_task(create(factory, local_addr=("127.0.0.1", 0)))
        while not protocols:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await protocols[0].lost

    loop.run_until_complete(main())


def test_a_socket_that_is_in_use(loop):
    async def main():
        sock = bound_socket()
        tr, pr = await create(sock=sock)
        for call in (loop.add_reader, loop.add_writer):
            with pytest.raises(RuntimeError, match="is used by transport"):
                call(sock, print)
        await close(tr, pr)

    loop.run_until_complete(main())


def test_repr(loop):
    async def main():
        async with endpoint() as (tr, _, _peer):
            fd = tr.get_extra_info("socket").fileno()
            assert f"DatagramTransport fd={fd} read=polling" in repr(tr)
            assert "write=<idle, bufsize=0>" in repr(tr)
            tr.close()
            assert "closing" in repr(tr)
        assert "DatagramTransport closed" in repr(tr)

    loop.run_until_complete(main())


def test_debug_mode(loop, caplog):
    loop.set_debug(True)

    async def main():
        with caplog.at_level("DEBUG", logger="asyncio"):
            async with endpoint() as (tr, pr, peer):
                peer.send(b"x")
                await until(lambda: pr.got)
                tr.sendto(b"y", peer.getsockname())
        assert "Datagram endpoint local_addr=('127.0.0.1', 0)" in caplog.text
        caplog.clear()

    loop.run_until_complete(main())

"""Datagrams there and back: the same on asyncio's loop and on ours."""

import asyncio
import os
import socket
from contextlib import AsyncExitStack

import pytest
from datagrams import (
    ALL_FAMILIES,
    COUNTS_HEADER,
    FAMILIES,
    Recorder,
    bound_socket,
    endpoint,
    is_ours,
    needs_ipv6,
)
from waiting import until

pytestmark = pytest.mark.loops("speedups", "asyncio")


@pytest.mark.parametrize("family", ALL_FAMILIES)
@pytest.mark.parametrize("data", [b"x", bytearray(b"yy"), memoryview(b"azz")[1:]])
def test_round_trip(loop, tmp_path, family, data):
    async def main():
        async with endpoint(family, tmp_path=tmp_path) as (tr, pr, peer):
            if is_ours(tr):
                assert isinstance(tr, asyncio.DatagramTransport)
            peer.send(b"hello")
            await until(lambda: pr.got)
            assert pr.got == [(b"hello", peer.getsockname())]
            tr.sendto(data, pr.got[0][1])
            assert peer.recv(10) == bytes(data)
            tr.sendto(data, addr=peer.getsockname())
            assert peer.recv(10) == bytes(data)
        assert pr.calls == ["made", "datagram", "lost"]
        assert pr.lost.result() is None

    loop.run_until_complete(main())


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_empty_datagrams(loop, tmp_path, family):
    async def main():
        async with endpoint(family, tmp_path=tmp_path) as (tr, pr, peer):
            for data in b"", b"1", b"", b"", b"2":
                peer.send(data)
            await until(lambda: len(pr.got) == 5)
            assert [data for data, _ in pr.got] == [b"", b"1", b"", b"", b"2"]
            where = pr.got[0][1]
            for data in b"", bytearray(), memoryview(b""):
                tr.sendto(data, where)
            tr.sendto(b"end", where)
            empty = 3 if COUNTS_HEADER else 0  # before Python 3.13 they are not sent
            assert [peer.recv(9) for _ in range(empty + 1)] == [b""] * empty + [b"end"]

    loop.run_until_complete(main())


def test_empty_datagrams_within_a_callback(loop):
    async def main():
        async with endpoint() as (tr, pr, peer):
            pr.on_datagram = lambda data: (
                tr.sendto(b"", pr.got[-1][1]),
                tr.sendto(b"", pr.got[-1][1]),
                tr.sendto(b"end", pr.got[-1][1]),
            )
            peer.send(b"go")
            await until(lambda: pr.got)
            empty = 2 if COUNTS_HEADER else 0
            assert [peer.recv(9) for _ in range(empty + 1)] == [b""] * empty + [b"end"]
            assert tr.get_write_buffer_size() == 0

    loop.run_until_complete(main())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_largest_datagrams(loop, family):
    # 65535 less the UDP header, and less the IPv4 header, which counts there
    size = 65507 if family == "ipv4" else 65527

    async def main():
        async with endpoint(family) as (tr, pr, peer):
            data = os.urandom(size)
            peer.send(data)
            await until(lambda: pr.got)
            assert pr.got[0] == (data, peer.getsockname())
            tr.sendto(data, pr.got[0][1])
            tr.sendto(bytearray(data), pr.got[0][1])
            assert peer.recv(70_000) == peer.recv(70_000) == data

    loop.run_until_complete(main())


def test_a_batch_of_large_datagrams(loop):
    async def main():
        async with endpoint() as (tr, pr, peer):
            sizes = [1, 0, 20_000, 30_000, 2, 65507]  # what the kernel's buffer holds
            for _ in range(3):
                before = len(pr.got)
                for size in sizes:
                    peer.send(bytes([size % 251]) * size)
                await until(lambda b=before: len(pr.got) == b + len(sizes))
                for (data, _), size in zip(pr.got[before:], sizes, strict=True):
                    assert data == bytes([size % 251]) * size

    loop.run_until_complete(main())


@pytest.mark.parametrize("family", ["unix", "abstract"])
def test_large_unix_datagrams(loop, tmp_path, family):
    async def main():
        async with endpoint(family, tmp_path=tmp_path) as (tr, pr, peer):
            sizes = (150_000, 0, 1, 100_000)
            for n, size in enumerate(sizes, 1):
                peer.send(bytes([n]) * size)
                await until(lambda n=n: len(pr.got) == n)
            assert pr.got == [
                (bytes([n]) * size, peer.getsockname())
                for n, size in enumerate(sizes, 1)
            ]
            tr.sendto(bytes(150_000), pr.got[0][1])
            assert peer.recv(200_000) == bytes(150_000)

    loop.run_until_complete(main())


def test_a_datagram_beyond_256_kib_is_cut(loop):
    """asyncio's max_size: what does not fit is lost, as recvfrom(2) has it."""

    async def main():
        async with endpoint("abstract") as (tr, pr, peer):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            try:
                peer.send(b"x" * 300_000)
            except OSError:
                pytest.skip("the kernel's buffers are too small")
            peer.send(b"next")
            await until(lambda: len(pr.got) == 2)
            assert pr.got[0][0] == b"x" * 262_144
            assert pr.got[1][0] == b"next"

    loop.run_until_complete(main())


def test_a_sender_without_a_name(loop):
    async def main():
        async with endpoint("abstract") as (tr, pr, peer):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nameless:
                nameless.sendto(b"a", tr.get_extra_info("sockname"))
                nameless.sendto(b"b", tr.get_extra_info("sockname"))
            await until(lambda: len(pr.got) == 2)
            assert pr.got == [(b"a", None), (b"b", None)]

    loop.run_until_complete(main())


@needs_ipv6
def test_ipv6_addresses_have_a_scope_id(loop):
    """The address received is the socket module's, and may be sent to."""

    async def main():
        async with endpoint("ipv6") as (tr, pr, peer):
            host, port, flowinfo, scope_id = peer.getsockname()
            peer.send(b"x")
            await until(lambda: pr.got)
            assert pr.got[0][1] == (host, port, flowinfo, scope_id)
            for addr in (
                (host, port),
                (host, port, 0),
                (host, port, 0, 0),
                (host, port, 0, socket.if_nametoindex("lo")),
                ("0:0:0:0:0:0:0:1", port, 0, 0),
            ):
                tr.sendto(b"y", addr)
                assert peer.recv(9) == b"y", addr
            assert pr.errors == []
            # As getaddrinfo(3): the name of an interface is for link-local ones.
            tr.sendto(b"z", ("::1%lo", port))
            assert [type(exc) for exc in pr.errors] == [socket.gaierror]

    loop.run_until_complete(main())


def test_names_are_resolved(loop):
    async def main():
        async with endpoint() as (tr, pr, peer):
            port = peer.getsockname()[1]
            for _ in range(2):
                tr.sendto(b"named", ("localhost", port))
                assert peer.recv(9) == b"named"
            pr.on_datagram = lambda data: tr.sendto(data, ("localhost", port))
            peer.send(b"1")
            peer.send(b"2")
            await until(lambda: len(pr.got) == 2)
            assert [peer.recv(9), peer.recv(9)] == [b"1", b"2"]

    loop.run_until_complete(main())


def test_remote_address(loop):
    async def main():
        with bound_socket() as peer:
            address = peer.getsockname()
            tr, pr = await loop.create_datagram_endpoint(Recorder, remote_addr=address)
            assert tr.get_extra_info("peername") == address
            tr.sendto(b"a")
            tr.sendto(b"b", address)
            tr.sendto(b"c", (address[0], address[1]))
            tr.sendto(b"d", None)
            assert [peer.recv(9) for _ in range(4)] == [b"a", b"b", b"c", b"d"]
            # Only the peer is heard.
            with bound_socket() as stranger:
                where = tr.get_extra_info("sockname")
                stranger.sendto(b"no", where)
                peer.sendto(b"yes", where)
                await until(lambda: pr.got)
                assert pr.got == [(b"yes", address)]
            tr.close()
            await pr.lost

    loop.run_until_complete(main())


def test_echo_in_batches_keeps_order(loop):
    async def main():
        async with endpoint() as (tr, pr, peer):
            pr.on_datagram = lambda data: tr.sendto(*pr.got[-1])
            for start in range(0, 400, 50):
                sent = [b"%d" % i for i in range(start, start + 50)]
                for data in sent:
                    peer.send(data)
                await until(lambda end=start + 50: len(pr.got) == end)
                assert [peer.recv(9) for _ in sent] == sent

    loop.run_until_complete(main())


@pytest.mark.parametrize("family", FAMILIES)
def test_many_peers_are_told_apart(loop, family):
    """More than a table of addresses holds at first, in every order."""

    async def main():
        async with endpoint(family) as (tr, pr, _), AsyncExitStack() as stack:
            pr.on_datagram = lambda data: tr.sendto(*pr.got[-1])
            peers = [stack.enter_context(bound_socket(family)) for _ in range(150)]
            for sock in peers:
                sock.connect(tr.get_extra_info("sockname"))
            for order in (peers, peers[::-1], peers[::3], [peers[7]] * 5 + peers):
                for start in range(0, len(order), 50):
                    some = order[start : start + 50]
                    before = len(pr.got)
                    for i, sock in enumerate(some):
                        sock.send(b"%d" % i)
                    expected = before + len(some)
                    await until(lambda n=expected: len(pr.got) == n)
                    assert [addr for _, addr in pr.got[before:]] == [
                        sock.getsockname() for sock in some
                    ]
                    for i, sock in enumerate(some):
                        assert sock.recv(9) == b"%d" % i

    loop.run_until_complete(main())


def test_one_peer_has_one_address_object(loop_kind, loop):
    """Its tuple is made once: what is received costs no new one."""
    if loop_kind != "speedups":
        pytest.skip("asyncio makes a tuple for each datagram")

    async def main():
        async with endpoint() as (tr, pr, peer), AsyncExitStack() as stack:
            others = [stack.enter_context(bound_socket()) for _ in range(3)]
            for sock in [peer, *others] * 4:
                sock.sendto(b"x", tr.get_extra_info("sockname"))
            await until(lambda: len(pr.got) == 16)
            assert len({id(addr) for _, addr in pr.got}) == 4
            assert len({addr for _, addr in pr.got}) == 4

    loop.run_until_complete(main())


def test_datagrams_that_were_kept_stay_as_they_are(loop):
    async def main():
        async with endpoint() as (tr, pr, peer):
            for size in (10, 2000):
                pr.got.clear()
                for i in range(100):
                    peer.send(bytes([i]) * size)
                    if i % 10 == 9:
                        await until(lambda n=i + 1: len(pr.got) == n)
                assert [data for data, _ in pr.got] == [
                    bytes([i]) * size for i in range(100)
                ]
                assert len({hash(data) for data, _ in pr.got}) == 100

    loop.run_until_complete(main())


def test_a_buffer_may_change_after_sendto(loop):
    async def main():
        async with endpoint() as (tr, pr, peer):
            data = bytearray(b"abc")

            def send(_):
                for char in b"xyz":
                    data[0] = char
                    tr.sendto(data, pr.got[-1][1])
                data[:] = b"changed"

            pr.on_datagram = send
            peer.send(b"go")
            await until(lambda: pr.got)
            assert [peer.recv(9) for _ in range(3)] == [b"xbc", b"ybc", b"zbc"]

    loop.run_until_complete(main())


def test_sends_of_a_callback_go_to_their_addresses(loop):
    async def main():
        async with endpoint() as (tr, pr, peer):
            with bound_socket() as a, bound_socket() as b:
                names = [a.getsockname(), list(b.getsockname())]

                def send(_):
                    for i in range(100):
                        tr.sendto(b"%d" % i, tuple(names[i % 2]))

                pr.on_datagram = send
                peer.send(b"go")
                await until(lambda: pr.got)
                for i in range(100):
                    assert (a, b)[i % 2].recv(9) == b"%d" % i

    loop.run_until_complete(main())


def test_sent_from_connection_made_and_lost(loop):
    async def main():
        with bound_socket() as peer:
            name = peer.getsockname()

            class Greeter(Recorder):
                def on_made(self, transport):
                    transport.sendto(b"hello", name)

                def on_lost(self, exc):
                    self.transport.sendto(b"bye", name)

            async with endpoint(factory=Greeter):
                pass
            assert [peer.recv(9), peer.recv(9)] == [b"hello", b"bye"]

    loop.run_until_complete(main())

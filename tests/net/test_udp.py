"""Datagram transports: the same behaviour on asyncio's loop and on ours."""

import asyncio
import os
import socket

import pytest


@pytest.fixture(params=["speedups", "asyncio"])
def loop_kind(request):
    return request.param


class Recorder(asyncio.DatagramProtocol):
    """Notes every callback in order."""

    def __init__(self):
        self.got = []
        self.errors = []
        self.lost = asyncio.get_running_loop().create_future()
        self.on_datagram = None

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        assert type(data) is bytes
        self.got.append((data, addr))
        if self.on_datagram is not None:
            self.on_datagram(data)

    def error_received(self, exc):
        self.errors.append(exc)

    def connection_lost(self, exc):
        assert not self.lost.done(), "connection_lost twice"
        self.lost.set_result(exc)


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def endpoint(**kwargs):
    """A transport with its protocol, and a plain socket that knows its address."""
    loop = asyncio.get_running_loop()
    tr, pr = await loop.create_datagram_endpoint(
        Recorder, local_addr=("127.0.0.1", 0), **kwargs
    )
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.settimeout(10)
    peer.bind(("127.0.0.1", 0))
    peer.connect(tr.get_extra_info("sockname"))
    return tr, pr, peer


def close(tr, pr):
    tr.close()
    tr.close()
    return pr.lost


@pytest.mark.parametrize("data", [b"x", bytearray(b"yy"), memoryview(b"azz")[1:]])
def test_round_trip(loop, data):
    async def main():
        tr, pr, peer = await endpoint()
        with peer:
            if type(tr).__module__.startswith("aiozmq"):
                assert isinstance(tr, asyncio.DatagramTransport)
            peer.send(b"hello")
            peer.send(b"")
            await until(lambda: len(pr.got) == 2)
            assert pr.got == [(d, peer.getsockname()) for d in (b"hello", b"")]
            tr.sendto(data, peer.getsockname())
            assert peer.recv(10) == bytes(data)
            assert await close(tr, pr) is None

    loop.run_until_complete(main())


def test_remote_address(loop):
    async def main():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.1", 0))
            peer.settimeout(10)
            address = peer.getsockname()
            tr, pr = await loop.create_datagram_endpoint(Recorder, remote_addr=address)
            assert tr.get_extra_info("peername") == address
            tr.sendto(b"a")
            tr.sendto(b"b", address)
            tr.sendto(b"c", (address[0], address[1]))
            assert [peer.recv(9) for _ in range(3)] == [b"a", b"b", b"c"]
            with pytest.raises(ValueError, match="Invalid address: must be None or"):
                tr.sendto(b"d", ("127.0.0.1", 1))
            with pytest.raises(TypeError, match="bytes-like object, not 'str'"):
                tr.sendto("text")
            await close(tr, pr)

    loop.run_until_complete(main())


def test_errors_reach_the_protocol(loop):
    async def main():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
            gone.bind(("127.0.0.1", 0))
            address = gone.getsockname()
        tr, pr = await loop.create_datagram_endpoint(Recorder, remote_addr=address)
        tr.sendto(b"nobody")
        await until(lambda: pr.errors)
        assert isinstance(pr.errors[0], ConnectionRefusedError)
        tr.sendto(bytes(100_000))
        await until(lambda: any(e.errno == 90 for e in pr.errors))
        assert not tr.is_closing()
        await close(tr, pr)

    loop.run_until_complete(main())


def test_a_pause_within_a_burst_loses_nothing(loop):
    async def main():
        tr, pr, peer = await endpoint()

        def pause(data):
            tr.pause_reading()
            loop.call_soon(tr.resume_reading)

        pr.on_datagram = pause
        with peer:
            for i in range(100):
                peer.send(b"%d" % i)
            await until(lambda: len(pr.got) == 100)
            assert [d for d, _ in pr.got] == [b"%d" % i for i in range(100)]
            await close(tr, pr)

    loop.run_until_complete(main())


@pytest.mark.parametrize("how", ["close", "abort"])
def test_nothing_comes_after_the_end(loop, how):
    async def main():
        tr, pr, peer = await endpoint()
        pr.on_datagram = lambda data: len(pr.got) == 30 and getattr(tr, how)()
        with peer:
            for i in range(100):
                peer.send(b"%d" % i)
            assert await pr.lost is None
            assert len(pr.got) == 30

    loop.run_until_complete(main())


def test_raising_callbacks_are_reported(loop):
    async def main():
        tr, pr, peer = await endpoint()
        reports = []
        loop.set_exception_handler(lambda _, context: reports.append(context))

        def fail(data):
            raise ValueError(data)

        pr.on_datagram = fail
        with peer:
            for _ in range(40):
                peer.send(b"x")
            await until(lambda: len(pr.got) == 40)
            assert [type(r["exception"]) for r in reports] == [ValueError] * 40
            assert not tr.is_closing()
            await close(tr, pr)

    loop.run_until_complete(main())


def test_unix_paths_and_abstract_names(loop, tmp_path):
    async def main():
        path = os.fspath(tmp_path / "s")
        tr, pr = await loop.create_datagram_endpoint(
            Recorder, local_addr=path, family=socket.AF_UNIX
        )
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
            peer.settimeout(10)
            peer.bind(f"\0{os.urandom(8).hex()}")
            big = os.urandom(150_000)
            for n, data in enumerate((big, b"", b"z"), 1):
                peer.sendto(data, path)
                await until(lambda n=n: len(pr.got) == n)
            assert pr.got == [(d, peer.getsockname()) for d in (big, b"", b"z")]
            tr.sendto(b"back", peer.getsockname())
            assert peer.recv(10) == b"back"
        await close(tr, pr)

    loop.run_until_complete(main())


def test_echo_in_batches_keeps_order(loop):
    async def main():
        tr, pr, peer = await endpoint()
        pr.on_datagram = lambda data: tr.sendto(*pr.got[-1])
        with peer:
            for start in range(0, 400, 50):
                sent = [b"%d" % i for i in range(start, start + 50)]
                for data in sent:
                    peer.send(data)
                await until(lambda end=start + 50: len(pr.got) == end)
                assert [peer.recv(9) for _ in sent] == sent
            await close(tr, pr)

    loop.run_until_complete(main())

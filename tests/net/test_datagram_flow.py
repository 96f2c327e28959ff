"""Flow control of datagram transports, both ways, and one's fair share of a turn."""

import asyncio
import errno
import socket

import pytest
from datagrams import (
    ALL_FAMILIES,
    HEADER,
    Recorder,
    bound_socket,
    can_pause,
    endpoint,
    fill,
    is_ours,
)
from waiting import until

pytestmark = pytest.mark.loops("speedups", "asyncio")

__all__ = ["can_pause"]


def drain(sock):
    """What is there to receive now."""
    sock.setblocking(False)
    got = []
    try:
        while True:
            got.append(sock.recv(1 << 16))
    except BlockingIOError:
        return got


# ---- output


def test_water_marks(loop):
    async def main():
        async with endpoint() as (tr, _, _peer):
            assert tr.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
            for kwargs, limits in (
                ({"high": 100}, (25, 100)),
                ({"low": 10}, (10, 40)),
                ({"high": 7, "low": 7}, (7, 7)),
                ({"high": 0}, (0, 0)),
                ({}, (16 * 1024, 64 * 1024)),
            ):
                tr.set_write_buffer_limits(**kwargs)
                assert tr.get_write_buffer_limits() == limits
            for kwargs in {"high": 1, "low": 2}, {"high": -1}, {"low": -1}:
                with pytest.raises(ValueError, match="must be >= "):
                    tr.set_write_buffer_limits(**kwargs)

    loop.run_until_complete(main())


def test_the_buffer_counts_headers(loop):
    async def main():
        async with endpoint("abstract") as (tr, pr, peer):
            name = peer.getsockname()
            fill(tr, b"x" * 100, name)
            assert tr.get_write_buffer_size() == 100 + HEADER
            tr.sendto(b"y" * 50, name)
            tr.sendto(b"z", name)
            assert tr.get_write_buffer_size() == 151 + 3 * HEADER
            got = drain(peer)
            await until(lambda: not tr.get_write_buffer_size() or not is_ours(tr))
            await until(lambda: len(got.extend(drain(peer)) or got) and got[-1] == b"z")
            assert got[-3:] == [b"x" * 100, b"y" * 50, b"z"]
            assert pr.calls == ["made"]

    loop.run_until_complete(main())


def test_empty_datagrams_count_their_headers(loop):
    if not HEADER:
        pytest.skip("they are not sent before Python 3.13")

    async def main():
        async with endpoint("abstract") as (tr, _, peer):
            name = peer.getsockname()
            fill(tr, b"x" * 100, name)
            for _ in range(10):
                tr.sendto(b"", name)
            assert tr.get_write_buffer_size() == 100 + 11 * HEADER
            got = drain(peer)
            await until(lambda: len(got.extend(drain(peer)) or got) and got[-1] == b"")
            await until(lambda: got.extend(drain(peer)) or got[-10:] == [b""] * 10)

    loop.run_until_complete(main())


def test_pause_and_resume_writing(loop):
    async def main():
        async with endpoint("abstract") as (tr, pr, peer):
            name = peer.getsockname()
            tr.set_write_buffer_limits(high=2000, low=500)
            count = fill(tr, b"x" * 400, name)
            while "pause" not in pr.calls:
                assert tr.get_write_buffer_size() <= 2000
                tr.sendto(b"x" * 400, name)
                count += 1
            assert tr.get_write_buffer_size() > 2000
            tr.sendto(b"x" * 400, name)  # no second pause
            count += 1
            got = []
            await until(lambda: got.extend(drain(peer)) or "resume" in pr.calls)
            assert pr.calls == ["made", "pause", "resume"]
            await until(lambda: got.extend(drain(peer)) or len(got) == count)
            # It can be paused again.
            count = fill(tr, b"x" * 400, name)
            while pr.calls.count("pause") < 2:
                tr.sendto(b"x" * 400, name)
            await until(lambda: drain(peer) is None or pr.calls.count("resume") == 2)

    loop.run_until_complete(main())


def test_lowering_the_mark_pauses(loop):
    async def main():
        async with endpoint("abstract") as (tr, pr, peer):
            fill(tr, b"x" * 400, peer.getsockname())
            assert pr.calls == ["made"]
            tr.set_write_buffer_limits(high=100)
            assert pr.calls == ["made", "pause"]
            await until(lambda: drain(peer) is None or "resume" in pr.calls)

    loop.run_until_complete(main())


def test_what_a_callback_sent_is_no_backlog(loop):
    """No pause where the kernel takes it all."""

    async def main():
        async with endpoint() as (tr, pr, peer):
            sizes = []

            def send(_):
                for i in range(200):
                    tr.sendto(bytes(1000), pr.got[-1][1])
                    if i % 50 == 0:
                        sizes.append(tr.get_write_buffer_size())

            tr.set_write_buffer_limits(high=3000)
            pr.on_datagram = send
            peer.send(b"go")
            await until(lambda: pr.got)
            assert sizes == [0] * 4
            assert pr.calls == ["made", "datagram"]

    loop.run_until_complete(main())


def test_a_backlog_of_a_callback_pauses(loop):
    async def main():
        async with endpoint("abstract") as (tr, pr, peer):
            tr.set_write_buffer_limits(high=3000, low=1000)
            count = 0

            def send(_):
                nonlocal count
                while "pause" not in pr.calls and count < 5000:
                    tr.sendto(b"%04d" % count * 100, pr.got[0][1])
                    count += 1
                    tr.get_write_buffer_size()

            pr.on_datagram = send
            peer.send(b"go")
            await until(lambda: "pause" in pr.calls)
            assert tr.get_write_buffer_size() > 3000
            got = []
            await until(lambda: got.extend(drain(peer)) or len(got) == count)
            assert got == [b"%04d" % i * 100 for i in range(count)]
            assert pr.calls[-1] == "resume"

    loop.run_until_complete(main())


def test_sending_from_pause_and_resume_writing(loop):
    async def main():
        async with endpoint("abstract") as (tr, pr, peer):
            name = peer.getsockname()
            tr.set_write_buffer_limits(high=2000, low=500)
            pr.on_pause = lambda: tr.sendto(b"from pause", name)
            pr.on_resume = lambda: tr.sendto(b"from resume", name)
            count = fill(tr, b"x" * 400, name)
            while "pause" not in pr.calls:
                tr.sendto(b"x" * 400, name)
                count += 1
            got = []
            await until(lambda: got.extend(drain(peer)) or len(got) == count + 2)
            assert got.count(b"from pause") == 1
            assert got[-1] == b"from resume"

    loop.run_until_complete(main())


@pytest.mark.parametrize("how", ["close", "abort"])
def test_the_end_with_a_backlog(loop, how):
    """close() sends it first; abort() drops it."""

    async def main():
        async with endpoint("abstract") as (tr, pr, peer):
            name = peer.getsockname()
            count = fill(tr, b"x" * 400, name)
            for i in range(5):
                tr.sendto(b"%d" % i, name)
            getattr(tr, how)()
            assert tr.is_closing()
            if how == "abort":
                if is_ours(tr):  # asyncio's size stays as it was
                    assert tr.get_write_buffer_size() == 0
                await asyncio.shield(pr.lost)
                assert len(drain(peer)) == count - 1
            else:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                assert not pr.lost.done()
                got = []
                await until(lambda: got.extend(drain(peer)) or pr.lost.done())
                got.extend(drain(peer))
                assert got[-5:] == [b"0", b"1", b"2", b"3", b"4"]
            assert pr.lost.result() is None
            assert pr.calls == ["made", "lost"]

    loop.run_until_complete(main())


# ---- input


def test_a_pause_within_a_burst_loses_nothing(loop):
    async def main():
        async with endpoint() as (tr, pr, peer):

            def pause(data):
                tr.pause_reading()
                tr.pause_reading()
                loop.call_soon(tr.resume_reading)

            pr.on_datagram = pause
            for i in range(100):
                peer.send(b"%d" % i)
            await until(lambda: len(pr.got) == 100)
            assert [d for d, _ in pr.got] == [b"%d" % i for i in range(100)]

    loop.run_until_complete(main())


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_paused_reading(loop, can_pause, tmp_path, family):
    async def main():
        async with endpoint(family, tmp_path=tmp_path) as (tr, pr, peer):
            tr.pause_reading()
            assert not tr.is_reading()
            for i in range(5):
                peer.send(b"%d" % i)
            for _ in range(5):
                await asyncio.sleep(0)
            assert pr.got == []
            tr.resume_reading()
            assert tr.is_reading()
            tr.resume_reading()
            await until(lambda: len(pr.got) == 5)
            assert [data for data, _ in pr.got] == [b"%d" % i for i in range(5)]

    loop.run_until_complete(main())


def test_paused_from_connection_made(loop, can_pause):
    async def main():
        class Paused(Recorder):
            def on_made(self, transport):
                transport.pause_reading()

        async with endpoint(factory=Paused) as (tr, pr, peer):
            peer.send(b"x")
            for _ in range(5):
                await asyncio.sleep(0)
            assert pr.got == []
            tr.resume_reading()
            await until(lambda: pr.got)

    loop.run_until_complete(main())


def test_paused_with_a_burst_half_delivered(loop, can_pause):
    """The rest waits in the socket."""

    async def main():
        async with endpoint() as (tr, pr, peer):
            pr.on_datagram = lambda data: len(pr.got) == 57 and tr.pause_reading()
            for i in range(100):
                peer.send(b"%d" % i)
            await until(lambda: len(pr.got) == 57)
            for _ in range(10):
                await asyncio.sleep(0)
            assert len(pr.got) == 57
            for i in range(100, 120):  # nothing overtakes what is there
                peer.send(b"%d" % i)
            tr.resume_reading()
            tr.pause_reading()
            for _ in range(10):
                await asyncio.sleep(0)
            assert len(pr.got) == 57
            tr.resume_reading()
            await until(lambda: len(pr.got) == 120)
            assert [d for d, _ in pr.got] == [b"%d" % i for i in range(120)]

    loop.run_until_complete(main())


@pytest.mark.parametrize("how", ["pause_reading", "close", "abort"])
def test_what_is_not_delivered_is_still_in_the_socket(loop, can_pause, how):
    """Whoever shares it, by a duplicate or a fork, finds it there."""

    async def main():
        async with endpoint() as (tr, pr, peer):
            for _ in range(20):  # it gets used to bursts
                for i in range(50):
                    peer.send(b"%d" % i)
                await until(lambda: len(pr.got) == 50)
                pr.got.clear()
            with tr.get_extra_info("socket").dup() as shared:
                pr.on_datagram = lambda data: data == b"20" and getattr(tr, how)()
                for i in range(50):
                    peer.send(b"%d" % i)
                await until(lambda: len(pr.got) == 21)
                await asyncio.sleep(0)
                assert len(pr.got) == 21
                assert drain(shared) == [b"%d" % i for i in range(21, 50)]

    loop.run_until_complete(main())


# ---- fairness


def test_a_flood_starves_nobody(loop):
    """Datagrams without end: timers, other transports and callbacks have their turn."""

    async def main():
        async with endpoint() as (tr, pr, peer), endpoint() as (_, other_pr, other):
            a, b = socket.socketpair()
            with a, b:
                a.setblocking(False)
                seen = []

                def again(data):
                    # There is always more than one batch to receive.
                    for _ in range(2):
                        try:
                            peer.send(data, socket.MSG_DONTWAIT)
                        except OSError as exc:
                            assert exc.errno in (errno.EAGAIN, errno.ENOBUFS)

                pr.on_datagram = again
                for _ in range(50):
                    peer.send(b"flood" * 20)
                await until(lambda: len(pr.got) > 100)
                loop.call_later(0.001, seen.append, "timer")
                loop.call_soon(seen.append, "soon")
                loop.call_soon_threadsafe(seen.append, "threadsafe")
                loop.add_reader(a, lambda: (seen.append("reader"), a.recv(9)))
                b.send(b"x")
                other.send(b"x")
                await until(lambda: len(seen) == 4 and other_pr.got)
                loop.remove_reader(a)
                # The flood went on all the time.
                count = len(pr.got)
                await until(lambda: len(pr.got) > count)
                pr.on_datagram = None

    loop.run_until_complete(main())


async def _make():
    loop = asyncio.get_running_loop()
    return await loop.create_datagram_endpoint(Recorder, local_addr=("127.0.0.1", 0))


async def _close(tr, pr):
    tr.close()
    await pr.lost


def test_one_turn_delivers_a_share(loop):
    """A batch at most; the rest comes in later turns."""
    tr, pr = loop.run_until_complete(_make())
    with bound_socket() as peer:
        peer.connect(tr.get_extra_info("sockname"))
        sent = 0
        for _ in range(5):
            for _ in range(50):  # what the kernel's buffer holds
                peer.send(b"x" * 1000)
            sent += 50
            while len(pr.got) < sent:
                before = len(pr.got)
                loop.call_soon(loop.stop)
                loop.run_forever()
                assert len(pr.got) - before <= 32
    loop.run_until_complete(_close(tr, pr))


def test_a_loop_that_is_stopped_within_a_batch(loop):
    """stop() ends the turn; what was received is delivered when the loop goes on."""

    tr, pr = loop.run_until_complete(_make())
    with bound_socket() as peer:
        peer.connect(tr.get_extra_info("sockname"))
        pr.on_datagram = lambda data: loop.stop()
        for i in range(40):
            peer.send(b"%d" % i)
        for n in range(1, 41):
            loop.run_forever()
            assert len(pr.got) == n
        assert [data for data, _ in pr.got] == [b"%d" % i for i in range(40)]
    loop.run_until_complete(_close(tr, pr))

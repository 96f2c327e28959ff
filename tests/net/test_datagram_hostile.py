"""Callbacks of datagram transports that do what no callback should."""

import asyncio
import gc
import socket
import sys
import weakref

import pytest
from datagrams import (
    ASYNCIO_PAUSES,
    Recorder,
    backlog,
    bound_socket,
    endpoint,
    fill,
    is_ours,
    refusing_socket,
)
from waiting import until

pytestmark = pytest.mark.loops("speedups", "asyncio")


# ---- datagram_received


@pytest.mark.parametrize("how", ["close", "abort"])
def test_nothing_comes_after_the_end(loop, how):
    async def main():
        async with endpoint() as (tr, pr, peer):
            pr.on_datagram = lambda data: len(pr.got) == 30 and getattr(tr, how)()
            for i in range(50):
                peer.send(b"%d" % i)
            assert await asyncio.shield(pr.lost) is None
            assert len(pr.got) == 30

    loop.run_until_complete(main())


@pytest.mark.parametrize("how", ["close", "abort"])
def test_what_was_sent_before_the_end_goes_out(loop, how):
    async def main():
        async with endpoint() as (tr, pr, peer):

            def send(data):
                for i in range(40):
                    tr.sendto(b"%d" % i, pr.got[0][1])
                getattr(tr, how)()
                tr.sendto(b"after the end", pr.got[0][1])

            pr.on_datagram = send
            peer.send(b"go")
            await asyncio.shield(pr.lost)
            assert [peer.recv(9) for _ in range(40)] == [b"%d" % i for i in range(40)]

    loop.run_until_complete(main())


def test_raising_callbacks_are_reported(loop, contexts):
    async def main():
        async with endpoint() as (tr, pr, peer):

            def fail(data):
                raise ValueError(data)

            pr.on_datagram = fail
            for _ in range(40):
                peer.send(b"x")
            await until(lambda: len(pr.got) == 40)
            assert [type(c["exception"]) for c in contexts] == [ValueError] * 40
            assert not tr.is_closing()

    loop.run_until_complete(main())


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("callback", ["on_datagram", "on_error"])
def test_what_leaves_the_loop(loop, error, callback):
    """The transport goes on where it was when the loop runs again."""

    async def make():
        return await loop.create_datagram_endpoint(
            Recorder, local_addr=("127.0.0.1", 0), remote_addr=name
        )

    async def wait(condition):
        await until(condition)

    async def end():
        tr.close()
        await pr.lost

    with bound_socket() as peer:
        name = peer.getsockname()
        tr, pr = loop.run_until_complete(make())

        def leave(*_):
            tr.sendto(b"sent before")
            if len(pr.calls) < 5:
                raise error

        setattr(pr, callback, leave)
        peer.connect(tr.get_extra_info("sockname"))
        if callback == "on_error":
            peer.close()
            tr.sendto(b"x")
        else:
            for _ in range(3):
                peer.send(b"x")
        for n in range(2, 5):
            if callback == "on_error" and n > 2:
                break
            with pytest.raises(error):
                loop.run_until_complete(wait(lambda: False))
            assert len(pr.calls) >= n
        setattr(pr, callback, None)
        if callback == "on_datagram":
            assert [peer.recv(99) for _ in range(3)] == [b"sent before"] * 3
        loop.run_until_complete(end())
    gc.collect()  # the tasks that never ended


def test_the_protocol_is_changed_within_a_batch(loop):
    async def main():
        async with endpoint() as (tr, pr, peer):
            second = Recorder()
            pr.on_datagram = lambda data: len(pr.got) == 7 and tr.set_protocol(second)
            for i in range(30):
                peer.send(b"%d" % i)
            await until(lambda: len(second.got) == 23)
            assert [data for data, _ in pr.got + second.got] == [
                b"%d" % i for i in range(30)
            ]
            assert tr.get_protocol() is second
            tr.close()
            await second.lost
            pr.lost.set_result(None)

    loop.run_until_complete(main())


def test_a_protocol_that_is_none(loop, contexts):
    async def main():
        async with endpoint() as (tr, pr, peer):
            pr.on_datagram = lambda data: tr.set_protocol(None)
            for _ in range(5):
                peer.send(b"x")
            await until(lambda: len(contexts) >= 4)
            assert {type(c["exception"]) for c in contexts} == {AttributeError}
            tr.set_protocol(pr)
            assert tr.get_protocol() is pr

    loop.run_until_complete(main())


def test_a_protocol_without_methods(loop_kind, loop, contexts):
    """Each call that it cannot take is reported; closing works."""
    if loop_kind == "asyncio":
        pytest.skip("create_datagram_endpoint() fails without connection_made()")

    async def main():
        tr, pr = await loop.create_datagram_endpoint(
            object, local_addr=("127.0.0.1", 0)
        )
        assert type(pr) is object
        with bound_socket() as peer:
            for _ in range(3):
                peer.sendto(b"x", tr.get_extra_info("sockname"))
            await until(lambda: len(contexts) == 4)
        tr.close()
        await until(lambda: len(contexts) == 5)
        assert {type(c["exception"]) for c in contexts} == {AttributeError}
        names = [str(c["exception"]).split("'")[-2] for c in contexts]
        assert names == ["connection_made", *["datagram_received"] * 3] + [
            "connection_lost"
        ]

    loop.run_until_complete(main())


def test_methods_that_change_between_datagrams(loop):
    """Looked up for each datagram, as asyncio does: on the object, too."""

    async def main():
        async with endpoint() as (tr, pr, peer):
            seen = []
            pr.datagram_received = lambda data, addr: seen.append(data)
            peer.send(b"object")
            await until(lambda: seen)
            del pr.datagram_received
            peer.send(b"class")
            await until(lambda: pr.got)
            assert seen == [b"object"]
            del tr

    loop.run_until_complete(main())


def test_the_last_reference_is_dropped(loop):
    """The protocol and its transport are garbage but for the callback that runs."""

    async def main():
        tr, pr = await loop.create_datagram_endpoint(
            Recorder, local_addr=("127.0.0.1", 0)
        )
        lost, where = pr.lost, tr.get_extra_info("sockname")
        got = []
        box = {"transport": tr, "protocol": pr}

        def drop(data):
            got.append(data)
            transport = box.pop("transport", None)
            if transport is not None:
                transport.sendto(data, name)
                transport.set_protocol(Recorder())
                transport.abort()
                box.clear()
                del transport
                gc.collect()

        pr.on_datagram = drop
        dead = weakref.ref(pr)
        del tr, pr
        with bound_socket() as peer:
            name = peer.getsockname()
            for _ in range(30):
                peer.sendto(b"x", where)
            await until(lambda: dead() is None)
            assert peer.recv(9) == b"x"
        assert got == [b"x"]
        assert not lost.done()

    loop.run_until_complete(main())


def test_datagrams_end_within_the_collector(loop):
    """A transport with datagrams in both queues is found by the collector."""

    async def main():
        async with endpoint("abstract") as (tr, pr, peer):
            tr.extra = tr
            pr.on_datagram = lambda data: tr.pause_reading()
            for _ in range(8):
                peer.send(b"x" * 10)
            await until(lambda: pr.got)
            fill(tr, b"x" * 1000, peer.getsockname())
            gc.collect()
            assert any(isinstance(x, bytes) for x in gc.get_referents(tr)) or (
                not is_ours(tr)
            )
            tr.abort()
            del tr.extra

    loop.run_until_complete(main())


def test_an_address_of_a_class_with_a_finaliser(loop):
    """What runs when a queued address goes may call the transport."""

    class Address(tuple):
        def __del__(self):
            tr.sendto(b"from __del__", name)
            tr.get_write_buffer_size()

    tr = name = None

    async def main():
        nonlocal tr, name
        async with endpoint() as (tr, pr, peer):
            name = peer.getsockname()

            def send(_):
                for _ in range(5):
                    tr.sendto(b"x", Address(name))

            pr.on_datagram = send
            peer.send(b"go")
            await until(lambda: pr.got)
            for _ in range(3):
                send(None)
            got = [peer.recv(99) for _ in range(30)]
            assert sorted(set(got)) == [b"from __del__", b"x"]
            send(None)
            tr.abort()
            tr = None

    loop.run_until_complete(main())


def test_the_transport_is_used_by_a_callback_of_another(loop):
    """One closes the other, whose datagrams are ready in the same turn."""

    async def main():
        async with endpoint() as (a, a_pr, a_peer), endpoint() as (b, b_pr, b_peer):
            a_pr.on_datagram = lambda data: b.abort()
            b_pr.on_datagram = lambda data: a.abort()
            for _ in range(20):
                a_peer.send(b"x")
                b_peer.send(b"x")
            await asyncio.wait(
                [asyncio.shield(a_pr.lost), asyncio.shield(b_pr.lost)],
                return_when=asyncio.FIRST_COMPLETED,
            )
            assert sorted([len(a_pr.got), len(b_pr.got)])[0] == 0

    loop.run_until_complete(main())


def test_the_socket_is_closed_behind_the_transport(loop, contexts):
    async def main():
        async with endpoint() as (tr, pr, peer):
            sock = tr.get_extra_info("socket")._sock

            def close(data):
                sock.close()
                tr.sendto(b"x", pr.got[0][1])
                tr.close()

            pr.on_datagram = close
            for _ in range(5):
                peer.send(b"x")
            await asyncio.shield(pr.lost)

    loop.run_until_complete(main())


def test_the_loop_is_entered_again(loop_kind, loop, contexts):
    if loop_kind == "asyncio" and sys.version_info >= (3, 13):
        pytest.skip("asyncio's clean-up runs, and no loop is running after it")

    async def main():
        async with endpoint() as (tr, pr, peer):

            def run(data):
                for call in loop.run_forever, lambda: loop.run_until_complete(never):
                    with pytest.raises(RuntimeError):
                        call()
                never.cancel()

            never = loop.create_future()
            pr.on_datagram = run
            peer.send(b"x")
            await until(lambda: pr.got)
            assert contexts == []
            del tr

    loop.run_until_complete(main())


# ---- error_received


@pytest.mark.parametrize(
    "what", ["close", "abort", "raise", "protocol", "send", "stop"]
)
def test_error_received(loop, contexts, what):
    """Inside sendto() and outside: the exception of one is the caller's."""

    async def main():
        async with endpoint() as (tr, pr, peer):
            name = peer.getsockname()
            second = Recorder()

            def on_error(exc):
                if what == "close":
                    tr.close()
                elif what == "abort":
                    tr.abort()
                elif what == "raise":
                    raise ZeroDivisionError
                elif what == "protocol":
                    tr.set_protocol(second if len(pr.errors) == 1 else pr)
                elif what == "send":
                    tr.sendto(b"after the error", name)

            def send(_=None):
                tr.sendto(bytes(65_508), name)
                tr.sendto(b"next", name)

            pr.on_error = on_error
            if what == "raise":
                with pytest.raises(ZeroDivisionError):
                    send()
                tr.sendto(b"next", name)
            else:
                send()
            if what in ("close", "abort"):
                await asyncio.shield(pr.lost)
                assert len(pr.errors) == 1
                return
            if what == "send":
                assert peer.recv(99) == b"after the error"
            assert peer.recv(99) == b"next"
            if what == "protocol":
                assert tr.get_protocol() is second
                tr.set_protocol(pr)
            pr.on_datagram = send
            peer.send(b"go")
            await until(lambda: len(pr.errors) == 2)
            if what == "raise":
                # asyncio's sendto() raised, so the next one was not made there.
                assert [type(c["exception"]) for c in contexts] == [ZeroDivisionError]
            else:
                got = [peer.recv(99) for _ in range(1 + (what == "send"))]
                assert sorted(got)[-1] == b"next"

    loop.run_until_complete(main())


def test_errors_that_beget_errors(loop, contexts):
    """Every answer to an error fails as well: the recursion ends, as asyncio's."""

    async def main():
        async with endpoint() as (tr, pr, peer):
            name = peer.getsockname()
            pr.on_error = lambda exc: tr.sendto(bytes(65_508), name)
            with pytest.raises(RecursionError):
                tr.sendto(bytes(65_508), name)
            assert len(pr.errors) > 10
            pr.on_error = None
            tr.sendto(b"alive", name)
            assert peer.recv(9) == b"alive"

    loop.run_until_complete(main())


def test_errors_that_beget_errors_within_a_callback(loop, contexts):
    async def main():
        async with endpoint() as (tr, pr, peer):
            name = peer.getsockname()
            turns = 0

            def again(exc):
                if len(pr.errors) < 200:
                    tr.sendto(bytes(65_508), name)

            def turn():
                nonlocal turns
                turns += 1

            pr.on_error = again
            pr.on_datagram = lambda data: tr.sendto(bytes(65_508), name)
            peer.send(b"go")
            await until(lambda: (turn(), len(pr.errors) >= 200)[1])
            del turns

    loop.run_until_complete(main())


def test_a_refused_peer_and_hostile_errors(loop, contexts):
    async def main(name):
        tr, pr = await loop.create_datagram_endpoint(Recorder, remote_addr=name)

        def on_error(exc):
            if len(pr.errors) < 3:
                tr.sendto(b"again")
                raise ZeroDivisionError
            tr.abort()
            tr.sendto(b"after the end")

        pr.on_error = on_error
        try:
            tr.sendto(b"x")
            while not pr.lost.done():
                try:
                    tr.sendto(b"x")
                except ZeroDivisionError:
                    pass
                await asyncio.sleep(0)
        except ZeroDivisionError:
            tr.abort()
        assert await pr.lost is None

    with refusing_socket() as sock:
        loop.run_until_complete(main(sock.getsockname()))


# ---- connection_made and connection_lost


@pytest.mark.parametrize("what", ["close", "abort", "raise", "protocol", "pause"])
def test_connection_made(loop, loop_kind, contexts, what):
    if what == "pause" and loop_kind == "asyncio" and not ASYNCIO_PAUSES:
        pytest.skip("asyncio's datagram transports of this Python cannot pause")

    async def main():
        seconds = []

        class Hostile(Recorder):
            def on_made(self, transport):
                if what in ("close", "abort"):
                    getattr(transport, what)()
                elif what == "raise":
                    raise ZeroDivisionError
                elif what == "protocol":
                    seconds.append(Recorder())
                    transport.set_protocol(seconds[0])
                else:
                    transport.pause_reading()

        tr, pr = await loop.create_datagram_endpoint(
            Hostile, local_addr=("127.0.0.1", 0)
        )
        with bound_socket() as peer:
            peer.sendto(b"x", tr.get_extra_info("sockname"))
            if what in ("close", "abort"):
                assert tr.is_closing()
                assert await pr.lost is None
                assert pr.calls == ["made", "lost"]
                return
            if what == "pause":
                tr.resume_reading()
            now = seconds[0] if seconds else pr
            await until(lambda: now.got)
            assert [type(c["exception"]) for c in contexts] == (
                [ZeroDivisionError] if what == "raise" else []
            )
        tr.close()
        await now.lost

    loop.run_until_complete(main())


@pytest.mark.parametrize("what", ["raise", "use", "drop"])
@pytest.mark.parametrize("how", ["close", "abort"])
def test_connection_lost(loop, contexts, what, how):
    async def main():
        async with endpoint() as (tr, pr, peer):
            box = [tr]

            def on_lost(exc):
                if what == "raise":
                    raise ZeroDivisionError
                if what == "use":
                    tr.close()
                    tr.abort()
                    tr.sendto(b"x", peer.getsockname())
                    tr.set_protocol(Recorder())
                    assert tr.is_closing()
                    tr.get_extra_info("socket")
                    tr.set_write_buffer_limits(high=1)
                    repr(tr)
                else:
                    box.clear()
                    pr.transport = None
                    gc.collect()

            pr.on_lost = on_lost
            getattr(tr, how)()
            if what == "drop":
                del tr
            assert await asyncio.shield(pr.lost) is None
            await asyncio.sleep(0)
            assert [type(c["exception"]) for c in contexts] == (
                [ZeroDivisionError] if what == "raise" else []
            )
            if what != "drop":
                assert tr.get_extra_info("nothing") is None
                for call in "close", "abort", "is_closing", "get_write_buffer_size":
                    getattr(tr, call)()

    loop.run_until_complete(main())


# ---- pause_writing and resume_writing


@pytest.mark.parametrize("what", ["close", "abort", "raise", "send", "limits"])
@pytest.mark.parametrize("inside", [False, True])
def test_pause_writing(loop, contexts, what, inside):
    async def main():
        async with endpoint("abstract") as (tr, pr, peer):
            name = peer.getsockname()
            tr.set_write_buffer_limits(high=2000, low=500)

            def on_pause():
                if what in ("close", "abort"):
                    getattr(tr, what)()
                elif what == "raise":
                    raise ZeroDivisionError
                elif what == "send":
                    tr.sendto(b"more", name)
                else:
                    tr.set_write_buffer_limits(high=1 << 20)

            def send(_=None):
                for _ in range(5000):
                    tr.sendto(b"x" * 400, name)
                    if "pause" in pr.calls:
                        break
                    tr.get_write_buffer_size()

            pr.on_pause = pr.on_resume = on_pause
            pr.on_datagram = send
            if inside:
                peer.send(b"go")
                await until(lambda: "pause" in pr.calls)
            else:
                send()
            assert pr.calls.count("pause") == 1
            if what in ("close", "abort"):
                assert tr.is_closing()
            peer.setblocking(False)

            def drained():
                try:
                    while True:
                        peer.recv(2000)
                except BlockingIOError:
                    return not backlog(tr) or pr.lost.done()

            await until(drained)
            if what == "raise":
                assert {c["message"] for c in contexts} <= {
                    "protocol.pause_writing() failed",
                    "protocol.resume_writing() failed",
                }
                assert len(contexts) >= 1
                assert contexts[0]["transport"] is tr

    loop.run_until_complete(main())


# ---- the end of the loop, and of transports that nobody closed


def test_a_transport_that_nobody_closed(loop_kind, loop):
    async def main():
        tr, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
        )
        return weakref.ref(tr), tr.get_extra_info("socket").fileno()

    dead, fd = loop.run_until_complete(main())
    assert dead() is not None  # the loop watches its socket
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        loop.close()
        gc.collect()
    assert dead() is None
    with pytest.raises(OSError):
        socket.socket(fileno=fd).getsockname()


def test_the_loop_is_closed_under_a_backlog(loop):
    async def main():
        with bound_socket("abstract") as peer:
            tr, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, sock=bound_socket("abstract")
            )
            fill(tr, b"x" * 1000, peer.getsockname())
            return tr

    tr = loop.run_until_complete(main())
    loop.close()
    assert " open " in repr(tr) or not is_ours(tr)
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        del tr
        gc.collect()


def test_sending_after_the_loop_has_closed(loop):
    """The socket is open still, until somebody collects the transport."""

    async def main():
        return await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, sock=bound_socket()
        )

    with bound_socket() as peer:
        with pytest.warns(ResourceWarning, match="unclosed transport"):
            tr, pr = loop.run_until_complete(main())
            loop.close()
            tr.sendto(b"x", peer.getsockname())
            assert peer.recv(9) == b"x"
            del tr, pr
            gc.collect()

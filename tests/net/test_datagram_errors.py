"""Errors of datagram transports: sendto()'s arguments, the kernel's, faults."""

import asyncio
import errno
import socket

import pytest
from datagrams import (
    FAMILIES,
    HEADER,
    Recorder,
    bound_socket,
    endpoint,
    refusing_socket,
)
from waiting import until

from aiozmq_speedups._ext import core

pytestmark = pytest.mark.loops("speedups", "asyncio")


# ---- what sendto() takes


@pytest.mark.parametrize(
    ("data", "name"),
    [("text", "str"), (None, "NoneType"), (7, "int"), ([b"x"], "list")],
)
def test_data_of_other_types(loop, data, name):
    async def main():
        async with endpoint() as (tr, _, peer):
            with pytest.raises(TypeError) as info:
                tr.sendto(data, peer.getsockname())
            assert str(info.value) == (
                f"data argument must be a bytes-like object, not '{name}'"
            )

    loop.run_until_complete(main())


def test_a_type_with_a_module(loop):
    class Odd:
        pass

    async def main():
        async with endpoint() as (tr, _, _peer):
            for data, name in (Odd(), "Odd"), (asyncio.Event(), "Event"):
                with pytest.raises(TypeError, match=f"object, not '{name}'$"):
                    tr.sendto(data)

    loop.run_until_complete(main())


def test_the_unix_address_without_a_name(loop):
    """Linux gives one to whoever binds to it: nothing can be sent there."""

    async def main():
        async with endpoint("abstract") as (tr, pr, _peer):
            for name in "", b"":
                tr.sendto(b"x", name)
            assert [exc.errno for exc in pr.errors] == [errno.EINVAL] * 2
            with socket.socket(socket.AF_UNIX) as sock:
                sock.setblocking(False)
                with pytest.raises(OSError) as caught:
                    await loop.sock_connect(sock, "")
                assert caught.value.errno == errno.EINVAL

    loop.run_until_complete(main())


def test_subclasses_of_the_types(loop):
    class Bytes(bytes):
        pass

    class Array(bytearray):
        pass

    async def main():
        async with endpoint() as (tr, _, peer):
            for data in Bytes(b"a"), Array(b"b"), memoryview(bytearray(b"c")):
                tr.sendto(data, peer.getsockname())
                assert peer.recv(9) == bytes(data)

    loop.run_until_complete(main())


def test_numbers_of_arguments(loop):
    async def main():
        async with endpoint() as (tr, _, peer):
            name = peer.getsockname()
            tr.sendto(addr=name, data=b"x")
            assert peer.recv(9) == b"x"
            for args, kwargs in (
                ((), {}),
                ((), {"addr": name}),
                ((b"x", name, 3), {}),
                ((b"x",), {"data": b"y"}),
                ((b"x",), {"address": name}),
            ):
                with pytest.raises(TypeError, match="argument"):
                    tr.sendto(*args, **kwargs)

    loop.run_until_complete(main())


def test_another_address_than_the_remote_one(loop):
    async def main():
        with bound_socket() as peer:
            name = peer.getsockname()
            tr, pr = await loop.create_datagram_endpoint(Recorder, remote_addr=name)
            for addr in ("127.0.0.1", 1), [*name], "x", 7, (), (name[0],):
                with pytest.raises(ValueError) as info:
                    tr.sendto(b"x", addr)
                assert str(info.value) == f"Invalid address: must be None or {name}"
            assert pr.errors == []
            tr.close()
            await pr.lost

    loop.run_until_complete(main())


class Raises:
    def __eq__(self, other):
        raise ZeroDivisionError

    __hash__ = None


def test_an_address_that_cannot_be_compared(loop):
    async def main():
        with bound_socket() as peer:
            tr, pr = await loop.create_datagram_endpoint(
                Recorder, remote_addr=peer.getsockname()
            )
            with pytest.raises(ZeroDivisionError):
                tr.sendto(b"x", Raises())
            tr.close()
            await pr.lost

    loop.run_until_complete(main())


@pytest.mark.parametrize(
    ("addr", "error"),
    [
        (None, "TypeError: sendto(): AF_INET address must be tuple, not NoneType"),
        ("x", "TypeError: sendto(): AF_INET address must be tuple, not str"),
        (["127.0.0.1", 1], "TypeError: sendto(): AF_INET address must be tuple, not"),
        (("127.0.0.1",), "TypeError: "),
        (("127.0.0.1", 1, 2), "TypeError: "),
        (("127.0.0.1", "1"), "TypeError: "),
        ((127, 1), "TypeError: "),
        (("127.0.0.1", -1), "OverflowError: sendto(): port must be 0-65535."),
        (("127.0.0.1", 65_536), "OverflowError: sendto(): port must be 0-65535."),
        (("127.0.0.1", 1 << 70), "OverflowError: "),
    ],
)
def test_an_address_the_socket_module_refuses(loop, addr, error):
    """As asyncio: it ends the transport."""
    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))

    async def main():
        async with endpoint() as (tr, pr, _):
            tr.sendto(b"x", addr)
            exc = await asyncio.shield(pr.lost)
            assert f"{type(exc).__name__}: {exc}".startswith(error)
            assert pr.calls == ["made", "lost"]
            (context,) = contexts
            assert context["message"] == "Fatal write error on datagram transport"
            assert context["exception"] is exc
            assert context["transport"] is tr and context["protocol"] is pr
            contexts.clear()

    loop.run_until_complete(main())


@pytest.mark.parametrize(
    "addr",
    # With a space no name server is asked, whose answers vary.
    [("no such host", 9), ("::1", 9), ("1.2.3.4.5", 9), ("", 9)],
)
def test_an_address_the_system_refuses(loop, addr):
    async def main():
        async with endpoint() as (tr, pr, _):
            try:
                with bound_socket() as sock:
                    sock.sendto(b"x", addr)
                    expected = None
            except OSError as exc:
                expected = (type(exc), exc.args)
            tr.sendto(b"x", addr)
            errors = [(type(exc), exc.args) for exc in pr.errors]
            assert errors == ([expected] if expected else [])
            assert not tr.is_closing()

    loop.run_until_complete(main())


def test_an_address_object_that_closes_the_transport(loop):
    async def main():
        async with endpoint() as (tr, pr, peer):
            port = peer.getsockname()[1]

            class Port(int):
                def __index__(self):
                    tr.abort()
                    return port

            tr.sendto(b"x", ("127.0.0.1", Port(port)))
            await asyncio.sleep(0)
        assert pr.lost.result() is None

    loop.run_until_complete(main())


def test_an_address_object_that_runs_the_loop_to_the_end(loop):
    """The transport is gone when the conversion comes back to it."""

    async def make():
        sock = bound_socket()
        return await loop.create_datagram_endpoint(Recorder, sock=sock)

    async def end():
        tr.close()
        await pr.lost

    loop.set_exception_handler(lambda *_: None)
    tr, pr = loop.run_until_complete(make())

    class Port(int):
        def __index__(self):
            loop.run_until_complete(end())
            return 9

    class Tuple(tuple):
        def __eq__(self, other):
            loop.run_until_complete(end())
            return False

        __hash__ = tuple.__hash__

    tr.sendto(b"x", ("localhost", Port(9)))
    if not pr.lost.done():
        loop.run_until_complete(end())


# ---- what the kernel says


@pytest.mark.parametrize("family", FAMILIES)
def test_nobody_listens(loop, family):
    """The ICMP answer of a connected socket is an error, which is no end."""

    async def main(sock):
        tr, pr = await loop.create_datagram_endpoint(
            Recorder, remote_addr=sock.getsockname()[:2]
        )
        for n in range(1, 4):
            tr.sendto(b"nobody")
            await until(lambda n=n: len(pr.errors) >= n)
        assert {type(exc) for exc in pr.errors} == {ConnectionRefusedError}
        assert {exc.errno for exc in pr.errors} == {errno.ECONNREFUSED}
        assert not tr.is_closing()
        # Somebody listens now, and the transport still works.
        sock.connect(tr.get_extra_info("sockname"))
        tr.sendto(b"x")
        tr.sendto(b"y")
        assert sock.recv(9) in (b"x", b"y")
        tr.close()
        assert await pr.lost is None

    with refusing_socket(family) as sock:
        loop.run_until_complete(main(sock))


def test_nobody_listens_to_what_callbacks_send(loop):
    async def main(name):
        tr, pr = await loop.create_datagram_endpoint(
            Recorder, local_addr=("127.0.0.1", 0), remote_addr=name
        )
        tries = 0

        def again(exc):
            nonlocal tries
            tries += 1
            if tries < 10:
                tr.sendto(b"again")
                tr.sendto(b"again")

        pr.on_error = again
        tr.sendto(b"first")
        await until(lambda: tries >= 10)
        assert {type(exc) for exc in pr.errors} == {ConnectionRefusedError}
        assert not tr.is_closing()
        tr.close()
        await pr.lost

    with refusing_socket() as sock:
        loop.run_until_complete(main(sock.getsockname()))


@pytest.mark.parametrize("inside", [False, True])
def test_a_datagram_too_large(loop, inside):
    """EMSGSIZE, for the one datagram alone."""

    async def main():
        async with endpoint() as (tr, pr, peer):

            def send(*args):
                for data in b"before", bytes(65_508), b"between", bytes(1 << 20), b"x":
                    tr.sendto(data, peer.getsockname())

            pr.on_datagram = send
            if inside:
                peer.send(b"go")
                await until(lambda: pr.got)
            else:
                send()
            assert [peer.recv(99) for _ in range(3)] == [b"before", b"between", b"x"]
            assert [exc.errno for exc in pr.errors] == [errno.EMSGSIZE] * 2
            assert str(pr.errors[0]) == "[Errno 90] Message too long"
            assert tr.get_write_buffer_size() == 0
            assert not tr.is_closing()

    loop.run_until_complete(main())


def test_nobody_at_a_unix_path(loop, tmp_path):
    async def main():
        async with endpoint("abstract") as (tr, pr, _):
            tr.sendto(b"x", str(tmp_path / "nothing"))
            tr.sendto(b"x", b"\0nobody-of-aiozmq-speedups")
            tr.sendto(b"x", "/" + "long" * 100)
            assert [type(exc) for exc in pr.errors] == [
                FileNotFoundError,
                ConnectionRefusedError,
                OSError,
            ]
            assert str(pr.errors[2]) == "AF_UNIX path too long"
            assert not tr.is_closing()

    loop.run_until_complete(main())


def test_a_peer_that_died_while_datagrams_wait_for_it(loop):
    """What the kernel would not take is then refused, one by one."""

    async def main():
        async with endpoint("abstract") as (tr, pr, peer):
            name = peer.getsockname()
            while tr.get_write_buffer_size() == 0:
                tr.sendto(b"x" * 1000, name)
            for _ in range(5):
                tr.sendto(b"x" * 1000, name)
            assert tr.get_write_buffer_size() >= 6000
            assert pr.errors == []
            peer.close()
            await until(lambda: tr.get_write_buffer_size() < 1000)
            await until(lambda: len(pr.errors) == 6)
            assert {type(exc) for exc in pr.errors} == {ConnectionRefusedError}

    loop.run_until_complete(main())


# ---- after the end


def test_sending_after_the_end(loop, caplog):
    """Without a remote address asyncio tries the socket, which is closed or gone."""

    async def main():
        with bound_socket() as peer:
            name = peer.getsockname()
            tr, pr = await loop.create_datagram_endpoint(Recorder, remote_addr=name)
            tr.close()
            await pr.lost
            for _ in range(8):
                tr.sendto(b"x")
            with pytest.raises(ValueError, match="Invalid address"):
                tr.sendto(b"x", ("127.0.0.1", 1))
            with pytest.raises(TypeError, match="bytes-like"):
                tr.sendto("x")
        assert pr.calls == ["made", "lost"]

    loop.run_until_complete(main())
    # What was left of another test may log, too.
    messages = [record.getMessage() for record in caplog.records]
    assert messages.count("socket.send() raised exception.") == 4
    caplog.clear()


# ---- faults of the system calls

needs_faults = pytest.mark.skipif(
    not hasattr(core, "_inject_fault"), reason="a debug build can make calls fail"
)


@pytest.fixture
def inject(loop_kind):
    if loop_kind != "speedups":
        pytest.skip("the faults are in our system calls")
    yield core._inject_fault
    core._inject_fault("", 0, 0)


@needs_faults
@pytest.mark.parametrize("call", ["sendto", "recvfrom"])
@pytest.mark.parametrize("code", [errno.EINTR, errno.EAGAIN])
def test_calls_that_are_tried_again(inject, loop, call, code):
    async def main():
        async with endpoint() as (tr, pr, peer):
            inject(call, code)
            peer.send(b"in")
            tr.sendto(b"out", peer.getsockname())
            if (call, code) == ("sendto", errno.EAGAIN):
                assert tr.get_write_buffer_size() == 3 + HEADER
            await until(lambda: pr.got and tr.get_write_buffer_size() == 0)
            assert peer.recv(9) == b"out"
            assert pr.errors == []

    loop.run_until_complete(main())


@needs_faults
@pytest.mark.parametrize("call", ["sendmmsg", "recvfrom"])
@pytest.mark.parametrize("code", [errno.EINTR, errno.EAGAIN, errno.ENOBUFS])
def test_batches_that_are_tried_again(inject, loop, call, code):
    """ENOBUFS is reported, once, and costs at most the first datagram."""

    async def main():
        async with endpoint() as (tr, pr, peer):
            sent = [b"%d" % i for i in range(40)]
            for data in sent:  # so that it receives in batches
                peer.send(data)
            await until(lambda: len(pr.got) == 40)
            name = peer.getsockname()
            tr.sendto(b"its address is known now", name)
            peer.recv(99)
            inject("sendto", errno.EAGAIN)  # so that it sends a batch
            for data in sent:
                tr.sendto(data, name)
                peer.send(data)
            inject(call, code)
            await until(lambda: len(pr.got) == 80)
            await until(lambda: tr.get_write_buffer_size() == 0)
            failed = code == errno.ENOBUFS
            lost = failed and call == "sendmmsg"
            assert [peer.recv(9) for _ in sent[lost:]] == sent[lost:]
            assert [data for data, _ in pr.got[40:]] == sent
            assert [exc.errno for exc in pr.errors] == [code] * failed

    loop.run_until_complete(main())


@needs_faults
@pytest.mark.parametrize("call", ["sendto", "recvfrom"])
@pytest.mark.parametrize("code", [errno.ENOBUFS, errno.ENOMEM, errno.ECONNRESET])
def test_errors_reach_the_protocol(inject, loop, call, code):
    async def main():
        async with endpoint() as (tr, pr, peer):
            inject(call, code)
            peer.send(b"in")
            tr.sendto(b"lost", peer.getsockname())
            tr.sendto(b"out", peer.getsockname())
            await until(lambda: pr.got and pr.errors)
            assert [exc.errno for exc in pr.errors] == [code]
            assert peer.recv(9) == (b"out" if call == "sendto" else b"lost")

    loop.run_until_complete(main())


@needs_faults
@pytest.mark.parametrize("callback", ["on_made", "on_datagram", "on_error"])
def test_a_full_buffer_within_a_callback(inject, loop, callback):
    """EAGAIN for what a callback sent: it goes out later, in order."""

    async def main():
        name = peer.getsockname()

        def send(*_):
            inject("sendto", errno.EAGAIN)
            for i in range(10):
                tr.sendto(b"%d" % i, name)

        def made(transport):
            nonlocal tr
            tr = transport
            if callback == "on_made":
                send()

        tr = None
        factory = type("Sender", (Recorder,), {"on_made": staticmethod(made)})
        tr, pr = await loop.create_datagram_endpoint(
            factory, local_addr=("127.0.0.1", 0)
        )
        if callback != "on_made":
            setattr(pr, callback, send)
            if callback == "on_error":
                inject("recvfrom", errno.ENOMEM)
            peer.sendto(b"go", tr.get_extra_info("sockname"))
        await until(lambda: pr.got or callback == "on_made")
        await until(lambda: tr.get_write_buffer_size() == 0)
        assert [peer.recv(9) for _ in range(10)] == [b"%d" % i for i in range(10)]
        tr.close()
        await pr.lost

    with bound_socket() as peer:
        loop.run_until_complete(main())


def test_errors_after_close_are_not_reported(loop):
    async def main(name):
        tr, pr = await loop.create_datagram_endpoint(Recorder, remote_addr=name)
        tr.sendto(b"x")
        tr.close()
        await pr.lost
        assert pr.calls in (["made", "lost"], ["made", "error", "lost"])

    with refusing_socket() as sock:
        loop.run_until_complete(main(sock.getsockname()))

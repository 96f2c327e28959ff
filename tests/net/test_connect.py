"""create_connection() to one numeric address, which is one operation in C here."""

import asyncio
import contextlib
import contextvars
import errno
import gc
import os
import socket
import subprocess
import sys
import traceback
import warnings

import pytest
from waiting import until

from aiozmq_speedups import _ext

pytestmark = pytest.mark.loops("speedups", "asyncio")


ours = pytest.mark.loops("speedups")


class Client(asyncio.Protocol):
    def __init__(self):
        self.events = []

    def connection_made(self, transport):
        self.transport = transport
        self.events.append("made")

    def data_received(self, data):
        self.events.append(data)

    def connection_lost(self, exc):
        self.events.append(exc)


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_what_the_transport_knows(loop, family):
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    try:
        listener = socket.create_server((host, 0), family=family)
    except OSError as exc:
        pytest.skip(f"no IPv6: {exc}")

    async def main():
        address = listener.getsockname()
        transport, protocol = await loop.create_connection(Client, *address[:2])
        assert protocol.events == ["made"]
        assert protocol.transport is transport
        assert transport.get_extra_info("peername") == address
        peer, name = listener.accept()
        assert transport.get_extra_info("sockname") == name
        sock = transport.get_extra_info("socket")
        assert (sock.family, sock.type) == (family, socket.SOCK_STREAM)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert not os.get_inheritable(sock.fileno())
        with peer:
            peer.sendall(b"hello")
            await until(lambda: len(protocol.events) == 2)
            transport.write(b"answer")
            peer.setblocking(False)
            assert await loop.sock_recv(peer, 10) == b"answer"
        await until(lambda: len(protocol.events) == 3)
        assert protocol.events == ["made", b"hello", None]

    with listener:
        loop.run_until_complete(main())


def test_data_is_not_delivered_before_the_connection_is_returned(loop, listener):
    """So that whoever awaited it may give it another protocol first."""

    async def main():
        def send():
            with listener.accept()[0] as peer:
                peer.sendall(b"early")

        loop.call_soon(send)
        transport, protocol = await loop.create_connection(
            Client, *listener.getsockname()
        )
        assert protocol.events == ["made"]
        other = Client()
        transport.set_protocol(other)
        await until(lambda: len(other.events) == 2)
        assert other.events == [b"early", None]

    loop.run_until_complete(main())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_refused(loop, host):
    async def main():
        with pytest.raises(ConnectionRefusedError) as info:
            await loop.create_connection(Client, host, 1)
        return info.value.errno, str(info.value)

    expected = ("127.0.0.1", 1) if ":" not in host else ("::1", 1, 0, 0)
    number, text = loop.run_until_complete(main())
    assert number == errno.ECONNREFUSED
    assert text == f"[Errno {number}] Connect call failed {expected}"


@pytest.mark.parametrize("port", [-1, 1 << 16, 1 << 70])
def test_bad_ports(loop, port):
    async def main():
        with pytest.raises(OverflowError):
            await loop.create_connection(Client, "127.0.0.1", port)

    loop.run_until_complete(main())


def test_a_reset_before_anybody_looks(loop, listener):
    async def main():
        def reset():
            peer, _ = listener.accept()
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            peer.close()

        loop.call_soon(reset)
        try:
            transport, protocol = await loop.create_connection(
                Client, *listener.getsockname()
            )
        except ConnectionResetError:
            return
        await until(lambda: len(protocol.events) == 2)
        assert isinstance(protocol.events[1], ConnectionResetError | None)
        assert transport.is_closing()

    loop.run_until_complete(main())


def no_connection(loop, listener):
    """The peer sees the end of whatever came in."""
    listener.settimeout(100)
    peer, _ = listener.accept()
    with peer:
        peer.settimeout(100)
        with contextlib.suppress(ConnectionResetError):
            assert peer.recv(1) == b""


@pytest.mark.parametrize("turns", range(5))
def test_cancelled(loop, listener, turns):
    """After any number of turns: there is a connection, or nothing is left of it."""

    async def main():
        task = loop.create_task(loop.create_connection(Client, *listener.getsockname()))
        for _ in range(turns):
            await asyncio.sleep(0)
        if task.cancel():
            with pytest.raises(asyncio.CancelledError):
                await task
            return
        transport, _ = await task
        transport.close()

    loop.run_until_complete(main())
    loop.run_until_complete(asyncio.sleep(0.01))
    if turns:
        no_connection(loop, listener)


def test_cancelled_when_connection_made_has_run(loop, listener):
    """The transport that nobody got is closed."""
    made = []

    class Cancelling(Client):
        def connection_made(self, transport):
            super().connection_made(transport)
            made.append(self)
            task.cancel()

    async def main():
        nonlocal task
        task = loop.create_task(
            loop.create_connection(Cancelling, *listener.getsockname())
        )
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: len(made[0].events) == 2)
        assert made[0].events == ["made", None]

    task = None
    loop.run_until_complete(main())
    no_connection(loop, listener)
    made.clear()


def test_a_factory_that_cancels(loop, listener):
    async def main():
        def factory():
            task.cancel()
            return Client()

        task = loop.create_task(
            loop.create_connection(factory, *listener.getsockname())
        )
        with pytest.raises(asyncio.CancelledError):
            await task

    loop.run_until_complete(main())
    loop.run_until_complete(asyncio.sleep(0.01))
    no_connection(loop, listener)


@ours
@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_a_factory_that_fails(loop, listener, error):
    async def main():
        def factory():
            raise error

        await loop.create_connection(factory, *listener.getsockname())

    with pytest.raises(error):
        loop.run_until_complete(main())
    no_connection(loop, listener)


def test_connection_made_that_fails(loop, listener):
    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))

    class Failing(Client):
        def connection_made(self, transport):
            raise ZeroDivisionError

    async def main():
        transport, _ = await asyncio.wait_for(
            loop.create_connection(Failing, *listener.getsockname()), 5
        )
        transport.close()
        await asyncio.sleep(0.01)

    loop.run_until_complete(main())
    assert isinstance(contexts.pop()["exception"], ZeroDivisionError)
    assert not contexts


@ours
def test_a_coroutine_that_is_let_go(loop, listener):
    async def main():
        connecting = loop.create_connection(Client, *listener.getsockname())
        connecting.send(None)
        await asyncio.sleep(0)
        connecting.close()
        connecting = loop._connect(Client, listener.getsockname())
        del connecting  # never started: it has begun nothing
        connecting = loop._connect(Client, listener.getsockname())
        connecting.send(None)
        connecting.close()
        with pytest.raises(RuntimeError, match="cannot reuse"):
            connecting.send(None)
        connecting = loop._connect(Client, listener.getsockname())
        connecting.send(None)
        with pytest.raises(ZeroDivisionError):
            connecting.throw(ZeroDivisionError())

    loop.run_until_complete(main())
    for _ in range(3):
        no_connection(loop, listener)


@ours
def test_a_loop_that_is_closed_meanwhile(loop, listener):
    connecting = loop.create_task(
        loop.create_connection(Client, *listener.getsockname())
    )
    loop.call_soon(loop.stop)
    loop.run_forever()
    connecting._log_destroy_pending = False
    loop.close()
    del connecting
    gc.collect()
    no_connection(loop, listener)


@ours
def test_woken_too_early(loop, listener):
    """By a driver that wakes the waiter itself; it goes on waiting."""
    # A full backlog: the kernel answers nobody.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        filler = [socket.socket() for _ in range(3)]
        for one in filler:
            one.setblocking(False)
            one.connect_ex(full.getsockname())

        async def main():
            connecting = loop._connect(Client, full.getsockname())
            waiter = connecting.send(None)
            waiter.set_result(None)
            again = connecting.send(None)
            assert again is not waiter and not again.done()
            connecting.close()

        loop.run_until_complete(main())
        for one in filler:
            one.close()


@ours
def test_what_asyncio_is_left_to_do(loop):
    for address in (
        ("localhost", 80),
        ("::1%lo", 80),
        ("127.0.0.1", -1),
        ("127.0.0.1", 1 << 16),
        ("127.0.0.1", "80"),
        ("127.0.0.1\0", 80),
        ("\udcff", 80),
        (b"127.0.0.1", 80),
        ("127.0.0.1",),
        ["127.0.0.1", 80],
        None,
    ):
        connecting = loop._connect(Client, address)
        if connecting is not None:
            assert address == ("::1%lo", 80)
            connecting.close()
    with pytest.raises(TypeError):
        loop._connect(Client)


@ours
@pytest.mark.skipif(
    not hasattr(_ext.core, "_inject_fault"), reason="a debug build makes calls fail"
)
def test_epoll_that_refuses(loop, listener):
    async def main():
        _ext.core._inject_fault("epoll_ctl", errno.ENOSPC, 1)
        with pytest.raises(OSError, match="No space"):
            await loop.create_connection(Client, *listener.getsockname())

    loop.run_until_complete(main())
    no_connection(loop, listener)


@pytest.mark.parametrize(
    ("host", "leads_to"), [("0.0.0.0", "127.0.0.1"), ("::", "::1")]
)
def test_the_peer_is_where_it_leads(loop, host, leads_to):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((leads_to, 0), family=family)
    except OSError as exc:
        pytest.skip(f"no IPv6: {exc}")

    async def main():
        address = listener.getsockname()
        transport, _ = await loop.create_connection(Client, host, address[1])
        assert transport.get_extra_info("peername") == address
        transport.close()

    with listener:
        loop.run_until_complete(main())


def test_in_which_order(loop, listener):
    """What else is scheduled meanwhile has its place among the callbacks."""
    events = []

    class Ordered(Client):
        def connection_made(self, transport):
            events.append("made")
            loop.call_soon(events.append, "after made")

        def data_received(self, data):
            events.append(data)

    def factory():
        events.append("factory")
        loop.call_soon(events.append, "after factory")
        return Ordered()

    def send():
        with listener.accept()[0] as peer:
            peer.send(b"x")

    async def main():
        loop.call_soon(send)
        transport, _ = await loop.create_connection(factory, *listener.getsockname())
        events.append("connected")
        await until(lambda: b"x" in events)
        transport.close()

    loop.run_until_complete(main())
    assert events == [
        *("factory", "after factory", "made", "after made", "connected"),
        b"x",
    ]


def test_what_the_factory_sets_in_its_context(loop, listener):
    """The callbacks see it, but for Python 3.15, which copies the Context before."""
    var = contextvars.ContextVar("var", default="nothing")
    seen = []

    class Seeing(Client):
        def connection_made(self, transport):
            seen.append(var.get())

    def factory():
        var.set("set")
        return Seeing()

    async def main():
        transport, _ = await loop.create_connection(factory, *listener.getsockname())
        assert var.get() == "set"
        transport.close()

    loop.run_until_complete(main())
    assert seen == ["nothing" if sys.version_info >= (3, 15) else "set"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are of Python 3.12")
def test_in_an_eager_task(loop, listener):
    async def main():
        loop.set_task_factory(asyncio.eager_task_factory)
        task = loop.create_task(loop.create_connection(Client, *listener.getsockname()))
        assert not task.done()
        transport, protocol = await task
        assert protocol.events == ["made"]
        transport.close()
        with pytest.raises(ConnectionRefusedError):
            await loop.create_task(loop.create_connection(Client, "127.0.0.1", 1))

    loop.run_until_complete(main())


def test_that_takes_too_long(loop):
    """Nothing is left of it."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())

        async def main():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await loop.create_connection(Client, *full.getsockname())
            fds = len(os.listdir("/proc/self/fd"))
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(
                    asyncio.open_connection(*full.getsockname()), 0.05
                )
            assert len(os.listdir("/proc/self/fd")) == fds

        loop.run_until_complete(main())
        for filler in fillers:
            filler.close()


def test_where_an_error_comes_from(loop):
    async def main():
        try:
            await loop.create_connection(Client, "127.0.0.1", 1)
        except ConnectionRefusedError as exc:
            return exc.__context__, exc.__cause__, traceback.format_exception(exc)

    context, cause, lines = loop.run_until_complete(main())
    assert context is cause is None
    text = "".join(lines)
    assert "in main" in text and "in create_connection" in text


@pytest.mark.parametrize("debug", [False, True])
def test_streams(loop, listener, debug):
    loop.set_debug(debug)

    async def main():
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        with listener.accept()[0] as peer:
            peer.sendall(b"line\n")
            assert await reader.readline() == b"line\n"
            writer.write(b"answer")
            await writer.drain()
            assert await asyncio.to_thread(peer.recv, 10) == b"answer"
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", 1)

    loop.run_until_complete(main())


def test_debug_mode_that_begins_meanwhile(loop, listener):
    async def main():
        loop.call_soon(loop.set_debug, True)
        transport, protocol = await loop.create_connection(
            Client, *listener.getsockname()
        )
        assert protocol.events == ["made"]
        transport.close()

    loop.run_until_complete(main())


@ours
@pytest.mark.parametrize("name", ["sock_connect", "_make_socket_transport"])
def test_a_subclass_that_has_its_own_steps(loop, listener, name):
    """They are called as asyncio's create_connection() calls them."""
    calls = []

    def own(self, *args, **kwargs):
        calls.append(name)
        return getattr(super(Own, self), name)(*args, **kwargs)

    Own = type("Own", (type(loop),), {name: own})
    other = Own()

    async def main():
        transport, protocol = await other.create_connection(
            Client, *listener.getsockname()
        )
        assert protocol.events == ["made"]
        transport.close()
        await asyncio.sleep(0)

    other.run_until_complete(main())
    other.close()
    assert calls == [name]


@ours  # the first time asyncio fails, or never connects
@pytest.mark.parametrize("method", ["add_reader", "add_writer"])
@pytest.mark.parametrize("side", ["connected", "accepted"])
def test_a_descriptor_that_was_closed_while_watched(loop, listener, method, side):
    """Who has its number next has nothing to do with that."""
    made = []

    async def main():
        listener.setblocking(False)
        server = await loop.create_server(
            lambda: made.append(Client()) or made[0], sock=listener
        )
        address = listener.getsockname()
        with socket.socket() as client, socket.socket() as closed:
            if side == "accepted":
                client.connect(address)
            getattr(loop, method)(closed, pytest.fail, "it is closed")
            closed.close()
            if side == "connected":
                transport, protocol = await loop.create_connection(Client, *address)
                transport.write(b"there")
            else:
                client.send(b"there")
            await until(lambda: made and len(made[0].events) == 2)
            if side == "connected":
                transport.close()
        assert made[0].events[:2] == ["made", b"there"]
        await until(lambda: len(made[0].events) == 3)
        server.close()

    loop.run_until_complete(main())
    assert loop.stats()["fds"] == 0


@ours
def test_let_go_with_an_exception_on_its_way(loop, listener):
    """The transport that nobody got is closed, and the exception goes on."""

    async def main():
        connecting = loop._connect(Client, listener.getsockname())
        waiter = connecting.send(None)
        await until(waiter.done)
        connecting.send(None)
        holder = [connecting]
        del connecting

        def fails():
            return (holder.pop(), 1 / 0)

        with pytest.raises(ZeroDivisionError):
            fails()
        await asyncio.sleep(0.01)

    loop.run_until_complete(main())
    no_connection(loop, listener)


class Curious(Client):
    """isinstance(), which asks it, finds its transport and does something to it."""

    def __init__(self, method, *args):
        super().__init__()
        self.method, self.args = method, args
        self.called = 0

    @property
    def __class__(self):
        for transport in gc.get_objects():
            if type(transport) is _ext.core.StreamTransport:
                if transport.get_protocol() is self:
                    getattr(transport, self.method)(*self.args)
                    self.called += 1
        return type(self)


@ours
@pytest.mark.parametrize(
    ("method", "args"),
    [
        *(("close", ()), ("abort", ()), ("pause_reading", ())),
        *(("write", (b"x",)), ("write", (b"x" * (1 << 24),)), ("write_eof", ())),
    ],
)
def test_a_protocol_that_finds_its_transport(loop, listener, method, args):
    async def main():
        transport, protocol = await loop.create_connection(
            lambda: Curious(method, *args), *listener.getsockname()
        )
        assert protocol.called
        assert protocol.events[0] == "made"
        fds = loop.stats()["fds"]
        transport.abort()
        await until(lambda: protocol.events[-1] is None)
        assert transport._sock_fd == -1
        assert loop.stats()["fds"] <= fds

    loop.run_until_complete(main())
    # Another descriptor of the same number is taken as any other.
    listener.accept()[0].close()

    async def again():
        transport, _ = await loop.create_connection(Client, *listener.getsockname())
        transport.close()

    loop.run_until_complete(again())


@ours
def test_a_factory_that_meddles_with_its_coroutine(loop, listener):
    async def main():
        def factory():
            for method, *args in (("send", None), ("throw", KeyError), ("close",)):
                with pytest.raises(ValueError, match="already executing"):
                    getattr(connecting, method)(*args)
            return Client()

        connecting = loop._connect(factory, listener.getsockname())
        transport, protocol = await connecting
        assert protocol.events == ["made"]
        transport.close()

    loop.run_until_complete(main())


@ours
def test_a_factory_that_stops_or_closes_the_loop(loop, listener):
    def closing():
        other.close()
        return Client()

    other = type(loop)()
    connecting = other._connect(closing, listener.getsockname())
    waiter = connecting.send(None)
    while not waiter.done():
        other.call_soon(other.stop)
        other.run_forever()
    with pytest.raises(RuntimeError, match="closed"):
        connecting.send(None)
    no_connection(loop, listener)

    def stopping():
        loop.stop()
        return Client()

    task = loop.create_task(loop.create_connection(stopping, *listener.getsockname()))
    loop.run_forever()
    assert not task.done()
    transport, protocol = loop.run_until_complete(task)
    assert protocol.events == ["made"]
    transport.close()


@ours
def test_a_child_of_a_fork_lets_go(loop, listener):
    """And disturbs nothing: the connection is its parent's."""

    async def main():
        connecting = loop._connect(Client, listener.getsockname())
        waiter = connecting.send(None)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                connecting.close()
                other = loop._connect(Client, listener.getsockname())
                with pytest.raises(RuntimeError):
                    other.send(None)
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        await until(waiter.done)
        connecting.send(None)
        connecting.close()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork() with threads
        loop.run_until_complete(main())
    loop.run_until_complete(asyncio.sleep(0.01))


REPLACED = """
import asyncio, socket
made = []
class Socket(socket.socket):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        made.append(self)
socket.socket = Socket
import aiozmq_speedups
listener = socket.create_server(("127.0.0.1", 0))
async def main():
    loop = asyncio.get_running_loop()
    made.clear()
    transport, _ = await loop.create_connection(
        asyncio.Protocol, *listener.getsockname())
    transport.close()
    assert made
aiozmq_speedups.run(main())
"""


def test_sockets_that_were_replaced_before_the_import():
    subprocess.run([sys.executable, "-c", REPLACED], check=True, timeout=250)


AUDITED = """
import asyncio, sys
seen = []
sys.addaudithook(lambda name, args: seen.append((name, args[1:]))
                 if name == "socket.connect" else None)
async def main():
    with __import__("contextlib").suppress(OSError):
        await asyncio.get_running_loop().create_connection(
            asyncio.Protocol, "127.0.0.1", 1)
if sys.argv[1] == "speedups":
    import aiozmq_speedups
    aiozmq_speedups.run(main())
else:
    asyncio.run(main())
assert seen == [("socket.connect", (("127.0.0.1", 1),))], seen
"""


def test_audit_hooks_hear_of_it(loop_kind):
    subprocess.run([sys.executable, "-c", AUDITED, loop_kind], check=True, timeout=250)

"""create_connection(): the same behaviour on asyncio's loop and on ours."""

import asyncio
import contextlib
import errno
import inspect
import os
import socket

import pytest
from ports import held_port

pytestmark = pytest.mark.loops("speedups", "asyncio")


TCP = socket.SOCK_STREAM


needs_ipv6 = pytest.mark.skipif(
    not os.path.exists("/proc/net/if_inet6"), reason="there is no IPv6 here"
)


def parameters(method):
    return inspect.signature(getattr(asyncio.SelectorEventLoop, method)).parameters


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def refusing():
    """An address that nobody listens on, as long as the test holds its number."""
    with held_port() as port:
        yield "127.0.0.1", port


@pytest.fixture
def silent():
    """An address that leaves connections in progress: its queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()


@pytest.fixture
def resolve(loop, monkeypatch):
    """resolve(name, *addresses): what getaddrinfo() says of a name from now on."""
    names = {}

    async def getaddrinfo(host, port, *, family=0, type=0, proto=0, flags=0):
        await asyncio.sleep(0)
        return [
            (
                socket.AF_INET6 if ":" in address[0] else socket.AF_INET,
                TCP,
                socket.IPPROTO_TCP,
                "",
                address,
            )
            for address in names[host]
        ]

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)

    def resolve(name, *addresses):
        names[name] = addresses

    yield resolve
    monkeypatch.undo()


@pytest.fixture
def attempts(loop, monkeypatch):
    """The addresses that were tried, in their order."""
    attempts = []
    sock_connect = loop.sock_connect

    async def connect(sock, address):
        attempts.append(address)
        await sock_connect(sock, address)

    monkeypatch.setattr(loop, "sock_connect", connect)
    yield attempts
    monkeypatch.undo()


async def connected_to(loop, *args, **kwargs):
    """Where a connection that was made leads; it is closed."""
    transport, _ = await asyncio.wait_for(
        loop.create_connection(asyncio.Protocol, *args, **kwargs), 20
    )
    peer = transport.get_extra_info("peername")
    transport.abort()
    await asyncio.sleep(0)
    return peer


def test_localhost(loop):
    """By name, which a thread looks up."""

    async def main():
        server = await loop.create_server(asyncio.Protocol, "localhost", 0)
        addresses = [sock.getsockname() for sock in server.sockets]
        assert {address[0] for address in addresses} <= {"127.0.0.1", "::1"}
        for address in addresses:
            peer = await connected_to(loop, "localhost", address[1])
            assert peer[1] == address[1]
        server.close()

    loop.run_until_complete(main())


def test_the_first_address_that_answers(loop, resolve, attempts, refusing, listener):
    address = listener.getsockname()
    resolve("name", refusing, address, ("127.0.0.1", 9))
    assert loop.run_until_complete(connected_to(loop, "name", 80)) == address
    assert attempts == [refusing, address]


def test_one_error_is_raised_as_it_is(loop, resolve, refusing):
    resolve("name", refusing)
    with pytest.raises(ConnectionRefusedError) as caught:
        loop.run_until_complete(connected_to(loop, "name", 80))
    assert str(caught.value) == f"[Errno 111] Connect call failed {refusing}"


def test_the_same_error_twice_is_one(loop, resolve, refusing):
    resolve("name", refusing, refusing)
    with pytest.raises(ConnectionRefusedError):
        loop.run_until_complete(connected_to(loop, "name", 80))


def test_several_errors_are_joined(loop, resolve, refusing):
    other = ("127.0.0.2", refusing[1])
    resolve("name", refusing, other)
    with pytest.raises(OSError) as caught:
        loop.run_until_complete(connected_to(loop, "name", 80))
    assert type(caught.value) is OSError
    assert str(caught.value) == "Multiple exceptions: " + ", ".join(
        f"[Errno 111] Connect call failed {address}" for address in (refusing, other)
    )


@pytest.mark.skipif(
    "all_errors" not in parameters("create_connection"), reason="since Python 3.12"
)
@pytest.mark.parametrize("addresses", [1, 2])
def test_all_errors(loop, resolve, refusing, addresses):
    resolve("name", *[refusing, ("127.0.0.2", refusing[1])][:addresses])
    with pytest.raises(ExceptionGroup, match="create_connection failed") as caught:
        loop.run_until_complete(connected_to(loop, "name", 80, all_errors=True))
    errors = caught.value.exceptions
    assert [error.errno for error in errors] == [errno.ECONNREFUSED] * addresses


@pytest.mark.skipif(
    "all_errors" not in parameters("create_connection"), reason="since Python 3.12"
)
def test_all_errors_of_a_numeric_address(loop, refusing):
    with pytest.raises(ExceptionGroup) as caught:
        loop.run_until_complete(connected_to(loop, *refusing, all_errors=True))
    assert len(caught.value.exceptions) == 1


# ---- happy eyeballs (RFC 8305)


def test_a_silent_address_is_overtaken(loop, resolve, attempts, silent, listener):
    address = listener.getsockname()
    resolve("name", silent, address)
    peer = loop.run_until_complete(
        connected_to(loop, "name", 80, happy_eyeballs_delay=0.01)
    )
    assert peer == address
    assert attempts == [silent, address]


def test_a_refusal_is_not_waited_after(loop, resolve, attempts, refusing, listener):
    """The next attempt follows at once, whatever the delay."""
    address = listener.getsockname()
    resolve("name", refusing, address)
    peer = loop.run_until_complete(
        connected_to(loop, "name", 80, happy_eyeballs_delay=3600)
    )
    assert peer == address
    assert attempts == [refusing, address]


def test_the_first_wins_while_others_are_on_their_way(
    loop, resolve, attempts, silent, listener
):
    address = listener.getsockname()
    resolve("name", silent, silent, silent, address)
    peer = loop.run_until_complete(
        connected_to(loop, "name", 80, happy_eyeballs_delay=0.001)
    )
    assert peer == address
    assert attempts == [silent, silent, silent, address]


def test_all_refuse_in_a_race(loop, resolve, refusing):
    other = ("127.0.0.2", refusing[1])
    resolve("name", refusing, other)
    with pytest.raises(OSError, match="Multiple exceptions"):
        loop.run_until_complete(
            connected_to(loop, "name", 80, happy_eyeballs_delay=0.01)
        )


@needs_ipv6
@pytest.mark.parametrize(
    ("options", "order"),
    [
        ({}, "1234"),
        ({"interleave": 1}, "1324"),
        ({"interleave": 2}, "1234"),
        ({"happy_eyeballs_delay": 3600}, "1324"),
        ({"happy_eyeballs_delay": 3600, "interleave": 0}, "1234"),
    ],
)
def test_interleave(loop, resolve, attempts, refusing, options, order):
    port = refusing[1]
    with socket.socket(socket.AF_INET6) as sock:  # nobody listens there either
        with contextlib.suppress(OSError):
            sock.bind(("::1", port))
        addresses = {
            "1": ("127.0.0.1", port),
            "2": ("127.0.0.2", port),
            "3": ("::1", port, 0, 0),
            "4": ("::1", port, 0, 0),
        }
        resolve("name", *addresses.values())
        with pytest.raises(OSError):
            loop.run_until_complete(connected_to(loop, "name", 80, **options))
    assert attempts == [addresses[which] for which in order]


def test_cancelled_in_a_race(loop, resolve, attempts, silent):
    resolve("name", silent, silent)

    async def main():
        task = loop.create_task(
            loop.create_connection(
                asyncio.Protocol, "name", 80, happy_eyeballs_delay=0.001
            )
        )
        async with asyncio.timeout(100):
            while len(attempts) < 2:
                await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    loop.run_until_complete(main())


# ---- names


@pytest.mark.parametrize("options", [{}, {"happy_eyeballs_delay": 0.1}])
def test_a_name_without_addresses(loop, resolve, options):
    resolve("name")

    async def main():
        with pytest.raises(OSError, match="empty list"):
            await connected_to(loop, "name", 80, **options)
        with pytest.raises(OSError, match="empty list"):
            await connected_to(loop, "127.0.0.1", 80, local_addr=("name", 0))
        with pytest.raises(OSError, match="empty list"):
            await loop.create_server(asyncio.Protocol, "name", 0)
        with socket.socket() as sock:
            sock.setblocking(False)
            with pytest.raises(IndexError):
                await loop.sock_connect(sock, ("name", 80))

    loop.run_until_complete(main())


def test_a_name_that_is_unknown(loop, monkeypatch):
    async def getaddrinfo(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)

    async def main():
        with pytest.raises(socket.gaierror):
            await connected_to(loop, "name", 80)
        with pytest.raises(socket.gaierror):
            await loop.create_server(asyncio.Protocol, "name", 0)

    loop.run_until_complete(main())
    monkeypatch.undo()


def test_what_contradicts_itself(loop, listener):
    async def main():
        with pytest.raises(ValueError, match="host and port was not specified"):
            await connected_to(loop)
        with pytest.raises(ValueError, match="can not be specified"):
            await connected_to(loop, "127.0.0.1", 80, sock=listener)
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            with pytest.raises(ValueError, match="Stream Socket was expected"):
                await connected_to(loop, sock=sock)

    loop.run_until_complete(main())


# ---- the local address


def test_local_address(loop, listener):
    async def main():
        with socket.socket() as sock:  # a number that is free
            sock.bind(("127.0.0.1", 0))
            mine = sock.getsockname()
        transport, _ = await loop.create_connection(
            asyncio.Protocol, *listener.getsockname(), local_addr=mine
        )
        assert transport.get_extra_info("sockname") == mine
        transport.abort()

    loop.run_until_complete(main())


def test_local_address_in_use(loop, listener, refusing):
    async def main():
        with pytest.raises(OSError) as caught:
            await connected_to(loop, *listener.getsockname(), local_addr=refusing)
        assert caught.value.errno == errno.EADDRINUSE
        assert f"attempting to bind on address {refusing!r}" in str(caught.value)

    loop.run_until_complete(main())


def test_the_next_local_address(loop, resolve, listener, refusing):
    resolve("mine", refusing, ("127.0.0.2", 0))

    async def main():
        transport, _ = await loop.create_connection(
            asyncio.Protocol, *listener.getsockname(), local_addr=("mine", 0)
        )
        assert transport.get_extra_info("sockname")[0] == "127.0.0.2"
        transport.abort()

    loop.run_until_complete(main())


@needs_ipv6
def test_local_address_of_another_family(loop, listener):
    async def main():
        with pytest.raises(OSError, match="no matching local address"):
            await connected_to(loop, *listener.getsockname(), local_addr=("::1", 0))

    if "all_errors" in parameters("create_connection"):  # an IndexError before that
        loop.run_until_complete(main())


# ---- cancelled on the way


STEPS = 12  # more turns than any of them takes


def numeric(loop, listener, resolve, tmp_path):
    return loop.create_connection(asyncio.Protocol, *listener.getsockname())


def by_name(loop, listener, resolve, tmp_path):
    resolve("name", listener.getsockname())
    resolve("mine", ("127.0.0.2", 0))
    return loop.create_connection(asyncio.Protocol, "name", 80, local_addr=("mine", 0))


def stream(loop, listener, resolve, tmp_path):
    return asyncio.open_connection(*listener.getsockname())


@pytest.mark.parametrize("connect", [numeric, by_name, stream])
def test_cancelled_at_each_step(loop, listener, resolve, tmp_path, connect):
    """No descriptor stays open, wherever it was.

    A race is not among these: cancelled as it is won, asyncio leaves the winner to the
    garbage collector."""

    async def main():
        outcomes = set()
        for turns in range(STEPS):
            task = loop.create_task(connect(loop, listener, resolve, tmp_path))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            try:
                transport, _ = await task
            except asyncio.CancelledError:
                outcomes.add("cancelled")
            else:
                outcomes.add("connected")
                if connect is stream:
                    transport = transport._transport
                transport.abort()
            await asyncio.sleep(0.001)
        assert "cancelled" in outcomes

    loop.run_until_complete(main())


@pytest.mark.parametrize("how", ["connection", "accepted", "unix"])
def test_cancelled_with_a_socket(loop, tmp_path, how):
    """Who gave the socket, or the transport, has it closed."""
    path = str(tmp_path / "socket")

    def start(sock):
        if how == "connection":
            return loop.create_connection(asyncio.Protocol, sock=sock)
        if how == "accepted":
            return loop.connect_accepted_socket(asyncio.Protocol, sock)
        return loop.create_unix_connection(asyncio.Protocol, path)

    async def main():
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            for turns in range(STEPS):
                a, b = socket.socketpair()
                with a, b:
                    task = loop.create_task(start(a))
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    task.cancel()
                    try:
                        transport, _ = await task
                    except asyncio.CancelledError:
                        pass
                    else:
                        transport.abort()
                    await asyncio.sleep(0.001)

    loop.run_until_complete(main())


def test_connect_accepted_socket_refuses_others(loop):
    async def main():
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            with pytest.raises(ValueError, match="Stream Socket was expected"):
                await loop.connect_accepted_socket(asyncio.Protocol, sock)
        a, b = socket.socketpair()
        with a, b, pytest.raises(ValueError, match="only meaningful with ssl"):
            await loop.connect_accepted_socket(
                asyncio.Protocol, a, ssl_handshake_timeout=1
            )

    loop.run_until_complete(main())

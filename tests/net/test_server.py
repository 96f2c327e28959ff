"""Servers: the same behaviour on asyncio's loop and on ours."""

import asyncio
import contextlib
import errno
import os
import resource
import socket
import struct
import subprocess
import sys

import pytest
from ports import held_port
from waiting import until

pytestmark = pytest.mark.loops("speedups", "asyncio")


#: asyncio leaves the connection to the garbage collector.
ours = pytest.mark.loops("speedups")


class Accepted(asyncio.Protocol):
    """Echoes, and is noted."""

    def __init__(self, made):
        self.made = made
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.made.append(self)

    def data_received(self, data):
        self.transport.write(data)

    def connection_lost(self, exc):
        self.lost.set_result(exc)


@pytest.fixture
def made():
    """The protocols of accepted connections; not kept after the test."""
    made = []
    yield made
    made.clear()


async def serve(loop, factory, port=0, **kwargs):
    return await loop.create_server(factory, "127.0.0.1", port, **kwargs)


def connect(server):
    """The other end, which the loop has not accepted yet."""
    client = socket.create_connection(server.sockets[0].getsockname())
    client.setblocking(False)
    return client


async def echoed(loop, client):
    await loop.sock_sendall(client, b"ping")
    return await asyncio.wait_for(loop.sock_recv(client, 10), 100) == b"ping"


async def ended(loop, client):
    try:
        return await asyncio.wait_for(loop.sock_recv(client, 10), 100) == b""
    except ConnectionResetError:
        return True


def test_accept_in_batches(loop, made, errors):
    async def main():
        server = await serve(loop, lambda: Accepted(made), backlog=10)
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(connect(server)) for _ in range(10)]
            for client in clients:
                assert await echoed(loop, client)
            assert len(made) == 10
        for protocol in made:
            assert await protocol.lost is None
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())


@ours
def test_closed_within_a_batch(loop, made, errors):
    """By the factory of the second of five: the rest is nobody's, and ends."""

    calls = []

    def factory():
        calls.append(True)
        if len(calls) == 2:
            server.close()
        return Accepted(made)

    async def main():
        nonlocal server
        server = await serve(loop, factory)
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(connect(server)) for _ in range(5)]
            assert await echoed(loop, clients[0])
            for client in clients[2:]:
                assert await ended(loop, client)
        assert not server.is_serving()
        assert server.sockets == ()
        await until(lambda: all(protocol.lost.done() for protocol in made))

    server = None
    loop.run_until_complete(main())


def test_closed_by_the_first_connection(loop, made, errors):
    """connection_made() comes in the turn after: what was accepted lives on."""

    class Closing(Accepted):
        def connection_made(self, transport):
            super().connection_made(transport)
            server.close()

    async def main():
        nonlocal server
        with held_port() as port:
            server = await serve(loop, lambda: Closing(made), port)
            with connect(server) as client:
                assert await echoed(loop, client)
                assert len(made) == 1
                address = made[0].transport.get_extra_info("sockname")
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(address)
        await made[0].lost
        await server.wait_closed()

    server = None
    loop.run_until_complete(main())


@ours
@pytest.mark.parametrize("error", [ZeroDivisionError, OSError])
def test_a_factory_that_fails(loop, made, error):
    """Its connection ends; the next one is served."""
    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))
    failing = True

    def factory():
        if failing:
            raise error
        return Accepted(made)

    async def main():
        nonlocal failing
        server = await serve(loop, factory)
        with connect(server) as client:
            assert await ended(loop, client)
        failing = False
        with connect(server) as client:
            assert await echoed(loop, client)
        await made[0].lost
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())
    assert {type(context["exception"]) for context in contexts} <= {error}


@ours
@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
def test_a_factory_that_leaves_the_loop(loop, made, exception):
    leaving = True

    def factory():
        nonlocal leaving
        if leaving:
            leaving = False
            raise exception
        return Accepted(made)

    async def start():
        nonlocal server
        server = await serve(loop, factory)

    async def stop():
        with connect(server) as client:
            assert await echoed(loop, client)
        await made[0].lost
        server.close()
        await server.wait_closed()

    server = None
    loop.run_until_complete(start())
    with connect(server) as client:
        with pytest.raises(exception):
            loop.run_forever()
        loop.run_until_complete(stop())
        client.setblocking(True)
        client.settimeout(100)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""


@contextlib.contextmanager
def no_free_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The lowest number that is free is the first that is forbidden.
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_out_of_descriptors(loop, made, monkeypatch):
    """It says so, rests, and accepts the same connection when there are some."""
    monkeypatch.setattr("asyncio.constants.ACCEPT_RETRY_DELAY", 0.01)
    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))

    async def main():
        server = await serve(loop, lambda: Accepted(made))
        with connect(server) as client:
            with no_free_descriptors():
                await until(lambda: len(contexts) >= 2)
                assert not made
            assert await echoed(loop, client)
        await made[0].lost
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())
    # More may follow on asyncio, which tries once more after the server was closed.
    for context in contexts[:2]:
        assert context["exception"].errno == errno.EMFILE
        assert context["message"] == "socket.accept() out of system resource"
        assert context["socket"].family == socket.AF_INET


def test_closed_while_it_rests(loop, made, monkeypatch):
    monkeypatch.setattr("asyncio.constants.ACCEPT_RETRY_DELAY", 0.01)
    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))

    async def main():
        server = await serve(loop, lambda: Accepted(made))
        with connect(server) as client:
            with no_free_descriptors():
                await until(lambda: contexts)
            server.close()
            # Its number is another's when the time is over.
            with socket.create_server(("127.0.0.1", 0)) as other:
                await asyncio.sleep(0.03)
                assert other.fileno() >= 0
            assert await ended(loop, client)
        assert not made

    loop.run_until_complete(main())


#: Has accept4() fail with ENOSYS, as a sandbox that does not know it.
WITHOUT_ACCEPT4 = """
import asyncio, ctypes, errno, os, socket, struct, sys
from aiozmq_speedups import new_event_loop

number = {"x86_64": 288, "aarch64": 242}[os.uname().machine]
code = b"".join(
    struct.pack("=HBBI", *step)
    for step in (
        (0x20, 0, 0, 0),
        (0x15, 0, 1, number),
        (0x06, 0, 0, 0x00050000 | errno.ENOSYS),
        (0x06, 0, 0, 0x7FFF0000),
    )
)
code = ctypes.create_string_buffer(code)
program = struct.pack("@HP", 4, ctypes.addressof(code))
prctl = ctypes.CDLL(None).prctl
prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
program = ctypes.create_string_buffer(program)
if prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or prctl(
    PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(program), 0, 0
):
    print("no filters here")
    sys.exit()

async def main():
    loop = asyncio.get_running_loop()
    accepted = loop.create_future()
    server = await asyncio.start_server(lambda *args: accepted.set_result(args),
                                        "127.0.0.1", 0)
    async with server:
        address = server.sockets[0].getsockname()
        with socket.create_connection(address) as client:
            reader, writer = await asyncio.wait_for(accepted, 100)
            fd = writer.get_extra_info("socket").fileno()
            assert not os.get_inheritable(fd) and not os.get_blocking(fd)
            client.send(b"x")
            assert await asyncio.wait_for(reader.readexactly(1), 100) == b"x"
            writer.close()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        with socket.create_connection(listening.getsockname()):
            conn, _ = await asyncio.wait_for(loop.sock_accept(listening), 100)
            with conn:
                fd = conn.fileno()
                assert not os.get_inheritable(fd) and not os.get_blocking(fd)
    print("accepted")

kinds = {"speedups": new_event_loop, "asyncio": asyncio.SelectorEventLoop}
with asyncio.Runner(loop_factory=kinds[sys.argv[1]]) as runner:
    runner.run(main())
"""


@pytest.mark.skipif(
    os.uname().machine not in ("x86_64", "aarch64"), reason="the call's number"
)
def test_a_sandbox_without_accept4(loop_kind):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_ACCEPT4, loop_kind],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    if done.stdout == "no filters here\n":
        pytest.skip("seccomp(2) is not for us")
    assert (done.returncode, done.stdout) == (0, "accepted\n"), done.stderr


def test_connections_that_are_gone_already(loop, made, errors):
    """Reset before they are accepted, which Linux gives out all the same."""

    async def main():
        server = await serve(loop, lambda: Accepted(made))
        for _ in range(3):
            client = connect(server)
            client.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            client.close()
        with connect(server) as client:
            assert await echoed(loop, client)
        await until(lambda: all(protocol.lost.done() for protocol in made))
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())


def test_unix_server(loop, made, errors, tmp_path):
    path = str(tmp_path / "socket")

    async def main():
        server = await loop.create_unix_server(lambda: Accepted(made), path)
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            await loop.sock_connect(client, path)
            assert await echoed(loop, client)
            assert made[0].transport.get_extra_info("sockname") == path
            assert made[0].transport.get_extra_info("peername") == ""
        await made[0].lost
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())


def test_several_sockets_and_start_serving(loop, made, errors):
    async def main():
        with held_port("0.0.0.0") as port:
            server = await loop.create_server(
                lambda: Accepted(made),
                ["127.0.0.1", "127.0.0.2"],
                port,
                reuse_port=True,
                start_serving=False,
            )
        assert not server.is_serving()
        assert server.get_loop() is loop
        assert len(server.sockets) == 2
        with pytest.raises(ConnectionRefusedError):
            connect(server)
        async with server:
            await server.start_serving()
            await server.start_serving()
            assert server.is_serving()
            for sock in server.sockets:
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
                client = socket.create_connection(sock.getsockname())
                client.setblocking(False)
                with client:
                    assert await echoed(loop, client)
            for protocol in made:
                await protocol.lost
            task = loop.create_task(server.serve_forever())
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="already being awaited"):
                await server.serve_forever()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not server.is_serving()

    loop.run_until_complete(main())


@pytest.mark.skipif(sys.version_info < (3, 13), reason="since Python 3.13")
@pytest.mark.parametrize("how", ["close_clients", "abort_clients"])
def test_ending_the_clients(loop, made, errors, how):
    async def main():
        server = await serve(loop, lambda: Accepted(made))
        with connect(server) as client, connect(server) as slow:
            assert await echoed(loop, client)
            assert await echoed(loop, slow)
            made[1].transport.write(bytes(16 << 20))
            server.close()
            waiting = loop.create_task(server.wait_closed())
            await asyncio.sleep(0)
            assert not waiting.done()
            getattr(server, how)()
            assert await ended(loop, client)
            received = 0
            with contextlib.suppress(ConnectionResetError):
                while chunk := await loop.sock_recv(slow, 1 << 20):
                    received += len(chunk)
            assert (received == 16 << 20) == (how == "close_clients")
            await waiting

    loop.run_until_complete(main())
    assert [protocol.lost.result() for protocol in made] == [None, None]


@pytest.mark.skipif(
    not os.path.exists("/proc/net/if_inet6"), reason="there is no IPv6 here"
)
def test_numeric_hosts_with_a_zone(loop, loop_kind, made, errors, monkeypatch):
    """Known without a thread, which asyncio wants for them."""

    def fail(*args):
        raise AssertionError("a thread was asked")

    zone = socket.if_nametoindex("lo")
    if loop_kind == "speedups":
        monkeypatch.setattr(loop, "run_in_executor", fail)

    async def main():
        server = await loop.create_server(lambda: Accepted(made), f"::1%{zone}", 0)
        host, port, _, _ = server.sockets[0].getsockname()
        assert host == "::1"
        transport, _ = await loop.create_connection(
            asyncio.Protocol, f"::1%{zone}", port
        )
        assert transport.get_extra_info("peername")[:2] == ("::1", port)
        transport.close()
        with socket.socket(socket.AF_INET6) as client:
            client.setblocking(False)
            await loop.sock_connect(client, (f"::1%{zone}", port))
            assert await echoed(loop, client)
        for protocol in made:
            await protocol.lost
        server.close()
        await server.wait_closed()

    async def unknown():
        with pytest.raises(socket.gaierror):
            await loop.create_connection(asyncio.Protocol, "::1%nowhere", 80)

    loop.run_until_complete(main())
    monkeypatch.undo()
    loop.run_until_complete(unknown())


@pytest.mark.parametrize("blocking", [False, True])
def test_connect_accepted_socket(loop, made, errors, blocking):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            accepted, _ = listener.accept()
        client.setblocking(False)
        accepted.setblocking(blocking)
        with client:
            transport, protocol = await loop.connect_accepted_socket(
                lambda: Accepted(made), accepted
            )
            assert made == [protocol]
            assert transport.get_extra_info("peername") == client.getsockname()
            assert await echoed(loop, client)
        await protocol.lost

    loop.run_until_complete(main())


def test_create_connection_to_one_numeric_address(loop):
    """Nothing but a host and a port, which has a way of its own."""

    async def main():
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        transport, protocol = await loop.create_connection(asyncio.Protocol, *address)
        assert isinstance(transport, asyncio.Transport)
        assert transport.get_protocol() is protocol
        assert transport.get_extra_info("peername") == address
        transport.abort()
        server.close()
        await asyncio.sleep(0.01)
        with held_port() as port:
            with pytest.raises(ConnectionRefusedError, match="Connect call failed"):
                await loop.create_connection(asyncio.Protocol, "127.0.0.1", port)
        with pytest.raises(OSError):
            await loop.create_connection(asyncio.Protocol, "255.255.255.255", 9)
        with pytest.raises(OverflowError):
            await loop.create_connection(asyncio.Protocol, "127.0.0.1", 1 << 17)
        with pytest.raises(ValueError, match="server_hostname"):
            await loop.create_connection(
                asyncio.Protocol, "127.0.0.1", 9, server_hostname="host"
            )

    loop.run_until_complete(main())


@ours
def test_create_connection_whose_factory_fails(loop):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            with pytest.raises(KeyError):
                await loop.create_connection({}.popitem, *listener.getsockname())

    loop.run_until_complete(main())

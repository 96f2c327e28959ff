"""What a callback writes the peer has at once, whatever the callback does then.

The peer is a blocking socket of this thread, or another process outlives the writer.
"""

import asyncio
import os
import socket
import ssl
import subprocess
import sys

import pytest
from datagrams import Recorder, bound_socket, endpoint
from waiting import until

pytestmark = pytest.mark.loops("speedups", "asyncio")


def pair():
    a, b = socket.socketpair()
    a.setblocking(False)
    b.settimeout(100)
    return a, b


class Writer(asyncio.Protocol):
    """Writes head and body in one of its callbacks and calls `then` there."""

    def __init__(self, callback, then):
        self.callback, self.then = callback, then
        self.transport = None
        self.done = asyncio.get_running_loop().create_future()

    def _write_in(self, callback):
        if callback == self.callback and not self.done.done():
            self.transport.write(b"head")
            self.transport.write(bytearray(b"body"))
            try:
                self.done.set_result(self.then())
            except OSError as exc:
                self.done.set_exception(exc)

    def connection_made(self, transport):
        self.transport = transport
        self.sock = transport.get_extra_info("socket")
        self._write_in("connection_made")

    def data_received(self, data):
        self._write_in("data_received")

    def eof_received(self):
        self._write_in("eof_received")


class BufferedWriter(Writer, asyncio.BufferedProtocol):
    data_received = None

    def get_buffer(self, sizehint):
        return bytearray(100)

    def buffer_updated(self, nbytes):
        self._write_in("buffer_updated")


def answer(peer):
    """The peer answers what it has got, and the callback waits for that."""
    got = b""
    while len(got) < 8:
        got += peer.recv(8 - len(got))
    return got


def end(peer):
    """All that the peer gets until the end."""
    got = b""
    while data := peer.recv(100):
        got += data
    return got


CALLBACKS = ["connection_made", "data_received", "buffer_updated", "eof_received"]


@pytest.mark.parametrize("callback", CALLBACKS)
@pytest.mark.parametrize("then", ["blocks", "shuts down"])
def test_written_in_a_protocol_callback(loop, callback, then):
    async def main():
        a, b = pair()

        def what_follows():
            if then == "shuts down":
                pr.sock.shutdown(socket.SHUT_WR)
                return end(b)
            return answer(b)

        factory = BufferedWriter if callback == "buffer_updated" else Writer
        pr = factory(callback, what_follows)
        tr, _ = await loop.create_connection(lambda: pr, sock=a)
        with b:
            if callback == "eof_received":
                b.shutdown(socket.SHUT_WR)
            else:
                b.send(b"go")
            assert await pr.done == b"headbody"
            tr.abort()

    loop.run_until_complete(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no eager tasks")
def test_written_in_an_eager_task(loop):
    async def main():
        a, b = pair()

        async def work():
            return answer(b)

        def start():
            task = asyncio.Task(work(), loop=loop, eager_start=True)
            return task.result()

        tr, pr = await loop.create_connection(
            lambda: Writer("data_received", start), sock=a
        )
        with b:
            b.send(b"go")
            assert await pr.done == b"headbody"
            tr.abort()

    loop.run_until_complete(main())


def test_written_when_a_stream_opens(loop):
    async def main():
        done = loop.create_future()

        def opened(reader, writer):
            writer.write(b"head")
            writer.write(b"body")
            done.set_result(answer(peer))
            writer.close()

        server = await asyncio.start_server(opened, "127.0.0.1", 0)
        peer = socket.create_connection(server.sockets[0].getsockname(), 10)
        with peer:
            assert await done == b"headbody"
            assert await loop.run_in_executor(None, end, peer) == b""
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())


def test_written_to_a_pipe(loop):
    class PipeWriter(Writer):
        def connection_made(self, transport):
            self.transport = transport
            self._write_in("connection_made")

    async def main():
        r, w = os.pipe()
        os.set_blocking(r, False)
        pr = PipeWriter("connection_made", lambda: os.read(r, 9))
        tr, _ = await loop.connect_write_pipe(lambda: pr, open(w, "wb", 0))
        assert await pr.done == b"headbody"
        os.close(r)
        tr.abort()

    loop.run_until_complete(main())


def anonymous_tls(protocol):
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("aNULL:@SECLEVEL=0")  # needs no certificate
    return context


def test_written_in_a_callback_of_tls(loop):
    """The callback of the raw transport encloses it."""

    async def main():
        a, b = pair()
        pr = Writer("data_received", lambda: answer(peer))
        serving = asyncio.create_task(
            loop.connect_accepted_socket(
                lambda: pr, a, ssl=anonymous_tls(ssl.PROTOCOL_TLS_SERVER)
            )
        )
        client = anonymous_tls(ssl.PROTOCOL_TLS_CLIENT)
        peer = await loop.run_in_executor(None, client.wrap_socket, b)
        with peer:
            tr, _ = await serving
            peer.send(b"go")
            assert await pr.done == b"headbody"
            tr.abort()

    loop.run_until_complete(main())


@pytest.mark.parametrize("callback", ["on_made", "on_datagram", "on_lost"])
def test_sent_in_a_datagram_callback(loop, callback):
    async def main():
        with bound_socket() as peer:
            name = peer.getsockname()
            got = []

            class Sender(Recorder):
                def _note(self, called, hook, *args):
                    super()._note(called, hook, *args)
                    if callback == f"on_{called}":
                        for _ in range(3):
                            self.transport.sendto(b"x", name)
                            got.append(peer.recv(9))

            async with endpoint(factory=Sender) as (_, pr, other):
                other.send(b"go")
                await until(lambda: pr.got)
            assert got == [b"x"] * 3

    loop.run_until_complete(main())


PROGRAM = """
import asyncio, os, signal, socket, sys
from aiozmq_speedups import new_event_loop

class Protocol(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(b"head")
        self.transport.write(b"body")
        {end}

async def main():
    sock = socket.socket(fileno=int(sys.argv[1]))
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.create_connection(Protocol, sock=sock)
    await loop.create_future()

factory = {{"speedups": new_event_loop, "asyncio": asyncio.SelectorEventLoop}}
loop = factory[sys.argv[2]]()
loop.run_until_complete(main())
"""


@pytest.mark.parametrize(
    "end_by",
    [
        "os._exit(0)",
        "os.execv('/bin/true', ['true'])",
        "os.kill(os.getpid(), signal.SIGKILL)",
    ],
    ids=["exit", "exec", "kill"],
)
def test_written_by_a_process_that_ends_there(loop_kind, end_by):
    a, b = socket.socketpair()
    b.settimeout(100)
    program = PROGRAM.format(end=end_by)
    with b:
        with a:
            child = subprocess.Popen(
                [sys.executable, "-c", program, str(a.fileno()), loop_kind],
                pass_fds=[a.fileno()],
            )
        try:
            b.send(b"go")
            assert end(b) == b"headbody"
        finally:
            child.kill()
            child.wait()

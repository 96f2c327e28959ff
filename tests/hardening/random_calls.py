"""Calls every method of the extension's objects with odd arguments.

``python random_calls.py SEED COUNT``. Any exception will do, but SystemError: that is
C code that broke the interpreter's rules.
"""

import asyncio
import contextlib
import contextvars
import faulthandler
import gc
import logging
import os
import random
import socket
import sys
import warnings

import zmq

from aiozmq_speedups import EpollSelector, Loop, _core
from aiozmq_speedups._zmq.accelerated import _CZmqTransport

OBJECTS_LIVE_FOR = 150  # calls
# They block, or change the process for the rest of the run.
SKIPPED = {
    *("_run", "run_forever", "run_until_complete", "run_in_executor"),
    *("__class__", "__init__", "__init_subclass__", "__new__", "__subclasshook__"),
    *("add_signal_handler", "remove_signal_handler", "_handle_signal"),
    *("_take_wakeup_fd", "_give_back_wakeup_fd", "shutdown_default_executor"),
    *("_run_forever_setup", "_run_forever_cleanup", "set_default_executor"),
    *("_make_subprocess_transport", "subprocess_exec", "subprocess_shell"),
}
KEYWORDS = (
    *("context", "data", "timeout", "extra", "server", "waiter", "high", "low"),
    *("nbytes", "delay", "default", "name", "loop"),
)


def nothing(*args):
    pass


class File:
    def __init__(self, number):
        self.number = number

    def fileno(self):
        if isinstance(self.number, Exception):
            raise self.number
        return self.number


class Run:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.context = zmq.Context()
        self.objects, self.files = [], []
        self.failures = []

    # ---- objects

    def make_objects(self):
        for obj in self.objects:
            with contextlib.suppress(BaseException):
                obj.close()
        self.objects.clear()
        for file in self.files:
            with contextlib.suppress(BaseException):
                file.close()
        self.files.clear()
        a, b = socket.socketpair()
        c, d = socket.socketpair()
        u = socket.socket(type=socket.SOCK_DGRAM)
        u.bind(("127.0.0.1", 0))
        listener = socket.create_server(("127.0.0.1", 0))
        for sock in a, b, c, d, u, listener:
            sock.setblocking(False)
        r, w = os.pipe()
        reader, writer = open(r, "rb", 0), open(w, "wb", 0)
        dealer = self.context.socket(zmq.DEALER)
        dealer.linger = 0
        self.files += [a, b, c, d, u, listener, reader, writer, dealer]
        loop = Loop()
        loop.set_exception_handler(nothing)
        server = asyncio.base_events.Server(loop, [listener], nothing, None, 5, None)
        connections = [
            loop._connect(lambda: Protocol(self), listener.getsockname())
            for _ in range(3)
        ]
        for connecting in connections[1:]:
            connecting.send(None)
        selector = EpollSelector()
        selector.register(b, 1)
        self.objects += [
            loop,
            _core.Loop(),
            Loop.__new__(Loop),
            loop._make_socket_transport(a, Protocol(self)),
            loop._make_socket_transport(c, BufferedProtocol(self)),
            loop._make_datagram_transport(u, Protocol(self)),
            loop._make_read_pipe_transport(reader, Protocol(self)),
            loop._make_write_pipe_transport(writer, Protocol(self)),
            loop._listen(lambda: Protocol(self), listener, server, 5),
            *connections,
            getattr(server, "_clients", None),  # since Python 3.13
            server,
            _CZmqTransport(loop, zmq.DEALER, dealer, Protocol(self)),
            _core.ZmqTransport.__new__(_core.ZmqTransport),
            EpollSelector(),
            selector,
            selector.get_map(),
            loop.call_soon(nothing, 1),
            loop.call_later(1, nothing),
            loop.sock_recv(b, 10),
            loop.sock_sendall(b, b"x"),
            loop.sock_accept(listener),
            loop.sock_connect(listener, ("127.0.0.1", 1)),
            loop.sock_recvfrom_into(u, bytearray(10)),
            loop.sock_sendto(u, b"x", ("127.0.0.1", 9)),
        ]

    def close_one(self):
        with contextlib.suppress(BaseException):
            self.random.choice(self.objects).close()

    # ---- arguments

    def value(self):
        chance = self.random.random()
        if chance < 0.3:
            return self.random.choice(self.objects)
        if chance < 0.4:
            return self.random.choice(self.files)
        return self.random.choice(
            [
                *(None, ..., True, -1, 0, 1, 5, 2**31, 2**63, -(2**63), 2**100),
                *(-(2**100), 1.5, -0.0, float("nan"), float("inf")),
                *("x", "", "\0", "\ud800", b"", b"abc", b"\0" * 200, b"y" * 70_000),
                *(bytearray(5), memoryview(b"12345"), memoryview(bytearray(8))[::2]),
                *(object(), [], {}, (), [b"a", b"b"], (b"x",), [b""] * 20, [1]),
                *(nothing, "".format, int, asyncio.Future, ValueError, ValueError("v")),
                *(StopIteration(1), contextvars.copy_context(), Saboteur(self)),
                *(Protocol(self), BufferedProtocol(self)),
                *(File(-1), File(10**9), File("x"), File(2**70), File(ValueError())),
                *(("127.0.0.1", 0), ("127.0.0.1", 70_000), ("::1", 1, 2, 3)),
                *(("host\0", 1), "\0abstract"),
            ]
        )

    # ---- calls

    def step(self):
        obj = self.random.choice(self.objects)
        names = [name for name in dir(obj) if name not in SKIPPED]
        name = self.random.choice(names)
        count = self.random.choice([0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5])
        args = [self.value() for _ in range(count)]
        kwargs = {}
        if self.random.random() < 0.15:
            kwargs[self.random.choice(KEYWORDS)] = self.value()
        if name == "select":
            args = [0]
        try:
            if name == "_run_once":
                obj.call_soon(nothing)  # lest it wait
            chance = self.random.random()
            if chance < 0.1:
                setattr(obj, name, self.value())
            elif chance < 0.13:
                delattr(obj, name)
            else:
                result = getattr(obj, name)(*args, **kwargs)
                if hasattr(result, "send"):
                    result.send(None)
                    self.objects.append(result)
        except SystemError as exc:
            self.failures.append((type(obj).__name__, name, args, kwargs, exc))
        except BaseException:
            pass

    def run(self, count):
        for i in range(count):
            if i % OBJECTS_LIVE_FOR == 0:
                self.make_objects()
            self.step()
        self.objects.clear()
        gc.collect()
        for failure in self.failures:
            print(*failure)


class Saboteur:
    """Closes things while it is looked at."""

    __hash__ = None

    def __init__(self, run):
        self.run = run

    def number(self):
        self.run.close_one()
        return self.run.random.choice([-1, 0, 1, 10**9])

    fileno = __index__ = number

    def __float__(self):
        return float(self.number())

    def __bool__(self):
        return self.number() > 0

    def __eq__(self, other):
        return self.number() > 0

    def __iter__(self):
        self.run.close_one()
        return iter([b"x", self])

    def __len__(self):
        self.run.close_one()
        return 2

    def __call__(self, *args):
        self.run.close_one()
        raise ValueError

    def __getattr__(self, name):
        if name.startswith("__") or name == "run":
            raise AttributeError(name)
        self.run.close_one()
        return self

    def __del__(self):
        self.run.close_one()


class Protocol:
    """Of any kind; closes things and fails now and then."""

    def __init__(self, run):
        self.run = run

    def called(self, *args):
        chance = self.run.random.random()
        if chance < 0.2:
            raise ValueError
        if chance < 0.4:
            self.run.close_one()

    connection_made = connection_lost = called
    data_received = eof_received = called
    msg_received = event_received = called
    datagram_received = error_received = called
    pause_writing = resume_writing = called


class BufferedProtocol(Protocol, asyncio.BufferedProtocol):
    buffer_updated = Protocol.called

    def get_buffer(self, sizehint):
        buffer = bytearray(100)
        return self.run.random.choice(
            [buffer, bytearray(0), b"read only", None, memoryview(buffer)[::2]]
        )


def main():
    faulthandler.enable()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    sys.unraisablehook = nothing
    seed, count = map(int, sys.argv[1:])
    Run(seed).run(count)
    print("done")
    sys.stdout.flush()
    os._exit(0)  # what was called has left threads and sockets in any state


if __name__ == "__main__":
    main()

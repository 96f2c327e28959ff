"""The same test on PyPI aiozmq and on this package, on every loop.

``from parity import impl, ours, pytest_generate_tests`` gives a module or a folder the
fixtures: a test that takes one runs once for each of IMPLEMENTATIONS, and ``loop`` is
the one that goes with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging

import pytest

#: (package, loop, transport: None is the default, C where it is built)
IMPLEMENTATIONS = (
    ("aiozmq", "asyncio", None),
    ("aiozmq_speedups", "speedups", None),
    ("aiozmq_speedups", "asyncio", None),
    ("aiozmq_speedups", "uvloop", None),
    ("aiozmq_speedups", "speedups", "pure"),
    ("aiozmq_speedups", "asyncio", "pure"),
    ("aiozmq_speedups", "uvloop", "pure"),
)


class Implementation:
    """The modules of one package, by aiozmq's names: impl.rpc, impl.stream, ..."""

    def __init__(self, package):
        self.package = package
        self.ours = package == "aiozmq_speedups"
        if not self.ours:
            # Not on Python 3.14 and later: asyncio.SafeChildWatcher is gone.
            pytest.importorskip("aiozmq.core", exc_type=ImportError)
        self.core = self.module("core")
        self.interface = self.module("interface")
        self.stream = self.module("stream")
        self.rpc = self.module("rpc")

    def module(self, name):
        return importlib.import_module(f"{self.package}.{name}")

    @contextlib.asynccontextmanager
    async def served(self, kind, handler, *, server=None, client=None):
        """(client, service) of "rpc", "pipeline" or "pubsub", closed at the end."""
        serve = getattr(self.rpc, f"serve_{kind}")
        connect = getattr(self.rpc, f"connect_{kind}")
        service = await serve(handler, bind="tcp://127.0.0.1:*", **(server or {}))
        try:
            (endpoint,) = service.transport.bindings()
            peer = await connect(connect=endpoint, **(client or {}))
            import zmq

            # What is not sent when the test is over must not be waited for.
            peer.transport.setsockopt(zmq.LINGER, 0)
            try:
                yield peer, service
            finally:
                await close(peer)
        finally:
            await close(service)

    @contextlib.asynccontextmanager
    async def opened(self, zmq_type, **kwargs):
        """A stream, closed at the end."""
        stream = await self.stream.create_zmq_stream(zmq_type, **kwargs)
        try:
            yield stream
        finally:
            if stream.transport is not None:
                sock = stream.get_extra_info("zmq_socket")
                if not sock.closed:
                    # Not to wait for peers that are gone.
                    sock.linger = 0
                    stream.close()
                while not sock.closed:
                    await asyncio.sleep(0)


async def close(service):
    service.close()
    await service.wait_closed()


def _implementation(request, monkeypatch):
    package, transport = request.param
    if transport is not None:
        from aiozmq_speedups._zmq import connect, pure

        monkeypatch.setattr(connect, "transport_class", pure._PyZmqTransport)
        _use_pure_rpc(monkeypatch)
    return Implementation(package)


def _use_pure_rpc(monkeypatch):
    from aiozmq_speedups.rpc import _client, _fast, _server

    monkeypatch.setattr(_fast, "client_protocol", _client._ClientProtocol)
    monkeypatch.setattr(_fast, "server_protocol", _server._ServerProtocol)


@pytest.fixture
def impl(request, monkeypatch, loop_kind):
    """Each implementation."""
    return _implementation(request, monkeypatch)


@pytest.fixture
def ours(request, monkeypatch, loop_kind):
    """Each but aiozmq, for what aiozmq does not do."""
    return _implementation(request, monkeypatch)


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc):
    for fixture, rows in (("impl", IMPLEMENTATIONS), ("ours", IMPLEMENTATIONS[1:])):
        if fixture in metafunc.fixturenames:
            mark = pytest.mark.parametrize(
                f"{fixture}, loop_kind",
                [((package, transport), loop) for package, loop, transport in rows],
                indirect=True,
                ids=["-".join(filter(None, row)) for row in rows],
            )
            metafunc.definition.add_marker(mark)


class LogQueue(logging.Handler):
    """Keeps what a logger says, for a coroutine to wait for."""

    def __init__(self):
        super().__init__()
        self.records = []
        self._event = asyncio.Event()

    def emit(self, record):
        self.records.append(record)
        self._event.set()

    async def get(self):
        """The oldest record that was not got yet."""
        while not self.records:
            self._event.clear()
            await self._event.wait()
        return self.records.pop(0)


@pytest.fixture
def rpc_log(caplog):
    """What goes to the logger "aiozmq.rpc", which both packages use."""
    logger = logging.getLogger("aiozmq.rpc")
    queue = LogQueue()
    level = logger.level
    logger.addHandler(queue)
    logger.setLevel(logging.DEBUG)
    yield queue
    logger.removeHandler(queue)
    logger.setLevel(level)
    # Their tracebacks keep the loop, which the leak guard looks for.
    caplog.get_records("call").clear()

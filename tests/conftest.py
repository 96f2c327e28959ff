"""Shared fixtures: the loops, the transports, and a guard against leaks."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import socket
import sys
import time
import warnings
from pathlib import Path

import pytest

from aiozmq_speedups import _ext

faulthandler.enable()

#: The directory that `import aiozmq_speedups` found the package in.
PACKAGE_ROOT = Path(_ext.__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def _children_import_the_same_package(tmp_path_factory):
    """A child started in the checkout would import the package without its
    extension, where the one under test is installed, and test nothing."""
    path = [str(PACKAGE_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(path))
        patch.chdir(tmp_path_factory.mktemp("cwd"))
        yield


LOOP_KINDS = ("speedups", "asyncio", "uvloop")
TRANSPORT_KINDS = ("C", "pure")


def new_loop(kind):
    """A new event loop of `kind`; skips where it cannot be had here.

    "speedups-asyncio" and "speedups-aiofastnet" say whose TLS it has.
    """
    if kind == "asyncio":
        return asyncio.SelectorEventLoop()
    if kind == "uvloop":
        return pytest.importorskip("uvloop").new_event_loop()
    # Without the extension it is asyncio's loop with create_zmq_connection().
    from aiozmq_speedups.loop import Loop

    tls = kind.partition("-")[2]
    if tls == "aiofastnet":
        from aiozmq_speedups._loop import tls as _tls

        if _tls.load()[0] is None:
            pytest.skip(f"aiofastnet: {_tls.load()[1]}")
    return Loop(tls=tls or "auto")


#: The loops of the tests in a folder, where they are not LOOP_KINDS.
LOOP_KINDS_OF = {
    "compat/apps": ("speedups", "asyncio"),
    "integration": ("speedups", "asyncio"),
    "loop/sock": ("speedups", "asyncio"),
    "tls": ("asyncio", "speedups-asyncio", "speedups-aiofastnet"),
}


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc):
    """A test runs on each loop, or on those of its mark `loops`, or of its folder."""
    if "loop_kind" not in metafunc.fixturenames:
        return
    test = metafunc.definition
    folder = test.path.parent.relative_to(Path(__file__).parent).as_posix()
    mark = test.get_closest_marker("loops")
    kinds = mark.args if mark is not None else LOOP_KINDS_OF.get(folder)
    if kinds is not None:
        test.add_marker(pytest.mark.parametrize("loop_kind", kinds, indirect=True))


@pytest.fixture(params=LOOP_KINDS)
def loop_kind(request):
    """Runs the test on each loop."""
    return request.param


@pytest.fixture
def make_loop(loop_kind):
    """Makes more loops of the kind in hand, which the test closes."""
    new_loop(loop_kind).close()  # skips here, not in a thread
    return lambda: new_loop(loop_kind)


@pytest.fixture
def loop(request, loop_kind):
    """A new loop of the kind in hand, closed after the test."""
    loop = new_loop(loop_kind)
    fds = _open_fds()
    yield loop
    mark = request.node.get_closest_marker("loops")
    at_once = mark is not None and mark.kwargs.get("closed_at_once", False)
    if not at_once and not loop.is_closed():
        # Lets what the test's last lines closed come to its end.
        loop.run_until_complete(_settle())
        if loop_kind != "uvloop":  # which makes sockets of its own when it runs
            loop.run_until_complete(_without_sockets(fds))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.fixture
def run(loop):
    """Runs a coroutine on the loop."""
    return loop.run_until_complete


async def _settle():
    for _ in range(4):
        await asyncio.sleep(0)


async def _without_sockets(fds):
    """Waits for 2 seconds at most until no sockets but `fds` are open.

    A TLS connection closes when its peer answers. A loop that closes before that leaves
    the socket, and a ResourceWarning.
    """
    for _ in range(200):
        left = map(_fd_target, _open_fds() - fds)
        if not any(target and target.startswith("socket:") for target in left):
            return
        await asyncio.sleep(0.01)


def transport_class(kind):
    """The transport class of `kind`; skips where it is not available."""
    from aiozmq_speedups._zmq import accelerated, pure

    if kind == "pure":
        return pure._PyZmqTransport
    if accelerated.transport_class is pure._PyZmqTransport:
        pytest.skip(f"no C transport: {accelerated.transport_info}")
    return accelerated._CZmqTransport


@pytest.fixture(params=TRANSPORT_KINDS)
def transport_kind(request, monkeypatch):
    """Runs the test with each transport."""
    cls = transport_class(request.param)
    from aiozmq_speedups._zmq import connect

    monkeypatch.setattr(connect, "transport_class", cls)
    return request.param


@pytest.fixture
def errors(loop):
    """The contexts that the loop's exception handler got; [] at the end."""
    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))
    yield contexts
    assert not contexts, contexts


@pytest.fixture
def contexts(loop):
    """The contexts that the loop's exception handler got, which the test looks at."""
    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))
    yield contexts
    contexts.clear()  # their tracebacks keep the loop


@pytest.fixture
def pair():
    """Two connected non-blocking Unix sockets."""
    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        b.setblocking(False)
        yield a, b


def _open_fds():
    return set(os.listdir("/proc/self/fd"))


def _live_objects():
    counts = getattr(_ext.core, "_live_objects", None)
    return counts() if counts else {}


def _fd_target(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return None


def _wait_until(condition):
    """libzmq closes sockets in its own threads: true within 20 seconds?"""
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def _warm_up():
    # What is opened once a process and kept: not a leak of the first test.
    import zmq

    from aiozmq_speedups._zmq import linger

    context = zmq.Context.instance()
    a, b = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    port = a.bind_to_random_port("tcp://127.0.0.1")
    b.connect(f"tcp://127.0.0.1:{port}")
    a.send(b"")
    b.recv()
    linger.others_sockets().add(a.getsockopt(zmq.FD))
    a.close()
    b.close()
    try:
        import uvloop
    except ImportError:
        pass
    else:
        loop = uvloop.new_event_loop()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


#: `make native`: what can be served by the native engine is, in the tests given.
NATIVE = os.environ.get("AIOZMQ_SPEEDUPS_ENGINE") == "native"


def pytest_collection_modifyitems(config, items):
    """With the native engine: on its loop, what needs no socket of libzmq's."""
    if not NATIVE:
        return
    left = []
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        if (
            params.get("loop_kind", "speedups") != "speedups"
            or params.get("transport_kind") == "pure"
            or item.get_closest_marker("libzmq")
        ):
            left.append(item)
    config.hook.pytest_deselected(items=left)
    chosen = set(items) - set(left)
    items[:] = [item for item in items if item in chosen]


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "libzmq(reason): not with the native engine: see `make native`"
    )
    config.addinivalue_line(
        "markers",
        "loops(*kinds, closed_at_once=False): the loops to run on, in place of all; "
        "closed_at_once: the loop runs no turn after the test's last",
    )
    config.addinivalue_line(
        "markers", "no_leak_guard(reason): the test leaves something on purpose"
    )
    config.addinivalue_line("filterwarnings", "error::ResourceWarning")
    config.addinivalue_line(
        "filterwarnings", "error::pytest.PytestUnraisableExceptionWarning"
    )


@pytest.fixture(scope="session", autouse=True)
def _process_warm_up():
    try:
        _warm_up()
    except ImportError:
        pass


@pytest.fixture(autouse=True)
def leak_guard(request, _process_warm_up):
    """Fails a test that leaves fds, C objects or unraisable exceptions."""
    if request.node.get_closest_marker("no_leak_guard"):
        yield
        return
    gc.collect()
    # What is there already, such as all that pytest keeps of each test, need not be
    # looked at again and again.
    gc.freeze()
    fds = _open_fds()
    live = _live_objects()
    unraisable = []
    hook = sys.unraisablehook
    sys.unraisablehook = lambda args: unraisable.append(
        (args.exc_type, str(args.exc_value), args.err_msg, repr(args.object))
    )
    try:
        yield
        # pytest keeps the fixtures' values, the loop among them, until later.
        if request.node.funcargs:  # None where the session was interrupted
            request.node.funcargs.clear()
        gc.collect()
    finally:
        sys.unraisablehook = hook
    assert not unraisable, f"unraisable exceptions: {unraisable}"

    def left_fds():
        return _open_fds() - fds

    # listdir's own descriptor is among both, at a number that may differ.
    def no_fds_left():
        return not any(_fd_target(fd) for fd in left_fds())

    if not _wait_until(no_fds_left):
        left = {fd: _fd_target(fd) for fd in left_fds()}
        pytest.fail(f"left open: {left}")

    def left_objects():
        now = _live_objects()
        return {k: n - live.get(k, 0) for k, n in now.items() if n != live.get(k, 0)}

    release = getattr(_ext.core, "_zmq_release", lambda: None)

    def no_objects_left():
        release()  # frames that libzmq has finished with
        if not left_objects():
            return True
        gc.collect()
        return False

    if not _wait_until(no_objects_left):
        pytest.fail(f"live C objects: {left_objects()}")


@pytest.fixture(autouse=True)
def _event_loop_state():
    """No test inherits a current loop, or a policy, from another."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.set_event_loop(None)

"""What a hostile or unlucky caller does: nothing crashes, hangs or leaks."""

import asyncio
import errno
import gc
import logging
import os
import signal
import sys
import threading
import time
import traceback

import pytest
import zmq
from helpers import Recorder, close, open_transport, pair, raw_socket, size_of

from aiozmq_speedups import _ext
from aiozmq_speedups._zmq import accelerated
from aiozmq_speedups.interface import ZmqProtocol

pytestmark = pytest.mark.usefixtures("errors", "transport_kind")

try:
    import _testcapi
except ImportError:
    _testcapi = None


def only_c(transport_kind):
    if transport_kind != "C":
        pytest.skip("about the C code")


# -- Callbacks --


def test_calls_from_inside_the_callback(run):
    """Everything that can be called, from where the transport calls us."""

    class Busy(Recorder):
        def msg_received(self, data):
            super().msg_received(data)
            tr = self.transport
            tr._on_fd()
            tr._on_armed()
            tr._arm()
            tr._start()
            tr.pause_reading()
            tr.resume_reading()
            tr.getsockopt(zmq.EVENTS)
            repr(tr)
            for _ in range(3):
                tr.write([b"from inside", *data])
            if len(self.messages) % 20 == 0:
                gc.collect()

    async def go():
        async with pair(zmq.PAIR, zmq.PAIR, factory1=Busy) as (_, ap, b, bp):
            for i in range(200):
                b.write([b"%d" % i])
            await bp.received(600)
            assert ap.messages == [[b"%d" % i] for i in range(200)]

    run(go())


def test_connection_lost_called_by_the_callback(run):
    """It is private; but calling it early must not break anything."""

    class Hostile(Recorder):
        def msg_received(self, data):
            super().msg_received(data)
            tr = self.transport
            tr._call_connection_lost(None)
            tr.abort()
            tr._call_connection_lost(None)
            tr._call_connection_lost(None)

    async def go():
        async with pair(zmq.PULL, zmq.PUSH, factory1=Hostile) as (_, ap, b, _):
            for _ in range(10):
                b.write([b"x"])
            await ap.lost
            assert len(ap.messages) == 1
            assert ap.calls == ["connection_made", "connection_lost"]

    run(go())


def test_abandoned_inside_the_callback(run):
    class Hostile(Recorder):
        def msg_received(self, data):
            super().msg_received(data)
            self.transport._abandon()
            self.lost.set_result(None)

    async def go():
        async with pair(zmq.PULL, zmq.PUSH, factory1=Hostile) as (_, ap, b, _):
            for _ in range(10):
                b.write([b"x"])
            await ap.lost
            await asyncio.sleep(0)
            assert len(ap.messages) == 1

    run(go())


@pytest.mark.parametrize("how", ["close", "abort", "socket"])
@pytest.mark.parametrize("where", ["pause_writing", "resume_writing"])
def test_closing_inside_flow_control(run, how, where, errors):
    class Hostile(Recorder):
        def act(self, name):
            self.calls.append(name)
            if name == where:
                if how == "socket":
                    self.transport.get_extra_info("zmq_socket").close()
                else:
                    getattr(self.transport, how)()
                self.transport.write([b"more"])
                self._changed.set()

        def pause_writing(self):
            self.act("pause_writing")

        def resume_writing(self):
            self.act("resume_writing")

    async def go():
        peer, _ = await open_transport(zmq.PULL, bind="tcp://127.0.0.1:*")
        tr, pr = await open_transport(zmq.PUSH, Hostile)
        tr.setsockopt(zmq.LINGER, 0)  # the peer may be gone first
        tr.set_write_buffer_limits(high=0)
        tr.write([b"1"])
        zmq_sock = tr.get_extra_info("zmq_socket")
        if zmq_sock is not None and not zmq_sock.closed:
            await tr.connect(*peer.bindings())
        exc = await pr.lost
        if how == "socket":
            assert exc.errno == zmq.ENOTSOCK
            errors.clear()
        assert pr.calls.count("connection_lost") == 1
        await close(peer)

    run(go())


def test_the_protocol_drops_the_last_references(run):
    class Fleeting(ZmqProtocol):
        def connection_made(self, transport):
            self.transport = transport

        def msg_received(self, data):
            transport, self.transport = self.transport, None
            transport.set_protocol(Recorder())
            transport.abort()
            del transport
            gc.collect()
            done.set_result(None)

    async def go():
        nonlocal done
        done = asyncio.get_running_loop().create_future()
        a, _ = await open_transport(zmq.PULL, Fleeting, bind="tcp://127.0.0.1:*")
        b, _ = await open_transport(zmq.PUSH, connect=list(a.bindings()))
        del a
        b.write([b"x"])
        await done
        await close(b)

    done = None
    run(go())


def test_a_protocol_without_methods(run, errors):
    class Empty:
        def connection_made(self, transport):
            pass

    async def go():
        tr, _ = await open_transport(zmq.PULL, Empty, bind="tcp://127.0.0.1:*")
        peer, _ = await open_transport(zmq.PUSH, connect=list(tr.bindings()))
        for _ in range(3):
            peer.write([b"x"])
        while len(errors) < 3:
            await asyncio.sleep(0)
        zmq_sock = tr.get_extra_info("zmq_socket")
        tr.abort()
        while not zmq_sock.closed:
            await asyncio.sleep(0)
        assert len(errors) == 4
        assert all(type(c["exception"]) is AttributeError for c in errors)
        errors.clear()
        await close(peer)

    run(go())


@pytest.mark.parametrize("exc_type", [KeyboardInterrupt, SystemExit])
def test_exceptions_that_end_the_loop_lose_no_message(loop, loop_kind, exc_type):
    if loop_kind == "uvloop":
        pytest.skip("uvloop keeps them for itself")

    class Interrupted(Recorder):
        def msg_received(self, data):
            super().msg_received(data)
            if len(self.messages) == 2:
                raise exc_type

    async def setup():
        a, ap = await open_transport(zmq.PULL, Interrupted, bind="tcp://127.0.0.1:*")
        a.pause_reading()
        b, _ = await open_transport(zmq.PUSH, connect=list(a.bindings()))
        for i in range(5):
            b.write([b"%d" % i])
        return a, ap, b

    a, ap, b = loop.run_until_complete(setup())
    a.resume_reading()
    with pytest.raises(exc_type):
        loop.run_forever()
    assert len(ap.messages) == 2

    async def rest():
        assert await ap.received(5) == [[b"%d" % i] for i in range(5)]
        await close(a, b)

    loop.run_until_complete(rest())


def test_an_exception_handler_that_raises(loop, run, monkeypatch):
    # pytest would keep the records, and with them all that their frames hold.
    monkeypatch.setattr(logging.getLogger("asyncio"), "disabled", True)

    class Failing(Recorder):
        def msg_received(self, data):
            super().msg_received(data)
            raise RuntimeError("callback")

    async def go():
        async with pair(zmq.PULL, zmq.PUSH, factory1=Failing) as (_, ap, b, _):
            old = loop.get_exception_handler()
            loop.set_exception_handler(lambda *_: 1 / 0)
            for _ in range(5):
                b.write([b"x"])
            await ap.received(5)
            # A fatal error, too.
            b.get_extra_info("zmq_socket").close()
            b.write([b"x"])
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert b.is_closing()
            loop.set_exception_handler(old)

    run(go())


# -- Arguments --


def test_write_arguments_that_act(run):
    async def go():
        tr, pr = await open_transport(zmq.DEALER)

        def closing():
            yield b"a"
            tr.abort()
            yield b"b"

        tr.write(closing())
        tr.write([b"c"])
        assert await pr.lost is None

        tr, pr = await open_transport(zmq.DEALER)

        class Falsy:
            def __bool__(self):
                raise RuntimeError("bool")

            def __iter__(self):
                return iter([b"x"])

        with pytest.raises(RuntimeError, match="bool"):
            tr.write(Falsy())

        class Repr:
            def __repr__(self):
                raise RuntimeError("repr")

        with pytest.raises((RuntimeError, TypeError)):
            tr.write([Repr()])

        class Frame(bytes):
            def __del__(self):
                tr.abort()

        tr.write([Frame(b"only a reference")])
        assert tr.get_write_buffer_size() == size_of(b"only a reference")
        tr.abort()
        await pr.lost

    run(go())


def test_a_frame_whose_finalizer_writes(run):
    """References are dropped when all is consistent."""

    class Frame(bytes):
        def __del__(self):
            if len(made) < 20:
                made.append(1)
                target.write([Frame(b"again")])

    made = []
    target = None

    async def go():
        nonlocal target
        async with pair(zmq.PUSH, zmq.PULL) as (a, _, _, bp):
            target = a
            a.write([Frame(b"first")])
            await bp.received(20)
        target = raw = await open_transport(zmq.DEALER)
        target = raw[0]
        target.write([Frame(b"queued")])
        made.clear()
        target.abort()
        await raw[1].lost

    run(go())


def test_the_constructor_misused(run, loop, transport_kind):
    only_c(transport_kind)

    async def go():
        cls = accelerated._CZmqTransport
        for args in [
            (),
            (loop,),
            (loop, "x", None, None),
            (loop, zmq.PULL, object(), 1),
        ]:
            with pytest.raises(TypeError):
                cls(*args)
        # Never initialised: nothing works, nothing crashes.
        raw = cls.__new__(cls)
        raw.close()
        raw.abort()
        raw._abandon()
        raw._arm()
        raw._start()
        raw._on_fd()
        raw._on_armed()
        raw._on_retry()
        raw._call_connection_lost(None)
        raw._force_close(None)
        raw._maybe_pause_protocol()
        raw.set_protocol(1)
        assert raw.get_protocol() is None and raw._zmq_sock is None
        assert raw.get_write_buffer_size() == 0
        raw.write([b"x"])
        raw.pause_reading()
        raw.resume_reading()
        with pytest.raises(AttributeError):
            del raw._high_water
        with pytest.raises(TypeError):
            raw._high_water = "x"
        raw._high_water = float("inf")
        assert raw._high_water == float("inf")
        # Twice.
        tr, pr = await open_transport(zmq.PULL)
        with pytest.raises(RuntimeError):
            tr.__init__(loop, zmq.PULL, tr._zmq_sock, pr)
        await close(tr)
        # A second transport of one socket.
        with raw_socket(zmq.PULL) as zmq_sock:
            one, one_p = await open_transport(zmq.PULL, zmq_sock=zmq_sock)
            await close(one)
            with pytest.raises(OSError):
                await open_transport(zmq.PULL, zmq_sock=zmq_sock)

    run(go())


def test_two_transports_of_one_socket(run, loop_kind, transport_kind, errors):
    only_c(transport_kind)
    if loop_kind != "speedups" or _ext.core is None:
        pytest.skip("the other loops let the second replace the first")

    async def go():
        zmq_sock = raw_socket(zmq.PULL)
        one, one_p = await open_transport(zmq.PULL, zmq_sock=zmq_sock)
        two, two_p = await open_transport(zmq.PULL, zmq_sock=zmq_sock)
        with pytest.raises((RuntimeError, AssertionError)):
            exc = await two_p.lost if not errors else errors[0]["exception"]
            raise exc
        errors.clear()
        one.abort()
        two.abort()
        await one_p.lost

    run(go())


# -- Fork --


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="threads: a DeprecationWarning")
def test_a_forked_child_is_refused(run):
    _fork_test(run)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the one above")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_is_refused_with_threads(run):
    _fork_test(run)


def _fork_test(run):
    async def go():
        async with pair(zmq.PAIR, zmq.PAIR) as (a, ap, b, bp):
            pid = os.fork()
            if pid == 0:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(10)
                status = 1
                try:
                    try:
                        a.write([b"from the child"])
                    except RuntimeError as exc:
                        status = 0 if "forked child" in str(exc) else 2
                    a._on_fd()
                    # What takes libzmq's commands would never return.
                    assert "type=PAIR" in repr(a)
                    # As closing or collecting the loop does.
                    a._abandon()
                except BaseException:
                    traceback.print_exc()
                    status = 3
                finally:
                    os._exit(status)
            _, status = os.waitpid(pid, 0)
            assert status == 0
            a.write([b"from the parent"])
            assert await bp.received(1) == [[b"from the parent"]]
            b.write([b"back"])  # the parent's loop still watches
            assert await asyncio.wait_for(ap.received(1), 100) == [[b"back"]]

    run(go())


def test_a_monitor_fails_to_end(run):
    """close() raises it, and closes all the same."""

    class FailsOnce(zmq.Socket):
        failed = False

        def disable_monitor(self):
            super().disable_monitor()
            if not self.failed:
                FailsOnce.failed = True
                raise RuntimeError("disable_monitor")

    async def go():
        transport, protocol = await open_transport(
            zmq.DEALER, zmq_sock=FailsOnce(zmq.Context.instance(), zmq.DEALER)
        )
        await transport.enable_monitor()
        with pytest.raises(RuntimeError, match="disable_monitor"):
            transport.close()
        assert await protocol.lost is None

    run(go())


class Failing(zmq.Socket):
    """A user's class: its sockets close, and fail."""

    def close(self, linger=None):
        super().close(linger)
        raise RuntimeError("close")


def open_some(run):
    """Three sockets, the second of the class above."""

    async def go():
        sockets = []
        for cls in (zmq.Socket, Failing, zmq.Socket):
            sockets.append(cls(zmq.Context.instance(), zmq.DEALER))
            await open_transport(zmq.DEALER, zmq_sock=sockets[-1])
        return sockets

    return run(go())


def test_one_of_the_loops_sockets_fails_to_close(loop, loop_kind, run):
    if loop_kind != "speedups":
        pytest.skip("a foreign loop does not know its transports")
    sockets = open_some(run)
    with pytest.raises(RuntimeError, match="close"):
        loop.close()
    assert all(sock.closed for sock in sockets)
    assert loop.is_closed()
    assert loop.stats()["zmq_transports"] == 0


@pytest.mark.parametrize("how", ["close", "abort"])
def test_a_socket_fails_to_close(loop, run, errors, how):
    async def go():
        transport, protocol = await open_transport(
            zmq.DEALER, zmq_sock=Failing(zmq.Context.instance(), zmq.DEALER)
        )
        getattr(transport, how)()
        await protocol.lost
        await asyncio.sleep(0.001)
        assert transport.get_protocol() is None
        assert [str(c["exception"]) for c in errors] == ["close"]
        errors.clear()

    run(go())


@pytest.mark.parametrize("closing", [False, True])
def test_zmq_fd_of_a_socket_that_was_closed_behind_is_used_again(run, closing):
    """By another transport, which works; the first one is told, though it waited for
    a peer to send to before it closed."""

    async def go():
        first, first_p = await open_transport(zmq.DEALER)
        zmq_sock = first.get_extra_info("zmq_socket")
        fd = zmq_sock.getsockopt(zmq.FD)
        if closing:
            first.write([b"for nobody"])
            first.close()
        await asyncio.sleep(0.001)
        zmq_sock.close()
        while os.path.exists(f"/proc/self/fd/{fd}"):
            time.sleep(0.001)  # in libzmq's own thread; nothing here may look meanwhile
        unused = []
        while (sock := raw_socket(zmq.PULL)).getsockopt(zmq.FD) != fd:
            unused.append(sock)
        second, second_p = await open_transport(
            zmq.PULL, zmq_sock=sock, bind="tcp://127.0.0.1:*"
        )
        assert (await first_p.lost).errno == errno.ENOTSOCK
        push, _ = await open_transport(zmq.PUSH, connect=list(second.bindings()))
        for i in range(3):
            push.write([b"%d" % i])
            await second_p.received(i + 1)
            first.abort()
        await close(push, second)
        for sock in unused:
            sock.close()

    run(go())


# -- Zero copy --


class Watched(bytes):
    """Counts its instances."""

    alive = 0

    def __new__(cls, *args):
        cls.alive += 1
        return super().__new__(cls, *args)

    def __del__(self):
        type(self).alive -= 1


@pytest.fixture
def watched():
    Watched.alive = 0
    yield Watched
    assert Watched.alive == 0


async def _until_released(cls):
    # libzmq tells in its own thread; the transport looks again on a timer.
    for _ in range(1000):
        if not cls.alive:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{cls.alive} frames are still held")


def test_large_frames_are_released(run, watched):
    async def go():
        async with pair(zmq.PUSH, zmq.PULL) as (a, _, _, bp):
            for i in range(10):
                a.write(
                    [b"small", watched(bytes([i]) * 300_000), watched(b"y" * 65536)]
                )
            await bp.received(10)
            assert bp.messages[3] == [b"small", b"\3" * 300_000, b"y" * 65536]
            bp.messages.clear()
            await _until_released(watched)

    run(go())


def test_large_frames_are_released_after_the_transport(run, watched):
    async def go():
        with raw_socket(zmq.PULL) as pull:
            port = pull.bind_to_random_port("tcp://127.0.0.1")
            tr, _ = await open_transport(zmq.PUSH, connect=f"tcp://127.0.0.1:{port}")
            for _ in range(5):
                tr.write([watched(b"x" * 1_000_000)])
            await close(tr)  # libzmq lingers with the frames
            del tr
            loop = asyncio.get_running_loop()
            for _ in range(5):
                got = await loop.run_in_executor(None, pull.recv)
                assert got == b"x" * 1_000_000
            await _until_released(watched)

    run(go())


def test_large_frames_that_cannot_be_sent(run, watched):
    async def go():
        tr, pr = await open_transport(zmq.PUSH)
        for _ in range(3):
            tr.write([watched(b"x" * 100_000), watched(b"y" * 100_000)])
        assert watched.alive == 6
        tr.abort()
        await pr.lost
        await _until_released(watched)

    run(go())


def test_a_large_bytearray_is_a_snapshot(run):
    async def go():
        async with pair(zmq.PUSH, zmq.PULL) as (a, _, _, bp):
            data = bytearray(b"x" * 200_000)
            a.write([data])
            data[:] = b"y" * 200_000
            assert await bp.received(1) == [[b"x" * 200_000]]

    run(go())


# -- Memory --


def test_many_messages_leave_nothing(run, loop):
    """Flat counts of objects and memory blocks over many messages."""
    live = getattr(_ext.core, "_live_objects", dict)

    class Echo(ZmqProtocol):
        def connection_made(self, transport):
            self.transport = transport

        def msg_received(self, data):
            self.transport.write(data)

    class Count(Recorder):
        def __init__(self):
            super().__init__()
            self.count = 0

        def msg_received(self, data):
            self.count += 1
            if self.count % 2000 == 0:
                self._changed.set()

    async def go():
        # Not a ROUTER: where its peer is slow, it drops.
        async with pair(zmq.DEALER, zmq.DEALER, factory1=Echo, factory2=Count) as (
            *_,
            d,
            dp,
        ):

            async def batch():
                until = dp.count + 2000
                for i in range(2000):
                    d.write([b"head", b"%d" % i, b"x" * 100])
                await dp.until(lambda: dp.count >= until)

            await batch()
            gc.collect()
            objects, blocks = live(), sys.getallocatedblocks()
            for _ in range(10):
                await batch()
            gc.collect()
            now = live()
            assert now.get("zmq_transport") == objects.get("zmq_transport")
            assert now.get("handle", 0) <= objects.get("handle", 0) + 10
            # 20,000 messages: a leak of one block each would show.
            assert sys.getallocatedblocks() < blocks + 2000

    run(go())


def test_many_transports_leave_nothing(run):
    async def go():
        for n in range(20):
            transports = [
                (await open_transport(zmq.DEALER, bind=f"inproc://many-{n}-{i}"))[0]
                for i in range(5)
            ]
            await close(*transports)

    run(go())


@pytest.mark.skipif(_testcapi is None, reason="needs _testcapi")
def test_out_of_memory_in_write(run, transport_kind, errors):
    only_c(transport_kind)

    async def go():
        tr, _ = await open_transport(zmq.PUSH)
        message = [b"%d" % i for i in range(12)]
        for start in range(1, 60):
            _testcapi.set_nomemory(start, start + 1)
            try:
                tr.write(message)
            except MemoryError:
                continue
            finally:
                _testcapi.remove_mem_hooks()
            if tr.is_closing():
                tr, _ = await open_transport(zmq.PUSH)
        errors.clear()
        tr.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    run(go())


@pytest.mark.skipif(_testcapi is None, reason="needs _testcapi")
def test_out_of_memory_in_a_turn(run, loop_kind, transport_kind, errors):
    only_c(transport_kind)

    class Plain(ZmqProtocol):
        """No Python code runs without memory: that would test CPython."""

        def __init__(self):
            self.messages = []
            self.msg_received = self.messages.append

    async def go():
        for start in range(1, 40):
            async with pair(zmq.PAIR, zmq.PAIR, factory1=Plain) as (a, ap, b, _):
                a.pause_reading()
                b.write([b"%d" % i for i in range(12)])
                b.write([b"second"])
                while not a.getsockopt(zmq.EVENTS) & zmq.POLLIN:
                    pass
                await asyncio.sleep(0)
                a.resume_reading()
                _testcapi.set_nomemory(start, start + 1)
                try:
                    a._on_fd()
                except MemoryError:
                    pass
                finally:
                    _testcapi.remove_mem_hooks()
                while not a.is_closing() and ap.messages[-1:] != [[b"second"]]:
                    await asyncio.sleep(0)
        errors.clear()

    run(go())


# -- Threads --


def test_two_loops_in_two_threads(make_loop, transport_kind):
    failures = []

    def work():
        loop = make_loop()

        async def go():
            async with pair(zmq.ROUTER, zmq.DEALER) as (r, rp, d, dp):
                for i in range(1, 200):
                    d.write([b"%d" % i, b"z" * 70_000])
                    identity, *rest = (await rp.received(i))[-1]
                    r.write([identity, *rest])
                    assert (await dp.received(i))[-1] == rest

        try:
            loop.run_until_complete(go())
        except BaseException as exc:
            failures.append(exc)
        finally:
            loop.close()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures

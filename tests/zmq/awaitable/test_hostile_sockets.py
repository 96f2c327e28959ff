"""Python code that does its worst where the sockets' C calls it."""

import asyncio
import gc
import os
import sys
import threading
import weakref

import pytest
import zmq
from awaitable.conftest import sockets

from aiozmq_speedups import new_event_loop

GIL = getattr(sys, "_is_gil_enabled", lambda: True)()


def run(loop, main):
    return loop.run_until_complete(asyncio.wait_for(main, 100))


class ForeignLoop(asyncio.SelectorEventLoop):
    """asyncio's own, with something to be done in the next call of a method."""

    def __init__(self):
        self.tricks = {}
        super().__init__()

    def trick(self, name):
        action = self.tricks.pop(name, None)
        if action is not None:
            action()

    def call_later(self, *args, **kwargs):
        self.trick("call_later")
        return super().call_later(*args, **kwargs)

    def call_soon(self, *args, **kwargs):
        self.trick("call_soon")
        return super().call_soon(*args, **kwargs)

    def add_reader(self, *args):
        self.trick("add_reader")
        super().add_reader(*args)
        self.trick("added_reader")

    def remove_reader(self, fd):
        self.trick("remove_reader")
        return super().remove_reader(fd)

    def create_future(self):
        self.trick("create_future")
        return super().create_future()

    def get_debug(self):
        self.trick("get_debug")
        return super().get_debug()


@pytest.fixture
def foreign():
    loop = ForeignLoop()
    loop.set_exception_handler(lambda loop, context: None)
    yield loop
    loop.tricks.clear()
    loop.close()


async def arrived(sock, future):
    async with asyncio.timeout(100):
        while not future.done():
            await asyncio.sleep(0)


# ---- arguments


@pytest.mark.parametrize("name", ["flags", "copy"])
@pytest.mark.parametrize(
    ("method", "args"),
    [("recv", ()), ("recv_multipart", ()), ("send", (b"x",))]
    + [("send_multipart", ([b"x"],)), ("recv_into", (bytearray(5),))],
)
def test_an_argument_closes_the_socket(loop, ours, method, args, name):
    async def main():
        with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            sock = push if method.startswith("send") else pull

            class Argument:
                def __index__(self):
                    sock.close()
                    return 0

                def __bool__(self):
                    sock.close()
                    return False

            kwargs = {name: Argument()}
            if method == "recv_into" and name == "copy":
                kwargs = {"nbytes": Argument()}
            with pytest.raises((zmq.ZMQError, TypeError)):
                await getattr(sock, method)(*args, **kwargs)

    run(loop, main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="__buffer__ is new in 3.12")
@pytest.mark.parametrize("action", ["cancel", "close", "drop"])
def test_a_buffer_asked_for_when_a_message_is_taken(loop, ours, action):
    """The message of the stash, for recv_into()."""

    async def main():
        with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            waiting = []

            class Buffer:
                def __buffer__(self, flags):
                    if action == "cancel" and waiting:
                        waiting.pop().cancel()
                    elif action == "close":
                        pull.close()
                    return memoryview(bytearray(5))

            dropped = pull.recv()
            await push.send(b"1")
            await arrived(pull, dropped)
            blocker, future = pull.recv(), pull.recv_into(Buffer())
            waiting.append(future)
            if action == "drop":
                del future
            del dropped
            blocker.cancel()
            await asyncio.wait(list(waiting))
            if action == "cancel":
                assert await pull.recv() == b"1"

    run(loop, main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="__buffer__ is new in 3.12")
def test_a_buffer_asked_for_when_a_message_goes_back(loop, ours):
    async def main():
        with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            store = bytearray(5)
            iterators = []

            class Buffer:
                def __buffer__(self, flags):
                    while iterators:
                        iterators.pop().close()
                    return memoryview(store)

            future = pull.recv_into(Buffer())
            iterators[:] = [iter(future), iter(future)]
            kept = list(iterators)
            for iterator in kept:
                iterator.send(None)
            iterators.clear()
            await push.send(b"12345")
            await arrived(pull, future)
            iterators[:] = kept
            kept.pop().close()
            iterators.pop()
            kept.pop().close()  # none is left: it asks the buffer
            del future
            assert await pull.recv() == b"12345"

    run(loop, main())


# ---- results


def test_load_ends_the_loop(loop, ours):
    """A message that is there: load() leaves with what is no Exception."""

    async def main():
        with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            await push.send(b"1")
            await pull.poll()

            def load(data):
                raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt):
                pull._deserialize(pull.recv(), load)
            assert await pull.recv() == b"1"

    run(loop, main())


def test_load_cancels_and_closes(loop, ours):
    async def main():
        with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            for action in "cancel", "result", "await", "close":

                def load(frames):
                    if action == "cancel":
                        assert future.cancel()
                    elif action == "result":
                        with pytest.raises(asyncio.InvalidStateError):
                            future.result()
                    elif action == "await":
                        with pytest.raises((RuntimeError, StopIteration)):
                            iter(future).send(None)
                            iter(future).send(None)
                            raise StopIteration
                    else:
                        pull.close()
                    return action

                future = pull.recv_serialized(load)
                assert not future.done()
                await push.send(b"1")
                if action == "cancel":
                    await asyncio.wait([future])
                    assert future.cancelled()
                    assert await pull.recv() == b"1"
                else:
                    assert await future == action

    run(loop, main())


def test_load_of_a_closed_socket(loop, ours):
    async def main():
        with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            await push.send(b"1")
            await pull.poll(100_000)
            future = pull.recv()
            assert future.done()
            pull.close()
            with pytest.raises(zmq.ZMQError):
                pull._deserialize(future, bytes)

    run(loop, main())


def test_load_of_a_buffer_goes_back(loop, ours):
    async def main():
        with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            await push.send(b"1")
            await pull.poll(100_000)
            future = pull.recv_into(bytearray(5))
            assert future.done()
            future = pull._deserialize(future, str)
            del future
            assert await pull.recv() == b"1"

    run(loop, main())


def test_load_stops_an_iteration(loop, ours):
    # Before Python 3.13 the turn reports it, too; the log would keep the socket.
    loop.set_exception_handler(lambda loop, context: None)

    async def main():
        with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):

            def load(data):
                raise StopIteration

            future = pull.recv_serialized(load)
            await push.send(b"1")
            with pytest.raises((RuntimeError, TypeError)):
                await future

    run(loop, main())


def test_a_result_that_is_emptied(loop, ours):
    """asyncio.Future's own _result shows the list and takes nothing."""

    async def main():
        with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            for copy in True, False:
                future = pull.recv_multipart(copy=copy)
                await push.send_multipart([b"a", b"b"])
                await arrived(pull, future)
                future._result.clear()
                del future
                await push.send(b"next")
                assert await pull.recv() == b"next"

    run(loop, main())


def test_one_of_two_that_await_leaves(loop, ours):
    async def main():
        with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            future = pull.recv()
            first, second = future.__await__(), future.__await__()
            first.send(None)
            second.send(None)
            await push.send(b"1")
            await arrived(pull, future)
            with pytest.raises(asyncio.CancelledError):
                first.throw(asyncio.CancelledError())
            with pytest.raises(StopIteration) as caught:
                second.send(None)
            assert caught.value.value == b"1"
            # Where both leave, the message is the next one's.
            future = pull.recv()
            first, second = future.__await__(), future.__await__()
            first.send(None)
            second.send(None)
            await push.send(b"2")
            await arrived(pull, future)
            first.close()
            second.close()
            assert await pull.recv() == b"2"

    run(loop, main())


@pytest.mark.parametrize("nonsense", ["no exception", 5, int])
def test_an_exception_that_is_none(loop, module, nonsense):
    async def main():
        with sockets(module, zmq.PULL, zmq.PUSH) as (pull, push):
            future = pull.recv()
            with pytest.raises(TypeError):
                future.set_exception(nonsense)
            assert not future.done()
            await push.send(b"1")
            assert await future == b"1"

    run(loop, main())


# ---- a foreign loop


@pytest.fixture
def hostile(foreign, ours):
    """Runs test(pull, push, foreign) on the foreign loop."""

    def hostile(test):
        async def main():
            with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):
                await test(pull, push)

        run(foreign, main())

    return hostile


def test_the_debug_mode_is_secret(foreign, hostile):
    def refuse():
        raise LookupError

    async def test(pull, push):
        for _ in range(3):
            foreign.tricks["get_debug"] = refuse
            with pytest.raises(LookupError):
                pull.send(b"x")  # fails, as it only receives
            future = pull.recv()
            foreign.tricks["get_debug"] = refuse
            with pytest.raises(LookupError):
                future.done()
            assert not future.done()
            assert future.cancel()

    hostile(test)


def test_the_debug_mode_that_ends_the_operation(foreign, hostile):
    async def test(pull, push):
        future = pull.recv()
        foreign.tricks["get_debug"] = lambda: future.cancel()
        assert future.done()
        future = pull.recv()
        foreign.tricks["get_debug"] = lambda: future.set_result(1)
        assert future.done() and future.result() == 1
        await push.send(b"x")
        assert await pull.recv() == b"x"

    hostile(test)


@pytest.mark.parametrize("what", ["close", "receive"])
@pytest.mark.parametrize(
    "name", ["call_later", "call_soon", "add_reader", "added_reader", "get_debug"]
)
def test_a_method_of_the_loop_uses_the_socket(foreign, hostile, name, what):
    async def test(pull, push):
        pull.rcvtimeo = 100_000
        nested = []

        def trick():
            if what == "close":
                pull.close()
            else:
                nested.append(pull.recv())

        foreign.tricks[name] = trick
        try:
            future = pull.recv()
        except zmq.ZMQError:
            assert what == "close"
            return
        foreign.tricks.clear()
        if what == "close":
            await asyncio.wait([future])
            assert future.cancelled() or future.exception() is not None
            assert pull._io is not None and pull.closed
            return
        await push.send(b"1")
        await push.send(b"2")
        futures = [future, *nested]
        got = await asyncio.gather(*futures)
        assert sorted(got) == [b"1", b"2"][: len(futures)]

    hostile(test)


def test_a_timer_that_fires_at_once(foreign, hostile):
    async def test(pull, push):
        pull.rcvtimeo = 100_000
        call_later = foreign.call_later

        def at_once(delay, callback, *args):
            if getattr(callback, "__name__", "") == "_timed_out":
                callback(*args)
            return call_later(delay, callback, *args)

        foreign.call_later = at_once
        future = pull.recv()
        del foreign.call_later
        await push.send(b"1")
        with pytest.raises(zmq.Again):
            await future
        assert await pull.recv() == b"1"

    hostile(test)


@pytest.mark.parametrize("what", ["close", "throw", "send"])
def test_a_future_that_is_made_when_the_await_ends(foreign, hostile, what):
    async def test(pull, push):
        future = pull.recv()
        wait = future.__await__()

        def trick():
            if what == "close":
                wait.close()
            elif what == "throw":
                with pytest.raises(KeyError):
                    wait.throw(KeyError())
            else:
                wait.send(None)

        foreign.tricks["create_future"] = trick
        try:
            wait.send(None)
        except (RuntimeError, StopIteration):
            assert what != "send"
        wait = None
        gc.collect()
        await push.send(b"1")
        assert await future == b"1"

    hostile(test)


def test_a_waiter_that_is_asked_whether_it_is_cancelled(foreign, hostile):
    async def test(pull, push):
        future = pull.recv()
        first, second = future.__await__(), future.__await__()
        waits = [first, second]

        class Waiter(asyncio.Future):
            def cancelled(self):
                while waits:
                    waits.pop().close()
                return True

        def make():
            waiter = Waiter(loop=foreign)
            waiter.cancel()
            return waiter

        foreign.create_future = make
        first.send(None)
        second.send(None)
        del foreign.create_future, first, second
        await push.send(b"1")
        assert await future == b"1"

    hostile(test)


def test_waiters_that_cannot_be_woken(foreign, hostile):
    async def test(pull, push):
        future = pull.recv()

        class Waiter(asyncio.Future):
            def set_result(self, result):
                raise ValueError

        waits = [future.__await__() for _ in range(3)]
        foreign.create_future = lambda: Waiter(loop=foreign)
        for wait in waits:
            wait.send(None)
        del foreign.create_future
        await push.send(b"1")
        await arrived(pull, future)
        assert future.cancelled()
        assert await pull.recv() == b"1"

    hostile(test)


def test_a_loop_that_calls_nothing_when_it_is_cancelled(foreign, hostile):
    """A callback cannot be scheduled: the operation is cancelled all the same."""

    def refuse():
        raise ValueError

    async def test(pull, push):
        future = pull.recv()
        future.add_done_callback(lambda future: None)
        foreign.tricks["call_soon"] = refuse
        with pytest.raises(ValueError):
            future.cancel()
        assert future.cancelled()
        await push.send(b"1")
        assert await pull.recv() == b"1"

    hostile(test)


# ---- lost wake-ups


def test_a_receive_beside_a_poll(loop, module):
    """It takes the word that there is room from under the one who polls."""

    async def main():
        with sockets(module, zmq.DEALER, zmq.DEALER, hwm=1) as (a, b):
            while True:
                try:
                    b.send(bytes(200_000), zmq.DONTWAIT).result()
                except zmq.Again:
                    if not await b.poll(20, zmq.POLLOUT):
                        break
            polling = b.poll(100_000, zmq.POLLOUT)
            await asyncio.sleep(0.01)
            raw = zmq.Socket.shadow(a.underlying)
            while raw.poll(100):
                raw.recv()
            receiving = b.recv()
            assert await polling == zmq.POLLOUT
            receiving.cancel()

    run(loop, main())


# ---- ends


def test_the_last_reference_goes_in_a_turn(loop, ours):
    class Payload(bytes):
        def __del__(self):
            gone.append(1)
            holder.clear()
            gc.collect()

    gone, holder = [], []

    async def main():
        with ours.Context() as context:
            pull = context.socket(zmq.PULL)
            port = pull.bind_to_random_port("tcp://127.0.0.1")
            push = context.socket(zmq.PUSH)
            push.linger = 0
            push.connect(f"tcp://127.0.0.1:{port}")
            future = pull.recv_serialized(lambda frames: Payload(frames[0]))
            await push.send(b"1")
            await arrived(pull, future)
            holder.append(push)
            del future  # goes back
            assert not gone or gone == [1]
            assert await pull.recv() == b"1"
            push.close()
            pull.close()

    run(loop, main())


def test_weak_references(loop, ours):
    async def main():
        with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            seen = []
            for _ in range(300):
                future = push.send(b"x")
                reference = weakref.ref(
                    future, lambda ref: seen.append(push.send(b"y"))
                )
                del future
                assert reference() is None
            assert len(seen) == 300
            for _ in range(600):
                assert await pull.recv() in (b"x", b"y")

    run(loop, main())


def test_the_context_ends_in_another_thread(loop, ours):
    async def main():
        with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            waiting = [pull.recv(), pull.recv_multipart()]
            thread = threading.Thread(target=pull.context.term)
            thread.start()
            done = await asyncio.gather(*waiting, return_exceptions=True)
            assert [type(exc) for exc in done] == [zmq.ContextTerminated] * 2
            pull.close()
            push.close()
            await asyncio.to_thread(thread.join)

    run(loop, main())


def test_a_receive_closes_its_socket_when_it_is_done(loop, module):
    async def main():
        with sockets(module, zmq.PULL, zmq.PUSH) as (pull, push):
            first, second = pull.recv(), pull.recv()
            first.add_done_callback(lambda future: pull.close())
            await push.send(b"1")
            await asyncio.wait([first, second])
            assert first.result() == b"1" and second.cancelled()

    run(loop, main())


# ---- several loops, threads, processes


def test_another_thread_has_another_loop(loop, make_loop, ours):
    async def receive(sock):
        return await asyncio.wait_for(sock.recv(), 100)

    async def main():
        with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            waiting = pull.recv()

            def in_thread():
                other = make_loop()
                try:
                    return other.run_until_complete(receive(pull))
                finally:
                    other.close()

            reason = "another event loop" if GIL else "Non-thread-safe operation"
            with pytest.raises(RuntimeError, match=reason):
                await asyncio.to_thread(in_thread)
            await push.send(b"1")
            assert await waiting == b"1"
            if not GIL:
                # A loop that runs in another thread cannot be left from here.
                with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
                    await asyncio.to_thread(in_thread)
                return
            # Nothing waits: it may move, and come back.
            await push.send(b"2")
            assert await asyncio.to_thread(in_thread) == b"2"
            await push.send(b"3")
            assert await receive(pull) == b"3"

    run(loop, main())


def test_two_sockets_of_one_handle(loop, ours):
    """One after the other: they take each other's wake-ups, as libzmq has one."""

    async def main():
        with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            other = ours.Socket.shadow(pull.underlying)
            for sock in pull, other, pull, other:
                waiting = sock.recv()
                await push.send(b"1")
                assert await waiting == b"1"
            del other, sock
            waiting = pull.recv()
            await push.send(b"2")
            assert await waiting == b"2"

    run(loop, main())


def test_a_forked_child(loop, ours):
    async def main():
        with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            waiting = pull.recv()
            await asyncio.sleep(0)
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    for call in (pull.recv, lambda: push.send(b"x")):
                        with pytest.raises(RuntimeError, match="parent process"):
                            call()
                    code = 2
                    pull.close()
                    waiting = None
                    gc.collect()
                    code = 0
                finally:
                    os._exit(code)
            async with asyncio.timeout(100):
                while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
                    await asyncio.sleep(0.01)
            assert os.waitstatus_to_exitcode(ended[1]) == 0
            await push.send(b"1")
            assert await waiting == b"1"

    run(loop, main())


def test_a_loop_that_is_closed_under_what_waits(ours):
    """And its socket goes on in the next one."""
    with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):

        async def wait():
            return pull.recv()

        async def receive():
            await push.send(b"1")
            return await pull.recv()

        for kind in new_event_loop, asyncio.SelectorEventLoop, new_event_loop:
            first, second = kind(), kind()
            waiting = first.run_until_complete(wait())
            first.close()
            assert run(second, receive()) == b"1"
            assert waiting.cancelled()
            second.close()
            del waiting

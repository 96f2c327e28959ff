"""Other threads: nothing they queue is lost, and wrong use is refused."""

import asyncio
import signal
import sys
import threading
import time
import weakref

import pytest

from aiozmq_speedups import Loop, new_event_loop

pytestmark = pytest.mark.loops("speedups", "asyncio", closed_at_once=True)


def start(*targets):
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    return threads


def test_nothing_is_lost(loop):
    """100,000 callbacks of 8 threads, each thread's in its order."""
    per_thread, threads = 12_500, 8
    got = {i: [] for i in range(threads)}
    count = 0

    def callback(i, n):
        nonlocal count
        got[i].append(n)
        count += 1
        if count == threads * per_thread:
            loop.stop()

    def send(i):
        for n in range(per_thread):
            loop.call_soon_threadsafe(callback, i, n)

    started = start(*(lambda i=i: send(i) for i in range(threads)))
    loop.run_forever()
    for thread in started:
        thread.join()
    assert all(numbers == list(range(per_thread)) for numbers in got.values())


def test_an_idle_loop_wakes_up_each_time(loop):
    """Ping-pong: the loop sleeps before every item."""
    rounds = 2_000
    again = threading.Semaphore(0)

    def send():
        for _ in range(rounds):
            loop.call_soon_threadsafe(again.release)
            again.acquire()
        loop.call_soon_threadsafe(loop.stop)

    [thread] = start(send)
    loop.run_forever()
    thread.join()


def test_threads_while_the_loop_is_busy(loop):
    """Callbacks of the loop's own thread never keep the inbox waiting for ever."""
    seen = []

    def spin():
        if len(seen) < 1000:
            loop.call_soon(spin)
        else:
            loop.stop()

    def send():
        for i in range(1000):
            loop.call_soon_threadsafe(seen.append, i)

    loop.call_soon(spin)
    [thread] = start(send)
    loop.run_forever()
    thread.join()
    assert seen == list(range(1000))


def test_stop_from_another_thread(loop):
    for _ in range(200):
        [thread] = start(lambda: loop.call_soon_threadsafe(loop.stop))
        loop.run_forever()
        thread.join()


def test_before_it_runs_and_after_it_is_closed(loop):
    seen = []
    [thread] = start(lambda: loop.call_soon_threadsafe(seen.append, 1))
    thread.join()
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == [1]
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.call_soon_threadsafe(seen.append, 2)


def test_closed_while_threads_send(make_loop):
    """A sender gets RuntimeError, never a crash; what was queued goes away."""
    for _ in range(20):
        loop = make_loop()
        refused = []
        room = threading.Semaphore(100)  # without a GIL they outrun the loop

        def send():
            try:
                while True:
                    room.acquire(timeout=0.001)
                    loop.call_soon_threadsafe(room.release)
            except RuntimeError as exc:
                refused.append(str(exc))

        threads = start(send, send)
        for _ in range(10):
            loop.call_soon(loop.stop)
            loop.run_forever()
        loop.close()
        for thread in threads:
            thread.join()
        assert refused.count("Event loop is closed") == 2


def test_cancelled_from_another_thread(loop):
    """Handle.cancel() by the thread that queued it: it does not run twice, the
    loop stays sound."""
    ran = []

    def send():
        for i in range(5000):
            handle = loop.call_soon_threadsafe(ran.append, i)
            if i % 2:
                handle.cancel()
        loop.call_soon_threadsafe(loop.stop)

    [thread] = start(send)
    loop.run_forever()
    thread.join()
    assert len(ran) == len(set(ran)) and set(range(0, 5000, 2)) <= set(ran)


def test_a_loop_per_thread():
    results = []

    def work(i):
        async def main():
            await asyncio.sleep(0.001)
            return sum(await asyncio.gather(*(asyncio.sleep(0, n) for n in range(i))))

        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            results.append((i, runner.run(main())))

    for thread in start(*(lambda i=i: work(i) for i in range(20))):
        thread.join()
    assert sorted(results) == [(i, sum(range(i))) for i in range(20)]


def test_two_threads_cannot_run_one_loop(loop):
    errors = []
    running = threading.Event()

    def run():
        running.wait()
        try:
            loop.run_forever()
        except RuntimeError as exc:
            errors.append(str(exc))
        finally:
            loop.call_soon_threadsafe(loop.stop)

    [thread] = start(run)
    loop.call_soon(running.set)
    loop.run_forever()
    thread.join()
    assert errors == ["This event loop is already running"]


def test_executor_and_threadsafe_futures(loop):
    async def main():
        results = await asyncio.gather(
            *(loop.run_in_executor(None, pow, 2, i) for i in range(200))
        )
        return results

    assert loop.run_until_complete(main()) == [2**i for i in range(200)]
    loop.run_until_complete(loop.shutdown_default_executor())

    async def double(x):
        await asyncio.sleep(0)
        return 2 * x

    results = []

    def ask():
        for i in range(200):
            future = asyncio.run_coroutine_threadsafe(double(i), loop)
            results.append(future.result())
        loop.call_soon_threadsafe(loop.stop)

    [thread] = start(ask)
    loop.run_forever()
    thread.join()
    assert results == [2 * i for i in range(200)]


def test_debug_mode_names_the_wrong_thread(loop):
    loop.set_debug(True)
    errors = []

    def misuse():
        for call in (
            lambda: loop.call_soon(print),
            lambda: loop.call_later(0, print),
            lambda: loop.call_at(0, print),
        ):
            try:
                call()
            except RuntimeError as exc:
                errors.append(str(exc))

    async def main():
        await asyncio.to_thread(misuse)

    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_default_executor())
    assert len(errors) == 3
    assert all("Non-thread-safe operation" in error for error in errors)


def test_the_last_reference_goes_in_another_thread():
    loop = Loop()
    loop.call_soon(print)
    loop.call_later(100, print)
    loop.close()
    holder = [loop]
    del loop
    [thread] = start(holder.clear)
    thread.join()


@pytest.mark.skipif(sys.version_info < (3, 14), reason="since Python 3.14")
@pytest.mark.parametrize("method", ["cancel", "cancelled"])
def test_a_handle_that_runs_is_waited_for(loop, method):
    """From another thread, until its callback has ended; its own does not wait."""
    order = []
    started = threading.Event()

    def callback():
        handle.cancelled()
        started.set()
        time.sleep(0.05)
        order.append("ran")

    def other():
        started.wait(100)
        getattr(handle, method)()
        order.append("returned")
        loop.call_soon_threadsafe(loop.stop)

    handle = loop.call_soon_threadsafe(callback)
    [thread] = start(other)
    loop.run_forever()
    thread.join()
    assert order == ["ran", "returned"]


@pytest.mark.skipif(sys.version_info < (3, 14), reason="since Python 3.14")
@pytest.mark.parametrize("method", ["cancel", "cancelled"])
@pytest.mark.parametrize("kind", [Loop, asyncio.SelectorEventLoop])
@pytest.mark.parametrize("by", ["its own", "another"])
def test_one_that_is_referred_to_weakly_is_waited_for(kind, method, by):
    """The thread that waits has no other reference to it as it begins."""
    loop = kind()
    order = []
    weak = []
    started, held = threading.Event(), threading.Event()

    def callback():
        started.set()
        held.wait(100)
        time.sleep(0.05)
        order.append("ran")

    def schedule():
        weak.append(weakref.ref(loop.call_soon_threadsafe(callback)))

    def other():
        try:
            started.wait(100)
            handle = weak[0]()
            held.set()
            getattr(handle, method)()
            order.append("returned")
        finally:
            loop.call_soon_threadsafe(loop.stop)

    if by == "another":
        [maker] = start(schedule)
        maker.join()
    else:
        loop.call_soon(schedule)
    [thread] = start(other)
    loop.run_forever()
    thread.join()
    loop.close()
    assert order == ["ran", "returned"]


@pytest.mark.skipif(sys.version_info < (3, 14), reason="since Python 3.14")
@pytest.mark.parametrize("method", ["cancel", "cancelled"])
@pytest.mark.parametrize("kind", [Loop, asyncio.SelectorEventLoop])
def test_that_wait_can_be_interrupted(kind, method):
    """By a signal handler that raises, Ctrl-C's say."""
    main = threading.get_ident()
    started, waiting, interrupted = (threading.Event() for _ in range(3))
    too_late = []

    class Interrupted(Exception):
        pass

    def on_signal(*_):
        if waiting.is_set() and not interrupted.is_set():
            interrupted.set()
            raise Interrupted

    def callback():
        started.set()
        waiting.wait(100)
        for _ in range(1000):
            signal.pthread_kill(main, signal.SIGUSR1)
            if interrupted.wait(0.01):
                break
        else:
            too_late.append(True)
        loop.stop()

    loop = kind()
    before = signal.signal(signal.SIGUSR1, on_signal)
    handle = loop.call_soon_threadsafe(callback)
    [thread] = start(loop.run_forever)
    try:
        assert started.wait(100)
        with pytest.raises(Interrupted):
            waiting.set()
            getattr(handle, method)()
        assert not too_late
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
        loop.close()

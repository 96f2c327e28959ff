"""Ctrl-C and other signals, as in asyncio: out of every kind of turn."""

import asyncio
import contextlib
import functools
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from aiozmq_speedups import Loop

pytestmark = pytest.mark.loops("speedups", "asyncio", closed_at_once=True)


@pytest.fixture(autouse=True)
def default_handlers():
    """pytest's own SIGINT handling and wake-up descriptor come back."""
    old = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, old)
    assert signal.set_wakeup_fd(-1) == -1


def interrupt_when(condition, number=signal.SIGINT):
    """A thread that sends this process a signal once `condition()` holds."""

    def send():
        while not condition():
            time.sleep(0.0005)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def asleep():
    """The main thread waits in the kernel."""
    with open(f"/proc/self/task/{os.getpid()}/stat") as f:
        return f.read().rpartition(")")[2].split()[0] == "S"


def test_idle_loop(loop):
    thread = interrupt_when(asleep)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    thread.join()
    assert not loop.is_running()
    assert loop.run_until_complete(asyncio.sleep(0, 1)) == 1


def test_loop_with_a_timer_far_away(loop):
    loop.call_later(1000, print)
    thread = interrupt_when(asleep)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    thread.join()


def test_callbacks_that_are_all_c(loop):
    """No Python code runs in which the interpreter would see the signal."""

    started = []
    loop.call_soon(started.append, 1)
    # call_soon(again), for ever
    again = functools.partial(loop.call_soon)
    again.__setstate__((loop.call_soon, (again,), {}, {}))
    loop.call_soon(again)
    thread = interrupt_when(lambda: started)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    thread.join()
    again.__setstate__((print, (), {}, {}))


def test_busy_callbacks(loop):
    started = []

    def spin():
        started.append(1)
        loop.call_soon(spin)

    loop.call_soon(spin)
    thread = interrupt_when(lambda: started)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    thread.join()


def test_a_handler_that_raises_nothing(loop):
    """It runs though the loop is idle, and the loop goes on."""
    seen = []

    def handler(signum, frame):
        seen.append(signum)
        loop.call_soon(loop.stop)

    old = signal.signal(signal.SIGUSR1, handler)
    try:
        thread = interrupt_when(asleep, signal.SIGUSR1)
        if not isinstance(loop, Loop):  # asyncio would sleep on
            loop.add_signal_handler(signal.SIGUSR2, print)
        loop.run_forever()
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert seen == [signal.SIGUSR1]


def test_add_signal_handler(loop):
    seen = []

    def handler(x):
        seen.append((x, asyncio.get_running_loop() is loop))
        if len(seen) == 3:
            loop.stop()
        else:
            os.kill(os.getpid(), signal.SIGUSR1)

    loop.add_signal_handler(signal.SIGUSR1, handler, "x")
    thread = interrupt_when(asleep, signal.SIGUSR1)
    loop.run_forever()
    thread.join()
    assert seen == [("x", True)] * 3
    assert loop.remove_signal_handler(signal.SIGUSR1)
    assert not loop.remove_signal_handler(signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_sigint_as_a_signal_handler(loop):
    loop.add_signal_handler(signal.SIGINT, loop.stop)
    thread = interrupt_when(asleep)
    loop.run_forever()
    thread.join()
    loop.remove_signal_handler(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_handler_that_raises(loop):
    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))

    def handler():
        loop.call_soon(loop.stop)
        raise ZeroDivisionError

    loop.add_signal_handler(signal.SIGUSR1, handler)
    thread = interrupt_when(asleep, signal.SIGUSR1)
    loop.run_forever()
    thread.join()
    loop.remove_signal_handler(signal.SIGUSR1)
    assert isinstance(contexts[0]["exception"], ZeroDivisionError)
    contexts.clear()


def test_signals_it_cannot_have(loop):
    for number, error in (
        (signal.SIGKILL, RuntimeError),
        (signal.SIGSTOP, RuntimeError),
        (0, ValueError),
        (1000, ValueError),
        ("x", TypeError),
    ):
        with pytest.raises(error):
            loop.add_signal_handler(number, print)
    with pytest.raises(TypeError):
        loop.add_signal_handler(signal.SIGUSR1, asyncio.sleep)


def test_the_wakeup_descriptor_of_others_comes_back(loop):
    read, write = os.pipe()
    os.set_blocking(write, False)
    old = signal.set_wakeup_fd(write)
    try:
        loop.run_until_complete(asyncio.sleep(0))
        assert signal.set_wakeup_fd(old) == write
    finally:
        signal.set_wakeup_fd(-1)
        os.close(read)
        os.close(write)


def test_the_wakeup_descriptor_of_others_comes_back_without_warnings(loop, capfd):
    """Its owner may have asked for none where the buffer is full, as trio does."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    old_handler = signal.signal(signal.SIGUSR1, lambda *args: None)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        loop.run_until_complete(asyncio.sleep(0))
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(write, bytes(4096))
        os.kill(os.getpid(), signal.SIGUSR1)
        assert capfd.readouterr().err == ""
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGUSR1, old_handler)
        os.close(read)
        os.close(write)


def test_the_wakeup_descriptor_of_others_is_told(loop):
    read, write = os.pipe()
    os.set_blocking(write, False)
    old_handler = signal.signal(signal.SIGUSR1, lambda *args: None)
    signal.set_wakeup_fd(write)

    async def main():
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.sleep(0.001)

    try:
        loop.run_until_complete(main())
        assert os.read(read, 10) == bytes([signal.SIGUSR1])
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGUSR1, old_handler)
        os.close(read)
        os.close(write)


def test_a_signal_for_a_loop_that_does_not_run(make_loop):
    """Another one runs meanwhile: it is told when it runs again."""
    loop, other = make_loop(), make_loop()
    seen = []
    loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)

    async def main():
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.sleep(0.001)

    other.run_until_complete(main())
    assert seen == []
    loop.run_until_complete(asyncio.sleep(0.001))
    assert seen == [1]
    # Its own descriptor, which is the one that it finds when it runs.
    loop.run_until_complete(main())
    assert seen == [1, 1]
    loop.remove_signal_handler(signal.SIGUSR1)
    other.close()
    loop.close()


def test_ctrl_c_while_the_wakeup_descriptor_is_set(monkeypatch):
    """Ours must not stay: its number may be another file's next."""
    loop = Loop()
    set_wakeup_fd = signal.set_wakeup_fd

    def interrupted(fd, **keywords):
        old = set_wakeup_fd(fd, **keywords)
        if fd != -1:
            signal.raise_signal(signal.SIGINT)
        return old

    coroutine = asyncio.sleep(0)
    with monkeypatch.context() as patch:
        patch.setattr(signal, "set_wakeup_fd", interrupted)
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(coroutine)
    assert signal.set_wakeup_fd(-1) == -1
    assert not loop.is_running()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def test_runner_cancels_the_main_task(make_loop):
    """asyncio.Runner turns the first Ctrl-C into a cancellation."""
    seen = []

    async def main():
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    with asyncio.Runner(loop_factory=make_loop) as runner:
        thread = interrupt_when(asleep)
        with pytest.raises(KeyboardInterrupt):
            runner.run(main())
        thread.join()
        assert runner.run(asyncio.sleep(0, 1)) == 1
    assert seen == ["cancelled"]


def test_runner_second_interrupt(make_loop):
    """The second Ctrl-C does not wait for the task."""
    seen = []

    async def main():
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            seen.append("cancelled")
            await asyncio.sleep(1000)

    def twice():
        interrupt_when(asleep).join()
        interrupt_when(lambda: seen and asleep()).join()

    with asyncio.Runner(loop_factory=make_loop) as runner:
        thread = threading.Thread(target=twice)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            runner.run(main())
        thread.join()
    assert seen == ["cancelled"]


PROGRAM = """
import asyncio, sys
import aiozmq_speedups

async def main():
    print("ready", flush=True)
    try:
        {body}
    finally:
        print("cleaned up", flush=True)

aiozmq_speedups.run(main())
"""


@pytest.mark.parametrize(
    "body",
    [
        "await asyncio.sleep(1000)",
        "await asyncio.Event().wait()",
        "while True: await asyncio.sleep(0)",
        "await asyncio.gather(*(asyncio.sleep(1000) for _ in range(10)))",
        "await asyncio.to_thread(sys.stdin.read)",
    ],
)
def test_a_program_ends_at_ctrl_c(body):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            # the thread of the last program ends with its input
            out, err = process.communicate(timeout=200)
        except BaseException:
            process.kill()
            raise
    assert out == "cleaned up\n"
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert process.returncode == -signal.SIGINT

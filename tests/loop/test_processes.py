"""Child processes: spawning is asyncio's own, the pipes and the waiting are ours."""

import asyncio
import contextlib
import os
import resource
import signal
import sys
import threading

import pytest

from aiozmq_speedups import Loop

pytestmark = pytest.mark.loops("speedups", "asyncio", closed_at_once=True)

PIPE = asyncio.subprocess.PIPE
# A shell that ends at once and leaves a child, which has its pipes.
GRANDCHILD = "sleep 60 & echo $!"


@pytest.fixture
def run(loop):
    def run(coro):
        return loop.run_until_complete(asyncio.wait_for(coro, 100))

    return run


@pytest.fixture
def wakes_at_exit(loop):
    if type(loop).__module__.startswith("asyncio.") and sys.version_info < (3, 14):
        pytest.skip("asyncio waits for the ends of the pipes")


@pytest.fixture
def without_pidfds(monkeypatch):
    """As a Python that was built where the system had none."""
    if sys.version_info < (3, 14):
        pytest.skip("policies have the child watchers")
    monkeypatch.delattr(os, "pidfd_open", raising=False)


@pytest.mark.loops("speedups")
def test_no_thread_waits_without_pidfds(without_pidfds, run):
    async def main():
        processes = [
            await asyncio.create_subprocess_exec("cat", stdin=PIPE) for _ in range(3)
        ]
        names = [thread.name for thread in threading.enumerate()]
        for process in processes:
            process.stdin.close()
        assert [await process.wait() for process in processes] == [0, 0, 0]
        return names

    assert not any(name.startswith("asyncio-waitpid") for name in run(main()))


def test_who_wants_threads_has_them(without_pidfds, monkeypatch):
    """CPython's tests of its thread's watcher say so like this."""
    monkeypatch.setattr(asyncio.unix_events, "can_use_pidfd", lambda: False)
    with contextlib.closing(Loop()) as loop:
        assert isinstance(loop._watcher, asyncio.unix_events._ThreadedChildWatcher)


@pytest.mark.loops("speedups")
def test_a_process_reaped_elsewhere_without_pidfds(without_pidfds, run, caplog):
    async def main():
        process = await asyncio.create_subprocess_exec("sleep", "60")
        process.kill()
        os.waitpid(process.pid, 0)
        return await process.wait()

    assert run(main()) == 255
    assert "waited for elsewhere" in caplog.text


def children():
    """The pids of this process's children, whichever thread has begun them."""
    pids = set()
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/children") as file:
                pids |= set(file.read().split())
        except FileNotFoundError:
            pass
    return pids


def is_zombie_or_alive(pid):
    return os.path.exists(f"/proc/{pid}")


async def shell_with_grandchild():
    """A process whose child is still there, and the pid of that."""
    process = await asyncio.create_subprocess_shell(GRANDCHILD, stdin=PIPE, stdout=PIPE)
    return process, int(await process.stdout.readline())


def test_wait_while_the_pipes_are_held(run, wakes_at_exit):
    async def main():
        process, grandchild = await shell_with_grandchild()
        try:
            waiting = [asyncio.ensure_future(process.wait()) for _ in range(3)]
            waiting[1].cancel()
            assert await waiting[0] == await waiting[2] == 0
            assert await process.wait() == process.returncode == 0
            assert not process.stdout.at_eof()
        finally:
            os.kill(grandchild, signal.SIGKILL)
        assert await process.communicate() == (b"", None)
        assert await process.wait() == 0

    run(main())


def test_wait_before_it_exits(run, wakes_at_exit):
    """Who waits already is woken when it exits, not when its pipes end."""

    async def main():
        process = await asyncio.create_subprocess_shell(
            "sleep 60 & echo $!; read line; exit 3", stdin=PIPE, stdout=PIPE
        )
        grandchild = int(await process.stdout.readline())
        try:
            waiting = asyncio.ensure_future(process.wait())
            await asyncio.sleep(0)
            process.stdin.write(b"go\n")
            assert await waiting == 3
        finally:
            os.kill(grandchild, signal.SIGKILL)
        assert await process.stdout.read() == b""

    run(main())


def test_protocol_is_told_in_order(run):
    """process_exited() comes at the exit, connection_lost() with the pipes' ends."""

    class Protocol(asyncio.SubprocessProtocol):
        def __init__(self):
            self.events = []
            self.exited, self.lost = asyncio.Event(), asyncio.Event()
            self.line = asyncio.get_running_loop().create_future()

        def pipe_data_received(self, fd, data):
            self.line.set_result(data)

        def pipe_connection_lost(self, fd, exc):
            self.events.append(fd)

        def process_exited(self):
            self.events.append("exited")
            self.exited.set()

        def connection_lost(self, exc):
            self.events.append("lost")
            self.lost.set()

    async def main():
        transport, protocol = await asyncio.get_running_loop().subprocess_shell(
            Protocol, GRANDCHILD, stdin=None, stderr=None
        )
        grandchild = int(await protocol.line)
        await protocol.exited.wait()
        assert transport.get_returncode() == 0
        os.kill(grandchild, signal.SIGKILL)
        await protocol.lost.wait()
        assert protocol.events == ["exited", 1, "lost"]
        transport.close()

    run(main())


def test_megabytes_through_cat(run):
    """100 of them both ways at once, gathered and streamed."""
    data = bytes(range(256)) * 4096 * 100

    async def stream(process):
        async def feed():
            for start in range(0, len(data), 1 << 20):
                process.stdin.write(data[start : start + (1 << 20)])
                await process.stdin.drain()
            process.stdin.close()

        feeding = asyncio.ensure_future(feed())
        position = 0
        while chunk := await process.stdout.read(1 << 18):
            assert data.startswith(chunk, position)
            position += len(chunk)
        await feeding
        return position

    async def main():
        process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        out, _ = await process.communicate(data)
        assert out == data
        process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        assert await stream(process) == len(data)
        assert await process.wait() == 0

    run(main())


def test_cancelled_communicate(run):
    """It can be killed and waited for, and is then no zombie."""

    async def main():
        pids = []
        for _ in range(10):
            process = await asyncio.create_subprocess_exec(
                "cat", stdin=PIPE, stdout=PIPE, stderr=PIPE
            )
            pids.append(process.pid)
            task = asyncio.ensure_future(process.communicate(bytes(1 << 20)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            process.kill()
            await process.communicate()  # the pipes have to be read to their ends
            assert await process.wait() == -signal.SIGKILL
        assert not any(map(is_zombie_or_alive, pids))

    run(main())


def test_cancelled_spawn(run):
    """Whoever gives up while a process is made leaves none."""

    async def main():
        before = children()
        for turns in range(6):
            task = asyncio.ensure_future(
                asyncio.create_subprocess_exec("sleep", "60", stdin=PIPE, stdout=PIPE)
            )
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            try:
                process = await task
            except asyncio.CancelledError:
                continue
            process.kill()
            await process.wait()
        assert children() <= before

    run(main())


@pytest.mark.slow
def test_a_thousand_at_once(run):
    """All run together; each answers, ends and is reaped."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 8192:
        pytest.skip(f"no more than {hard} descriptors")

    async def main():
        processes = [
            await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
            for _ in range(1000)
        ]
        answers = [
            process.communicate(b"%d" % number)
            for number, process in enumerate(processes)
        ]
        answers = await asyncio.gather(*answers)
        assert answers == [(b"%d" % number, None) for number in range(1000)]
        assert [process.returncode for process in processes] == [0] * 1000
        assert not any(is_zombie_or_alive(process.pid) for process in processes)

    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))
    try:
        run(main())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

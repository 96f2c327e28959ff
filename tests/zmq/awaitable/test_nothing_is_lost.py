"""A receive that is cancelled, times out or is dropped has taken nothing."""

import asyncio
import gc
import random
import sys
import time
import warnings

import pytest
import zmq
from awaitable.conftest import sockets


def run(loop, main, timeout=100):
    return loop.run_until_complete(asyncio.wait_for(main, timeout))


@pytest.fixture(params=["recv", "recv_multipart"])
def receive(request):
    return request.param


def text(message):
    return message if isinstance(message, bytes) else b"".join(message)


async def arrived(sock, future):
    """Waits, without a turn in which a task could go on, until `future` is done."""
    deadline = time.monotonic() + 100
    while not future.done():
        assert time.monotonic() < deadline
        await asyncio.sleep(0)


def test_cancelled_before_it_could_go_on(loop, ours, receive):
    async def main():
        with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            waiting = getattr(pull, receive)()

            async def wait():
                return await waiting

            task = asyncio.create_task(wait())
            await asyncio.sleep(0)
            cancelled = []

            def cancel():
                if waiting.done():
                    cancelled.append(task.cancel())
                else:
                    loop.call_soon(cancel)

            loop.call_soon(cancel)
            await push.send(b"1")
            await push.send(b"2")
            # On a foreign loop the task goes on in the turn with its message, unless
            # that turn is not the loop's own.
            if type(loop).__module__ != "aiozmq_speedups.loop":
                deadline = time.monotonic() + 100
                while not waiting.done():
                    assert time.monotonic() < deadline
                    pull._io._on_fd()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert cancelled == [True] and waiting.cancelled()
            with pytest.raises(asyncio.CancelledError):
                waiting.result()
            assert pull.get(zmq.EVENTS) & zmq.POLLIN
            assert await pull.poll(0) == zmq.POLLIN
            assert text(await getattr(pull, receive)()) == b"1"
            assert await pull.recv() == b"2"

    run(loop, main())


def test_a_future_that_nobody_asks(loop, ours, receive):
    async def main():
        with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            waiting = getattr(pull, receive)()
            await push.send_multipart([b"1", b"2"])
            await arrived(pull, waiting)
            del waiting
            gc.collect()
            assert await pull.recv_multipart() in ([b"1", b"2"], [b"2"])
            # It was there at once.
            await push.send(b"3")
            assert await pull.poll(100_000)
            getattr(pull, receive)()
            assert await pull.recv() == b"3"

    run(loop, main())


def test_result_takes_it(loop, ours):
    async def main():
        with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            waiting = pull.recv()
            await push.send(b"1")
            await asyncio.wait({waiting})
            assert waiting.result() == waiting.result() == b"1"
            del waiting
            await push.send(b"2")
            assert await pull.recv() == b"2"

    run(loop, main())


def test_the_order_of_what_goes_back(loop, ours):
    async def main():
        with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            waiting = [pull.recv() for _ in range(20)]
            for i in range(30):
                await push.send(b"%d" % i)
            await arrived(pull, waiting[-1])
            random.Random(1).shuffle(waiting)
            while waiting:
                waiting.pop()
            assert [int(await pull.recv()) for _ in range(30)] == list(range(30))

    run(loop, main())


def test_one_message_in_two_ways(loop, ours):
    """Frames by frames what was a message, and the other way round."""

    async def main():
        with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            waiting = pull.recv_multipart()
            await push.send_multipart([b"1", b"2", b"3"])
            await push.send_multipart([b"4", b"5"])
            await arrived(pull, waiting)
            del waiting
            assert await pull.recv() == b"1" and pull.get(zmq.RCVMORE) == 1
            assert (await pull.recv(copy=False)).bytes == b"2"
            frame = pull.recv()
            assert frame.done()
            del frame
            buffer = bytearray(3)
            assert await pull.recv_into(buffer) == 1 and buffer == b"3\0\0"
            assert pull.get(zmq.RCVMORE) == 0
            frame = pull.recv(copy=False)
            await arrived(pull, frame)
            del frame
            assert await pull.recv_multipart() == [b"4", b"5"]

    run(loop, main())


def test_recv_into_goes_back(loop, ours):
    async def main():
        with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            buffer = bytearray(10)
            waiting = pull.recv_into(buffer)
            await push.send(b"12345")
            await arrived(pull, waiting)
            del waiting
            assert await pull.recv() == b"12345"

    run(loop, main())


def test_deserialized_goes_back(loop, ours):
    async def main():
        with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            waiting = pull.recv_json()
            await push.send_json([1])
            await arrived(pull, waiting)
            del waiting
            assert await pull.recv_json() == [1]

    run(loop, main())


def test_close_tells_of_what_is_left(loop, ours):
    async def main():
        with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            waiting = pull.recv()
            await push.send(b"1")
            await arrived(pull, waiting)
            del waiting
            with pytest.warns(RuntimeWarning, match=r"1 message\(s\) received"):
                pull.close()
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                push.close()

    run(loop, main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="3.11's wait_for() reads it")
@pytest.mark.parametrize("count", [2000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_random_cancels_and_timeouts(loop, ours, receive, count):
    """As many readers as may be, cancelled at any moment: all arrive, in order."""
    rng = random.Random(count)

    async def main():
        with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            received = []

            async def read():
                while True:
                    try:
                        async with asyncio.timeout(rng.choice([0, 1e-5, 1e-3, None])):
                            message = await getattr(pull, receive)()
                    except TimeoutError:
                        continue
                    received.append(int(text(message)))

            async def feed():
                for i in range(count):
                    await push.send(b"%d" % i)
                    if rng.random() < 0.2:
                        await asyncio.sleep(rng.choice([0, 0, 1e-4]))

            feeding = asyncio.create_task(feed())
            readers = {asyncio.create_task(read()) for _ in range(3)}
            while len(received) < count:
                await asyncio.sleep(rng.choice([0, 0, 1e-4]))
                victim = rng.choice(list(readers))
                victim.cancel()
                await asyncio.wait({victim})
                readers.remove(victim)
                readers.add(asyncio.create_task(read()))
            await feeding
            for reader in readers:
                reader.cancel()
            await asyncio.wait(readers)
            assert sorted(received) == list(range(count))

    run(loop, main(), 120)

"""Tasks that go on in the turn of a socket: on loops that are not this package's."""

import asyncio
import contextvars

import pytest
import zmq
from awaitable.conftest import sockets

pytestmark = pytest.mark.loops("asyncio", "uvloop")


def run(loop, main):
    return loop.run_until_complete(asyncio.wait_for(main, 100))


def test_the_order_and_the_contexts(loop, module):
    variable = contextvars.ContextVar("variable", default=None)

    async def main():
        with sockets(module, zmq.PULL, zmq.PUSH) as (pull, push):
            got = []

            async def receive(number):
                variable.set(number)
                data = await pull.recv()
                assert asyncio.current_task() is tasks[number]
                got.append((variable.get(), data))
                variable.set(None)
                await asyncio.sleep(0)
                assert asyncio.current_task() is tasks[number]
                return number

            tasks = [asyncio.ensure_future(receive(i)) for i in range(5)]
            await asyncio.sleep(0)
            for i in range(5):
                await push.send(b"%d" % i)
            assert await asyncio.gather(*tasks) == list(range(5))
            assert got == [(i, b"%d" % i) for i in range(5)]
            assert variable.get() is None

    run(loop, main())


def test_one_cancels_the_next(loop, ours):
    """Of those whose messages came in one turn."""

    async def main():
        with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):

            async def receive(number):
                data = await pull.recv()
                if number == 0:
                    tasks[1].cancel()
                return data

            tasks = [asyncio.ensure_future(receive(i)) for i in range(3)]
            await asyncio.sleep(0)
            raw = zmq.Socket.shadow(push.underlying)
            for i in range(3):
                raw.send(b"%d" % i)
            await asyncio.wait(tasks)
            got = [task.result() for task in tasks if not task.cancelled()]
            while len(got) < 3:
                got.append(await pull.recv())
            assert sorted(got) == [b"0", b"1", b"2"]

    run(loop, main())


def test_one_closes_the_socket(loop, ours):
    async def main():
        with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):

            async def receive(number):
                data = await pull.recv()
                pull.close()
                return data

            tasks = [asyncio.ensure_future(receive(i)) for i in range(3)]
            await asyncio.sleep(0)
            await push.send(b"0")
            await asyncio.wait(tasks)
            assert tasks[0].result() == b"0"

    run(loop, main())


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_a_task_ends_the_program(loop, ours, kind):
    with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):

        async def receive(number):
            data = await pull.recv()
            if number == 0:
                raise kind
            return data

        async def main():
            tasks.extend(asyncio.ensure_future(receive(i)) for i in range(2))
            await asyncio.sleep(0)
            raw = zmq.Socket.shadow(push.underlying)
            raw.send(b"0")
            raw.send(b"1")
            await asyncio.wait(tasks[1:])

        tasks = []
        with pytest.raises(kind):
            run(loop, main())
        # The loop can go on, and so can the other.
        assert run(loop, tasks[1]) == b"1"
        assert isinstance(tasks[0].exception(), kind)


def test_a_turn_within_a_task(loop, ours):
    """Whoever calls it by hand is a task: the others go on in the loop's turn."""

    async def main():
        with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            receiving = asyncio.ensure_future(pull.recv())
            task = asyncio.ensure_future(asyncio.wait_for(receiving, 100))
            await asyncio.sleep(0)

            async def receive():
                return await pull.recv()

            another = asyncio.ensure_future(receive())
            await asyncio.sleep(0)
            await push.send(b"1")
            await push.send(b"2")
            while not receiving.done():
                pull._io._on_fd()
                pull._io._on_armed()
            assert await task == b"1"
            assert await another == b"2"

    run(loop, main())


def test_a_context_that_is_taken(loop, ours):
    async def main():
        with sockets(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            context = contextvars.copy_context()

            async def receive():
                return await pull.recv()

            task = loop.create_task(receive(), context=context)
            await asyncio.sleep(0)
            await push.send(b"1")

            def turns():
                for _ in range(1000):
                    pull._io._on_fd()

            loop.call_soon(turns, context=context)
            assert await task == b"1"

    run(loop, main())

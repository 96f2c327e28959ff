"""What zmq.asyncio does, ours does: each test passes with both modules."""

import asyncio
import pickle
import threading

import pytest
import zmq
import zmq.asyncio
from awaitable.conftest import sockets


def run(loop, main):
    return loop.run_until_complete(asyncio.wait_for(main, 100))


def test_kinds(loop, module):
    async def main():
        with sockets(module, zmq.PUSH) as (push,):
            assert isinstance(push, zmq.Socket)
            assert isinstance(push, zmq.asyncio.Socket)
            assert isinstance(push.context, module.Context)
            assert isinstance(push.context, zmq.asyncio.Context)
            assert asyncio.isfuture(push.recv())
            assert module.Context.instance() is module.Context.instance()
        module.Context.instance().term()

    run(loop, main())


def test_frames_and_messages(loop, module):
    async def main():
        with sockets(module, zmq.PULL, zmq.PUSH) as (pull, push):
            assert await push.send(b"one") is None
            assert await pull.recv() == b"one"
            waiting = pull.recv_multipart()
            assert not waiting.done()
            await push.send_multipart([b"a", bytearray(b"b"), memoryview(b"")])
            assert await waiting == [b"a", b"b", b""]
            await push.send(b"first", zmq.SNDMORE)
            await push.send(b"last")
            assert await pull.recv() == b"first"
            assert pull.get(zmq.RCVMORE) == 1
            assert await pull.recv() == b"last"
            assert pull.getsockopt(zmq.RCVMORE) == 0

    run(loop, main())


def test_without_a_copy(loop, module):
    async def main():
        with sockets(module, zmq.PULL, zmq.PUSH) as (pull, push):
            tracker = await push.send(b"x" * 100_000, copy=False, track=True)
            assert isinstance(tracker, zmq.MessageTracker)
            frame = await pull.recv(copy=False)
            assert isinstance(frame, zmq.Frame) and len(frame) == 100_000
            await push.send_multipart([zmq.Frame(b"a"), b"b"], copy=False)
            frames = await pull.recv_multipart(copy=False)
            assert [frame.bytes for frame in frames] == [b"a", b"b"]
            assert [frame.more for frame in frames] == [True, False]

    run(loop, main())


def test_large_frames(loop, module):
    async def main():
        with sockets(module, zmq.PULL, zmq.PUSH) as (pull, push):
            for size in (65_535, 65_536, 3_000_000):
                await push.send(b"x" * size)
                assert await pull.recv() == b"x" * size

    run(loop, main())


def test_serialized(loop, module):
    async def main():
        with sockets(module, zmq.PULL, zmq.PUSH) as (pull, push):
            for early in (False, True):
                if early:
                    received = pull.recv_string(), pull.recv_json(), pull.recv_pyobj()
                await push.send_string("ä")
                await push.send_json({"a": 1})
                await push.send_pyobj((1, 2))
                if not early:
                    assert await pull.poll(100_000)
                    received = pull.recv_string(), pull.recv_json(), pull.recv_pyobj()
                assert await asyncio.gather(*received) == ["ä", {"a": 1}, (1, 2)]
            await push.send_serialized([1], lambda m: [pickle.dumps(m)])
            load = lambda frames: pickle.loads(frames[0])  # noqa: E731
            assert await pull.recv_serialized(load) == [1]
            await push.send(b"not json")
            with pytest.raises(ValueError):
                await pull.recv_json()

    run(loop, main())


def test_recv_into(loop, module):
    async def main():
        with sockets(module, zmq.PULL, zmq.PUSH) as (pull, push):
            buffer = bytearray(4)
            await push.send(b"ab")
            assert await pull.recv_into(buffer) == 2
            waiting = pull.recv_into(buffer, nbytes=3)
            await push.send(b"12345")
            assert await waiting == 5
            assert bytes(buffer) == b"123\0"

    run(loop, main())


def test_dont_wait(loop, module):
    async def main():
        with sockets(module, zmq.PULL, zmq.PUSH) as (pull, push):
            for receive in (pull.recv, pull.recv_multipart):
                failed = receive(zmq.DONTWAIT)
                assert failed.done()
                with pytest.raises(zmq.Again):
                    await failed
            await push.send(b"x", flags=zmq.DONTWAIT)
            await pull.poll(100_000)
            assert await pull.recv(flags=zmq.DONTWAIT) == b"x"

    run(loop, main())


def test_time_outs(loop, module):
    async def main():
        with sockets(module, zmq.PULL) as (pull,):
            pull.rcvtimeo = 20
            with pytest.raises(zmq.Again):
                await pull.recv()
        with module.Context() as context, context.socket(zmq.PUSH) as push:
            push.sndtimeo = 20
            with pytest.raises(zmq.Again):
                await push.send(b"nobody")

    run(loop, main())


def test_waiting_sends_keep_their_order(loop, module):
    async def main():
        with module.Context() as context, context.socket(zmq.PUSH) as push:
            push.linger = 0
            sends = [push.send(b"%d" % i) for i in range(5)]
            await asyncio.sleep(0.01)
            assert not any(send.done() for send in sends)
            with context.socket(zmq.PULL) as pull:
                port = pull.bind_to_random_port("tcp://127.0.0.1")
                push.connect(f"tcp://127.0.0.1:{port}")
                await asyncio.gather(*sends)
                received = [await pull.recv() for _ in sends]
        assert received == [b"0", b"1", b"2", b"3", b"4"]

    run(loop, main())


def test_waiting_receives_keep_their_order(loop, module):
    async def main():
        with sockets(module, zmq.PULL, zmq.PUSH) as (pull, push):
            tasks = [asyncio.ensure_future(pull.recv()) for _ in range(100)]
            tasks[7].cancel()
            await asyncio.gather(*[push.send(b"%d" % i) for i in range(99)])
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert isinstance(done.pop(7), asyncio.CancelledError)
            assert done == [b"%d" % i for i in range(99)]

    run(loop, main())


def test_a_future_of_asyncio(loop, module):
    async def main():
        with sockets(module, zmq.PULL, zmq.PUSH) as (pull, push):
            called = []
            waiting = pull.recv()
            waiting.add_done_callback(called.append)
            assert waiting.get_loop() is loop
            with pytest.raises(asyncio.InvalidStateError):
                waiting.result()
            await push.send(b"x")
            done, pending = await asyncio.wait({waiting, push.send(b"y")})
            assert waiting in done and not pending
            assert waiting.result() == b"x" and waiting.exception() is None
            assert called == [waiting] and not waiting.cancel()
            assert await asyncio.shield(pull.recv()) == b"y"
            waiting = pull.recv()
            assert waiting.cancel() and waiting.cancelled()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            first, second = push.send(b"1"), push.send(b"2")
            assert first is not second
            assert await asyncio.wait_for(pull.recv(), 100) == b"1"
            assert await pull.recv() == b"2"
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(pull.recv_multipart()), 0)

    run(loop, main())


def test_awaited_twice(loop, module):
    async def main():
        with sockets(module, zmq.PULL, zmq.PUSH) as (pull, push):
            waiting = pull.recv()

            async def wait():
                return await waiting

            tasks = [asyncio.create_task(wait()) for _ in range(2)]
            await asyncio.sleep(0)
            await push.send(b"x")
            assert await asyncio.gather(*tasks) == [b"x", b"x"]
            assert await waiting == b"x"

    run(loop, main())


def test_polling(loop, module):
    async def main():
        with sockets(module, zmq.PULL, zmq.PUSH) as (pull, push):
            assert await pull.poll(0) == 0
            assert await pull.poll(10) == 0
            assert await push.poll(100_000, zmq.POLLOUT) == zmq.POLLOUT
            waiting = pull.poll(100_000)
            await push.send(b"x")
            assert await waiting == zmq.POLLIN
            assert pull.get(zmq.EVENTS) & zmq.POLLIN
            poller = module.Poller()
            poller.register(pull, zmq.POLLIN)
            assert await poller.poll() == [(pull, zmq.POLLIN)]
            assert await pull.recv() == b"x"
            assert await poller.poll(10) == []
            waiting = poller.poll(-1)
            waiting.cancel()
            await asyncio.sleep(0)
            assert waiting.cancelled()

    run(loop, main())


def test_closed(loop, module):
    async def main():
        with sockets(module, zmq.PULL, zmq.PUSH) as (pull, push):
            waiting = [pull.recv(), pull.recv_multipart(), pull.poll(100_000)]
            pull.close()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert all(future.cancelled() for future in waiting)
            with pytest.raises(zmq.ZMQError):
                await pull.recv()
            with pytest.raises(zmq.ZMQError):
                await pull.poll()
            push.close()
            with pytest.raises(zmq.ZMQError):
                await push.send(b"x")

    run(loop, main())


def test_a_socket_of_another(loop, module):
    async def main():
        with zmq.Context() as context, context.socket(zmq.PULL) as raw:
            port = raw.bind_to_random_port("tcp://127.0.0.1")
            with context.socket(zmq.PUSH) as peer:
                peer.connect(f"tcp://127.0.0.1:{port}")
                peer.send(b"x")
                wrapped = module.Socket.from_socket(raw)
                assert await wrapped.recv() == b"x"
                waiting = wrapped.recv()
                peer.send(b"y")
                assert await waiting == b"y"
                wrapped._clear_io_state()

    run(loop, main())


def test_loops_one_after_the_other(make_loop, module):
    with module.Context() as context:
        pull, push = context.socket(zmq.PULL), context.socket(zmq.PUSH)
        port = pull.bind_to_random_port("tcp://127.0.0.1")
        push.connect(f"tcp://127.0.0.1:{port}")

        async def trip():
            waiting = pull.recv()
            await push.send(b"x")
            assert await waiting == b"x"

        for _ in range(3):
            loop = make_loop()
            run(loop, trip())
            loop.close()
        pull.close()
        push.close()


def test_a_context_that_is_terminated(loop, ours):
    """pyzmq's receive waits for ever."""

    async def main():
        context = ours.Context()
        pull = context.socket(zmq.PULL)
        waiting = pull.recv()
        thread = threading.Thread(target=zmq.Context.term, args=(context,))
        thread.start()
        with pytest.raises(zmq.ContextTerminated):
            await waiting
        pull.close()
        await loop.run_in_executor(None, thread.join)

    run(loop, main())


@pytest.mark.parametrize("zmq_type", [zmq.PUB, zmq.XPUB])
def test_publish(loop, module, zmq_type):
    async def main():
        with sockets(module, zmq_type, zmq.SUB) as (pub, sub):
            received = asyncio.ensure_future(sub.recv_multipart())
            while not received.done():
                await pub.send_multipart([b"topic", b"x"])
                await asyncio.sleep(0.005)
            assert await received == [b"topic", b"x"]

    run(loop, main())


def test_request_and_reply(loop, module):
    async def main():
        with sockets(module, zmq.REP, zmq.REQ) as (rep, req):

            async def serve():
                for _ in range(10):
                    await rep.send(await rep.recv())

            server = asyncio.create_task(serve())
            for i in range(10):
                await req.send(b"%d" % i)
                assert await req.recv() == b"%d" % i
            await server
            await req.send(b"x")
            with pytest.raises(zmq.ZMQError) as caught:
                await req.send(b"y")
            assert caught.value.errno == zmq.EFSM

    run(loop, main())


def test_bad_arguments(loop, module):
    async def main():
        with sockets(module, zmq.PUSH) as (push,):
            with pytest.raises(TypeError):
                await push.send("text")
            with pytest.raises(TypeError):
                await push.send_multipart([b"x", 1])
            with pytest.raises(TypeError):
                push.send()
            with pytest.raises(TypeError):
                push.recv(1, 2, 3, 4)

    run(loop, main())

"""libzmq tells of an event once: whoever takes the word, those who wait are served."""

import asyncio

import pytest
import zmq
from awaitable.conftest import sockets


def run(loop, main):
    return loop.run_until_complete(asyncio.wait_for(main, 100))


async def settled():
    for _ in range(3):
        await asyncio.sleep(0)


class Inproc:
    """Peers in one process: what is sent is with the receiver when send() returns."""

    def __init__(self, module, *types):
        self.context = module.Context()
        self.sockets = [self.context.socket(kind) for kind in types]
        for sock in self.sockets:
            sock.linger = 0
        self.sockets[0].bind("inproc://wake-ups")
        for sock in self.sockets[1:]:
            sock.connect("inproc://wake-ups")

    def __enter__(self):
        return self.sockets

    def __exit__(self, *args):
        for sock in self.sockets:
            sock.close()
        self.context.term()


@pytest.mark.parametrize("name", ["bind", "connect", "unbind", "disconnect"])
def test_an_endpoint_while_a_receive_waits(loop, ours, name):
    async def main():
        with Inproc(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            endpoint = "inproc://another"
            if name in ("unbind", "disconnect"):
                getattr(pull, name[2 if name == "unbind" else 3 :])(endpoint)
            waiting = pull.recv()
            await settled()
            zmq.Socket.shadow(push.underlying).send(b"1")
            getattr(pull, name)(endpoint)  # takes libzmq's word of the message
            assert await waiting == b"1"

    run(loop, main())


@pytest.mark.parametrize("name", ["bind", "connect"])
def test_an_endpoint_that_is_refused(loop, ours, name):
    async def main():
        with Inproc(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            waiting = pull.recv()
            await settled()
            zmq.Socket.shadow(push.underlying).send(b"1")
            with pytest.raises(zmq.ZMQError):
                getattr(pull, name)("tcp://nowhere:nothing")
            assert await waiting == b"1"

    run(loop, main())


def test_two_of_one_handle_receive(loop, ours):
    """What one takes at once is not all that libzmq has told of."""

    async def main():
        with Inproc(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            other = ours.Socket.shadow(pull.underlying)
            for first, second in (pull, other), (other, pull):
                waiting = first.recv()
                await settled()
                for data in b"1", b"2":
                    zmq.Socket.shadow(push.underlying).send(data)
                assert second.recv().result() == b"1"
                assert await waiting == b"2"

    run(loop, main())


def test_two_of_one_handle_wait(loop, ours):
    async def main():
        with Inproc(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            other = ours.Socket.shadow(pull.underlying)
            for _ in range(20):
                waiting = [sock.recv() for sock in (pull, other, pull, other)]
                await settled()
                for data in b"1234":
                    await push.send(bytes([data]))
                assert sorted(await asyncio.gather(*waiting)) == [
                    bytes([data]) for data in b"1234"
                ]

    run(loop, main())


def test_one_receives_and_another_sends(loop, ours):
    """The word that there is room, taken by the other one's receive."""

    async def main():
        with sockets(ours, zmq.DEALER, zmq.DEALER, hwm=1) as (a, b):
            other = ours.Socket.shadow(b.underlying)
            sent = 0
            while True:
                try:
                    b.send(bytes(200_000), zmq.DONTWAIT).result()
                    sent += 1
                except zmq.Again:
                    if not await b.poll(20, zmq.POLLOUT):
                        break
            sending = b.send(b"last")
            await settled()
            raw = zmq.Socket.shadow(a.underlying)
            for _ in range(sent):
                while not raw.poll(1000):
                    pass
                raw.recv()
                receiving = other.recv()
                assert not receiving.done()
            await sending
            receiving.cancel()

    run(loop, main())


def test_one_polls_and_another_looks(loop, ours):
    async def main():
        with Inproc(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            other = ours.Socket.shadow(pull.underlying)
            polling = pull.poll(100_000)
            await settled()
            zmq.Socket.shadow(push.underlying).send(b"1")
            assert other.get(zmq.EVENTS) & zmq.POLLIN
            assert await polling == zmq.POLLIN
            assert await other.recv() == b"1"

    run(loop, main())


def test_one_is_closed(loop, ours):
    """And with it the handle: the other has nothing that it could use."""

    async def main():
        with Inproc(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            other = ours.Socket.shadow(pull.underlying)
            waiting = other.recv()
            pull.close()
            await asyncio.wait([waiting])
            assert waiting.cancelled()
            with pytest.raises(zmq.ZMQError):
                await other.recv()
            other.close()

    run(loop, main())


def test_one_closes_another_in_a_turn(loop, ours):
    async def main():
        with Inproc(ours, zmq.PULL, zmq.PUSH) as (pull, push):
            others = [ours.Socket.shadow(pull.underlying) for _ in range(3)]

            def load(frames):
                while others:
                    others.pop().close()
                return frames

            waiting = [sock.recv_serialized(load) for sock in (pull, *others)]
            await settled()
            for _ in range(4):
                await push.send(b"1")
            done, _ = await asyncio.wait(waiting)
            assert sum(not future.cancelled() for future in done) >= 1

    run(loop, main())


def test_a_new_socket_where_a_closed_one_was(loop, ours):
    """libzmq gives the address again, while somebody has a socket of the old one."""

    async def main():
        with zmq.Context() as plain:
            context = ours.Context.shadow(plain)
            for _ in range(20):
                raw = plain.socket(zmq.PULL)
                old = ours.Socket.from_socket(raw)
                waiting = old.recv()
                await settled()
                address = raw.underlying
                raw.close()
                fresh = [context.socket(zmq.PULL) for _ in range(10)]
                for sock in fresh:
                    if sock.underlying == address:
                        new = sock
                        break
                else:
                    waiting.cancel()
                    old._clear_io_state()
                    for sock in fresh:
                        sock.close()
                    continue
                new.bind("inproc://new")
                receiving = new.recv()
                await settled()
                waiting.cancel()
                old._clear_io_state()
                old.close()
                sender = context.socket(zmq.PUSH)
                sender.connect("inproc://new")
                await sender.send(b"1")
                assert await receiving == b"1"
                sender.close()
                for sock in fresh:
                    sock.close()
                return
            pytest.skip("libzmq gave no address again")

    run(loop, main())

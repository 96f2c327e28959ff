"""ZmqSelector with ZeroMQ sockets: aiozmq's selector, and level-triggered."""

import asyncio
import errno
import os
from selectors import EVENT_READ, EVENT_WRITE

import pytest
import zmq

from aiozmq_speedups.selector import ZmqSelector


@pytest.fixture
def sockets():
    """A connected PUSH/PULL pair."""
    with zmq.Context() as context:
        pull, push = context.socket(zmq.PULL), context.socket(zmq.PUSH)
        with pull, push:
            for sock in pull, push:
                sock.linger = 0
            port = pull.bind_to_random_port("tcp://127.0.0.1")
            push.connect(f"tcp://127.0.0.1:{port}")
            yield pull, push


@pytest.fixture
def zmq_selector():
    with ZmqSelector() as s:
        yield s


def test_zmq_socket_is_its_own_descriptor(zmq_selector, sockets):
    pull, push = sockets
    key = zmq_selector.register(pull, EVENT_READ, "data")
    assert key == (pull, pull, EVENT_READ, "data")
    assert zmq_selector.get_key(pull) is key
    assert list(zmq_selector.get_map()) == [pull]
    with pytest.raises(KeyError):
        zmq_selector.register(pull, EVENT_WRITE)
    with pytest.raises(KeyError):
        zmq_selector.get_key(push)
    assert zmq_selector.unregister(pull) is key
    with pytest.raises(KeyError):
        zmq_selector.unregister(pull)


def test_zmq_socket_is_level_triggered(zmq_selector, sockets):
    pull, push = sockets
    key = zmq_selector.register(pull, EVENT_READ)
    assert zmq_selector.select(0) == []
    for i in range(3):
        push.send(b"%d" % i)
    for i in range(3):
        for _ in range(3):
            assert zmq_selector.select() == [(key, EVENT_READ)]
        assert pull.recv() == b"%d" % i
    assert zmq_selector.select(0) == []


def test_readiness_consumed_by_another_call(zmq_selector, sockets):
    """Reading ZMQ_EVENTS takes the edge of ZMQ_FD away: aiozmq#157."""
    pull, push = sockets
    key = zmq_selector.register(pull, EVENT_READ)
    push.send(b"x")
    pull.poll()
    assert pull.getsockopt(zmq.EVENTS) & zmq.POLLIN
    assert zmq_selector.select() == [(key, EVENT_READ)]


def test_zmq_socket_for_writing(zmq_selector, sockets):
    push = sockets[1]
    key = zmq_selector.register(push, EVENT_READ | EVENT_WRITE)
    assert zmq_selector.select() == [(key, EVENT_WRITE)]
    key = zmq_selector.modify(push, EVENT_READ)
    assert zmq_selector.select(0) == []
    key = zmq_selector.modify(push, EVENT_WRITE, "data")
    assert key.data == "data"
    assert zmq_selector.select(0) == [(key, EVENT_WRITE)]


def test_zmq_sockets_and_descriptors_together(zmq_selector, sockets, pair):
    pull, push = sockets
    pull_key = zmq_selector.register(pull, EVENT_READ)
    pair_key = zmq_selector.register(pair[0], EVENT_READ)
    pair[1].send(b"x")
    assert zmq_selector.select() == [(pair_key, EVENT_READ)]
    push.send(b"x")
    pull.poll()
    ready = zmq_selector.select()
    assert len(ready) == 2
    assert (pair_key, EVENT_READ) in ready and (pull_key, EVENT_READ) in ready
    pair[0].recv(1)
    assert zmq_selector.select() == [(pull_key, EVENT_READ)]


def test_zmq_fd_beside_its_socket(zmq_selector, sockets):
    pull, push = sockets
    sock_key = zmq_selector.register(pull, EVENT_READ)
    fd_key = zmq_selector.register(pull.getsockopt(zmq.FD), EVENT_WRITE)
    assert sock_key.fd is pull and fd_key.fd == pull.getsockopt(zmq.FD)
    zmq_selector.unregister(pull.getsockopt(zmq.FD))
    push.send(b"x")
    assert zmq_selector.select() == [(sock_key, EVENT_READ)]
    zmq_selector.register(pull.getsockopt(zmq.FD), EVENT_READ)
    zmq_selector.unregister(pull)
    assert list(zmq_selector.get_map()) == [pull.getsockopt(zmq.FD)]


def test_zmq_wait_goes_on_after_internal_news(zmq_selector, sockets):
    """ZMQ_FD also fires for what is no message, here a subscription."""
    with zmq.Context() as context, context.socket(zmq.PUB) as pub:
        sub = context.socket(zmq.SUB)
        with sub:
            pub.linger = sub.linger = 0
            port = pub.bind_to_random_port("tcp://127.0.0.1")
            zmq_selector.register(pub, EVENT_READ)
            pull_key = zmq_selector.register(sockets[0], EVENT_READ)
            sub.connect(f"tcp://127.0.0.1:{port}")
            sub.subscribe(b"")
            sockets[1].send(b"x")
            assert zmq_selector.select() == [(pull_key, EVENT_READ)]
            zmq_selector.unregister(pub)
    assert zmq_selector.select(0) == [(pull_key, EVENT_READ)]


def test_closed_zmq_socket(zmq_selector):
    with zmq.Context() as context:
        sock = context.socket(zmq.PULL)
        key = zmq_selector.register(sock, EVENT_READ)
        sock.close()
        with pytest.raises(OSError):
            zmq_selector.select(0)
        assert zmq_selector.unregister(sock) is key
        assert zmq_selector.select(0) == []
        with pytest.raises(OSError):
            zmq_selector.register(sock, EVENT_READ)
        assert len(zmq_selector.get_map()) == 0


def test_descriptor_of_a_closed_zmq_socket_is_used_again(zmq_selector, pair):
    """epoll forgets a closed descriptor; its number may come back."""
    with zmq.Context() as context:
        sock = context.socket(zmq.PULL)
        fd = sock.getsockopt(zmq.FD)
        zmq_selector.register(sock, EVENT_READ)
        sock.close()
    with pytest.raises(OSError):
        os.fstat(fd)
    os.dup2(pair[0].fileno(), fd)
    try:
        key = zmq_selector.register(fd, EVENT_WRITE)
        zmq_selector.unregister(sock)
        assert zmq_selector.select() == [(key, EVENT_WRITE)]
        zmq_selector.unregister(fd)
    finally:
        os.close(fd)


def test_regular_file_is_always_ready(zmq_selector, tmp_path):
    with open(tmp_path / "file", "w") as f:
        key = zmq_selector.register(f, EVENT_READ | EVENT_WRITE)
        assert zmq_selector.select() == [(key, EVENT_READ | EVENT_WRITE)]
        key = zmq_selector.modify(f, EVENT_WRITE)
        assert zmq_selector.select() == [(key, EVENT_WRITE)]
        assert zmq_selector.unregister(f) == key
        assert zmq_selector.select(0) == []


def test_zmq_selector_after_close(pair):
    s = ZmqSelector()
    keys = s.get_map()
    s.register(pair[0], EVENT_READ)
    s.close()
    s.close()
    assert len(keys) == 0
    with pytest.raises(KeyError):
        s.get_key(pair[0])
    with pytest.raises(RuntimeError):
        s.select(0)
    with pytest.raises(RuntimeError):
        s.register(pair[0], EVENT_READ)


@pytest.mark.parametrize("name", ["register", "unregister", "modify", "poll"])
def test_zmq_errors_become_os_errors(zmq_selector, pair, name, monkeypatch):
    def fail(*args):
        raise zmq.ZMQError(errno.EFAULT, "not a socket")

    if name != "register":
        zmq_selector.register(pair[0], EVENT_READ)
    monkeypatch.setattr(zmq_selector._poller, name, fail)
    with pytest.raises(OSError) as caught:
        {
            "register": lambda: zmq_selector.register(pair[0], EVENT_READ),
            "unregister": lambda: zmq_selector.unregister(pair[0]),
            "modify": lambda: zmq_selector.modify(pair[0], EVENT_WRITE),
            "poll": lambda: zmq_selector.select(),
        }[name]()
    assert caught.value.errno == errno.EFAULT
    assert (pair[0] in zmq_selector.get_map()) == (name != "register")


def test_zmq_socket_in_asyncio(sockets):
    pull, push = sockets

    async def main():
        loop = asyncio.get_running_loop()
        got = []
        done = loop.create_future()

        def on_ready():
            got.append(pull.recv())
            if len(got) == 100:
                done.set_result(None)

        loop._selector.register(
            pull, EVENT_READ, (asyncio.Handle(on_ready, (), loop), None)
        )
        for i in range(100):
            push.send(b"%d" % i)
        await done
        loop._selector.unregister(pull)
        return got

    with asyncio.Runner(
        loop_factory=lambda: asyncio.SelectorEventLoop(ZmqSelector())
    ) as runner:
        assert runner.run(main()) == [b"%d" % i for i in range(100)]

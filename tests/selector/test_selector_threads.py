"""Two threads on one selector: exceptions at most, never the end of the process.

For EpollSelector that is allowed, for ZmqSelector it is not.
"""

import contextlib
import functools
import random
import socket
import time
from selectors import EVENT_READ

import pytest
import zmq
from threads import LONG, in_threads

from aiozmq_speedups.selector import EpollSelector, ZmqSelector

pytestmark = pytest.mark.timeout(300 + 60 * LONG)

# What a selector says that is closed, or changed while it works.
EXPECTED = (KeyError, ValueError, OSError, RuntimeError)


def misuse(selector, mapping, things, seed):
    """Calls at random, then close()."""
    rng = random.Random(seed)
    calls = [
        lambda one: selector.register(one, rng.choice((1, 2, 3)), rng.random()),
        lambda one: selector.modify(one, rng.choice((1, 2, 3)), rng.random()),
        selector.unregister,
        selector.get_key,
        mapping.get,
        lambda one: list(mapping.items()),
        lambda one: selector.select(0),
        lambda one: selector.select(0.0001),
    ]
    for _ in range(300):
        with contextlib.suppress(*EXPECTED):
            rng.choice(calls)(rng.choice(things))
    selector.close()


@pytest.mark.parametrize("kind", [EpollSelector, ZmqSelector])
def test_all_calls(kind):
    with contextlib.ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        things = []
        for _ in range(3):
            things += map(stack.enter_context, socket.socketpair())
        if kind is ZmqSelector:
            things += [stack.enter_context(context.socket(zmq.PULL)) for _ in range(2)]
            things[-1].bind("inproc://threads")
            push = stack.enter_context(context.socket(zmq.PUSH))
            push.connect("inproc://threads")
            push.send(b"x")
        for seed in range(10 * LONG):
            print("seed", seed)
            selector = kind()
            use = functools.partial(misuse, selector, selector.get_map(), things)
            in_threads(
                functools.partial(use, 2 * seed), functools.partial(use, 2 * seed + 1)
            )
            with pytest.raises(EXPECTED):
                selector.register(things[0], EVENT_READ)
            assert things[0] not in (selector.get_map() or ())


def test_selects_of_a_socket_whose_peers_come_and_go():
    """libzmq takes each into its socket in the thread that asks for its events."""
    with (
        zmq.Context() as context,
        context.socket(zmq.PULL) as pull,
        ZmqSelector() as selector,
    ):
        pull.bind("tcp://127.0.0.1:*")
        address = pull.get(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()
        selector.register(pull, EVENT_READ)
        over = []

        def come_and_go():
            for _ in range(100 * LONG):
                with context.socket(zmq.PUSH) as push:
                    push.linger = 0
                    push.connect(address)
                    time.sleep(0.001)  # most are connected by then: enough of them
            over.append(True)

        def select():
            while not over:
                selector.select(0)

        in_threads(select, select, come_and_go)

"""What Loop.close() waits for, and for how long: messages that were accepted."""

import math
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
import zmq
from helpers import open_transport, raw_socket

from aiozmq_speedups import new_event_loop, run
from aiozmq_speedups._zmq import linger

pytestmark = pytest.mark.usefixtures("transport_kind")

NOBODY = "tcp://127.0.0.1:1"


@pytest.fixture
def closing():
    """Makes a loop on which a PUSH has written 100 messages that nobody takes."""

    def make(close_timeout, *, closed=False, **options):
        async def write():
            transport, _ = await open_transport(
                zmq.PUSH, connect=NOBODY, sndhwm=10, **options
            )
            for _ in range(100):
                transport.write([b"head", b"12345"])
            if closed:
                transport.close()
            socks.append(transport.get_extra_info("zmq_socket"))

        loop = new_event_loop(close_timeout=close_timeout)
        loops.append(loop)
        loop.run_until_complete(write())
        return loop

    loops, socks = [], []
    yield make
    for loop in loops:
        loop.close()
    assert all(sock.closed for sock in socks)


def test_what_is_lost_is_counted(closing, caplog):
    loop = closing(0.01, linger=1)
    loop.close()
    assert caplog.messages == [
        "90 messages (810 bytes) that waited in 1 ZeroMQ transports are lost",
        "1 closed ZeroMQ sockets have messages that no peer has taken: "
        "they are lost where the process ends now",
    ]


@pytest.mark.parametrize("closed", [False, True])
def test_never_longer_than_the_linger_time(closing, caplog, closed):
    closing(math.inf, linger=0.05, closed=closed).close()
    (message,) = caplog.messages
    assert message.startswith("90 messages")


def test_keyboard_interrupt_ends_the_wait(closing):
    def interrupt(signum, frame):
        while frame is not None and frame.f_globals["__name__"] != linger.__name__:
            frame = frame.f_back
        if frame is not None:  # it waits
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise KeyboardInterrupt

    loop = closing(math.inf, linger=0.5)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        with pytest.raises(KeyboardInterrupt):
            loop.close()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert loop.is_closed()


def test_a_closed_transport_s_messages_are_waited_for(tmp_path):
    """Gone from the loop since connection_lost(), but libzmq has not sent them."""
    # A path: a free TCP port could be taken by then, by the connecting socket, too.
    address = f"ipc://{tmp_path}/pull"
    with raw_socket(zmq.PULL, rcvhwm=0) as pull:

        async def main():
            transport, protocol = await open_transport(
                zmq.PUSH, connect=address, reconnect_interval=0.01
            )
            for i in range(100):
                transport.write([b"%d" % i])
            transport.close()
            await protocol.lost
            pull.bind(address)

        run(main(), close_timeout=100)
        assert [pull.recv() for _ in range(100)] == [b"%d" % i for i in range(100)]


def test_a_peer_that_is_slow_gets_all():
    """More than the queues of libzmq hold: they are sent as there is room."""
    with raw_socket(zmq.PULL, rcvhwm=1) as pull:
        port = pull.bind_to_random_port("tcp://127.0.0.1")

        async def main():
            transport, _ = await open_transport(
                zmq.PUSH, connect=f"tcp://127.0.0.1:{port}", sndhwm=5
            )
            transport.set_write_buffer_limits(0)
            for i in range(50):
                transport.write([b"%d" % i, bytes(100_000)])
            assert transport.get_write_buffer_size() > 0
            return transport.get_protocol()

        def receive():
            for i in range(50):
                assert pull.recv_multipart()[0] == b"%d" % i
            return True

        with ThreadPoolExecutor() as executor:
            received = executor.submit(receive)
            protocol = run(main(), close_timeout=100)
            assert received.result()
        # As in aiozmq, no callback follows the end of the loop.
        assert "resume_writing" not in protocol.calls
        assert "connection_lost" not in protocol.calls


@pytest.mark.parametrize("wrong", ["1", True, None, -1, -0.5, math.nan])
def test_wrong_close_timeouts(wrong):
    with pytest.raises((TypeError, ValueError), match="close_timeout"):
        new_event_loop(close_timeout=wrong)


def test_close_timeout_and_loop_factory_exclude_each_other():
    async def main():
        raise AssertionError("not run")

    coro = main()
    with pytest.raises(ValueError, match="close_timeout"):
        run(coro, loop_factory=new_event_loop, close_timeout=1)
    coro.close()

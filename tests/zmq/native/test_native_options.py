"""Options of a native socket: the values that libzmq takes, and no others."""

import pytest
import zmq
from helpers import close, open_transport, raw_socket

NUMBERS = [
    zmq.SNDHWM,
    zmq.RCVHWM,
    zmq.MAXMSGSIZE,
    zmq.HEARTBEAT_IVL,
    zmq.HEARTBEAT_TIMEOUT,
    zmq.HEARTBEAT_TTL,
    zmq.IMMEDIATE,
    zmq.TCP_KEEPALIVE,
    zmq.TCP_KEEPALIVE_CNT,
    zmq.BACKLOG,
    zmq.LINGER,
    zmq.RECONNECT_IVL,
    zmq.RECONNECT_IVL_MAX,
    zmq.CONNECT_TIMEOUT,
    zmq.HANDSHAKE_IVL,
    zmq.IPV6,
    zmq.PLAIN_SERVER,
    zmq.CURVE_SERVER,
    zmq.SNDTIMEO,
    zmq.ROUTER_MANDATORY,
    zmq.ROUTER_HANDOVER,
]


def outcome(sock, option, value):
    before = sock.getsockopt(option) if option in READABLE else None
    try:
        sock.setsockopt(option, value)
    except zmq.ZMQError as exc:
        return exc.errno
    return sock.getsockopt(option) if before is not None else "taken"


READABLE = [
    option for option in NUMBERS if zmq.SocketOption(option).name[:6] != "ROUTER"
]


@pytest.mark.parametrize("option", NUMBERS, ids=lambda o: zmq.SocketOption(o).name)
def test_numbers_as_libzmq_takes_them(run, option):
    async def go():
        transport, _ = await open_transport(zmq.ROUTER)
        native = transport.get_extra_info("zmq_socket")
        with raw_socket(zmq.ROUTER) as sock:
            for value in (-2, -1, 0, 1, 2, 1000, 6_553_599, 6_553_600):
                assert outcome(native, option, value) == outcome(sock, option, value), (
                    value
                )
        native.setsockopt(zmq.LINGER, 0)
        await close(transport)

    run(go())

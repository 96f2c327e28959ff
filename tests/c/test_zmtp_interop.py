"""csrc/zmtp against libzmq's sockets: peer.c is the one end, pyzmq the other."""

import contextlib
import subprocess

import pytest
import zmq
import zmq.auth.thread

SERVER_KEYS = zmq.curve_keypair() if zmq.has("curve") else None
CLIENT_KEYS = zmq.curve_keypair() if zmq.has("curve") else None


@pytest.fixture(scope="module")
def program(build_c):
    return build_c("peer", "peer.c", "check.c", "hex.c", "ends.c")


@pytest.fixture
def context():
    with zmq.Context() as context:
        yield context


def hex_keys(own, server):
    from zmq.utils import z85

    return b"".join(map(z85.decode, [*own, server])).hex()


class Peer:
    """peer.c, connected with `sock`, which binds or connects."""

    def __init__(
        self, program, environment, sock, binds, zmtp_type, mechanism, actions
    ):
        how = ["bind"]
        if not binds:
            how = ["connect", str(sock.bind_to_random_port("tcp://127.0.0.1"))]
        self.process = subprocess.Popen(
            [program, *how, zmtp_type, mechanism, *actions],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        if binds:
            port = self.line().split()[1]
            sock.connect(f"tcp://127.0.0.1:{port}")

    def line(self):
        return self.process.stdout.readline().rstrip("\n")

    def close(self):
        self.process.stdout.close()
        return self.process.wait()


@pytest.fixture
def make_peer(program, c_environment, context):
    """make_peer(sock's type, peer's type, *actions, ...): both."""
    with contextlib.ExitStack() as stack:

        def make(
            zmq_type,
            zmtp_type,
            *actions,
            binds=False,
            mechanism="NULL",
            password="peer",
            **options,
        ):
            sock = stack.enter_context(context.socket(getattr(zmq, zmq_type)))
            sock.linger = 0
            sock.rcvtimeo = sock.sndtimeo = 100_000
            environment = c_environment | secure(sock, mechanism, password, stack)
            for name, value in options.items():
                setattr(sock, name, value)
            peer = Peer(
                program, environment, sock, binds, zmtp_type, mechanism, actions
            )
            stack.callback(peer.close)
            stack.callback(sock.close)
            return sock, peer

        yield make


def secure(sock, mechanism, password, stack):
    """Has `sock` use the mechanism; the environment that peer.c needs for it.
    "PLAIN-server": the peer is the server."""
    name, _, role = mechanism.partition("-")
    peer_serves = role == "server"
    if name != "NULL" and not peer_serves:
        auth = zmq.auth.thread.ThreadAuthenticator(sock.context)
        auth.start()
        stack.callback(auth.stop)
        auth.configure_plain(domain="*", passwords={"peer": password})
        auth.configure_curve(domain="*", location=zmq.auth.CURVE_ALLOW_ANY)
    if name == "PLAIN":
        if peer_serves:
            sock.plain_username, sock.plain_password = b"user", b"pass"
        else:
            sock.plain_server = True
    elif name == "CURVE":
        if not zmq.has("curve"):
            pytest.skip("libzmq has no CURVE")
        own, peers = (
            (CLIENT_KEYS, SERVER_KEYS) if peer_serves else (SERVER_KEYS, CLIENT_KEYS)
        )
        sock.curve_publickey, sock.curve_secretkey = own
        if peer_serves:
            sock.curve_serverkey = SERVER_KEYS[0]
        else:
            sock.curve_server = True
        keys = hex_keys(peers, SERVER_KEYS[0])
        return {"AZS_TEST_KEYS": keys}
    return {}


MECHANISMS = ["NULL", "PLAIN", "PLAIN-server", "CURVE", "CURVE-server"]
SIZES = [0, 1, 254, 255, 256, 2014, 2015, 2047, 2048, 8191, 8192, 65536, 3_000_000]


@pytest.mark.parametrize("binds", [False, True], ids=["connects", "binds"])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_frames_of_each_size_come_back(make_peer, binds, mechanism):
    sock, peer = make_peer("DEALER", "DEALER", "echo", binds=binds, mechanism=mechanism)
    messages = [[bytes([i % 251]) * size] for i, size in enumerate(SIZES)]
    messages.append([b"", b"a", b"", b"b" * 300, b"c" * 100_000, b""])
    for message in messages:
        sock.send_multipart(message)
    for message in messages:
        assert sock.recv_multipart() == message
    assert peer.line() == "ready DEALER 1 "


@pytest.mark.parametrize("mechanism", ["NULL", "CURVE"])
def test_many_messages(make_peer, mechanism):
    sock, peer = make_peer("DEALER", "DEALER", "echo", mechanism=mechanism)
    for i in range(300):
        sock.send(b"%d" % i)
    assert [int(sock.recv()) for _ in range(300)] == list(range(300))


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_identity_reaches_a_router(make_peer, mechanism):
    sock, peer = make_peer(
        "ROUTER", "DEALER", "send:,6869", mechanism=mechanism, routing_id=b"SRV"
    )
    assert sock.recv_multipart() == [b"peer", b"", b"hi"]
    assert peer.line() == "ready ROUTER 1 SRV"
    sock.send_multipart([b"peer", b"", b"answer"])
    assert [peer.line(), peer.line()] == ["1 0 ", "0 6 616e73776572"]


def test_request_and_reply(make_peer):
    sock, peer = make_peer("REP", "REQ", "send:,51")
    assert sock.recv() == b"Q"
    sock.send(b"A")
    assert [peer.line() for _ in range(3)] == ["ready REP 1 ", "1 0 ", "0 1 41"]


@pytest.mark.parametrize("mechanism", ["NULL", "CURVE"])
@pytest.mark.parametrize("zmq_type, zmtp_type", [("XPUB", "SUB"), ("XPUB", "XSUB")])
def test_subscribing_to_libzmq(make_peer, zmq_type, zmtp_type, mechanism):
    actions = ["subscribe:746f706963", "subscribe:78", "cancel:78"]
    sock, peer = make_peer(zmq_type, zmtp_type, *actions, mechanism=mechanism)
    assert sock.recv() == b"\x01topic"
    assert sock.recv() == b"\x01x"
    assert sock.recv() == b"\x00x"
    sock.send_multipart([b"other", b"data"])
    sock.send_multipart([b"topic.a", b"data"])
    assert peer.line() == f"ready {zmq_type} 1 "
    assert [peer.line(), peer.line()] == ["1 7 746f7069632e61", "0 4 64617461"]


@pytest.mark.parametrize("mechanism", ["NULL", "CURVE"])
def test_libzmq_subscribes(make_peer, mechanism):
    sock, peer = make_peer(
        "SUB", "PUB", "send:7478,64", mechanism=mechanism, subscribe=b"t"
    )
    assert sock.recv_multipart() == [b"tx", b"d"]
    assert peer.line() == "ready SUB 1 "
    assert peer.line() == "4 11 0953554253435249424574"
    sock.unsubscribe(b"t")
    assert peer.line() == "4 8 0643414e43454c74"


@pytest.mark.parametrize("mechanism", ["NULL", "CURVE"])
def test_libzmq_answers_a_ping(make_peer, mechanism):
    _, peer = make_peer("DEALER", "DEALER", "ping", mechanism=mechanism)
    assert peer.line() == "ready DEALER 1 "
    assert peer.line() == "4 8 04504f4e47637478"  # PONG, with the context


@pytest.mark.parametrize("mechanism", ["NULL", "CURVE"])
def test_pings_of_libzmq(make_peer, mechanism):
    _, peer = make_peer(
        "DEALER", "DEALER", mechanism=mechanism, heartbeat_ivl=50, heartbeat_ttl=1000
    )
    assert peer.line() == "ready DEALER 1 "
    for _ in range(3):  # libzmq would have closed without the answers
        assert peer.line() == "4 7 0450494e47000a"


@pytest.mark.parametrize("mechanism", ["PLAIN", "PLAIN-server"])
def test_mechanisms_that_differ(make_peer, mechanism):
    _, peer = make_peer("DEALER", "DEALER", mechanism=mechanism, plain_server=False)
    # libzmq may close before it has sent all of its greeting.
    assert peer.line() in ("error 11000002 0", "")


def test_refused_by_libzmq(make_peer):
    _, peer = make_peer("DEALER", "DEALER", mechanism="PLAIN", password="another")
    assert peer.line() == "error 0 400"


def test_types_that_differ(make_peer):
    _, peer = make_peer("PULL", "PUB")
    assert peer.line() == "error 10000018 0"

"""Peers in processes of their own: aiozmq 1.0.0 and this package, in any pair."""

import contextlib
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import msgpack
import pytest
import zmq

PEER = Path(__file__).with_name("peer.py")

OURS = "aiozmq_speedups"
PAIRS = [("aiozmq", OURS), (OURS, "aiozmq"), (OURS, OURS)]


@contextlib.contextmanager
def peer(env, *args):
    """A peer process, told to end afterwards and checked to have ended well."""
    process = subprocess.Popen(
        [sys.executable, str(PEER), *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**env, "PYTHONIOENCODING": "utf-8"},
    )
    process.seen = ""  # what the test has read already
    try:
        yield process
    except BaseException:
        process.kill()
        _, errors = process.communicate()
        print(errors, file=sys.stderr)
        raise
    out, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    process.output = process.seen + out
    assert process.output.endswith("DONE\n"), out
    process.errors = errors


def rpc_outcomes(env, server, client):
    with peer(env, server, "serve", "rpc") as serving:
        endpoint = serving.stdout.readline().strip()
        assert endpoint.startswith("tcp://")
        with peer(env, client, "call", "rpc", endpoint) as calling:
            pass
    for process in (serving, calling):
        # Nothing failed behind the program's back.
        assert process.args[2] != OURS or not process.errors, process.errors
    return calling.output.splitlines()


def notifications(env, kind, server, client):
    with peer(env, server, "serve", kind) as serving:
        endpoint = serving.stdout.readline().strip()
        with peer(env, client, "call", kind, endpoint) as calling:
            if kind == "pubsub":
                assert serving.stdout.readline() == "STARTED\n"
                calling.stdin.write("go\n")
                calling.stdin.flush()
            lines = iter(serving.stdout.readline, "")
            received = [line for line in lines if line != "STARTED\n"]
            serving.seen = "".join(received)
    assert received.pop() == "DONE\n"
    # A coroutine function's calls are tasks: plain functions called after them may
    # run before them, which depends on what came within one turn of the loop.
    return sorted(received, key=lambda line: line.startswith("CALL slow_note"))


@pytest.fixture(scope="module")
def rpc_reference(child_environment, has_aiozmq):
    """What aiozmq says to aiozmq."""
    lines = rpc_outcomes(child_environment, "aiozmq", "aiozmq")
    assert len(lines) > 40
    return lines


@pytest.mark.parametrize(("server", "client"), PAIRS)
def test_rpc(child_environment, rpc_reference, server, client):
    assert rpc_outcomes(child_environment, server, client) == rpc_reference


@pytest.fixture(scope="module", params=["pipeline", "pubsub"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def reference(child_environment, has_aiozmq, kind):
    lines = notifications(child_environment, kind, "aiozmq", "aiozmq")
    assert len(lines) > 70
    return lines


@pytest.mark.parametrize(("server", "client"), PAIRS)
def test_notifications(child_environment, kind, reference, server, client):
    assert notifications(child_environment, kind, server, client) == reference


def test_without_aiozmq(child_environment):
    """On a Python where aiozmq does not import, this at least."""
    lines = rpc_outcomes(child_environment, OURS, OURS)
    assert lines[0] == "echo None"
    assert lines[-2] == "after 'still here'"
    for kind in ("pipeline", "pubsub"):
        assert len(notifications(child_environment, kind, OURS, OURS)) == 77


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return exec, (f"open({self.path!r}, 'w').close()",)


def test_hostile_pickle(child_environment, tmp_path):
    """A peer that exploits aiozmq's pickle.loads runs nothing in our server."""
    marker = tmp_path / "ran"
    header = struct.pack("=HHLd", 1, 2, 3, 4.0)
    data = pickle.dumps(Evil(str(marker)), pickle.HIGHEST_PROTOCOL)
    pickle.loads(data)
    assert marker.exists(), "the payload does nothing"
    marker.unlink()
    with (
        peer(child_environment, OURS, "serve", "rpc") as serving,
        zmq.Context.instance().socket(zmq.DEALER) as sock,
    ):
        sock.linger = 0
        sock.rcvtimeo = 100_000
        sock.connect(serving.stdout.readline().strip())
        for code in range(123, 128):
            args = msgpack.packb([msgpack.ExtType(code, data)])
            sock.send_multipart([header, b"echo", args, b"\x80"])
            reply, answer = sock.recv_multipart()
            assert struct.unpack("=HHLd?", reply)[-1] is True
            name, (text,), _ = msgpack.unpackb(answer)
            assert name == "aiozmq.rpc.base.ParametersError"
            assert "not allowed" in text
        sock.send_multipart([header, b"echo", b"\x91\x05", b"\x80"])
        assert sock.recv_multipart()[1] == b"\x05"
    assert serving.errors.count("Cannot unpack") == 5
    assert not marker.exists()

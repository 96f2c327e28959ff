"""TCP ports that are a test's own: other processes' tests run at the same time."""

import contextlib
import socket


@contextlib.contextmanager
def held_port(host="127.0.0.1"):
    """A port of `host` that refuses connections.

    The kernel gives it to nobody else meanwhile, as it could one that was closed, be
    it to a connecting socket. Who sets SO_REUSEADDR, as servers do, may listen on it.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, 0))
        yield sock.getsockname()[1]

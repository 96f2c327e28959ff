"""Where the native engine's endpoints lead, and what connects and accepts there."""

from __future__ import annotations

import errno
import ipaddress
import os
import random
import socket
import struct
from typing import TYPE_CHECKING, Any

from aiozmq_speedups._zmq.pyzmq import zmq

if TYPE_CHECKING:
    from aiozmq_speedups._zmq.engine_native import NativeSocket

USE_LIBZMQ = 'use engine="libzmq"'

#: Seconds without accepting after EMFILE and its like, as in asyncio.
_ACCEPT_PAUSE = 1.0
_ACCEPT_AT_ONCE = 100


def _error(err: int, text: str | None = None) -> zmq.ZMQError:
    return zmq.ZMQError(err, text)


# ---- endpoints ----


class _Address:
    """Where an endpoint's text leads: to be resolved, perhaps."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        scheme, found, rest = endpoint.partition("://")
        if not found or not rest:
            raise _error(errno.EINVAL, f"no endpoint: {endpoint!r}")
        if scheme not in ("tcp", "ipc"):
            known = scheme in ("inproc", "pgm", "epgm", "udp", "tipc", "vmci", "ws")
            raise _error(
                errno.EPROTONOSUPPORT,
                f"{endpoint!r}: the native engine serves tcp:// and ipc:// only"
                + (f": {USE_LIBZMQ}" if known else ""),
            )
        self.scheme = scheme
        self.source: tuple[str, int] | None = None
        if scheme == "ipc":
            self.path = "\0" + rest[1:] if rest[0] == "@" else rest
            return
        if ";" in rest:
            source, _, rest = rest.partition(";")
            self.source = self._host_and_port(source)
        self.host, self.port = self._host_and_port(rest)

    def _host_and_port(self, text: str) -> tuple[str, int]:
        host, found, port = text.rpartition(":")
        if not found or not host:
            raise _error(errno.EINVAL, f"{self.endpoint!r} has no port")
        if host[0] == "[" and host[-1] == "]":
            host = host[1:-1]
        if port == "*":
            return host, 0
        if not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise _error(errno.EINVAL, f"{self.endpoint!r}: no such port")
        return host, int(port)


def _numeric(host: str, port: int) -> tuple[int, Any] | None:
    """The family and the address of a numeric host."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return None
    if ip.version == 4:
        return socket.AF_INET, (host, port)
    infos = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
    )
    return socket.AF_INET6, infos[0][4]


def _interface(name: str) -> str | None:
    """The IPv4 address of a network interface; None where there is no such."""
    import fcntl

    if len(name) > 15:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            request = struct.pack("256s", name.encode())
            answer = fcntl.ioctl(sock.fileno(), 0x8915, request)  # SIOCGIFADDR
        except OSError:
            return None
    return socket.inet_ntoa(answer[20:24])


def _resolve(host: str, port: int, ipv6: bool) -> tuple[int, Any]:
    """By the system, which may take its time."""
    found = _numeric(host, port)
    if found is not None:
        return found
    family = socket.AF_UNSPEC if ipv6 else socket.AF_INET
    infos = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    if ipv6:
        infos.sort(key=lambda info: info[0] != socket.AF_INET6)
    return infos[0][0], infos[0][4]


def _resolve_local(host: str, port: int, ipv6: bool) -> tuple[int, Any]:
    """For bind(): a wildcard, an interface, an address, a name of this host."""
    if host == "*":
        return (
            (socket.AF_INET6, ("::", port))
            if ipv6
            else (socket.AF_INET, ("0.0.0.0", port))
        )
    found = _numeric(host, port)
    if found is not None:
        return found
    address = _interface(host)
    if address is not None:
        return socket.AF_INET, (address, port)
    try:
        return _resolve(host, port, ipv6)
    except (OSError, UnicodeError):
        raise _error(errno.ENODEV, f"no such interface or host: {host!r}") from None


def _endpoint_of(sock: socket.socket) -> str:
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        if isinstance(name, bytes):
            return "ipc://@" + os.fsdecode(name[1:])
        return f"ipc://{name}"
    if sock.family == socket.AF_INET6:
        host = socket.getnameinfo(name, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[
            0
        ]
        return f"tcp://[{host}]:{name[1]}"
    return f"tcp://{name[0]}:{name[1]}"


# ---- connecting and accepting ----


class _Link:
    """What has peers: their handshakes are timed here."""

    def __init__(self, sock: NativeSocket, endpoint: str) -> None:
        self.sock = sock
        self.endpoint = endpoint
        self._timers: dict[Any, Any] = {}  # peer -> the timer of its handshake

    def begin(self, peer: Any, fd: int) -> None:
        """Hands a connected descriptor to its peer."""
        try:
            peer._attach(fd)
        except BaseException:
            os.close(fd)
            raise
        milliseconds = self.sock._values[zmq.HANDSHAKE_IVL]
        if milliseconds > 0:
            self._timers[peer] = self.sock._loop.call_later(
                milliseconds / 1000, self._expire, peer
            )

    def _expire(self, peer: Any) -> None:
        self._timers.pop(peer, None)
        peer._disconnect(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, errno.EAGAIN)

    def shaken(self, peer: Any) -> None:
        """Its handshake has ended, well or not."""
        timer = self._timers.pop(peer, None)
        if timer is not None:
            timer.cancel()
        for asked in (
            getattr(self.sock._loop, "_zmtp_zap", None),
            self.sock._authenticator,
        ):
            if asked is not None:
                asked.forget(peer)

    def ready(self, peer: Any) -> None:
        self.shaken(peer)

    def lost(self, peer: Any) -> None:
        self.shaken(peer)


class _Listener(_Link):
    def __init__(self, sock: NativeSocket, endpoint: str, listening: socket.socket):
        super().__init__(sock, endpoint)
        self._listening = listening
        self._pause: Any = None
        # What unbind() of libzmq cuts, this engine keeps: they end with their peers.
        self.peers: set[Any] = set()
        self._watch()

    def _watch(self) -> None:
        self._pause = None
        self.sock._loop.add_reader(self._listening.fileno(), self._accept)

    def _accept(self) -> None:
        sock = self.sock
        for _ in range(_ACCEPT_AT_ONCE):
            if self._listening.fileno() < 0:
                return  # a callback has closed it
            try:
                conn, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as exc:
                sock._emit(zmq.EVENT_ACCEPT_FAILED, exc.errno or 0, self.endpoint)
                if exc.errno in (
                    errno.EMFILE,
                    errno.ENFILE,
                    errno.ENOBUFS,
                    errno.ENOMEM,
                ):
                    sock._loop.remove_reader(self._listening.fileno())
                    self._pause = sock._loop.call_later(_ACCEPT_PAUSE, self._watch)
                return
            try:
                sock._tune(conn)
                peer = sock._new_peer(self, False)
            except BaseException:
                conn.close()
                raise
            fd = conn.detach()
            sock._emit(zmq.EVENT_ACCEPTED, fd, self.endpoint)
            self.begin(peer, fd)
            self.peers.add(peer)

    def lost(self, peer: Any) -> None:
        super().lost(peer)
        self.peers.discard(peer)
        if not self.peers:
            self.sock._unbound.discard(self)

    def stop(self) -> None:
        """Accepts no more. Harmless when repeated."""
        fd = self._listening.fileno()
        if fd < 0:
            return
        loop = self.sock._loop
        if self._pause is not None:
            self._pause.cancel()
        elif not loop.is_closed():
            loop.remove_reader(fd)
        self._listening.close()
        self.sock._emit(zmq.EVENT_CLOSED, fd, self.endpoint)

    def move(self, loop: Any) -> None:
        """Its loop has been closed: nobody is accepted any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()


class _Connector(_Link):
    def __init__(self, sock: NativeSocket, address: _Address) -> None:
        super().__init__(sock, address.endpoint)
        self._address = address
        self.peer = sock._new_peer(self, True)
        self._conn: socket.socket | None = None  # while it connects
        self._timer: Any = None
        self._resolving: Any = None
        self._tries = 0
        self._stopped = False

    def start(self) -> None:
        self._timer = None
        if self._stopped or self.peer.state != "idle":
            return
        address = self._address
        if address.scheme == "ipc":
            self._open(socket.AF_UNIX, address.path)
            return
        found = _numeric(address.host, address.port)
        if found is not None:
            self._open(*found)
            return
        ipv6 = bool(self.sock._values[zmq.IPV6])
        try:
            self._resolving = self.sock._loop.run_in_executor(
                None, _resolve, address.host, address.port, ipv6
            )
        except RuntimeError:
            self._retry()  # no threads any more
            return
        self._resolving.add_done_callback(self._resolved)

    def _resolved(self, future: Any) -> None:
        if future is not self._resolving or future.cancelled():
            return
        self._resolving = None
        if self._stopped:
            return
        exc = future.exception()
        if exc is None:
            self._open(*future.result())
        elif isinstance(exc, (OSError, UnicodeError)):
            self._retry()
        else:
            raise exc

    def _open(self, family: int, where: Any) -> None:
        sock = self.sock
        try:
            conn = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError:  # too many open files: later, perhaps
            self._retry()
            return
        self._conn = conn
        try:
            sock._tune(conn)
            if self._address.source is not None:
                source = _resolve_local(*self._address.source, False)
                conn.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                conn.bind(source[1])
            err = conn.connect_ex(where)
        except (OSError, zmq.ZMQError) as exc:
            err = exc.errno or errno.EINVAL
        if err == 0:
            self._connected()
        elif err == errno.EINPROGRESS:
            sock._emit(zmq.EVENT_CONNECT_DELAYED, err, self.endpoint)
            sock._loop.add_writer(conn.fileno(), self._writable)
            milliseconds = sock._values[zmq.CONNECT_TIMEOUT]
            if milliseconds > 0:
                self._timer = sock._loop.call_later(
                    milliseconds / 1000, self._timed_out
                )
        else:
            self._failed()

    def _timed_out(self) -> None:
        self._timer = None
        if self._conn is not None:
            self.sock._loop.remove_writer(self._conn.fileno())
            self._failed()

    def _writable(self) -> None:
        conn = self._conn
        assert conn is not None
        self.sock._loop.remove_writer(conn.fileno())
        self._cancel_timer()
        if conn.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0:
            self._failed()
            return
        try:
            # TCP lets a socket meet itself where nobody listens on an ephemeral port.
            itself = conn.family != socket.AF_UNIX and (
                conn.getsockname() == conn.getpeername()
            )
        except OSError:
            itself = True
        if itself:
            self._failed()
        else:
            self._connected()

    def _connected(self) -> None:
        conn = self._conn
        assert conn is not None
        self._conn = None
        fd = conn.detach()
        self.sock._emit(zmq.EVENT_CONNECTED, fd, self.endpoint)
        self.begin(self.peer, fd)

    def _failed(self) -> None:
        conn = self._conn
        assert conn is not None
        self._conn = None
        fd = conn.fileno()
        conn.close()
        self.sock._emit(zmq.EVENT_CLOSED, fd, self.endpoint)
        self._retry()

    def _retry(self) -> None:
        """Connects again after RECONNECT_IVL, and as much again by chance; with
        RECONNECT_IVL_MAX it doubles each time up to that."""
        sock = self.sock
        interval = sock._values[zmq.RECONNECT_IVL]
        highest = sock._values[zmq.RECONNECT_IVL_MAX]
        # 0 is "never", too, as in libzmq.
        if self._stopped or interval <= 0 or (sock.closed and not self.peer.waiting):
            return
        if highest > interval:
            interval = min(interval << min(self._tries, 30), highest)
        else:
            interval += random.randrange(interval)
        self._tries += 1
        sock._emit(zmq.EVENT_CONNECT_RETRIED, interval, self.endpoint)
        if not sock._loop.is_closed():
            self._timer = sock._loop.call_later(interval / 1000, self.start)

    def ready(self, peer: Any) -> None:
        super().ready(peer)
        self._tries = 0

    def lost(self, peer: Any) -> None:
        super().lost(peer)
        self._retry()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _halt(self) -> None:
        self._cancel_timer()
        self.shaken(self.peer)
        if self._resolving is not None:
            self._resolving.cancel()
            self._resolving = None
        if self._conn is not None:
            loop = self.sock._loop
            if not loop.is_closed():
                loop.remove_writer(self._conn.fileno())
            self._conn.close()
            self._conn = None

    def stop(self) -> None:
        """Ends the connection and what waits for it. Harmless when repeated."""
        self._stopped = True
        self._halt()
        self.peer._close()

    def move(self, loop: Any) -> None:
        """Goes on with another loop, where messages wait."""
        self._halt()
        if loop is not None and self.peer.state == "idle" and self.peer.waiting:
            loop.call_soon(self.start)

"""Sockets of the native engine: ZMTP spoken by the loop itself (csrc/zmq/native).

:class:`NativeSocket` has the methods of a pyzmq socket that transports and their users
call. What happens once a socket is here, once a connection in native_links.py, once a
message in C.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import tempfile
import termios
import time
from typing import TYPE_CHECKING, Any

from aiozmq_speedups import _ext
from aiozmq_speedups._zmq import engine_libzmq
from aiozmq_speedups._zmq.native_auth import Authenticator
from aiozmq_speedups._zmq.native_links import (
    USE_LIBZMQ,
    _Address,
    _Connector,
    _endpoint_of,
    _error,
    _Listener,
    _resolve_local,
)
from aiozmq_speedups._zmq.native_zap import Zap
from aiozmq_speedups._zmq.pyzmq import zmq

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiozmq_speedups._zmq.native_auth import PeerCredentials

    _Base: Any = object
else:
    _Base = _ext.core.ZmtpSocket if _ext.core is not None else object

# How soon what TCP has on its way is looked at again, in seconds.
_LOOK_AGAIN = 0.01

# Of zmq_getsockopt(3) where nothing is set.
_DEFAULTS: dict[int, Any] = {
    zmq.SNDHWM: 1000,
    zmq.RCVHWM: 1000,
    zmq.MAXMSGSIZE: -1,
    zmq.HEARTBEAT_IVL: 0,
    zmq.HEARTBEAT_TIMEOUT: -1,
    zmq.HEARTBEAT_TTL: 0,
    zmq.IMMEDIATE: 0,
    zmq.ROUTING_ID: b"",
    zmq.PLAIN_USERNAME: b"",
    zmq.PLAIN_PASSWORD: b"",
    zmq.PLAIN_SERVER: 0,
    zmq.CURVE_SERVER: 0,
    zmq.CURVE_PUBLICKEY: b"",
    zmq.CURVE_SECRETKEY: b"",
    zmq.CURVE_SERVERKEY: b"",
    zmq.TCP_KEEPALIVE: -1,
    zmq.TCP_KEEPALIVE_CNT: -1,
    zmq.TCP_KEEPALIVE_IDLE: -1,
    zmq.TCP_KEEPALIVE_INTVL: -1,
    zmq.TOS: 0,
    zmq.BACKLOG: 100,
    zmq.SNDBUF: -1,
    zmq.RCVBUF: -1,
    zmq.LINGER: -1,
    zmq.RECONNECT_IVL: 100,
    zmq.RECONNECT_IVL_MAX: 0,
    zmq.CONNECT_TIMEOUT: 0,
    zmq.HANDSHAKE_IVL: 30000,
    zmq.IPV6: 0,
    zmq.SNDTIMEO: -1,
    zmq.RCVTIMEO: -1,
    zmq.ZAP_DOMAIN: b"",
    zmq.ZAP_ENFORCE_DOMAIN: 0,
}
# These, and only on these types of socket, take an option of their own.
_OF_TYPE: dict[int, tuple[int, ...]] = {
    zmq.ROUTER_MANDATORY: (zmq.ROUTER,),
    zmq.ROUTER_HANDOVER: (zmq.ROUTER,),
    zmq.PROBE_ROUTER: (zmq.ROUTER, zmq.DEALER, zmq.REQ),
    zmq.REQ_CORRELATE: (zmq.REQ,),
    zmq.REQ_RELAXED: (zmq.REQ,),
    zmq.XPUB_NODROP: (zmq.XPUB, zmq.PUB),
    zmq.XPUB_VERBOSE: (zmq.XPUB,),
    zmq.XPUB_VERBOSER: (zmq.XPUB,),
    zmq.XPUB_WELCOME_MSG: (zmq.XPUB,),
}
# What the C part is told of: see azs_native_options.
_IN_C: dict[int, str] = {
    zmq.SNDHWM: "sndhwm",
    zmq.RCVHWM: "rcvhwm",
    zmq.MAXMSGSIZE: "max_size",
    zmq.HEARTBEAT_IVL: "heartbeat_interval",
    zmq.HEARTBEAT_TIMEOUT: "heartbeat_timeout",
    zmq.HEARTBEAT_TTL: "heartbeat_ttl",
    zmq.IMMEDIATE: "immediate",
    zmq.ROUTER_MANDATORY: "mandatory",
    zmq.ROUTER_HANDOVER: "handover",
    zmq.PROBE_ROUTER: "probe",
    zmq.REQ_CORRELATE: "correlate",
    zmq.REQ_RELAXED: "relaxed",
    zmq.XPUB_NODROP: "nodrop",
    zmq.XPUB_VERBOSE: "verbose",
    zmq.XPUB_VERBOSER: "verboser",
}
# What can be got or set, but has no value that is kept.
_OTHERS = frozenset(
    map(
        int,
        (
            zmq.SUBSCRIBE,
            zmq.UNSUBSCRIBE,
            zmq.LAST_ENDPOINT,
            zmq.TYPE,
            zmq.EVENTS,
            zmq.MECHANISM,
        ),
    )
)
_INT_MAX = 2**31 - 1
# What numbers may be, where it is not a C int from 0 on.
_RANGES: dict[int, tuple[int, int]] = {
    zmq.MAXMSGSIZE: (-(2**63), 2**63 - 1),
    zmq.HEARTBEAT_TTL: (-99, 6_553_599),  # in tenths of a second
    **dict.fromkeys(
        (
            zmq.LINGER,
            zmq.RECONNECT_IVL,
            zmq.SNDTIMEO,
            zmq.RCVTIMEO,
            zmq.SNDBUF,
            zmq.RCVBUF,
            zmq.TCP_KEEPALIVE_CNT,
            zmq.TCP_KEEPALIVE_IDLE,
            zmq.TCP_KEEPALIVE_INTVL,
        ),
        (-1, _INT_MAX),
    ),
    zmq.TCP_KEEPALIVE: (-1, 1),
    **dict.fromkeys(
        (
            zmq.IMMEDIATE,
            zmq.IPV6,
            zmq.PLAIN_SERVER,
            zmq.CURVE_SERVER,
            zmq.ZAP_ENFORCE_DOMAIN,
        ),
        (0, 1),
    ),
}
# Which a second connect() to the same endpoint gives no second connection, as libzmq.
_CONNECT_ONCE = (zmq.DEALER, zmq.SUB, zmq.PUB, zmq.REQ)
_KEYS = (zmq.CURVE_PUBLICKEY, zmq.CURVE_SECRETKEY, zmq.CURVE_SERVERKEY)
_TEXTS = (zmq.ROUTING_ID, zmq.PLAIN_USERNAME, zmq.PLAIN_PASSWORD, zmq.ZAP_DOMAIN)
_NULL, _PLAIN, _CURVE = 0, 1, 2


def option_name(option: int) -> str:
    try:
        return f"ZMQ_{zmq.SocketOption(option).name}"
    except ValueError:
        return f"the socket option {option}"


def _not_served(what: str) -> zmq.ZMQError:
    return _error(
        errno.EINVAL, f"{what} is not served by the native engine: {USE_LIBZMQ}"
    )


# ---- the socket ----


class NativeSocket(_Base):  # type: ignore[misc]
    """A ZeroMQ socket of the native engine, as transports use it.

    It has ``getsockopt()``, ``setsockopt()``, ``get()``, ``set()``, options as
    attributes, ``LAST_ENDPOINT`` and ``closed`` as a pyzmq socket, and its errors. It
    cannot be polled, read or written directly, nor given to pyzmq.
    """

    context = None

    def __init__(
        self,
        loop: Any,
        zmq_type: int,
        check: Callable[[PeerCredentials], bool | Awaitable[bool]] | None = None,
    ) -> None:
        super().__init__(loop, zmq_type)
        self._loop = loop
        self._on_drop: Callable[[str, int], None] | None = None
        self._authenticator = None if check is None else Authenticator(loop, check)
        self._values = dict(_DEFAULTS)
        self._last_endpoint = b""
        self._mechanism = _NULL
        self._configured = False
        self._listeners: dict[str, _Listener] = {}
        self._connectors: dict[str, list[_Connector]] = {}
        self._unbound: set[_Listener] = set()  # whose peers are here still
        self._leaving: set[_Connector] = set()  # that have something to send
        self._on_event: Callable[[int, int, str], None] | None = None
        self._pid = os.getpid()
        self._looks_again = False
        self._lingers_until = 0.0  # of time.monotonic(), once it is closed

    def __repr__(self) -> str:
        kind = zmq.SocketType(self.type).name
        try:
            state = "closed" if self.closed else f"{len(self._pipes)} peers"
        except RuntimeError:
            state = "of another thread"
        return f"<NativeSocket {kind} {state}>"

    # -- Options --

    def getsockopt(self, option: int) -> Any:
        if self.closed:
            raise _error(errno.ENOTSOCK)
        option = int(option)
        if option == zmq.LAST_ENDPOINT:
            return self._last_endpoint
        if option == zmq.TYPE:
            return self.type
        if option == zmq.EVENTS:
            return self._look()
        if option == zmq.MECHANISM:
            return self._mechanism
        if option in _OF_TYPE:
            return self._values.get(option, 0)
        try:
            return self._values[option]
        except KeyError:
            raise _not_served(option_name(option)) from None

    def setsockopt(self, option: int, value: Any) -> None:
        self._check_thread()
        if self.closed:
            raise _error(errno.ENOTSOCK)
        option = int(option)
        if isinstance(value, str):
            raise TypeError("unicode strings only")
        if option in (zmq.SUBSCRIBE, zmq.UNSUBSCRIBE):
            if self.type != zmq.SUB:
                raise _error(errno.EINVAL)
            self._subscribe(value, option == zmq.SUBSCRIBE)
            return
        if option in _OF_TYPE:
            if self.type not in _OF_TYPE[option]:
                raise _error(errno.EINVAL)
        elif option not in _DEFAULTS:
            raise _not_served(option_name(option))
        if option == zmq.XPUB_WELCOME_MSG:
            self._set_welcome(bytes(value) or None)
        elif option in _KEYS:
            value = self._key(value)
            self._mechanism = _CURVE
        elif option in _TEXTS:
            value = self._text(option, value)
        else:
            value = self._number(value)
            low, high = _RANGES.get(option, (0, _INT_MAX))
            if not low <= value <= high:
                raise _error(errno.EINVAL)
            if option == zmq.HEARTBEAT_TTL:
                value = int(value / 100) * 100
            if option in _IN_C:
                self._set(_IN_C[option], value)
            elif option == zmq.CURVE_SERVER:
                self._mechanism = _CURVE if value else _NULL
            elif option == zmq.PLAIN_SERVER:
                self._mechanism = _PLAIN if value else _NULL
        self._values[option] = value
        self._configured = False

    set = setsockopt
    get = getsockopt
    set_string = setsockopt_string = None

    def _number(self, value: Any) -> int:
        if not isinstance(value, int):
            raise TypeError(f"expected int, got: {value!r}")
        return int(value)

    def _key(self, value: Any) -> bytes:
        key = bytes(value)
        if len(key) == 32:
            return key
        if len(key) == 41:
            key = key[:-1]
        if len(key) != 40:
            raise _error(errno.EINVAL)
        return engine_libzmq.decode_key(key)

    def _text(self, option: int, value: Any) -> bytes:
        text = bytes(value)
        if len(text) > 255 or (option == zmq.ROUTING_ID and not text):
            raise _error(errno.EINVAL)
        if option == zmq.ROUTING_ID and text[0] == 0:
            raise _error(errno.EINVAL)
        if option in (zmq.PLAIN_USERNAME, zmq.PLAIN_PASSWORD):
            self._mechanism = _PLAIN
        return text

    def __getattr__(self, name: str) -> Any:
        option = _option_of_attribute(name)
        if option is None:
            raise AttributeError(
                f"a socket of the native engine has no {name!r}: {USE_LIBZMQ} "
                "for one of pyzmq's"
            )
        return self.getsockopt(option)

    def __setattr__(self, name: str, value: Any) -> None:
        option = _option_of_attribute(name)
        if option is None:
            super().__setattr__(name, value)
        else:
            self.setsockopt(option, value)

    def _prepare(self) -> None:
        """Fixes what handshakes are made with from now on."""
        if self._configured:
            return
        values = self._values
        library = None
        if self._mechanism == _CURVE:
            _, library = engine_libzmq.backend()
        as_server = {
            _NULL: False,
            _PLAIN: bool(values[zmq.PLAIN_SERVER]),
            _CURVE: bool(values[zmq.CURVE_SERVER]),
        }[self._mechanism]
        self._configure(
            self._mechanism,
            as_server,
            # NULL asks on both sides, and only in a domain.
            as_server or (self._mechanism == _NULL and values[zmq.ZAP_DOMAIN] != b""),
            *(values[option] for option in _TEXTS[:3]),
            *(values[option] for option in _KEYS),
            library,
        )
        self._configured = True

    def _tune(self, conn: socket.socket) -> None:
        """Sets a connection's, or a listening socket's, options."""
        conn.setblocking(False)
        values = self._values
        for option, name in (
            (zmq.SNDBUF, socket.SO_SNDBUF),
            (zmq.RCVBUF, socket.SO_RCVBUF),
        ):
            if values[option] >= 0:
                conn.setsockopt(socket.SOL_SOCKET, name, values[option])
        if conn.family == socket.AF_UNIX:
            return
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if values[zmq.TOS]:
            if conn.family == socket.AF_INET6:
                conn.setsockopt(
                    socket.IPPROTO_IPV6, socket.IPV6_TCLASS, values[zmq.TOS]
                )
            else:
                conn.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, values[zmq.TOS])
        if values[zmq.TCP_KEEPALIVE] == -1:
            return
        conn.setsockopt(
            socket.SOL_SOCKET, socket.SO_KEEPALIVE, values[zmq.TCP_KEEPALIVE]
        )
        for option, name in (
            (zmq.TCP_KEEPALIVE_CNT, socket.TCP_KEEPCNT),
            (zmq.TCP_KEEPALIVE_IDLE, socket.TCP_KEEPIDLE),
            (zmq.TCP_KEEPALIVE_INTVL, socket.TCP_KEEPINTVL),
        ):
            if values[option] > 0:
                conn.setsockopt(socket.IPPROTO_TCP, name, values[option])

    # -- Endpoints --

    def bound_queues(self, octets: int, on_drop: Callable[[str, int], None]) -> None:
        """Of a ROUTER: what waits for a peer is bounded by its size, too, and
        on_drop(endpoint, how many messages wait) is called when one is dropped, once a
        connection."""
        self._set("max_queued", octets)
        self._on_drop = on_drop

    def _check_open(self) -> None:
        self._check_thread()
        if self.closed:
            raise _error(errno.ENOTSOCK)
        self._prepare()

    def bind(self, endpoint: str) -> None:
        self._check_open()
        address = _Address(endpoint)
        try:
            listening = self._listen(address)
        except OSError as exc:
            err = exc.errno or errno.EINVAL
            self._emit(zmq.EVENT_BIND_FAILED, err, endpoint.partition("://")[2])
            raise _error(err) from exc
        try:
            real = _endpoint_of(listening)
            self._listeners[real] = listener = _Listener(self, real, listening)
        except BaseException:
            listening.close()
            raise
        self._last_endpoint = real.encode()
        self._emit(zmq.EVENT_LISTENING, listener._listening.fileno(), real)

    def _listen(self, address: _Address) -> socket.socket:
        backlog = self._values[zmq.BACKLOG]
        if address.scheme == "ipc":
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self._tune(listening)
                path = address.path
                if path == "*":
                    path = os.path.join(tempfile.mkdtemp(prefix="zmq-"), "socket")
                elif path[0] != "\0":
                    try:
                        os.unlink(path)  # as libzmq does
                    except FileNotFoundError:
                        pass
                listening.bind(path)
                listening.listen(backlog)
            except BaseException:
                listening.close()
                raise
            return listening
        family, where = _resolve_local(
            address.host, address.port, bool(self._values[zmq.IPV6])
        )
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._tune(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6 and address.host == "*":
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listening.bind(where)
            listening.listen(backlog)
        except BaseException:
            listening.close()
            raise
        return listening

    def unbind(self, endpoint: str) -> None:
        """Ends what has that name, bound or connected: as in libzmq, disconnect() does
        the same. Connections that were accepted go on."""
        self._check_open()
        for name in (endpoint, self._other_name(endpoint)):
            if name in self._listeners:
                listener = self._listeners.pop(name)
                listener.stop()
                if listener.peers:
                    self._unbound.add(listener)
                return
            if name in self._connectors:
                for connector in self._connectors.pop(name):
                    self._leave(connector)
                return
        raise _error(errno.ENOENT)

    disconnect = unbind

    def _leave(self, connector: _Connector) -> None:
        """What waits is sent still, for the linger time."""
        milliseconds = self._values[zmq.LINGER]
        if self.type not in (zmq.SUB, zmq.XSUB):
            connector.peer._leave()
            if milliseconds != 0 and not self._is_through(connector, connector.peer):
                self._leaving.add(connector)
                if milliseconds > 0:
                    self._loop.call_later(milliseconds / 1000, self._left, connector)
                self._left_when_delivered(connector)
                return
        connector.stop()

    def _left(self, connector: _Connector) -> None:
        if connector in self._leaving:
            self._leaving.discard(connector)
            connector.stop()

    def _left_when_delivered(self, connector: _Connector) -> None:
        if connector not in self._leaving:
            return
        if self._is_through(connector, connector.peer):
            self._left(connector)
        elif not self._loop.is_closed():
            self._loop.call_later(_LOOK_AGAIN, self._left_when_delivered, connector)

    def _other_name(self, endpoint: str) -> str:
        """The address that a TCP endpoint by name stands for."""
        try:
            address = _Address(endpoint)
            if address.scheme == "ipc":
                return endpoint
            family, where = _resolve_local(
                address.host, address.port, bool(self._values[zmq.IPV6])
            )
        except (OSError, zmq.ZMQError):
            return endpoint
        host = f"[{where[0]}]" if family == socket.AF_INET6 else where[0]
        return f"tcp://{host}:{where[1]}"

    def connect(self, endpoint: str) -> None:
        self._check_open()
        address = _Address(endpoint)
        if address.scheme == "tcp" and (address.port == 0 or address.host == "*"):
            raise _error(errno.EINVAL)
        if endpoint in self._connectors and self.type in _CONNECT_ONCE:
            return
        connector = _Connector(self, address)
        self._connectors.setdefault(endpoint, []).append(connector)
        self._last_endpoint = endpoint.encode()
        connector.start()

    # -- Called by the C part --

    def _peer_ready(self, peer: Any, fd: int) -> None:
        link = peer.owner
        link.ready(peer)
        self._emit(zmq.EVENT_HANDSHAKE_SUCCEEDED, 0, link.endpoint)

    def _peer_lost(
        self, peer: Any, was_ready: bool, event: int, value: int, fd: int
    ) -> None:
        link = peer.owner
        if link is None:
            return
        if event != zmq.EVENT_DISCONNECTED:
            self._emit(event, value, link.endpoint)
        self._emit(zmq.EVENT_DISCONNECTED, fd, link.endpoint)
        link.lost(peer)
        if self.closed:
            self._close_drained()

    def _peer_asks(
        self, peer: Any, mechanism: int, username: bytes, password: bytes, key: bytes
    ) -> None:
        if self._authenticator is not None:
            self._authenticator.ask(peer, mechanism, username, password, key)
        else:
            self._zap_of_loop().ask(self, peer, mechanism, username, password, key)

    def _zap_of_loop(self) -> Zap:
        loop = self._loop
        zap: Zap | None = getattr(loop, "_zmtp_zap", None)
        if zap is None:
            zap = loop._zmtp_zap = Zap(loop)
        return zap

    def _peer_drops(self, peer: Any) -> None:
        """A ROUTER has dropped the first message for a peer that has no room."""
        if self._on_drop is not None:
            self._on_drop(peer.owner.endpoint, peer.waiting)

    def _peer_drained(self, peer: Any) -> None:
        """All is sent, of a socket that is closed or of one that was left."""
        if self.closed:
            self._close_drained()
        else:
            self._left_when_delivered(peer.owner)

    def _beat(self, peer: Any) -> None:
        delay = peer._heartbeat()
        if delay is not None and not self._loop.is_closed():
            self._loop.call_later(delay, self._beat, peer)

    # -- Events --

    def _open_monitor(self, on_event: Callable[[int, int, str], None]) -> None:
        self._on_event = on_event

    def disable_monitor(self) -> None:
        self._on_event = None

    def _emit(self, event: int, value: int, endpoint: str) -> None:
        on_event = self._on_event
        if on_event is not None and not self._loop.is_closed():
            self._loop.call_soon(on_event, event, value, endpoint)

    # -- The end --

    def close(self, linger: int | None = None) -> None:
        if self.closed:
            return
        milliseconds = self._values[zmq.LINGER] if linger is None else linger
        if self._pid != os.getpid():
            milliseconds = 0  # a forked child: the connections are its parent's
        self._close()
        for listener in self._listeners.values():
            listener.stop()
        self._emit(zmq.EVENT_MONITOR_STOPPED, 0, "")
        if milliseconds != 0 and not self._all_through():
            for peer in self._pipes:
                peer._flush()
            self._lingers_until = (
                float("inf")
                if milliseconds < 0
                else time.monotonic() + milliseconds / 1000
            )
            _lingering(self._loop).add(self)
            if milliseconds > 0 and not self._loop.is_closed():
                self._loop.call_later(milliseconds / 1000, self._end)
            self._close_drained()
        else:
            self._end()

    def _close_drained(self) -> None:
        """Ends peers that have nothing to send; the socket with the last of them."""
        for link in self._links():
            for peer in self._peers_of(link):
                if self._is_through(link, peer):
                    self._end_peer(link, peer)
        if self._all_through():
            self._end()
        elif not self._looks_again and not self._loop.is_closed():
            self._looks_again = True
            self._loop.call_later(_LOOK_AGAIN, self._look_again)

    def _look_again(self) -> None:
        self._looks_again = False
        self._close_drained()

    def _is_through(self, link: Any, peer: Any) -> bool:
        """Has the peer, or its kernel, all that was sent to it? What is on its way is
        lost where a TCP connection is closed and the peer sends more."""
        if peer.waiting:
            return False
        if peer.fd < 0 or not link.endpoint.startswith("tcp:"):
            return True
        # SIOCOUTQ of tcp(7): octets that the peer has not acknowledged.
        count = fcntl.ioctl(peer.fd, termios.TIOCOUTQ, bytes(4))
        return bool(struct.unpack("i", count)[0] == 0)

    def _all_through(self) -> bool:
        return not any(peer.waiting for peer in self._pipes) and all(
            self._is_through(link, peer)
            for link in self._links()
            for peer in self._peers_of(link)
        )

    def _links(self) -> list[Any]:
        links: list[Any] = list(self._listeners.values())
        links += self._unbound
        links += self._leaving
        for connectors in self._connectors.values():
            links += connectors
        return links

    def _peers_of(self, link: Any) -> list[Any]:
        return list(link.peers) if isinstance(link, _Listener) else [link.peer]

    def _end_peer(self, link: Any, peer: Any) -> None:
        if isinstance(link, _Listener):
            link.shaken(peer)
            link.peers.discard(peer)
            peer._close()
        else:
            link.stop()

    def _end(self) -> None:
        """Now, whatever waits. Harmless when repeated."""
        for link in self._links():
            for peer in self._peers_of(link):
                self._end_peer(link, peer)
        self._listeners.clear()
        self._connectors.clear()
        self._unbound.clear()
        self._leaving.clear()
        _lingering(self._loop).discard(self)
        self._on_event = None
        self._move(None)

    def _move_to(self, loop: Any) -> None:
        """Goes on sending on another loop: its own is closed."""
        self._move(loop)
        self._loop = loop
        for link in self._links():
            link.move(loop)


def _option_of_attribute(name: str) -> int | None:
    if name.startswith("_") or name in ("closed", "type", "context"):
        return None
    if name in ("identity", "IDENTITY"):
        return int(zmq.ROUTING_ID)
    if name in ("hwm", "HWM"):
        return None
    option = zmq.SocketOption.__members__.get(name.upper())
    return None if option is None else int(option)


# ---- what the end of a loop waits for ----

_without_loop: set[NativeSocket] = set()


def _lingering(loop: Any) -> set[NativeSocket]:
    """The closed sockets of a loop that have something to send."""
    sockets: set[NativeSocket] = getattr(loop, "_zmtp_lingering", _without_loop)
    return sockets


def send_rest(sock: NativeSocket, messages: Any) -> list[Any]:
    """Hands over what waited in a transport whose loop has ended: what is refused."""
    sock._set("sndhwm", 0)
    refused = []
    for message in messages:
        exact = tuple(map(bytes, message))
        if sock._send(exact) != 0:
            refused.append(message)
    return refused


def finish(loop: Any, deadline: float) -> tuple[int, int]:
    """Sends what closed sockets of a loop that is closed have, until `deadline`, a time
    of time.monotonic(): how many messages in how many sockets are lost."""
    sockets = _lingering(loop)
    left = {sock for sock in sockets if sock._pid == os.getpid()}
    sockets.clear()
    if not left:
        return 0, 0
    lost = expired = 0
    own: Any = next(
        iter(left)
    )._loop._whole_loop()  # no callback of the user's runs on it
    try:
        for sock in left:
            sock._move_to(own)
        own._zmtp_lingering.update(left)
        while own._zmtp_lingering:
            now = time.monotonic()
            for sock in list(own._zmtp_lingering):
                if sock._lingers_until <= now:
                    lost += sum(peer.waiting for peer in sock._pipes)
                    expired += 1
                    sock._end()
                else:
                    sock._look_again()
            until = min(
                [deadline, *(sock._lingers_until for sock in own._zmtp_lingering)]
            )
            if now >= deadline or not own._zmtp_lingering:
                break
            own.call_later(min(until - now, 0.01), own.stop)
            own.run_forever()
        rest = list(own._zmtp_lingering)
        lost += sum(peer.waiting for sock in rest for peer in sock._pipes)
        for sock in rest:
            sock._end()
        return lost, expired + len(rest)
    finally:
        own.close()


def serves(endpoints: list[str], options: dict[int, Any]) -> bool:
    """Would the native engine take these endpoints and options?"""
    for endpoint in endpoints:
        try:
            _Address(endpoint)
        except zmq.ZMQError as exc:
            # What is no endpoint at all is an error here as there.
            if exc.errno == errno.EPROTONOSUPPORT:
                return False
    return all(option in _DEFAULTS or option in _OF_TYPE for option in options)


def serves_option(option: int) -> bool:
    return option in _DEFAULTS or option in _OF_TYPE or option in _OTHERS


__all__ = ["NativeSocket", "finish", "send_rest", "serves", "serves_option"]

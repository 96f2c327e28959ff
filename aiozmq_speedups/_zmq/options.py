"""The socket options that create_zmq_connection() and its relatives take."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypedDict

from aiozmq_speedups._zmq import engine_libzmq
from aiozmq_speedups._zmq.pyzmq import zmq

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from aiozmq_speedups._zmq.native_auth import PeerCredentials

    Authenticate = (
        Callable[[PeerCredentials], bool | Awaitable[bool]]
        | Mapping[str, str]
        | Iterable[str | bytes]
    )

__all__ = ["ZmqOptions"]

#: How long a socket made here lingers: see the docstring of ZmqOptions.
DEFAULT_LINGER = 30.0


class ZmqOptions(TypedDict, total=False):
    """Keyword arguments of :func:`create_zmq_connection`, and of all that is
    built on it: streams, rpc, pipeline, pub/sub. Each is an option of the socket
    (zmq_setsockopt(3)), set before it binds or connects. All times are in seconds,
    ``math.inf`` if no limit is meant. What is not given stays as it is.
    """

    #: What serves the socket: ``"libzmq"``, ``"native"`` or ``"auto"``; that of the
    #: loop if it is not given: see :ref:`engines`.
    engine: str
    #: True: what happens to its connections is logged, by ``aiozmq_speedups.zmq``: see
    #: :ref:`zmq-events`.
    log_events: bool
    #: How long messages are still sent after the socket was closed: what libzmq has
    #: taken, and what waits in the transport's buffer for libzmq to take it. 0 drops
    #: them, ``math.inf`` waits until the peer has them or the process ends. The
    #: default is 30, unless the context has a default of its own
    #: (``context.linger = ...``, in milliseconds) or a ``zmq_sock`` is given. The end
    #: of the loop (``close_timeout`` of :class:`Loop`), and that of the process, wait a
    #: second for it at most: ``context.term()`` waits for all the time.
    linger: float
    #: Messages that wait for one peer, or from one, before it blocks or drops; 0
    #: means no limit. libzmq's default is 1000.
    sndhwm: int
    rcvhwm: int
    #: The longest message that is taken, in bytes; the peer that sends more is
    #: disconnected.
    max_message_size: int
    #: Send a ZMTP ping each so often; a peer silent for ``heartbeat_timeout``
    #: (``heartbeat_interval`` by default) is disconnected, and connected to again.
    #: ``heartbeat_ttl``, at most 6553.5, is what the peer is told to do.
    heartbeat_interval: float
    heartbeat_timeout: float
    heartbeat_ttl: float
    #: The pause before connecting again (0.1), which doubles up to
    #: ``reconnect_interval_max`` if that is given; ``math.inf``: never again.
    reconnect_interval: float
    reconnect_interval_max: float
    #: How long a connection, and its handshake (30), may take.
    connect_timeout: float
    handshake_timeout: float
    #: True: messages are only given to peers whose connection is complete.
    immediate: bool
    #: CURVE, encrypted and authenticated by keys: 40 characters (Z85, as
    #: ``zmq.curve_keypair()`` makes them) or 32 bytes. A server has ``curve_server``
    #: and its secret key; a client has its own secret key and the server's public
    #: one. The own public key is derived if it is not given.
    curve_server: bool
    curve_publickey: str | bytes
    curve_secretkey: str | bytes
    curve_serverkey: str | bytes
    #: PLAIN: a name and a password, which are not encrypted. The server needs
    #: ``authenticate`` or a ZAP authenticator.
    plain_server: bool
    plain_username: str
    plain_password: str
    #: The domain by which the context's ZAP authenticator knows a server. If it
    #: is given, nobody is let in while there is no authenticator.
    zap_domain: str
    #: Who may connect to a PLAIN or CURVE server of the native engine: a dict of
    #: passwords by name, or a collection of public keys; or a function, maybe a
    #: coroutine one, that is called with a :class:`PeerCredentials` and returns True
    #: for those who may. What it raises is reported, and lets nobody in. No ZAP
    #: authenticator is asked then.
    authenticate: Authenticate


_MAX_MILLISECONDS = 2**31 - 1


def _seconds(name: str, value: Any, infinite: int | None = None) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if value == math.inf and infinite is not None:
        return infinite
    if not 0 <= value * 1000 <= _MAX_MILLISECONDS:
        raise ValueError(f"{name} must be between 0 and 2147483 seconds, not {value!r}")
    # A time that is not zero must not become so.
    return max(round(value * 1000), value > 0)


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if not 0 <= value < 2**31:
        raise ValueError(f"{name} must not be negative or above 2147483647: {value!r}")
    return value


def _flag(name: str, value: Any) -> int:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, not {value!r}")
    return value


def key_option(name: str, value: Any) -> bytes:
    """A CURVE key's 32 bytes. TypeError, ValueError."""
    if isinstance(value, str):
        try:
            value = value.encode("ascii")
        except UnicodeEncodeError:
            raise ValueError(f"{name} has characters that Z85 has not") from None
    # The key itself is not shown: tracebacks go into logs.
    if not isinstance(value, bytes):
        raise TypeError(f"{name} must be str or bytes, not {type(value).__name__}")
    if len(value) == 32:
        return value
    if len(value) != 40:
        raise ValueError(
            f"{name} must have 40 characters (Z85) or 32 bytes, not {len(value)}"
        )
    try:
        decoded = engine_libzmq.decode_key(value)
    except Exception:
        raise ValueError(f"{name} is not Z85") from None
    if engine_libzmq.encode_key(decoded) != value:
        raise ValueError(f"{name} is not Z85")
    return decoded


def _text(name: str, value: Any) -> bytes:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    encoded = value.encode()
    if not 1 <= len(encoded) <= 255 or "\0" in value:
        raise ValueError(f"{name} must have 1 to 255 bytes of UTF-8 and no NUL")
    return encoded


def _max_size(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if not 0 <= value < 2**63:
        raise ValueError(f"{name} must not be negative: {value!r}")
    return value


def _or_never(infinite: int) -> Callable[[str, Any], int]:
    return lambda name, value: _seconds(name, value, infinite)


_OPTIONS: dict[str, tuple[int, Callable[[str, Any], Any]]] = {
    "linger": (zmq.LINGER, _or_never(-1)),
    "sndhwm": (zmq.SNDHWM, _count),
    "rcvhwm": (zmq.RCVHWM, _count),
    "max_message_size": (zmq.MAXMSGSIZE, _max_size),
    "heartbeat_interval": (zmq.HEARTBEAT_IVL, _seconds),
    "heartbeat_timeout": (zmq.HEARTBEAT_TIMEOUT, _seconds),
    "heartbeat_ttl": (zmq.HEARTBEAT_TTL, _seconds),
    "reconnect_interval": (zmq.RECONNECT_IVL, _or_never(-1)),
    "reconnect_interval_max": (zmq.RECONNECT_IVL_MAX, _seconds),
    "connect_timeout": (zmq.CONNECT_TIMEOUT, _or_never(0)),
    "handshake_timeout": (zmq.HANDSHAKE_IVL, _or_never(0)),
    "immediate": (zmq.IMMEDIATE, _flag),
    "curve_server": (zmq.CURVE_SERVER, _flag),
    "curve_publickey": (zmq.CURVE_PUBLICKEY, key_option),
    "curve_secretkey": (zmq.CURVE_SECRETKEY, key_option),
    "curve_serverkey": (zmq.CURVE_SERVERKEY, key_option),
    "plain_server": (zmq.PLAIN_SERVER, _flag),
    "plain_username": (zmq.PLAIN_USERNAME, _text),
    "plain_password": (zmq.PLAIN_PASSWORD, _text),
    "zap_domain": (zmq.ZAP_DOMAIN, _text),
}


def check_options(options: Mapping[str, Any]) -> dict[int, Any]:
    """Return ``{option: value}`` for setsockopt, in an order that works.

    :raise TypeError: an unknown option, or a value of another type.
    :raise ValueError: a value out of range, or options that do not go together.
    """
    values = {}
    for name in options:
        if name not in _OPTIONS:
            raise TypeError(
                f"create_zmq_connection() got an unexpected keyword argument {name!r}"
            )
    for name, (_, convert) in _OPTIONS.items():
        if name in options:
            values[name] = convert(name, options[name])
    _check_heartbeat(values)
    _check_curve(values)
    _check_plain(values)
    # libzmq learns the mechanism from the last option that implies one, so a
    # False must not come after the keys.
    for flag in ("curve_server", "plain_server"):
        if not values.get(flag, True):
            del values[flag]
    result = {_OPTIONS[name][0]: value for name, value in values.items()}
    if "zap_domain" in values:
        # Without it libzmq lets everybody in while there is no authenticator.
        result[zmq.ZAP_ENFORCE_DOMAIN] = 1
    return result


def _check_heartbeat(values: dict[str, Any]) -> None:
    if "heartbeat_interval" not in values:
        for name in ("heartbeat_timeout", "heartbeat_ttl"):
            if name in values:
                raise ValueError(f"{name} needs heartbeat_interval")
    # It travels as a 16-bit number of tenths.
    if not 100 <= values.get("heartbeat_ttl", 100) <= 6553_500:
        raise ValueError("heartbeat_ttl must be between 0.1 and 6553.5 seconds")


def _check_curve(values: dict[str, Any]) -> None:
    if not any(name.startswith("curve_") for name in values):
        return
    if any(name.startswith("plain_") for name in values):
        raise ValueError("CURVE and PLAIN exclude each other")
    if not engine_libzmq.has_curve():
        raise ValueError("this libzmq was built without CURVE")
    if "curve_secretkey" not in values:
        raise ValueError("CURVE needs curve_secretkey")
    if values.get("curve_server"):
        if "curve_serverkey" in values:
            raise ValueError("curve_serverkey is for clients only")
    elif "curve_serverkey" not in values:
        raise ValueError(
            "CURVE needs curve_server=True in a server, curve_serverkey in a client"
        )
    derived = engine_libzmq.public_key(values["curve_secretkey"])
    if derived is None:
        if "curve_publickey" not in values:
            raise ValueError("curve_publickey is needed too: pyzmq does not load here")
    elif values.setdefault("curve_publickey", derived) != derived:
        raise ValueError("curve_publickey does not belong to curve_secretkey")


def _check_plain(values: dict[str, Any]) -> None:
    name, password = "plain_username" in values, "plain_password" in values
    if values.get("plain_server"):
        if name or password:
            raise ValueError("plain_username and plain_password are for clients")
    elif name != password:
        raise ValueError("plain_username and plain_password go together")


def apply_options(
    zmq_sock: zmq.Socket[bytes], options: Mapping[int, Any], own: bool
) -> None:
    """Set checked options; `own`: the socket is new.

    :raise ZMQError: libzmq does not know one.
    """
    if own and zmq.LINGER not in options:
        # libzmq's own default keeps the socket of a peer that never comes back,
        # and tries to connect, for as long as the process lives.
        unset = engine_libzmq.get_option(zmq_sock, zmq.LINGER) == -1
        if unset and not engine_libzmq.has_default(zmq_sock, zmq.LINGER):
            milliseconds = int(DEFAULT_LINGER * 1000)
            engine_libzmq.set_option(zmq_sock, zmq.LINGER, milliseconds)
    for option, value in options.items():
        engine_libzmq.set_option(zmq_sock, option, value)

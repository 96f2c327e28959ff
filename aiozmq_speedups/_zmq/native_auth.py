"""Who may come in: what a native server was told with ``authenticate``."""

from __future__ import annotations

import asyncio
import hmac
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from aiozmq_speedups._zmq.native_zap import address_of

if TYPE_CHECKING:
    from aiozmq_speedups._zmq.options import Authenticate

_PLAIN = 1


class PeerCredentials(NamedTuple):
    """What a peer shows to a server that authenticates by a callable."""

    #: ``"PLAIN"`` or ``"CURVE"``.
    mechanism: str
    #: Its IP address; over ``ipc://`` ``"localhost:uid:gid:pid"``.
    address: str
    #: PLAIN: what it calls itself, and its password; as they came.
    username: bytes
    password: bytes
    #: CURVE: its public key, 32 bytes; it has proved that it has the secret one.
    public_key: bytes


PeerCredentials.__module__ = "aiozmq_speedups.core"


def make_check(
    how: Authenticate, plain: bool, key_of: Callable[[str, Any], bytes]
) -> Callable[[PeerCredentials], bool | Awaitable[bool]]:
    """The callable that a value of the option ``authenticate`` stands for.

    :raise TypeError: it is none of those that the mechanism has.
    :raise ValueError: a key is malformed.
    """
    if callable(how):
        return how
    if plain:
        if not isinstance(how, Mapping):
            raise TypeError(
                "authenticate must be a callable or a dict of passwords by name, "
                f"not {type(how).__name__}"
            )
        return _by_password(how)
    if isinstance(how, (str, bytes, Mapping)) or not isinstance(how, Iterable):
        raise TypeError(
            "authenticate must be a callable or a collection of public keys, "
            f"not {type(how).__name__}"
        )
    keys = frozenset(key_of("authenticate", key) for key in how)
    return lambda credentials: credentials.public_key in keys


def _by_password(users: Mapping[str, str]) -> Callable[[PeerCredentials], bool]:
    passwords = {}
    for name, password in users.items():
        if not isinstance(name, str) or not isinstance(password, str):
            raise TypeError("the names and passwords of authenticate must be str")
        passwords[name.encode()] = password.encode()

    def check(credentials: PeerCredentials) -> bool:
        expected = passwords.get(credentials.username)
        # As long for a name that is not known.
        same = hmac.compare_digest(expected or b"", credentials.password)
        return same and expected is not None

    return check


def _status(allowed: Any) -> int:
    # Nothing but True lets anybody in: a forgotten return does not.
    return 200 if allowed is True else 400


class Authenticator:
    """Asks a callable, and answers the peer when it knows."""

    def __init__(
        self, loop: Any, check: Callable[[PeerCredentials], bool | Awaitable[bool]]
    ) -> None:
        self._loop = loop
        self._check = check
        self._tasks: dict[Any, asyncio.Task[None]] = {}  # peer -> what will answer

    def ask(
        self, peer: Any, mechanism: int, username: bytes, password: bytes, key: bytes
    ) -> None:
        """Has the peer's _decide() called, at once or later."""
        plain = mechanism == _PLAIN
        try:
            answer = self._check(
                PeerCredentials(
                    "PLAIN" if plain else "CURVE",
                    address_of(peer.fd).decode(),
                    username if plain else b"",
                    password if plain else b"",
                    b"" if plain else key,
                )
            )
        except Exception as exc:
            self._report(exc)
            peer._decide(500)
            return
        if inspect.isawaitable(answer):
            self._tasks[peer] = self._loop.create_task(self._wait(peer, answer))
        else:
            peer._decide(_status(answer))

    async def _wait(self, peer: Any, answer: Awaitable[bool]) -> None:
        status = 500
        try:
            allowed = await answer
        except Exception as exc:
            self._report(exc)
        else:
            status = _status(allowed)
        # Another connection's, if this one has ended.
        if self._tasks.get(peer) is asyncio.current_task():
            del self._tasks[peer]
            peer._decide(status)

    def _report(self, exc: Exception) -> None:
        self._loop.call_exception_handler(
            {"message": "authenticate= of a ZeroMQ socket failed", "exception": exc}
        )

    def forget(self, peer: Any) -> None:
        """Its connection has ended."""
        task = self._tasks.pop(peer, None)
        if task is not None:
            task.cancel()

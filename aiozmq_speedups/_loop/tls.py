"""TLS: asyncio's own code, or aiofastnet's where a tested version is installed.

Nothing here encrypts. What is here chooses for each connection, and is the only
place where the loop meets either of the two.
"""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import weakref
from asyncio import constants, sslproto
from typing import TYPE_CHECKING, Any

try:
    import _ssl
    import ssl
except ImportError:  # a Python without OpenSSL: asyncio says so where TLS is asked for
    ssl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import socket
    from contextvars import Context
    from types import ModuleType

#: What ``tls=`` and the variable may be.
CHOICES = ("auto", "asyncio", "aiofastnet")
VARIABLE = "AIOZMQ_SPEEDUPS_TLS"

#: Of aiofastnet, as the extra `tls` in pyproject.toml, and of Python: aiofastnet
#: relies on the layout of CPython's SSLContext.
TESTED = ((1, 2), (1, 3))
TESTED_PYTHON = ((3, 11), (3, 15))
WANTED = "aiofastnet>=1.2,<1.3 (pip install aiozmq_speedups[tls])"


def check_choice(choice: Any) -> str:
    """`choice`, with "auto" replaced by what the environment says.

    :raise ValueError: it is none of CHOICES, or the environment's is none.
    :raise ImportError: it is "aiofastnet", and no tested version is installed.
    """
    if choice not in CHOICES:
        raise ValueError(f"tls must be one of {', '.join(CHOICES)}, not {choice!r}")
    name = "tls='aiofastnet'"
    if choice == "auto":
        choice = os.environ.get(VARIABLE) or "auto"
        if choice not in CHOICES:
            raise ValueError(
                f"{VARIABLE} must be one of {', '.join(CHOICES)}, not {choice!r}"
            )
        name = f"{VARIABLE}=aiofastnet"
    if choice == "aiofastnet" and load()[0] is None:
        raise ImportError(f"{name} needs {WANTED}: {load()[1]}")
    assert isinstance(choice, str)
    return choice


@functools.cache
def load() -> tuple[ModuleType | None, str]:
    """The module with aiofastnet's transports, or None; and its version, or why."""
    if not TESTED_PYTHON[0] <= sys.version_info[:2] < TESTED_PYTHON[1]:
        return None, "it was not tested on this Python"
    try:
        import aiofastnet
    except ImportError as exc:
        if isinstance(exc, ModuleNotFoundError) and exc.name == "aiofastnet":
            return None, "it is not installed"
        return None, f"it cannot be imported: {exc}"
    version: str = aiofastnet.__version__
    try:
        number = tuple(int(part) for part in version.split(".")[:2])
    except ValueError:
        number = ()
    if not TESTED[0] <= number < TESTED[1]:
        return None, f"version {version} was not tested"
    if aiofastnet.OPENSSL_DYN_LIBS is None:
        # Its other engine stops reading for good once that was paused.
        return None, "this Python's OpenSSL is linked into it"
    from aiozmq_speedups._loop import aiofastnet_tls

    return aiofastnet_tls, version


def describe() -> str:
    """What a new loop takes, for ``python -m aiozmq_speedups info``."""
    try:
        choice = check_choice("auto")
    except (ValueError, ImportError) as exc:
        return f"none: {exc}"
    if choice == "asyncio":
        return f"asyncio ({VARIABLE} is set)"
    module, what = load()
    return f"asyncio (aiofastnet: {what})" if module is None else f"aiofastnet {what}"


def is_plain(context: ssl.SSLContext) -> bool:
    """May aiofastnet take it? It makes SSL objects of its own from the context's C
    structure: a subclass is not asked, and each callback that CPython gives OpenSSL
    looks for CPython's SSL object in them and crashes where there is none.
    """
    return (
        # ssl.SSLContext itself, by whatever name: truststore and gevent put a
        # subclass in its place.
        type(context).__base__ is _ssl._SSLContext
        and context.sslobject_class is ssl.SSLObject
        and context.sni_callback is None
        and context.keylog_filename is None
        and context._msg_callback is None  # type: ignore[attr-defined]
        and not context.post_handshake_auth
    )


def _timeouts(handshake: float | None, shutdown: float | None) -> tuple[float, float]:
    if handshake is None:
        handshake = constants.SSL_HANDSHAKE_TIMEOUT
    if shutdown is None:
        shutdown = constants.SSL_SHUTDOWN_TIMEOUT
    for name, seconds in ("handshake", handshake), ("shutdown", shutdown):
        if seconds <= 0:
            raise ValueError(
                f"ssl_{name}_timeout should be a positive number, got {seconds}"
            )
    return handshake, shutdown


class _SSLTransport(sslproto._SSLProtocolTransport):  # type: ignore[name-defined, misc]
    """asyncio's, which knows at once that its connection has ended, as since 3.14.4:
    else who asks before it writes goes on writing."""

    def is_closing(self) -> bool:
        if self._closed:
            return True
        protocol: Any = self._ssl_protocol
        transport = protocol._transport
        return transport is not None and bool(transport.is_closing())


class _Protocol(sslproto.SSLProtocol):
    """asyncio's, with what is wrong in the versions that are supported mended."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # It has made one, and refuses to make another.
        self._app_transport.__class__ = _SSLTransport  # type: ignore[attr-defined]

    def _on_shutdown_complete(self, shutdown_exc: BaseException | None) -> None:
        # What the peer still sends after it was told of the end: it is dropped, as it
        # is without TLS, and no error of the one who closed.
        reason = getattr(shutdown_exc, "reason", None)
        if reason == "APPLICATION_DATA_AFTER_CLOSE_NOTIFY":
            shutdown_exc = None
        super()._on_shutdown_complete(shutdown_exc)  # type: ignore[misc]
        # The transport sends first what it has. Before 3.14.10 the end waited for a
        # peer that does not read for ever, not for the shutdown's timeout.
        if shutdown_exc is None and self._shutdown_timeout_handle is None:
            self._shutdown_timeout_handle: asyncio.TimerHandle | None
            self._shutdown_timeout_handle = self._loop.call_later(  # type: ignore[attr-defined]
                self._ssl_shutdown_timeout,  # type: ignore[attr-defined]
                self._check_shutdown_timeout,  # type: ignore[attr-defined]
            )


if TYPE_CHECKING:
    _Loop = asyncio.SelectorEventLoop
else:
    _Loop = object


class Tls(_Loop):
    """The part of the loop that makes TLS connections."""

    _tls_choice = "auto"

    @property
    def tls(self) -> str:
        """Whose TLS connections get, ``"asyncio"`` or ``"aiofastnet"``."""
        return "asyncio" if self._fast_tls() is None else "aiofastnet"

    def _fast_tls(self) -> Any:
        return None if self._tls_choice == "asyncio" else load()[0]

    def _make_ssl_transport(
        self,
        rawsock: socket.socket,
        protocol: Any,
        sslcontext: Any,
        waiter: Any = None,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        extra: Any = None,
        server: Any = None,
        ssl_handshake_timeout: float | None = constants.SSL_HANDSHAKE_TIMEOUT,
        ssl_shutdown_timeout: float | None = constants.SSL_SHUTDOWN_TIMEOUT,
        context: Context | None = None,  # since Python 3.15
    ) -> Any:
        """All of asyncio calls it: connecting and accepting, TCP and Unix sockets."""
        if not sslcontext and ssl is not None:
            sslcontext = _default_context(server_side, server_hostname)
        fast = self._fast_tls()
        if fast is not None and context is None and is_plain(sslcontext):
            self._expect_aiofastnet()
            return fast.make_transport(
                self,
                rawsock,
                protocol,
                sslcontext,
                waiter,
                server_side=server_side,
                server_hostname=server_hostname or None,
                server=server,
                timeouts=_timeouts(ssl_handshake_timeout, ssl_shutdown_timeout),
            )
        ssl_protocol = _Protocol(
            self,
            protocol,
            sslcontext,
            waiter,
            server_side,
            server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )
        self._make_socket_transport(  # type: ignore[attr-defined]
            rawsock,
            ssl_protocol,
            extra=extra,
            server=server,
            **({} if context is None else {"context": context}),
        )
        return ssl_protocol._app_transport  # type: ignore[attr-defined]

    async def start_tls(  # type: ignore[override]
        self,
        transport: Any,
        protocol: Any,
        sslcontext: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> Any:
        """Upgrade a transport to TLS (asyncio loop.start_tls)."""
        if ssl is None:
            raise RuntimeError("Python ssl module is not available")
        if not isinstance(sslcontext, ssl.SSLContext):
            raise TypeError(
                "sslcontext is expected to be an instance of ssl.SSLContext, "
                f"got {sslcontext!r}"
            )
        if not getattr(transport, "_start_tls_compatible", False):
            raise TypeError(f"transport {transport!r} is not supported by start_tls()")
        buffered = _take_buffered(protocol) if server_side else b""
        fast = self._fast_tls()
        if fast is None or len(buffered) > fast.BIO_SIZE or not is_plain(sslcontext):
            make, feed = _upgrade, _feed
        else:
            self._expect_aiofastnet()
            make, feed = fast.upgrade, fast.feed
        waiter = self.create_future()
        ssl_transport, ssl_protocol = make(
            self,
            protocol,
            sslcontext,
            waiter,
            server_side=server_side,
            server_hostname=server_hostname or None,
            timeouts=_timeouts(ssl_handshake_timeout, ssl_shutdown_timeout),
        )
        # Nothing must come in before connection_made() begins the handshake.
        transport.pause_reading()
        if buffered:
            feed(ssl_protocol, buffered)
        transport.set_protocol(ssl_protocol)
        begin = self.call_soon(ssl_protocol.connection_made, transport)
        resume = self.call_soon(transport.resume_reading)
        try:
            await waiter
        except BaseException:
            transport.close()
            begin.cancel()
            resume.cancel()
            # Its exception's traceback has this frame: a cycle, which would keep the
            # transport until a collection. As asyncio since 3.14.10.
            del waiter, ssl_protocol, ssl_transport
            raise
        return ssl_transport

    def _expect_aiofastnet(self) -> None:
        """Before its first transport on this loop. Not by a method of the class: who
        patches BaseEventLoop.call_exception_handler, as CPython's tests, means ours."""
        if "call_exception_handler" not in self.__dict__:
            handler = functools.partial(_call_exception_handler, weakref.ref(self))
            self.call_exception_handler = handler  # type: ignore[method-assign]

    async def _sendfile_fallback(
        self, transp: Any, file: Any, offset: int, count: int | None
    ) -> int:
        fast = sys.modules.get("aiozmq_speedups._loop.aiofastnet_tls")
        if fast is None or not isinstance(transp, fast.TRANSPORTS):
            sent: int = await super()._sendfile_fallback(  # type: ignore[misc]
                transp, file, offset, count
            )
            return sent
        sent = await fast.sendfile(self, transp, file, offset, count)
        return sent


def _call_exception_handler(
    loop_ref: weakref.ref[Tls], context: dict[str, Any]
) -> None:
    # aiofastnet's word, by the class, for a peer that goes away in the handshake, of
    # which asyncio says nothing.
    loop = loop_ref()
    if loop is not None and context.get("exception") is not ConnectionResetError:
        type(loop).call_exception_handler(loop, context)


def _default_context(server_side: bool, server_hostname: str | None) -> Any:
    return sslproto._create_transport_context(  # type: ignore[attr-defined]
        server_side, server_hostname
    )


def _take_buffered(protocol: Any) -> bytes:
    """What a stream's reader has already of the peer's handshake.

    asyncio does so since 3.13.12 and 3.14.3 (gh-142352); before, it stayed in the
    reader, and the handshake waited for it.
    """
    if isinstance(protocol, asyncio.StreamReaderProtocol):
        reader = protocol._stream_reader  # type: ignore[attr-defined]
        if reader is not None:
            buffered = bytes(reader._buffer)
            reader._buffer.clear()
            return buffered
    return b""


def _upgrade(
    loop: Any,
    protocol: Any,
    sslcontext: Any,
    waiter: Any,
    timeouts: tuple[float, float],
    **options: Any,
) -> tuple[Any, Any]:
    ssl_protocol = _Protocol(
        loop,
        protocol,
        sslcontext,
        waiter,
        call_connection_made=False,
        ssl_handshake_timeout=timeouts[0],
        ssl_shutdown_timeout=timeouts[1],
        **options,
    )
    return ssl_protocol._app_transport, ssl_protocol  # type: ignore[attr-defined]


def _feed(ssl_protocol: Any, data: bytes) -> None:
    ssl_protocol._incoming.write(data)

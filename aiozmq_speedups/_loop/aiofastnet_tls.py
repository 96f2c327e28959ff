"""aiofastnet's TLS transports, made to fit this loop.

Imported by tls.py, where a tested version is installed. What is overridden are
differences from asyncio that would break a program; each has a test in tests/tls.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import weakref
from asyncio import base_events
from typing import TYPE_CHECKING, Any

from aiofastnet.constants import SSL_BIO_SIZE_DEFAULTS
from aiofastnet.ssl_transport import SSLTransport_Socket, SSLTransport_Transport

if TYPE_CHECKING:
    import socket

BIO_SIZE: int = SSL_BIO_SIZE_DEFAULTS["ssl_incoming_bio_size"]

# Of asyncio's Server: takes the transport since Python 3.13.
_TAKES_TRANSPORT = (
    "transport" in inspect.signature(base_events.Server._attach).parameters
)


class _Attached:
    """Stands for the Server of Pythons where _detach() takes nothing."""

    __slots__ = ("_server",)

    def __init__(self, server: Any) -> None:
        self._server = server

    def _detach(self, transport: Any) -> None:
        self._server._detach()


class SSLTransport(asyncio.Transport):
    """What isinstance() finds: it cannot be a base, as both have fields in C."""


def _call_weakly(ref: weakref.ref[Any], method: Any) -> None:
    transport = ref()
    if transport is not None:
        method(transport)


class _Mended:
    """What both kinds of transport have in common."""

    _start_tls_compatible = True  # TLS in TLS
    _ending = False

    @property
    def __class__(self) -> type:  # type: ignore[override]
        return SSLTransport

    # aiofastnet gets both from here when it sets a timer.

    @property
    def _check_handshake_timeout(self) -> Any:
        # It leaves the timer behind where a handshake is given up: the transport is
        # not to live for as long.
        return functools.partial(
            _call_weakly,
            weakref.ref(self),
            super()._check_handshake_timeout.__func__,  # type: ignore[misc]
        )

    @property
    def _check_shutdown_timeout(self) -> Any:
        self._ending = True  # by us, or by the peer's close_notify
        return super()._check_shutdown_timeout  # type: ignore[misc]

    def _force_close(self, exc: BaseException | None) -> None:
        if exc is None and not self._ending:
            # The peer's end without a close_notify: asyncio tells the protocol.
            self._ending = True
            protocol = self.get_protocol()  # type: ignore[attr-defined]
            try:
                protocol.eof_received()
            except Exception as error:
                exc = error
                self._owner.call_exception_handler(  # type: ignore[attr-defined]
                    {
                        "message": "Error calling eof_received()",
                        "exception": error,
                        "transport": self,
                        "protocol": protocol,
                    }
                )
        super()._force_close(exc)  # type: ignore[misc]

    def writelines(self, list_of_data: Any) -> None:
        # It is walked twice: nothing would be left of a generator.
        super().writelines(list(list_of_data))  # type: ignore[misc]

    def close(self) -> None:
        self._ending = True
        if not self.is_closing():  # type: ignore[attr-defined]
            # The peer's answer to ours, which the end waits for, comes by reading.
            super().resume_reading()  # type: ignore[misc]
        super().close()  # type: ignore[misc]

    def abort(self) -> None:
        self._ending = True
        super().abort()  # type: ignore[misc]


class TLSTransport(_Mended, SSLTransport_Socket):  # type: ignore[misc]
    """TLS on a socket that it reads and writes itself."""

    _resuming = False  # _read_on() is to come

    def __init__(self, loop: Any, *args: Any) -> None:
        self._owner = loop
        super().__init__(loop, *args)

    def close(self) -> None:
        if self._resuming and not self.is_closing():
            # For the peer's close_notify: _read_on() finds that it does not read.
            fd = self.get_extra_info("socket").fileno()
            self._owner.add_reader(fd, self._read_ready)
        super().close()

    def resume_reading(self) -> None:
        if self.is_closing() or self.is_reading():
            return
        # aiofastnet would read from the socket first: it finds no room, or the end,
        # where a BufferedProtocol has paused with data left to be decrypted.
        fd = self.get_extra_info("socket").fileno()
        self._owner.call_soon(self._read_on, fd)
        self._resuming = True
        super().resume_reading()
        self._owner.remove_reader(fd)

    def _read_on(self, fd: int) -> None:
        self._resuming = False
        self._retry_ssl_read()
        if self.is_reading():
            self._owner.add_reader(fd, self._read_ready)


class LayeredTLSTransport(_Mended, SSLTransport_Transport):  # type: ignore[misc]
    """TLS on another transport, for start_tls()."""

    def __init__(self, loop: Any, *args: Any, **options: Any) -> None:
        self._owner = loop
        super().__init__(loop, *args, **options)

    # A StreamReader resumes when it is read, the connection lost or not.

    def pause_reading(self) -> None:
        if not self.is_closing():
            super().pause_reading()

    def resume_reading(self) -> None:
        if not self.is_closing():
            super().resume_reading()

    def is_reading(self) -> bool:
        return not self.is_closing() and bool(super().is_reading())


TRANSPORTS = (TLSTransport, LayeredTLSTransport)


def make_transport(
    loop: Any,
    sock: socket.socket,
    protocol: Any,
    context: Any,
    waiter: Any,
    *,
    server_side: bool,
    server_hostname: str | None,
    server: Any,
    timeouts: tuple[float, float],
) -> Any:
    """As asyncio's _make_ssl_transport()."""
    attached = _attach(server)
    try:
        transport = TLSTransport(
            loop,
            protocol,
            context,
            server_side,
            *timeouts,
            BIO_SIZE,
            BIO_SIZE,
            sock,
            waiter,
            server_hostname,
            attached,
        )
    except BaseException as exc:
        if attached is not server:
            attached._detach(None)
        if isinstance(exc, OSError):  # the handshake has begun, and has failed
            sock.close()
        raise
    if attached is not None and attached is server:
        try:
            server._attach(transport)
        except BaseException:  # it was closed meanwhile
            transport.abort()
            raise
    return transport


def _attach(server: Any) -> Any:
    """What the transport is to be detached from."""
    if server is None or _TAKES_TRANSPORT:
        return server
    server._attach()
    return _Attached(server)


def upgrade(
    loop: Any,
    protocol: Any,
    context: Any,
    waiter: Any,
    *,
    server_side: bool,
    server_hostname: str | None,
    timeouts: tuple[float, float],
) -> tuple[Any, Any]:
    """(transport, protocol of the one beneath it) for start_tls()."""
    transport = LayeredTLSTransport(
        loop,
        protocol,
        context,
        server_side,
        *timeouts,
        BIO_SIZE,
        BIO_SIZE,
        waiter,
        server_hostname,
        call_connection_made=False,
    )
    return transport, transport.get_tls_protocol()


def feed(tls_protocol: Any, data: bytes) -> None:
    """Put bytes before those that are still to be received."""
    tls_protocol.get_buffer(-1)[: len(data)] = data
    tls_protocol.buffer_updated(len(data))


class _SendfileProtocol(asyncio.Protocol):
    """Takes the protocol's place while a file is sent: reading is paused."""

    def __init__(self, loop: Any, transport: Any) -> None:
        self._loop = loop
        self._transport = transport
        self._protocol = transport.get_protocol()
        self._was_reading = transport.is_reading()
        self._writable: asyncio.Future[None] | None = None
        if transport.get_write_buffer_size() > transport.get_write_buffer_limits()[1]:
            self._writable = loop.create_future()
        transport.pause_reading()
        transport.set_protocol(self)

    async def drain(self) -> None:
        if self._transport.is_closing():
            raise ConnectionError("Connection closed by peer")
        if self._writable is not None:
            await self._writable

    def pause_writing(self) -> None:
        if self._writable is None:
            self._writable = self._loop.create_future()
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_exception(
                exc or ConnectionError("Connection is closed by peer")
            )
        self._protocol.connection_lost(exc)

    def restore(self) -> None:
        self._transport.set_protocol(self._protocol)
        if self._was_reading:
            self._transport.resume_reading()
        if self._writable is not None:
            self._writable.cancel()


async def sendfile(
    loop: Any, transport: Any, file: Any, offset: int, count: int | None
) -> int:
    """As asyncio's _sendfile_fallback(), which takes its own transports only."""
    if offset:
        file.seek(offset)
    size = min(count, 16384) if count else 16384
    sent = 0
    protocol = _SendfileProtocol(loop, transport)
    try:
        while not count or sent < count:
            wanted = min(size, count - sent) if count else size
            data = await loop.run_in_executor(None, file.read, wanted)
            if not data:
                break
            await protocol.drain()
            transport.write(data)
            sent += len(data)
        return sent
    finally:
        if sent > 0 and hasattr(file, "seek"):
            file.seek(offset + sent)
        protocol.restore()

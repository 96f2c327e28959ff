"""sendfile(2): once per file, so in Python."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import os
import socket
from asyncio import unix_events
from typing import Any

# asyncio's words, whoever closed it.
_LOST = "Connection is closed by peer"

# Later versions put the file's position where sending ended, though nothing was sent.
_update_filepos = getattr(
    asyncio.SelectorEventLoop, "_sock_sendfile_update_filepos", None
)
_MOVES_ALWAYS = (
    _update_filepos is None
    or "total_sent" not in inspect.signature(_update_filepos).parameters
)


class Sendfile(asyncio.SelectorEventLoop):
    """The part of the loop that asyncio's sendfile() and sock_sendfile() call."""

    def __init__(self, selector: Any) -> None:
        # By the Future for the transport's empty buffer, which is done.
        self._sendfiles: dict[asyncio.Future[None], asyncio.Task[int]] = {}
        super().__init__(selector)

    async def _sendfile_native(
        self, transp: Any, file: Any, offset: int, count: int | None
    ) -> int:
        resume_reading = transp.is_reading()
        transp.pause_reading()
        waiter = transp._make_empty_waiter()
        try:
            await waiter
            if transp._sock_fd == -1:
                raise ConnectionError(_LOST)
            try:
                # The transport's own is watched for input, if that is resumed.
                sock = transp._sock.dup()
            except OSError as exc:
                raise asyncio.SendfileNotAvailableError(str(exc)) from exc
            with sock:
                # A Task, for _transport_sendfile_lost() to cancel.
                sending = self.create_task(
                    self.sock_sendfile(sock, file, offset, count, fallback=False)
                )
                self._sendfiles[waiter] = sending
                try:
                    return await sending
                except asyncio.CancelledError:
                    if waiter in self._sendfiles:
                        raise
                    raise ConnectionError(_LOST) from None
        finally:
            self._sendfiles.pop(waiter, None)
            transp._reset_empty_waiter()
            if resume_reading:
                transp.resume_reading()

    def _transport_sendfile_lost(self, waiter: asyncio.Future[None]) -> None:
        # The core's transports call it when they end.
        if not waiter.done():
            waiter.set_exception(ConnectionError(_LOST))
        elif waiter in self._sendfiles:
            self._sendfiles.pop(waiter).cancel()

    async def _sock_sendfile_native(
        self, sock: socket.socket, file: Any, offset: int, count: int | None
    ) -> int:
        # What asyncio does, but that waiting begins where there is no room: not
        # before each call. It is asked where asyncio's own looks for it.
        if not hasattr(unix_events.os, "sendfile"):  # type: ignore[attr-defined]
            raise asyncio.SendfileNotAvailableError("os.sendfile() is not available")
        try:
            file_fd = file.fileno()
            size = os.fstat(file_fd).st_size
        except (AttributeError, OSError):  # io.UnsupportedOperation is one
            raise asyncio.SendfileNotAvailableError("not a regular file") from None
        sent = 0
        try:
            while left := size if count is None else count - sent:
                try:
                    part = os.sendfile(
                        sock.fileno(), file_fd, offset + sent, min(left, 1 << 30)
                    )
                except (BlockingIOError, InterruptedError):
                    await self._sock_writable(sock)
                    continue
                except OSError as exc:
                    if sent > 0:
                        if exc.errno == errno.ENOTCONN:  # EPIPE, elsewhere
                            raise ConnectionError(
                                "socket is not connected", errno.ENOTCONN
                            ) from exc
                        raise
                    raise asyncio.SendfileNotAvailableError(
                        "os.sendfile call failed"
                    ) from exc
                if part == 0:
                    break  # the end of the file
                sent += part
                # A reader that is as fast as we are must not keep the loop from
                # everything else.
                await asyncio.sleep(0)
        finally:
            if sent > 0:
                os.lseek(file_fd, offset + sent, os.SEEK_SET)
            elif _MOVES_ALWAYS and (count or size):
                with contextlib.suppress(OSError):  # what cannot seek
                    os.lseek(file_fd, offset, os.SEEK_SET)
        return sent

    async def _sock_writable(self, sock: socket.socket) -> None:
        fd = sock.fileno()
        writable = self.create_future()
        self.add_writer(fd, _set_ready, writable)
        try:
            await writable
        finally:
            if sock.fileno() == fd:  # or it was closed meanwhile
                self.remove_writer(fd)


def _set_ready(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)

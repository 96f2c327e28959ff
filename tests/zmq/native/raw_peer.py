"""Peers that speak ZMTP by hand, octet by octet."""

from __future__ import annotations

import asyncio
import contextlib


def greeting(mechanism=b"NULL", version=(3, 1)):
    return (
        b"\xff"
        + bytes(8)
        + b"\x7f"
        + bytes(version)
        + mechanism.ljust(20, b"\0")
        + bytes(32)
    )


def frame(body, *, more=False, command=False):
    flags = more | command << 2
    if len(body) > 255:
        return bytes([flags | 2]) + len(body).to_bytes(8, "big") + body
    return bytes([flags, len(body)]) + body


def command(name, body=b""):
    return frame(bytes([len(name)]) + name + body, command=True)


def ready(kind, **properties):
    both = {"Socket-Type": kind, **properties}
    body = b"".join(
        bytes([len(key)]) + key.encode() + len(value).to_bytes(4, "big") + value
        for key, value in both.items()
    )
    return command(b"READY", body)


class RawPeer:
    """A TCP connection and what is read from it."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, endpoint):
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    def write(self, data):
        self.writer.write(data)

    async def greet(self, version=(3, 1)):
        self.write(greeting(version=version))
        return await self.reader.readexactly(64)

    async def frame(self):
        """(flags, body) of the next one."""
        flags, size = await self.reader.readexactly(2)
        if flags & 2:
            rest = await self.reader.readexactly(7)
            size = int.from_bytes(bytes([size]) + rest, "big")
        return flags & ~2, await self.reader.readexactly(size)

    async def shake(self, kind, version=(3, 1), **properties):
        await self.greet(version)
        self.write(ready(kind, **properties))
        flags, body = await self.frame()
        assert flags == 4
        assert body.startswith(b"\5READY")
        return body

    async def at_end(self):
        """Waits until the other side has closed."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    async def close(self):
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


class RawServer:
    """Accepts; connections are taken by accept()."""

    def __init__(self):
        self._accepted = asyncio.Queue()

    async def listen(self, port=0):
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]
        return f"tcp://127.0.0.1:{self.port}"

    async def _accept(self, reader, writer):
        self._accepted.put_nowait(RawPeer(reader, writer))

    async def accept(self):
        return await self._accepted.get()

    def close(self):
        self._server.close()

"""Programs that run beside a test, and are killed at its end."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys

from ports import held_port


class Child:
    """A program that prints a line when it is ready, and perhaps more later."""

    def __init__(self, program, *args):
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    async def line(self):
        """The next line that it prints."""
        loop = asyncio.get_running_loop()
        line = await loop.run_in_executor(None, self.process.stdout.readline)
        assert line, self.process.wait()
        return line.strip()

    def say(self, line):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def kill(self):
        self.process.kill()
        status = self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        return status

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.kill()


@contextlib.contextmanager
def endpoint_of(protocol, tmp_path_factory):
    """To bind to, in this process or in a child, one after the other: of "tcp" or
    "ipc"."""
    if protocol == "tcp":
        with held_port() as port:
            yield f"tcp://127.0.0.1:{port}"
    else:
        # A short path: that of a Unix socket has 107 bytes at most.
        yield f"ipc://{tmp_path_factory.mktemp('s')}/s"

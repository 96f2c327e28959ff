"""A ZeroMQ device to put between clients and services, and its listener.

``python -m aiozmq_speedups.cli.proxy COMMAND`` (installed as
``aiozmq-speedups-proxy``) takes aiozmq-proxy's commands and options. The
device is libzmq's own ``zmq_proxy(3)``: no Python code runs per message.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import zmq

__all__ = ["main"]

#: command: (frontend type, backend type, help)
_DEVICES = {
    "queue": (
        zmq.ROUTER,
        zmq.DEALER,
        "share the services among the clients (ROUTER in front, DEALER behind)",
    ),
    "forwarder": (
        zmq.XSUB,
        zmq.XPUB,
        "forward publishers to subscribers (XSUB in front, XPUB behind)",
    ),
    "streamer": (
        zmq.PULL,
        zmq.PUSH,
        "hand a pipeline on (PULL in front, PUSH behind)",
    ),
}

#: option prefix: what the socket is
_SIDES = {"front": "frontend", "back": "backend", "monitor": "monitor"}


def get_arguments() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(
        prog="aiozmq-speedups-proxy", description="Run a ZeroMQ proxy."
    )
    commands = parser.add_subparsers(title="commands", dest="command", required=True)
    for name, (front_type, back_type, text) in _DEVICES.items():
        sub = commands.add_parser(name, help=text, description=text)
        for side, noun in _SIDES.items():
            for verb in "bind", "connect":
                sub.add_argument(
                    f"--{side}-{verb}",
                    metavar="ADDR",
                    action="append",
                    default=[],
                    help=f"{verb} the {noun} socket to ADDR (may be repeated)",
                )
        sub.set_defaults(sock_types=(front_type, back_type), action=serve_proxy)
    text = "print what a proxy's monitor socket publishes"
    sub = commands.add_parser("monitor", help=text, description=text)
    for verb in "bind", "connect":
        sub.add_argument(f"--{verb}", metavar="ADDR", help=f"{verb} to ADDR")
    sub.set_defaults(action=monitor)
    return parser


def _open(
    ctx: zmq.Context[Any], sock_type: int, bind: Sequence[str], connect: Sequence[str]
) -> zmq.Socket[bytes]:
    sock: zmq.Socket[bytes] = ctx.socket(sock_type)
    for address in bind:
        sock.bind(address)
    for address in connect:
        sock.connect(address)
    return sock


def _run_until_interrupted(
    ctx: zmq.Context[Any],
    work: Callable[..., object],
    *socks: zmq.Socket[bytes],
) -> None:
    # In a thread of its own: a signal that arrives while zmq_proxy() handles a
    # message, and so interrupts no system call, would be noticed by nobody.
    def run() -> None:
        try:
            work(*socks)
        except zmq.ContextTerminated:
            pass
        finally:
            for sock in socks:
                sock.close(linger=0)

    thread = threading.Thread(target=run)
    try:
        thread.start()
        thread.join()
    except KeyboardInterrupt:
        ctx.term()  # ends what the thread waits for
        thread.join()


def serve_proxy(options: argparse.Namespace, ctx: zmq.Context[Any]) -> int:
    """Pass messages between the two sides until interrupted; the exit status."""
    for side in "front", "back":
        if not (
            getattr(options, f"{side}_bind") or getattr(options, f"{side}_connect")
        ):
            print(f"No {_SIDES[side]} socket address specified!", file=sys.stderr)
            return 1
    front_type, back_type = options.sock_types
    socks = [
        _open(ctx, front_type, options.front_bind, options.front_connect),
        _open(ctx, back_type, options.back_bind, options.back_connect),
    ]
    if options.monitor_bind or options.monitor_connect:
        socks.append(_open(ctx, zmq.PUB, options.monitor_bind, options.monitor_connect))
    _run_until_interrupted(ctx, zmq.proxy, *socks)
    return 0


def monitor(options: argparse.Namespace, ctx: zmq.Context[Any]) -> int:
    """Print one line for each frame a monitor socket publishes; the exit status."""
    bind = [options.bind] if options.bind else []
    connect = [options.connect] if options.connect else []
    if not (bind or connect):
        print("No monitor socket address specified!", file=sys.stderr)
        return 1

    def dump(sock: zmq.Socket[bytes]) -> None:
        while True:
            data = sock.recv()
            now = datetime.now().isoformat()
            print(now, f"Message received: {data!r}", flush=True)

    sock = _open(ctx, zmq.SUB, bind, connect)
    sock.subscribe(b"")
    _run_until_interrupted(ctx, dump, sock)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (sys.argv[1:]) and return the exit status."""
    options = get_arguments().parse_args(argv)
    action: Callable[[argparse.Namespace, zmq.Context[Any]], int] = options.action
    ctx = zmq.Context()
    try:
        return action(options, ctx)
    except KeyboardInterrupt:
        return 0
    except zmq.ZMQError as exc:
        print(f"{options.command}: {exc}", file=sys.stderr)
        return 1
    finally:
        ctx.destroy(linger=0)


if __name__ == "__main__":
    sys.exit(main())

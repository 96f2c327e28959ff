"""One side of an rpc, pipeline or pub/sub pair, on aiozmq or on this package.

    python peer.py PACKAGE serve KIND
        binds, prints the endpoint, then "CALL ..." for each notification; ends
        with the notification "end", or when its input is closed.
    python peer.py PACKAGE call KIND ENDPOINT
        makes the calls below and prints what comes of each.

Both packages print the same, whoever is at the other end.
"""

import asyncio
import datetime
import importlib
import sys
from zoneinfo import ZoneInfo

import msgpack

package = sys.argv[1]
rpc = importlib.import_module(f"{package}.rpc")


class Point:
    def __init__(self, x, y):
        self.x = x
        self.y = y

    def __repr__(self):
        return f"Point({self.x}, {self.y})"


class KnownError(Exception):
    pass


class UnknownError(Exception):
    pass


TABLE = {
    5: (
        Point,
        lambda point: msgpack.packb((point.x, point.y)),
        lambda data: Point(*msgpack.unpackb(data)),
    )
}
ERRORS = {"__main__.KnownError": KnownError}

END = asyncio.Event()


def show(*values):
    print(*values, flush=True)


class Sub(rpc.AttrHandler):
    @rpc.method
    def whoami(self):
        return "sub"


class Handler(rpc.AttrHandler):
    sub = Sub()

    @rpc.method
    def echo(self, value):
        return value

    @rpc.method
    async def slow_echo(self, value, *, turns=1):
        for _ in range(turns):
            await asyncio.sleep(0)
        return value

    @rpc.method
    def args(self, a, b=2, *args, c=3, **kwargs):
        return (a, b, args, c, sorted(kwargs.items()))

    @rpc.method
    def fail(self, name, *args):
        known = {"KnownError": KnownError, "UnknownError": UnknownError}
        import builtins

        raise (known.get(name) or getattr(builtins, name))(*args)

    @rpc.method
    async def slow_fail(self, *args):
        await asyncio.sleep(0)
        raise ValueError(*args)

    @rpc.method
    def unpackable(self):
        return {1, 2}

    @rpc.method
    async def forever(self):
        await asyncio.get_running_loop().create_future()

    # Notifications.

    @rpc.method
    def start(self):
        show("STARTED")

    @rpc.method
    def note(self, *args, **kwargs):
        show("CALL", "note", args, sorted(kwargs.items()))

    @rpc.method
    async def slow_note(self, *args):
        show("CALL", "slow_note", args)

    @rpc.method
    def end(self):
        END.set()


VALUES = [
    None,
    True,
    0,
    -1,
    2**63,
    1.25,
    "text",
    "ünïcode ✓",
    b"bytes\x00\xff",
    (),
    [1, [2, (3,)]],
    {"k": {"n": [1]}},
    "x" * 100_000,
    b"y" * 100_000,
    list(range(1000)),
    datetime.date(2020, 2, 29),
    datetime.datetime(2020, 2, 29, 1, 2, 3, 4),
    datetime.datetime(2020, 2, 29, tzinfo=datetime.UTC),
    datetime.datetime(2020, 10, 25, 2, tzinfo=ZoneInfo("Europe/Kyiv"), fold=1),
    datetime.time(1, 2, 3),
    datetime.timedelta(-1, 5),
    datetime.timezone(datetime.timedelta(hours=2), "X"),
    ZoneInfo("UTC"),
    Point(1, -2),
    [Point(0, 0), {"p": Point(5, 5)}],
]


async def outcome(call, *args, **kwargs):
    try:
        text = repr(await call(*args, **kwargs))
    except (Exception, asyncio.CancelledError) as exc:
        text = f"{type(exc).__name__} {exc.args!r}"
    return text if len(text) < 200 else f"{text[:100]}... {hash_of(text)}"


def hash_of(text):
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


async def call_rpc(client):
    call = client.call
    for value in VALUES:
        show("echo", await outcome(call.echo, value))
    show("slow_echo", await outcome(call.slow_echo, 5, turns=10))
    many = [call.echo(i) for i in range(100)]
    many += [call.slow_echo(i, turns=i % 7) for i in range(100)]
    show("many", await asyncio.gather(*many) == [*range(100)] * 2)
    show("ns", await outcome(call.sub.whoami))
    for args, kwargs in (
        ((), {}),
        ((1,), {}),
        ((1, 5, 6, 7), {"c": 8, "d": 9}),
        ((1,), {"a": 1}),
        ((), {"a": 1, "b": 2}),
    ):
        show("args", await outcome(call.args, *args, **kwargs))
    for name in ("unknown", "sub", "sub.unknown", "unknown.x", "echo.x", "__class__x"):
        target = call
        for part in name.split("."):
            target = getattr(target, part)
        show("name", await outcome(target))
    show("echo()", await outcome(call.echo))
    for args in (
        ("ValueError", "a", 1, (2,)),
        ("KnownError", "a"),
        ("UnknownError", "a", 5),
        ("OSError", 2, "no file"),
        ("KeyError", "k"),
        ("TimeoutError",),
        ("StopAsyncIteration",),
    ):
        show("fail", await outcome(call.fail, *args))
    show("slow_fail", await outcome(call.slow_fail, "x", 1))
    show("unpackable", await outcome(call.unpackable))
    show("timeout", await outcome(client.with_timeout(0.01).call.forever))
    show("after", await outcome(call.echo, "still here"))


async def notify(notes):
    for i in range(50):
        await notes.note(i)
    for value in VALUES:
        await notes.slow_note(repr(value)[:100])
    await notes.note(1, "x", k=[1], j=datetime.date(2020, 1, 1))
    await notes.note(Point(1, 2))
    await notes.end()


async def closed(service):
    service.close()
    await service.wait_closed()


async def standard_input():
    """A reader of the input, for waiting without a thread."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    return reader


async def serve(kind):
    stdin = await standard_input()
    options = {"subscribe": "topic"} if kind == "pubsub" else {}
    service = await getattr(rpc, f"serve_{kind}")(
        Handler(), bind="tcp://127.0.0.1:*", translation_table=TABLE, **options
    )
    (endpoint,) = service.transport.bindings()
    show(endpoint)
    ended = [asyncio.ensure_future(wait) for wait in (stdin.read(), END.wait())]
    await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
    for wait in ended:
        wait.cancel()
    await closed(service)


async def call(kind, endpoint):
    options = {"error_table": ERRORS} if kind == "rpc" else {}
    client = await getattr(rpc, f"connect_{kind}")(
        connect=endpoint, translation_table=TABLE, **options
    )
    if kind == "rpc":
        await call_rpc(client)
    elif kind == "pipeline":
        await notify(client.notify)
    else:
        # Until the line that says that the subscription is in effect.
        stdin = await standard_input()
        ready = asyncio.ensure_future(stdin.readline())
        while not ready.done():
            await client.publish("topic").start()
            await asyncio.sleep(0.005)
        await client.publish("other").note("not for the server")
        await notify(client.publish(b"topic"))
        await stdin.read()
    await closed(client)


def main(role, *args):
    if package == "aiozmq_speedups":
        import aiozmq_speedups

        run = aiozmq_speedups.run
    else:
        run = asyncio.run
    run({"serve": serve, "call": call}[role](*args))
    show("DONE")


if __name__ == "__main__":
    main(*sys.argv[2:])

"""What an import loads, and what it needs."""

import os
import pickle
import subprocess
import sys
import textwrap

import pytest


def test_extension_is_built():
    from aiozmq_speedups import _core

    assert _core.BUILD_FLAVOUR


def test_children_import_the_same_extension():
    """Else tests that start a process would test another package."""
    from aiozmq_speedups._ext import core

    program = (
        "from aiozmq_speedups import _ext; print(_ext.core and _ext.core.__file__)"
    )
    out = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert out.strip() == str(core and core.__file__)


def python(code, **env):
    """What a fresh interpreter prints that runs `code`."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_python_without_openssl():
    """asyncio's loop works there, but for TLS."""
    out = python(
        """
        import sys
        sys.modules["_ssl"] = sys.modules["ssl"] = None
        import asyncio, aiozmq_speedups

        async def main():
            loop = asyncio.get_running_loop()
            server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
            where = server.sockets[0].getsockname()
            transport, protocol = await loop.create_connection(asyncio.Protocol, *where)
            for tls in (
                loop.create_connection(asyncio.Protocol, *where, ssl=True),
                loop.start_tls(transport, protocol, None),
            ):
                try:
                    await tls
                except RuntimeError as exc:
                    print(exc)
            transport.close()
            server.close()

        aiozmq_speedups.run(main())
        """
    )
    assert out.splitlines() == [
        "stdlib ssl module not available",
        "Python ssl module is not available",
    ]


WHAT_A_LOOP_DOES = """
    import sys
    import aiozmq_speedups

    async def main():
        from asyncio import get_running_loop, open_connection, start_server, sleep

        async def echo(reader, writer):
            writer.write(await reader.readexactly(3))
            writer.close()

        assert type(get_running_loop()) is aiozmq_speedups.Loop
        async with await start_server(echo, "127.0.0.1", 0) as server:
            reader, writer = await open_connection(*server.sockets[0].getsockname())
            writer.write(b"abc")
            assert await reader.read() == b"abc"
            writer.close()
        await sleep(0)

    aiozmq_speedups.run(main())
"""


def test_the_loop_loads_no_zmq_and_no_msgpack():
    from aiozmq_speedups._ext import core

    out = python(f"""
        import sys
        before = set(sys.modules)
        import aiozmq_speedups
        print({{name.partition(".")[0] for name in sys.modules if name not in before}}
            <= {{"aiozmq_speedups", *sys.stdlib_module_names}})
        print("asyncio" in sys.modules)
        {textwrap.indent(textwrap.dedent(WHAT_A_LOOP_DOES), " " * 8).strip()}
        print(sorted({{"zmq", "msgpack"}} & set(sys.modules)))
        print(sorted(n for n in sys.modules if n.startswith("aiozmq_speedups.")))
    """)
    only_stdlib, asyncio, third_party, own = out.splitlines()
    assert (only_stdlib, asyncio) == ("True", "False")
    if core is None:
        return  # in pure Python a loop's selector takes zmq's sockets
    assert third_party == "[]"
    loop = "accelerated api install processes sendfile servers signals slow tls"
    assert eval(own) == sorted(
        f"aiozmq_speedups.{name}"
        for name in (
            *("_core", "_ext", "_loop", "interface", "log", "loop", "util"),
            *(f"_loop.{part}" for part in (*loop.split(), "zmq_part")),
        )
    )


@pytest.mark.parametrize("pure", ["", "1"])
@pytest.mark.parametrize("missing", ["None", "refuses"])
def test_the_loop_needs_no_pyzmq(tmp_path, pure, missing):
    """Where it is not installed, or does not find its libzmq."""
    code = "import sys; sys.modules.update(zmq=None, msgpack=None)\n"
    if missing == "refuses":
        (tmp_path / "zmq.py").write_text("raise ImportError('no libzmq.so.5')")
        code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    loop = textwrap.dedent(WHAT_A_LOOP_DOES)
    last = "\ntry: aiozmq_speedups.create_zmq_stream\nexcept ImportError: print('no')"
    assert python(code + loop + last, AIOZMQ_SPEEDUPS_PURE=pure) == "no\n"


def test_every_name_is_there():
    import aiozmq_speedups

    out = python("""
        import aiozmq_speedups
        for name in aiozmq_speedups.__all__:
            assert name in dir(aiozmq_speedups)
            getattr(aiozmq_speedups, name)
        for name in ("core", "interface", "loop", "selector", "stream"):
            assert getattr(aiozmq_speedups, name).__name__.endswith(name)
    """)
    assert out == ""
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        aiozmq_speedups.no_such_name  # noqa: B018


def test_no_import_opens_a_descriptor():
    out = python(
        """
        import os
        before = os.listdir("/proc/self/fd")
        import aiozmq_speedups
        for name in aiozmq_speedups.__all__:
            getattr(aiozmq_speedups, name)
        print(sorted({*os.listdir("/proc/self/fd")} - {*before}))
        """
    )
    assert out == "[]\n"


def test_public_names_say_where_they_are_public():
    """Where the code is in a private module; ZmqOptions' comments are its docs."""
    import aiozmq_speedups

    modules = {"core", "interface", "loop", "selector", "stream"}
    public = {f"aiozmq_speedups.{name}" for name in modules}
    for name in set(aiozmq_speedups.__all__) - {"EpollSelector", "ZmqOptions"}:
        value = getattr(aiozmq_speedups, name)
        if not isinstance(value, (str, tuple)):
            assert value.__module__ in public, name
            assert getattr(sys.modules[value.__module__], name) is value
            assert pickle.loads(pickle.dumps(value)) is value


def test_an_event_is_pickled_by_its_public_name():
    from aiozmq_speedups import SocketEvent

    event = SocketEvent(1, 2, "tcp://127.0.0.1:1")
    assert b"aiozmq_speedups.core" in pickle.dumps(event)
    assert pickle.loads(pickle.dumps(event)) == event
    assert repr(event).startswith("SocketEvent(event=1, ")


def test_no_warnings():
    """Of any module, nor of a loop that runs, though all of them are errors."""
    code = """
        import importlib, pkgutil, warnings
        import msgpack, zmq  # theirs are theirs
        warnings.simplefilter("error")
        import aiozmq_speedups
        path, prefix = aiozmq_speedups.__path__, "aiozmq_speedups."
        for module in pkgutil.walk_packages(path, prefix):
            if module.name.endswith("__main__"):
                continue
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError as exc:  # of an extra that is not here
                assert exc.name.partition(".")[0] in ("aiofastnet", "opentelemetry")
        for name in aiozmq_speedups.__all__:
            getattr(aiozmq_speedups, name)
    """
    python(code + textwrap.indent(textwrap.dedent(WHAT_A_LOOP_DOES), " " * 8))

"""``import aiozmq`` and ``import uvloop`` as names of this package."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

# aiozmq's modules, by their documented or commonly imported names.
MODULES = [
    "aiozmq",
    "aiozmq.cli",
    "aiozmq.cli.proxy",
    "aiozmq.core",
    "aiozmq.interface",
    "aiozmq.log",
    "aiozmq.rpc",
    "aiozmq.rpc.base",
    "aiozmq.rpc.log",
    "aiozmq.rpc.packer",
    "aiozmq.rpc.pipeline",
    "aiozmq.rpc.pubsub",
    "aiozmq.rpc.rpc",
    "aiozmq.rpc.util",
    "aiozmq.selector",
    "aiozmq.stream",
    "aiozmq.util",
]


def run_python(code, *, cwd=None):
    """Runs `code` in a fresh interpreter; what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("name", [*MODULES, "uvloop", "uvloop.loop"])
def test_module_is_the_same_object(name):
    run_python(f"""
        import importlib, sys
        from aiozmq_speedups._alias import install_alias
        install_alias("aiozmq")
        install_alias("uvloop")
        module = importlib.import_module({name!r})
        target = {name!r}.replace("uvloop", "aiozmq._uvloop")
        target = target.replace("aiozmq", "aiozmq_speedups")
        assert module is importlib.import_module(target)
        assert module.__name__ == module.__spec__.name == target
        assert sys.modules[{name!r}] is sys.modules[target]
    """)


def test_forms_of_import():
    run_python("""
        import aiozmq_speedups
        aiozmq_speedups.install(aiozmq=True)
        import aiozmq, aiozmq.rpc
        assert aiozmq is aiozmq_speedups
        import aiozmq_speedups.rpc
        assert aiozmq.rpc is aiozmq_speedups.rpc
        from aiozmq import rpc
        assert rpc is aiozmq_speedups.rpc
        from aiozmq.rpc import *
        from aiozmq.rpc.base import AbstractHandler as A
        assert A is aiozmq_speedups.rpc.AbstractHandler
        import aiozmq.rpc.base as base
        assert base is aiozmq_speedups.rpc.base
    """)


def test_nothing_is_imported_before_it_is_asked_for():
    run_python("""
        import sys
        import aiozmq_speedups
        before = set(sys.modules)
        aiozmq_speedups.install(aiozmq=True)
        new = set(sys.modules) - before
        assert not any(name.partition(".")[0] == "aiozmq" for name in new), new
        assert "aiozmq_speedups.rpc" not in sys.modules
    """)


def test_installing_twice_changes_nothing():
    run_python("""
        import sys
        import aiozmq_speedups
        aiozmq_speedups.install(aiozmq=True)
        finders = list(sys.meta_path)
        import aiozmq.rpc
        aiozmq_speedups.install(aiozmq=True)
        assert sys.meta_path == finders
        assert aiozmq is aiozmq_speedups
    """)


def test_another_aiozmq_imported_before_is_an_error(tmp_path):
    Path(tmp_path, "aiozmq").mkdir()
    Path(tmp_path, "aiozmq", "__init__.py").write_text("", "utf-8")
    out = run_python(
        f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        import aiozmq
        import aiozmq_speedups
        for _ in range(2):
            try:
                aiozmq_speedups.install(aiozmq=True)
            except RuntimeError as exc:
                print(exc)
        assert sys.modules["aiozmq"] is aiozmq
        assert aiozmq is not aiozmq_speedups
        """,
        cwd=tmp_path,
    )
    first, second = out.splitlines()
    assert first == second
    assert first.startswith("aiozmq is already imported") and str(tmp_path) in first
    assert "before the program's first import of aiozmq" in first
    assert "python -m aiozmq_speedups run" in first


def test_uvloop():
    run_python("""
        import warnings
        warnings.simplefilter("error")
        import aiozmq_speedups
        aiozmq_speedups.install(uvloop=True)
        import asyncio, sys, uvloop
        assert "aiozmq" not in sys.modules
        from uvloop import *
        assert uvloop.Loop is uvloop.loop.Loop is aiozmq_speedups.Loop
        loop = new_event_loop()
        assert type(loop) is Loop
        loop.close()
        major, minor, *_ = map(int, uvloop.__version__.split("."))
        assert (major, minor) > (0, 16)

        class Awaitable:
            def __await__(self):
                yield from asyncio.sleep(0).__await__()
                return asyncio.get_running_loop()

        for factory in None, uvloop.new_event_loop:
            ran = uvloop.run(Awaitable(), loop_factory=factory, debug=True)
            assert type(ran) is Loop
    """)


@pytest.mark.skipif(sys.version_info >= (3, 16), reason="there are no policies")
def test_uvloop_policy():
    run_python("""
        import aiozmq_speedups
        aiozmq_speedups.install(uvloop=True)
        import asyncio, uvloop, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        # As Sanic and aiohttp's worker do.
        assert isinstance(asyncio.get_event_loop_policy(), uvloop.EventLoopPolicy)
        asyncio.set_event_loop_policy(None)
        uvloop.install()
        assert isinstance(asyncio.get_event_loop_policy(), uvloop.EventLoopPolicy)
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
        async def main():
            assert type(asyncio.get_running_loop()) is uvloop.Loop
        asyncio.run(main())
    """)


def test_another_uvloop_imported_before_is_an_error():
    run_python("""
        import sys, types
        import aiozmq_speedups
        sys.modules["uvloop"] = types.ModuleType("uvloop")
        try:
            aiozmq_speedups.install(uvloop=True)
        except RuntimeError as exc:
            assert str(exc).startswith("uvloop is already imported")
        else:
            raise AssertionError
    """)


def test_unknown_submodule_is_not_found():
    run_python("""
        import importlib.util
        from aiozmq_speedups._alias import install_alias
        install_alias("aiozmq")
        import aiozmq
        assert importlib.util.find_spec("aiozmq.no_such_module") is None
        assert importlib.util.find_spec("aiozmqx") is None
        try:
            import aiozmq.no_such_module
        except ModuleNotFoundError as exc:
            assert exc.name == "aiozmq.no_such_module"
        else:
            raise AssertionError
    """)


def test_an_import_error_inside_comes_through():
    run_python("""
        import sys
        sys.modules["msgpack"] = None  # as if it were not installed
        from aiozmq_speedups._alias import install_alias
        install_alias("aiozmq")
        import aiozmq
        try:
            import aiozmq.rpc
        except ImportError:
            assert "aiozmq.rpc" not in sys.modules
        else:
            raise AssertionError
    """)


def test_reload_and_reimport_keep_one_module():
    run_python("""
        import importlib, sys
        from aiozmq_speedups._alias import install_alias
        install_alias("aiozmq")
        import aiozmq.util
        module = aiozmq.util
        assert importlib.reload(module) is module
        del sys.modules["aiozmq.util"]
        import aiozmq.util
        assert aiozmq.util is module
    """)


def test_tools_see_the_package():
    run_python("""
        import importlib.util, inspect
        from aiozmq_speedups._alias import install_alias
        install_alias("aiozmq")
        spec = importlib.util.find_spec("aiozmq.cli.proxy")
        assert spec.name == "aiozmq.cli.proxy"
        assert spec.origin.endswith("proxy.py")
        assert spec.loader.get_code("aiozmq.cli.proxy").co_name == "<module>"
        assert importlib.util.find_spec("aiozmq").submodule_search_locations
        import aiozmq.cli.proxy
        assert inspect.getsource(aiozmq.cli.proxy.main)
    """)


def test_versions():
    out = run_python("""
        import json, sys
        from aiozmq_speedups._alias import install_alias
        install_alias("aiozmq")
        import aiozmq
        print(json.dumps([aiozmq.__version__, aiozmq.version, aiozmq.version_info]))
    """)
    own, version, info = json.loads(out)
    assert version == f"{own} , Python {sys.version}"
    assert [str(part) for part in info[:3]] == own.split(".")[:3]
    assert info[3] == "final"


def test_threads_that_import_at_the_same_time():
    run_python("""
        import threading
        from aiozmq_speedups._alias import install_alias
        install_alias("aiozmq")
        seen = []
        start = threading.Barrier(8)
        def work():
            start.wait()
            import aiozmq.rpc
            import aiozmq_speedups.rpc
            seen.append(aiozmq.rpc is aiozmq_speedups.rpc)
        threads = [threading.Thread(target=work) for _ in range(8)]
        for t in threads: t.start()
        for t in threads: t.join()
        assert seen == [True] * 8, seen
    """)


def test_zmq_asyncio():
    run_python("""
        import sys
        import aiozmq_speedups
        aiozmq_speedups.install(zmq_asyncio=True)
        aiozmq_speedups.install(zmq_asyncio=True)
        assert "zmq" not in sys.modules
        import zmq.asyncio
        from zmq.asyncio import Context
        from aiozmq_speedups import zmq_asyncio
        assert zmq.asyncio is zmq_asyncio is sys.modules["zmq.asyncio"]
        assert Context is zmq_asyncio.Context
        assert zmq_asyncio.__spec__.name == "aiozmq_speedups.zmq_asyncio"
    """)


def test_zmq_asyncio_by_our_name_first():
    run_python("""
        import aiozmq_speedups
        aiozmq_speedups.install(zmq_asyncio=True)
        from aiozmq_speedups import zmq_asyncio
        import zmq.asyncio, zmq
        assert zmq.asyncio is zmq_asyncio
        assert zmq_asyncio.Socket.__mro__[2].__module__ == "zmq.asyncio"
    """)


def test_zmq_asyncio_that_is_ours_already():
    run_python("""
        import aiozmq_speedups
        from aiozmq_speedups import zmq_asyncio
        aiozmq_speedups.install(zmq_asyncio=True)
        import zmq.asyncio
        assert zmq.asyncio is zmq_asyncio
    """)


def test_zmq_asyncio_imported_too_early():
    run_python("""
        import zmq.asyncio
        import aiozmq_speedups
        try:
            aiozmq_speedups.install(zmq_asyncio=True)
        except RuntimeError as exc:
            assert "install(zmq_asyncio=True) before" in str(exc), exc
        else:
            raise AssertionError
    """)

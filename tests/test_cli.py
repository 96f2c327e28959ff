"""``python -m aiozmq_speedups`` and the proxy."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import zipfile

import pytest
import zmq

import aiozmq_speedups
from aiozmq_speedups import _ext

INSTALLED = "site-packages" in aiozmq_speedups.__file__
RUN = [sys.executable, "-m", "aiozmq_speedups", "run"]


def call(argv, *, cwd=None, **env):
    return subprocess.run(
        list(map(str, argv)),
        capture_output=True,
        text=True,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        env=os.environ | env,
    )


@pytest.fixture
def script(tmp_path):
    """Writes a program and returns its path."""

    def write(source, name="program.py"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(source), "utf-8")
        return path

    return write


@pytest.fixture
def same(tmp_path):
    """Runs a program plainly and with our `run`; both must do the same."""

    def compare(*argv, options=()):
        plain = call([sys.executable, *options, *argv], cwd=tmp_path)
        ours = call(
            [sys.executable, *options, "-m", "aiozmq_speedups", "run", *argv],
            cwd=tmp_path,
        )
        assert ours.stdout == plain.stdout
        assert ours.stderr == plain.stderr
        assert ours.returncode == plain.returncode
        return ours

    return compare


# -- info --


def test_info():
    done = call([sys.executable, "-m", "aiozmq_speedups", "info"])
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    facts = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert facts["pyzmq"] == zmq.pyzmq_version()
    assert facts["libzmq"].startswith(zmq.zmq_version())
    gil_is_on = getattr(sys, "_is_gil_enabled", lambda: True)()
    assert facts["gil"].startswith("on: " if gil_is_on else "off")
    # What each kind of process gets.
    assert "loop of python        asyncio.unix_events" in done.stdout
    ours = "aiozmq_speedups.loop.Loop; uvloop: this package\n"
    assert f"loop of run           {ours}" in done.stdout
    assert (f"loop of its children  {ours}" in done.stdout) == INSTALLED


@pytest.mark.skipif(_ext.core is None, reason="no extension")
def test_run_gives_the_loop_in_c_whatever_is_imported_first(tmp_path):
    """Importing the extension imports asyncio, which brings the loop."""
    program = tmp_path / "program.py"
    program.write_text(
        "from aiozmq_speedups import EpollSelector, _core\n"
        "import asyncio\n"
        "loop = asyncio.new_event_loop()\n"
        "print(isinstance(loop, _core.Loop))\n"
        "loop.close()\n"
    )
    for argv, env in (
        ([*RUN, program], {}),
        ([sys.executable, program], {"AIOZMQ_SPEEDUPS_RUN": "1"}),
    ):
        done = call(argv, **env)
        # Python knows of the variable by a .pth file, which a checkout has not.
        ours = INSTALLED or not env
        assert done.stdout.strip() == str(ours), done.stderr


@pytest.mark.parametrize(
    "first",
    [
        "import uvloop",
        "from uvloop import run",
        "import aiozmq_speedups; aiozmq_speedups.run",
        "import aiozmq_speedups.loop",
        "from aiozmq_speedups import Loop, run",
        "from aiozmq_speedups import rpc",
        "import aiozmq_speedups._core",
        "import aiozmq_speedups; aiozmq_speedups.install(uvloop=True); import uvloop",
        "import aiozmq.rpc",
        "import zmq.asyncio",
        "import asyncio.events",
    ],
)
@pytest.mark.parametrize("pure", ["", "1"])
def test_run_with_any_first_import(tmp_path, first, pure):
    """A module of ours that imports asyncio is half made when that has come."""
    if _ext.core is None and "_core" in first:
        pytest.skip("no extension")
    program = tmp_path / "program.py"
    program.write_text(
        f"{first}\n"
        "import asyncio, aiozmq_speedups\n"
        "loop = asyncio.new_event_loop()\n"
        "print(isinstance(loop, aiozmq_speedups.Loop))\n"
        "loop.close()\n"
    )
    done = call([*RUN, program], AIOZMQ_SPEEDUPS_PURE=pure)
    assert done.stdout.strip() == "True", done.stderr


def test_info_says_why_nothing_is_accelerated():
    done = call(
        [sys.executable, "-m", "aiozmq_speedups", "info"], AIOZMQ_SPEEDUPS_PURE="1"
    )
    assert done.returncode == 0, done.stderr
    assert "none: switched off by AIOZMQ_SPEEDUPS_PURE" in done.stdout
    assert "loop of run           aiozmq_speedups.loop.Loop; " in done.stdout


@pytest.mark.parametrize("argv", [["-h"], ["run", "-h"], ["info", "-h"]])
def test_help(argv):
    done = call([sys.executable, "-m", "aiozmq_speedups", *argv])
    assert done.returncode == 0
    assert done.stdout.startswith("usage: python -m aiozmq_speedups")


@pytest.mark.parametrize("argv", [[], ["run"], ["no-such-command"], ["run", "-m"]])
def test_wrong_usage(argv):
    done = call([sys.executable, "-m", "aiozmq_speedups", *argv])
    assert done.returncode == 2
    assert "usage:" in done.stderr
    assert "ARG" not in done.stderr.partition("required: ")[2]


# -- run: which loop, which aiozmq --


@pytest.mark.parametrize("pure", ["", "1"])
@pytest.mark.parametrize(
    "body",
    [
        "asyncio.run(check())",
        "with asyncio.Runner() as runner: runner.run(check())",
        "loop = asyncio.new_event_loop(); loop.run_until_complete(check()); "
        "loop.close()",
        "class T(unittest.IsolatedAsyncioTestCase):\n"
        "    async def test(self): await check()\n"
        "unittest.main(argv=['x', '-q'], exit=False, verbosity=0)",
    ],
)
def test_asyncio_gives_our_loop(script, body, pure):
    source = """
        import asyncio, unittest
        async def check():
            loop = asyncio.get_running_loop()
            print(type(loop).__module__, type(loop).__qualname__)
    """
    path = script(textwrap.dedent(source) + body)
    done = call([*RUN, path], AIOZMQ_SPEEDUPS_PURE=pure)
    assert done.stdout == "aiozmq_speedups.loop Loop\n", done.stderr
    assert done.returncode == 0
    assert "Warning" not in done.stderr


def test_without_policies(script, monkeypatch):
    # As in Python 3.16, which has none.
    path = script("""
        import asyncio
        async def check():
            print(type(asyncio.get_running_loop()).__qualname__)
        asyncio.run(check())
    """)
    code = f"""
import sys
sys.modules["aiozmq_speedups._loop.policy"] = None
from aiozmq_speedups.__main__ import main
sys.exit(main(["run", {str(path)!r}]))
"""
    done = call([sys.executable, "-c", code])
    assert done.stdout == "Loop\n", done.stderr


def test_aiozmq_is_this_package(script):
    path = script("""
        import aiozmq, aiozmq.rpc, aiozmq_speedups
        print(aiozmq is aiozmq_speedups, aiozmq.rpc is aiozmq_speedups.rpc)
    """)
    done = call([*RUN, path])
    assert done.stdout == "True True\n", done.stderr


# Which loop a Python is on, by asyncio's name and by uvloop's.
WHICH = """
import asyncio
def which():
    import uvloop
    for new in asyncio.new_event_loop, uvloop.new_event_loop:
        loop = new()
        loop.close()
        print(type(loop).__module__, flush=True)
"""


@pytest.mark.skipif(not INSTALLED, reason="aiozmq_speedups.pth is not installed")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing(script, method):
    path = script(f"""
        {textwrap.indent(WHICH, " " * 8).strip()}
        if __name__ == "__main__":
            import multiprocessing
            context = multiprocessing.get_context({method!r})
            child = context.Process(target=which)
            child.start()
            child.join()
    """)
    done = call([*RUN, path])
    assert done.stdout == "aiozmq_speedups.loop\n" * 2, done.stderr
    assert done.stderr == ""


@pytest.mark.skipif(not INSTALLED, reason="aiozmq_speedups.pth is not installed")
@pytest.mark.parametrize(
    "value, options, is_ours",
    [("1", [], True), ("0", [], False), ("", [], False), ("1", ["-I"], False)],
)
def test_the_environment_variable(value, options, is_ours):
    code = WHICH.replace("import uvloop", "uvloop = asyncio") + "which()"
    done = call([sys.executable, *options, "-c", code], AIOZMQ_SPEEDUPS_RUN=value)
    ours, theirs = "aiozmq_speedups.loop\n", "asyncio.unix_events\n"
    assert done.stdout == (ours if is_ours else theirs) * 2
    assert done.stderr == ""


@pytest.mark.skipif(not INSTALLED, reason="aiozmq_speedups.pth is not installed")
def test_the_environment_variable_loads_nothing_by_itself():
    code = (
        "import sys\n"
        "names = 'asyncio', 'importlib.resources', 'typing', 'uvloop', 'zmq'\n"
        "print([name for name in names if name in sys.modules])\n"
        "import asyncio.events, importlib\n"
        "print(asyncio.__spec__.loader is asyncio.__loader__)\n"
        "assert importlib.reload(asyncio) is asyncio"
    )
    plain = call([sys.executable, "-c", code])
    done = call([sys.executable, "-c", code], AIOZMQ_SPEEDUPS_RUN="1")
    assert done.stdout == plain.stdout and done.stdout.startswith("[]\nTrue")
    assert done.stderr == ""


def test_a_loop_that_the_program_names_itself(script):
    path = script("""
        import asyncio
        for _ in range(2):
            loop = asyncio.SelectorEventLoop()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()
    """)
    done = call([*RUN, path])
    assert done.returncode == 0
    assert done.stderr.count("RuntimeWarning: this program was to run on") == 1


def test_alias_can_be_run_as_a_module():
    done = call([*RUN, "-m", "aiozmq.cli.proxy", "-h"])
    assert done.returncode == 0, done.stderr
    assert "forwarder" in done.stdout


# -- run: as the interpreter would --

SHOW = """
import sys
if __name__ == "__main__":
    main = sys.modules["__main__"]
    assert vars(main) is globals()
    known = set(globals()) - {"__annotations__", "main"}
    print(sorted(known), __file__, sys.argv, sys.path[0])
    print(__spec__ and __spec__.name, __package__, __doc__, __builtins__.__name__)
    print(type(__loader__).__name__)
"""


@pytest.mark.parametrize("options", [[], ["-P"], ["-I"]])
def test_script_as_plain_python(script, same, tmp_path, options):
    if options == ["-I"] and not INSTALLED:
        pytest.skip("isolated mode needs the installed package")
    script(SHOW)
    same("program.py", "a", "-m", "--flag", "--", "-h", options=options)
    same(tmp_path / "program.py", options=options)
    same("./program.py", options=options)


def test_script_through_a_link(script, same, tmp_path):
    (tmp_path / "bin").mkdir()
    script(SHOW)
    (tmp_path / "bin" / "link").symlink_to(tmp_path / "program.py")
    same("bin/link")


def test_script_imports_its_neighbours(script, same):
    script("print('neighbour', __name__)", "neighbour.py")
    script("import neighbour")
    assert same("program.py").stdout == "neighbour neighbour\n"


def test_module_as_plain_python(script, same):
    script(SHOW, "some_module.py")
    same("-m", "some_module", "a", "-m", "b")


def test_package_as_plain_python(script, same, tmp_path):
    (tmp_path / "pack").mkdir()
    script("", "pack/__init__.py")
    script(SHOW, "pack/__main__.py")
    same("-m", "pack", "a")
    same("pack", "a")


def test_directory_without_main(same, tmp_path):
    (tmp_path / "empty").mkdir()
    assert same("empty").returncode == 1


def test_zip_file(same, tmp_path):
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as file:
        file.writestr("__main__.py", SHOW)
    same("app.zip", "a")


def test_compiled_script(script, same, tmp_path):
    import py_compile

    py_compile.compile(str(script(SHOW)), cfile=str(tmp_path / "program.pyc"))
    same("program.pyc", "a")


@pytest.mark.parametrize(
    "source",
    [
        "import sys; sys.exit()",
        "import sys; sys.exit(3)",
        "import sys; sys.exit('why')",
        "raise SystemExit(None)",
        "import os; print('x', flush=True); os._exit(7)",
        "1/0",
        "def f(): raise ValueError('deep')\nf()",
        "try: 1/0\nexcept ZeroDivisionError as e: raise KeyError('k') from e",
        "import asyncio\nasync def f(): raise OSError(2, 'x')\nasyncio.run(f())",
        "if True\n  pass",
        "raise KeyboardInterrupt",
        "import sys; sys.excepthook = lambda *a: print('own', a[0]); 1/0",
        "import atexit; atexit.register(print, 'bye'); 1/0",
        "import threading, sys\n"
        "def late():\n"
        "    threading.main_thread().join()\n"
        "    print(vars(sys.modules['__main__']) is globals())\n"
        "threading.Thread(target=late).start()",
        "# coding: latin-1\nprint('\\xe9' == '\\u00e9')",
    ],
)
def test_endings_as_plain_python(script, same, source):
    script(source)
    done = same("program.py")
    assert "aiozmq_speedups" not in done.stderr
    if "KeyboardInterrupt" in source:
        assert done.returncode == -signal.SIGINT


@pytest.mark.parametrize("source", ["1/0", "import sys; sys.exit(3)", "if True\n"])
def test_endings_of_a_module(script, same, source):
    script(source, "some_module.py")
    same("-m", "some_module")


@pytest.mark.parametrize("argv", [["missing.py"], ["-m", "no_such_module"]])
def test_missing_program(same, argv):
    same(*argv)


def test_pickle_finds_main(script, same):
    script("""
        import pickle
        class Thing: pass
        print(type(pickle.loads(pickle.dumps(Thing()))) is Thing)
    """)
    assert same("program.py").stdout == "True\n"


def test_multiprocessing_finds_main(script, same):
    script("""
        import multiprocessing
        def double(x): return x * 2
        if __name__ == "__main__":
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(pool.map(double, [1, 2]))
    """)
    assert same("program.py").stdout == "[2, 4]\n"


# -- the proxy --


@pytest.fixture
def proxy():
    """Starts proxies, and ends them after the test."""
    processes = []

    def start(*argv):
        process = subprocess.Popen(
            [sys.executable, "-m", "aiozmq_speedups.cli.proxy", *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def open_socket():
    """Makes sockets of one context, closed after the test."""
    context = zmq.Context()
    socks = []

    def make(kind, address, *, bind=False):
        sock = context.socket(kind)
        socks.append(sock)
        sock.setsockopt(zmq.RCVTIMEO, 100_000)
        sock.setsockopt(zmq.SNDTIMEO, 100_000)
        if kind == zmq.SUB:
            sock.subscribe(b"")
        (sock.bind if bind else sock.connect)(address)
        return sock

    yield make
    for sock in socks:
        sock.close(linger=0)
    context.term()


def stop(process):
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert err == ""
    return out


def test_proxy_queue(proxy, open_socket, tmp_path):
    front, back = f"ipc://{tmp_path}/front", f"ipc://{tmp_path}/back"
    process = proxy("queue", "--front-bind", front, "--back-bind", back)
    service = open_socket(zmq.REP, back)
    client = open_socket(zmq.REQ, front)
    client.send(b"question")
    assert service.recv() == b"question"
    service.send(b"answer")
    assert client.recv() == b"answer"
    stop(process)


def test_proxy_streamer_with_monitor(proxy, open_socket, tmp_path):
    front, back = f"ipc://{tmp_path}/front", f"ipc://{tmp_path}/back"
    watch = f"ipc://{tmp_path}/watch"
    source = open_socket(zmq.PUSH, front, bind=True)
    sink = open_socket(zmq.PULL, back, bind=True)
    process = proxy(
        *("streamer", "--front-connect", front, "--back-connect", back),
        *("--monitor-bind", watch),
    )
    listener = proxy("monitor", "--connect", watch)
    # The listener subscribes when it likes: send until it has heard one.
    heard = threading.Event()
    line = []
    reader = threading.Thread(
        target=lambda: (line.append(listener.stdout.readline()), heard.set())
    )
    reader.start()
    while not heard.is_set():
        source.send(b"job")
        assert sink.recv() == b"job"
        heard.wait(0.01)
    reader.join()
    assert line[0].endswith("Message received: b'job'\n")
    stop(listener)
    stop(process)


def test_proxy_forwarder(proxy, open_socket, tmp_path):
    front, back = f"ipc://{tmp_path}/front", f"ipc://{tmp_path}/back"
    # An XPUB in front sees the subscription arrive: no need to wait for time.
    source = open_socket(zmq.XPUB, front, bind=True)
    process = proxy("forwarder", "--front-connect", front, "--back-bind", back)
    sink = open_socket(zmq.SUB, back)
    assert source.recv() == b"\x01"
    source.send(b"news")
    assert sink.recv() == b"news"
    stop(process)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["queue"], "No frontend socket address specified!"),
        (["queue", "--front-bind", "tcp://127.0.0.1:*"], "No backend socket address"),
        (["monitor"], "No monitor socket address specified!"),
        (["monitor", "--bind", "nonsense"], "monitor: "),
    ],
)
def test_proxy_errors(proxy, argv, message):
    process = proxy(*argv)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 1
    assert out == ""
    assert message in err
    assert "Traceback" not in err

"""aiozmq's documented examples, as programs that know nothing of this package.

Each runs on PyPI's aiozmq, under ``python -m aiozmq_speedups run`` and after
``install(aiozmq=True)``, and prints the same.
"""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).with_name("programs")

ECHO = "[b'data', b'ask', b'{}']"
OUTPUT = {
    "core_dealer_router": [ECHO.format(i) for i in range(3)],
    "stream_dealer_router": [*(ECHO.format(i) for i in range(3)), "closed"],
    "rpc_simple": ["3"],
    "rpc_pipeline": ["HANDLER 0 1 2"],
    "rpc_pubsub": ["HANDLER (1, 2)"],
    "rpc_exception_translator": [
        "custom value",
        "__main__.UnknownError ('value',)",
        "<Generic RPC Error __main__.UnknownError('value',): UnknownError('value')>",
    ],
    "rpc_custom_translator": ["True"],
    "rpc_incorrect_calls": [
        "NotFoundError: unknown_function",
        """ParametersError: TypeError("missing a required argument: 'a'")""",
        """ParametersError: TypeError("missing a required argument: 'b'")""",
        "ParametersError: TypeError('too many positional arguments')",
        "ab",
        'TypeError: can only concatenate str (not "int") to str',
    ],
    "rpc_with_subhandlers": ["('id', 'a')", "('id-sub', 'b')"],
    "rpc_dict_handler": ["a", "b"],
    "rpc_dynamic": ["()", "('a',)", "('a', 'b')"],
    "socket_event_monitor": ["[b'World']", "[b'World']"],
    "stream_monitor": [*(f"[b'ask', b'{i}']" for i in range(3)), "closed"],
    "sync_async": [
        "server read [b'some', b'phrase']",
        "client read [b'some', b'phrase']",
    ],
    "old_style": ["True True", "42", "True", "42"],
    "names": [
        f"aiozmq{name} []"
        for name in ("", ".core", ".interface", ".selector", ".stream", ".rpc",
                     ".rpc.rpc", ".rpc.pipeline", ".rpc.pubsub", ".rpc.base")
    ],
}  # fmt: skip

INSTALLED = """
import runpy, sys
import aiozmq_speedups
aiozmq_speedups.install(aiozmq=True)
aiozmq_speedups.install(aiozmq=True)
runpy.run_path(sys.argv[1], run_name="__main__")
"""
WAYS = {
    "aiozmq": [],
    "run": ["-m", "aiozmq_speedups", "run"],
    "install": ["-c", INSTALLED],
}


def output(env, *args):
    result = subprocess.run(
        [sys.executable, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=250,
        env=env,
    )
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    return result.stdout.splitlines()


@pytest.fixture(params=WAYS)
def way(request):
    if request.param == "aiozmq":
        pytest.importorskip("aiozmq.core", exc_type=ImportError)
    return WAYS[request.param]


def test_all_are_here():
    assert {path.stem for path in PROGRAMS.glob("*.py")} == set(OUTPUT)


@pytest.mark.parametrize("name", sorted(OUTPUT))
def test_program(child_environment, way, name):
    lines = output(child_environment, *way, PROGRAMS / f"{name}.py")
    assert lines == [*OUTPUT[name], "DONE"]


@pytest.mark.parametrize("pure", ["", "1"], ids=["C", "pure"])
def test_aiozmq_is_this_package(child_environment, tmp_path, pure):
    program = tmp_path / "program.py"
    program.write_text(
        "import asyncio, sys, aiozmq, aiozmq.rpc.rpc\n"
        "async def main():\n"
        "    return type(asyncio.get_running_loop()).__module__\n"
        "print(aiozmq.__name__, aiozmq.rpc.rpc.__name__, sys.argv[1:])\n"
        "print(asyncio.run(main()).partition('.')[0])\n"
    )
    env = {**child_environment, "AIOZMQ_SPEEDUPS_PURE": pure}
    lines = output(env, *WAYS["run"], program, "-x", "y")
    assert lines == [
        "aiozmq_speedups aiozmq_speedups.rpc.rpc ['-x', 'y']",
        "aiozmq_speedups",
    ]

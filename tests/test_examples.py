"""The programs of examples/ run and print what they should."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"

OUTPUT = {
    "rpc": """\
6 / 3 = 2.0
1 / 2 = 0.5
1 / 0 raises ZeroDivisionError('division by zero')
no such method: multiply
waited long enough
quarters: [0.0, 0.25, 0.5, 0.75, 1.0]
""",
    "pipeline": "job 0 is \n" + "".join(f"job {i} is {'x' * i}\n" for i in range(1, 5)),
    "pubsub": "Kyiv: 25 degrees\n",
    "streams": """\
[b'0', b'message']
[b'1', b'message']
[b'2', b'message']
the router is closed
""",
    "secure": "alice reads 42\nmallory is not let in\n",
    "inference": "HELLO FROM ONE\nAND FROM ANOTHER\nAND A THIRD\n",
    "core": "received [b'3']\nreceived [b'2']\nreceived [b'1']\n",
}


#: Need servers: tests/integration runs them.
WITH_SERVERS = {"database"}


def run(*args, **env):
    """The output of a Python that imports the same aiozmq_speedups."""
    result = subprocess.run(
        [sys.executable, "-X", "dev", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=250,
        env={**os.environ, **env},
    )
    assert result.returncode == 0, result.stderr
    assert "ResourceWarning" not in result.stderr, result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    return result.stdout


def test_all_are_here():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == (set(OUTPUT) | WITH_SERVERS)


@pytest.mark.parametrize("pure", ["", "1"], ids=["C", "pure"])
@pytest.mark.parametrize("name", sorted(OUTPUT))
def test_example(name, pure):
    path = EXAMPLES / f"{name}.py"
    assert run(path, AIOZMQ_SPEEDUPS_PURE=pure) == OUTPUT[name]

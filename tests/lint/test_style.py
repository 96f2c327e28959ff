"""The house style, as far as a machine can read it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = "aiozmq_speedups benchmarks csrc docs examples tests tools .ci".split()
SUFFIXES = {".c", ".h", ".py", ".pyi", ".rst", ".md", ".toml", ".txt", ""}
MAX_LINES = 1200

FILES = sorted(
    path
    for path in [*ROOT.iterdir(), *(p for f in FOLDERS for p in (ROOT / f).rglob("*"))]
    if path.is_file()
    and path.suffix in SUFFIXES
    and not {"_build", "results", "__pycache__"} & set(path.parts)
    and path.name not in {"LICENSE", ".git"}
    and path != Path(__file__)
)
if not (ROOT / "csrc").exists():
    pytest.skip("the sources are not here", allow_module_level=True)

# (pattern, why not, files that may)
BANNED = [
    (r"(?<![\w.])/(home|root|Users|work)/\w", "somebody's own directory", ""),
    (r"\b(TODO|FIXME|XXX|HACK)\b", "open an issue, or do it", ""),
    (r"[ \t]+$", "trailing white space", ""),
    (r"\bpickle\.loads\(", "never on a peer's data", r"^(tests|examples|benchmarks)/"),
    (r"\b(eval|exec)\(", "no code from strings", r"^(tests|aiozmq_speedups/__main__)"),
    (r"\b(strcat|sprintf|gets|alloca)\s*\(", "unbounded", r"\.(py|rst|md)$"),
    (r"\b(pkill|killall)\b", "stop only what you started, by its id", ""),
]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_text(path):
    name = str(path.relative_to(ROOT))
    text = path.read_text("utf-8")
    lines = text.splitlines()
    assert len(lines) <= MAX_LINES, "split it: one concept a file"
    assert "\r" not in text
    assert text == "" or text.endswith("\n")
    for pattern, why, may in BANNED:
        if may and re.search(may, name):
            continue
        for number, line in enumerate(lines, 1):
            assert not re.search(pattern, line), f"{name}:{number}: {why}: {line}"
    if path.suffix in {".c", ".h"}:
        for number, line in enumerate(lines, 1):
            assert "\t" not in line, f"{name}:{number}: a tab"


def test_clang_format():
    """The version is pinned in pyproject.toml: another one wraps otherwise."""
    clang_format = pytest.importorskip("clang_format")
    tool = Path(clang_format.get_executable("clang-format"))
    folders = [ROOT / "csrc", ROOT / "tests" / "c"]
    sources = sorted(str(path) for f in folders for path in f.rglob("*.[ch]"))
    done = subprocess.run(
        [tool, "--dry-run", "--Werror", *sources],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def test_only_the_init_function_is_exported():
    core = pytest.importorskip("aiozmq_speedups._ext").core
    if core is None:
        pytest.skip("no extension")
    if core.BUILD_FLAVOUR in ("asan", "coverage"):
        pytest.skip("their runtimes export symbols")
    try:
        done = subprocess.run(
            ["nm", "--dynamic", "--defined-only", core.__file__],
            capture_output=True,
            text=True,
            check=True,
        )
    except FileNotFoundError:
        pytest.skip("no nm")
    names = {line.split()[-1] for line in done.stdout.splitlines()}
    # Some linkers export the ends of their sections.
    assert names - {"_init", "_fini", "__bss_start", "_edata", "_end"} == {
        "PyInit__core"
    }


def test_stubs_are_complete(tmp_path):
    pytest.importorskip("mypy.stubtest")
    core = pytest.importorskip("aiozmq_speedups._ext").core
    if core is None:
        pytest.skip("no extension")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy.stubtest", "--concise"),
            "--ignore-disjoint-bases",
            *("--mypy-config-file", ROOT / "pyproject.toml"),
            "aiozmq_speedups._core",
        ],
        cwd=tmp_path,  # not the checkout, which need not be what is imported
        env=os.environ | {"PYTHONPATH": str(Path(core.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_names_of_tests_are_unique():
    """pytest cannot collect two of one name, and a run of one folder does not tell."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))

"""csrc's includes go downward only: the rule of csrc/README.md."""

import re
from collections import Counter
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "csrc"

# What each folder may include besides itself: what stands below it, never a sibling.
BELOW = {
    "base": set(),
    "zmtp": {"base"},
    "py": {"base"},
    "loop": {"base", "py"},
    "selector": {"base", "py"},
    "net": {"base", "py", "loop"},
    "streams": {"base", "py", "loop", "net"},
    "tls": {"base", "py", "loop", "net"},
    "proc": {"base", "py", "loop", "net"},
    "zmq": {"base", "zmtp", "py", "loop", "net"},
    "rpc": {"base", "zmtp", "py", "loop", "net", "streams", "zmq"},
}
# Layers that know nothing of Python, so that a C program can test them.
WITHOUT_PYTHON = {"base", "zmtp"}

FILES = sorted(CSRC.rglob("*.[ch]"))
if not FILES:
    pytest.skip("the sources are not here", allow_module_level=True)


def test_names_are_of_one_file():
    """A file's name alone says which one is meant."""
    count = Counter(path.name for path in FILES)
    assert [name for name, n in count.items() if n > 1] == []


def test_static_functions_are_of_one_file():
    """A search for a function's name finds one definition: a plain verb that two files
    would have gets the prefix of its file."""
    found = {}
    for path in FILES:
        text = path.read_text()
        for name in re.findall(r"^static\b[^;={}()]*?\b(\w+)\(", text, re.M):
            found.setdefault(name, set()).add(path.name)
    assert len(found) > 500
    found.pop("_Static_assert", None)
    assert {name: files for name, files in found.items() if len(files) > 1} == {}


def includes(path):
    return re.findall(r'^\s*#\s*include\s*([<"][^>"]+)[>"]', path.read_text(), re.M)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(CSRC)))
def test_includes_go_downward(path):
    folder = path.relative_to(CSRC).parts[0]
    if folder == "module.c":
        allowed = set(BELOW)
    else:
        assert folder in BELOW, f"a new folder: say in BELOW where it stands ({path})"
        allowed = BELOW[folder] | {folder}
    for include in includes(path):
        kind, name = include[0], include[1:]
        if kind == "<":
            if folder in WITHOUT_PYTHON:
                assert name != "Python.h", f"{folder}/ does not know Python"
            continue
        # Always from csrc, so that the layer can be read in the name.
        assert (CSRC / name).exists(), f'write "folder/{name}"'
        assert Path(name).parts[0] in allowed, f"{folder} must not include {name}"


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.suffix == ".h"],
    ids=lambda p: str(p.relative_to(CSRC)),
)
def test_header_guard(path):
    name = str(path.relative_to(CSRC)).upper().replace("/", "_").replace(".", "_")
    assert f"#ifndef AZS_{name}\n#define AZS_{name}\n" in path.read_text()

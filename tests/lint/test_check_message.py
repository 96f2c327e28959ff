"""tools/check_message.py, which pre-commit runs."""

import importlib.util
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "check_message.py"
if not TOOL.exists():
    pytest.skip("the sources are not here", allow_module_level=True)
spec = importlib.util.spec_from_file_location("check_message", TOOL)
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        ("net: send it at once\n\nIt took two calls.\n# a comment\n", None),
        ("Merge branch 'x'\n", None),
        ("send it at once\n\nWhy.\n", "area: what"),
        ("nets: send it at once\n\nWhy.\n", "area: what"),
        (f"net: {'x' * 70}\n\nWhy.\n", "75 characters"),
        ("net: send it at once\nWhy.\n", "second line"),
        ("net: send it at once\n\n# a comment\n", "no body"),
    ],
)
def test_message(message, wrong):
    said = tool.complaint(message)
    assert said is None if wrong is None else wrong in said

"""Sphinx's configuration: `make docs`."""

import zlib
from pathlib import Path

import aiozmq_speedups

HERE = Path(__file__).parent

project = "aiozmq_speedups"
author = "the aiozmq_speedups developers"
copyright = f"2026, {author}"
version = release = aiozmq_speedups.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.intersphinx"]
exclude_patterns = ["_build"]
nitpicky = True  # a name that is linked and is nowhere is an error

html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_copy_source = False

autodoc_typehints = "none"
autodoc_member_order = "bysource"
# As users write them: where they are defined is no part of the documentation.
add_module_names = False
python_maximum_signature_line_length = 96


def write_inventory(uris: Path, inventory: Path) -> None:
    """Makes the inventory that intersphinx reads out of lines ``role name page``.

    So a build needs no network, and is the same with and without.
    """
    lines = []
    for line in uris.read_text().splitlines():
        if line and not line.startswith("#"):
            role, name, page = line.split()
            anchor = "$" if role.startswith("py:") else name
            lines.append(f"{name} {role} 1 {page}#{anchor} -\n")
    inventory.parent.mkdir(parents=True, exist_ok=True)
    inventory.write_bytes(
        b"# Sphinx inventory version 2\n# Project: -\n# Version: -\n"
        b"# The remainder of this file is compressed using zlib.\n"
        + zlib.compress("".join(lines).encode())
    )


intersphinx_mapping = {}
for name, url in {
    "python": "https://docs.python.org/3/",
    "pyzmq": "https://pyzmq.readthedocs.io/en/latest/",
}.items():
    inventory = HERE / "_build" / f"{name}.inv"
    write_inventory(HERE / "inventories" / f"{name}.txt", inventory)
    intersphinx_mapping[name] = (url, str(inventory))

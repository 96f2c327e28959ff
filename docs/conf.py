"""Sphinx's configuration: `make docs`."""

import aiozmq_speedups

project = "aiozmq_speedups"
author = "the aiozmq_speedups developers"
copyright = f"2026, {author}"
version = release = aiozmq_speedups.__version__

extensions = ["sphinx.ext.autodoc"]
html_theme = "alabaster"
html_theme_options = {"description": "asyncio and ZeroMQ at C speed"}
exclude_patterns = ["_build"]
autodoc_typehints = "none"
autodoc_member_order = "bysource"

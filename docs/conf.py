"""Settings of the documentation; ``make docs`` builds it."""

from __future__ import annotations

from fcdcc.coding import __version__

project = "fcdcc"
author = "The fcdcc developers"
copyright = "2026, The fcdcc developers"  # noqa: A001 - the name that Sphinx reads
release = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
autodoc_typehints = "description"
autodoc_member_order = "bysource"
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "fcdcc"

"""Settings of the documentation; ``make docs`` builds it."""

from __future__ import annotations

import re

from sphinx.application import Sphinx

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

STARRED = re.compile(r"(?<![\\\w*])\*(?=(space|kernel|rest|shape)\b)")
"""Shapes such as (n, c, *space), which reStructuredText takes for the start of emphasis."""


def escape_shapes(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Escape the stars of shapes in docstrings."""
    del app, what, name, obj, options
    lines[:] = [STARRED.sub(r"\\*", line) for line in lines]


def setup(app: Sphinx) -> None:
    """Have docstrings escaped."""
    app.connect("autodoc-process-docstring", escape_shapes)

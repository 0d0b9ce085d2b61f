"""Progress in notebooks: a bar as Dask's own progress widget draws it, and the facts below."""

from __future__ import annotations

import html
import sys
import time
from typing import Any

EVERY = 0.5
"""Seconds between two pictures."""


def in_notebook() -> bool:
    """Return whether this process serves a notebook."""
    module: Any = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"


class NotebookBar:
    """One bar that is drawn again in its place.

    Only for a process that serves a notebook.
    """

    def __init__(self) -> None:
        display: Any = sys.modules["IPython"].display  # IPython publishes no types to us
        self._html = display.HTML
        self._handle = display.display(self._html(""), display_id=True)
        self._next = 0.0

    def draw(
        self, what: str, done: int, total: int | None, facts: str, *, now: bool = False
    ) -> None:
        """Show how far something is, a few times a second at most, or ``now``."""
        if now or time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY
            self._handle.update(self._html(bar(what, done, total, facts)))


def bar(what: str, done: int, total: int | None, facts: str) -> str:
    """Return the bar as HTML.

    >>> "width: 25.0%" in bar("blocks", 1, 4, "3 images/s")
    True
    """
    part = 100 * done / total if total else 0.0
    count = f"{done} / {total}" if total else ""
    label = "display: inline-block; min-width: 90px; font-weight: bold"
    frame = (
        "display: inline-block; width: 50%; height: 16px; background: #e8e8e8; "
        "vertical-align: middle; margin-right: 8px"
    )
    fill = f"width: {part:.1f}%; height: 100%; background: #30a2da"
    return (
        f'<div style="padding: 8px 0"><span style="{label}">{html.escape(what)}</span>'
        f'<div style="{frame}"><div style="{fill}"></div></div>{count}'
        f'<div style="color: #666">{html.escape(facts)}</div></div>'
    )

"""HTML and SVG by hand: small pieces that the page and the report are put together from.

Every text goes through :func:`text`, which escapes it. Drawings are stretched to the width
that there is, so they hold no letters: those stand beside them as HTML and keep their size.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


def text(value: object) -> str:
    """Return a value as HTML text, harmless whatever it holds.

    >>> text('<b onclick="x">')
    '&lt;b onclick=&quot;x&quot;&gt;'
    """
    return html.escape(str(value), quote=True)


def element(tag: str, content: str = "", **attributes: object) -> str:
    """Return an element; ``content`` is HTML already, attributes are escaped.

    >>> element("b", text("a<b"), id="n", data_value=3)
    '<b id="n" data-value="3">a&lt;b</b>'
    """
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{text(value)}"'
        for name, value in attributes.items()
        if value is not None and value != ""
    )
    return f"<{tag}{given}>{content}</{tag}>"


def row(cells: Iterable[str], tag: str = "td", **attributes: object) -> str:
    """Return a row of a table; cells are HTML already."""
    return element("tr", "".join(f"<{tag}>{cell}</{tag}>" for cell in cells), **attributes)


def table(head: Sequence[str], rows: Iterable[str], **attributes: object) -> str:
    """Return a table that scrolls sideways where it is too wide."""
    body = "".join(rows)
    inner = f"<thead>{row(map(text, head), 'th')}</thead><tbody>{body}</tbody>"
    return element("div", element("table", inner, **attributes), class_="wide")


def bar(part: float, label: str = "", kind: str = "", second: float | None = None) -> str:
    """Return a bar that is filled to a part of 1, and a second one behind it."""
    behind = "" if second is None else _fill(second, "behind")
    return element("div", behind + _fill(part, kind), class_="bar", title=label)


def _fill(part: float, kind: str) -> str:
    width = 100 * min(1.0, max(0.0, part if math.isfinite(part) else 0.0))
    return element("i", "", class_=kind, style=f"width:{width:.2f}%")


@dataclass(frozen=True)
class Span:
    """A piece of a lane: from ``left`` to ``right`` in parts of its width."""

    left: float
    right: float
    kind: str
    label: str = ""


def lane(spans: Iterable[Span], height: int = 16) -> str:
    """Return one lane of a timeline, 1000 wide; thin spans stay visible."""
    parts = []
    for span in spans:
        left = 1000 * min(1.0, max(0.0, span.left))
        width = max(0.8, 1000 * min(1.0, max(0.0, span.right)) - left)
        title = element("title", text(span.label)) if span.label else ""
        parts.append(
            f'<rect class="{text(span.kind)}" x="{left:.1f}" y="0" width="{width:.1f}" '
            f'height="{height}">{title}</rect>'
        )
    return _stretched("".join(parts), height, "lane")


def curves(series: Sequence[tuple[str, Sequence[tuple[float, float]]]], height: int = 120) -> str:
    """Return staircases: for each its kind and its points, both axes from 0 to 1, y upwards."""
    lines = []
    for kind, points in series:
        path, before = "", 0.0
        for x, y in points:
            left, top = 1000 * x, height * (1 - y)
            path += f"L{left:.1f} {height * (1 - before):.1f}L{left:.1f} {top:.1f}"
            before = y
        start = f"M0 {height}"
        lines.append(
            f'<path class="{text(kind)}" d="{start}{path}L1000 {height * (1 - before):.1f}" '
            'fill="none" vector-effect="non-scaling-stroke"/>'
        )
    return _stretched("".join(lines), height, "curves")


def ticks(marks: Iterable[tuple[float, str, str]], height: int = 28) -> str:
    """Return upright lines: for each its place from 0 to 1, its kind and its label."""
    lines = [
        f'<line class="{text(kind)}" x1="{1000 * x:.1f}" x2="{1000 * x:.1f}" y1="0" '
        f'y2="{height}" vector-effect="non-scaling-stroke">'
        f"{element('title', text(label))}</line>"
        for x, kind, label in marks
    ]
    return _stretched("".join(lines), height, "ticks")


def _stretched(content: str, height: int, kind: str) -> str:
    return (
        f'<svg class="{kind}" viewBox="0 0 1000 {height}" preserveAspectRatio="none" '
        f'style="height:{height}px" role="img">{content}</svg>'
    )

"""Draws the layers and the rooms of the pipeline: ``python tools/draw_rooms.py``.

The rooms and their order are read from the import contract in ``pyproject.toml``, so that the
picture shows what ``make lint`` holds. ``--check`` writes nothing and fails if the picture is out
of date.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "figures" / "rooms.svg"

TEXTS = {
    "cli": ("client", "commands and their options, job files, schedules"),
    "demo": ("client", "fcdcc demo: real images, two of six workers stopped"),
    "runtime": ("client", "run() and infer(): cluster, blocks in flight, retries, output"),
    "planner": ("client", "candidates, bands, search, cost model"),
    "monitoring": ("client, scheduler", "dashboard, record, report, progress"),
    "graph": ("client", "the Dask graph of one block: by rows, by images, gathered"),
    "worker": ("workers", "what tasks run: executable, kernels, share checks, plugins"),
    "plans": ("everywhere", "Plan and Forecast as values; layouts of rows and images; display"),
    "halo": ("everywhere", "input rows for a range of output rows"),
    "options": ("client", "the options of a job, checked"),
    "model": ("client, workers", "from a .pt2 file to a Network"),
    "stored_forms": ("client, workers", "what is stored of every image"),
    "heads": ("client, workers", "what an output is: logits, a score, class numbers, …"),
    "anyk": (
        "scheduler, workers",
        "any-k nodes: tasks and keys, state machine, scheduler plugin, client loop",
    ),
    "templates": ("client, scheduler", "HTML templates with escaped values"),
    "formatting": ("everywhere", "numbers as text"),
    "words": ("client, scheduler", "what the words of plans and reports mean"),
    "installation": ("client", "how the command fcdcc is called"),
    "errors": ("everywhere", "the errors of the pipeline"),
    "storage": ("client, workers", "images from Zarr, predictions to Zarr, records, verification"),
    "coding": ("everywhere", "partitions, codes, encoding, decoding, checks of shares"),
}
"""Room to where its code runs, and what is in it."""

WIDTH, MARGIN, ROW, GAP, AXIS = 1000, 16, 50, 8, 56
"""Pixels: of the picture, around it, height of a room, between rooms, for the arrow at the left."""

FILLS = {"pipeline": "#eaf2fb", "storage": "#eef7ee", "coding": "#fdf3e3"}
EDGES = {"pipeline": "#4a7fb5", "storage": "#5a9a5a", "coding": "#c48a2c"}
GREY = "#5c6b7a"
BOLD = 'font-weight="bold"'


def layers_of_pipeline() -> list[list[str]]:
    """Return the rooms of every layer, from the top, as the import contract has them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    for contract in settings["tool"]["importlinter"]["contracts"]:
        if contract.get("containers") == ["fcdcc.pipeline"]:
            return [layer.split(" | ") for layer in contract["layers"]]
    raise SystemExit("pyproject.toml has no contract of layers inside fcdcc.pipeline")


def picture() -> str:
    """Return the picture as SVG."""
    layers = layers_of_pipeline()
    rooms = [room for layer in layers for room in layer]
    unknown = sorted({*rooms, "storage", "coding"} ^ TEXTS.keys())
    if unknown:
        raise SystemExit(f"rooms without a text, or texts without a room, in {__file__}: {unknown}")
    parts: list[str] = []
    y = top = MARGIN + 22
    parts.append(_text(MARGIN + AXIS, y - 8, "fcdcc.pipeline", 14, EDGES["pipeline"], BOLD))
    for layer in layers:
        parts += _row(layer, y, "pipeline")
        y += ROW + GAP
    for name in ("storage", "coding"):
        y += 26
        parts.append(_text(MARGIN + AXIS, y - 8, f"fcdcc.{name}", 14, EDGES[name], BOLD))
        parts += _row([name], y, name)
        y += ROW + GAP
    parts += _arrow(top, y - GAP)
    size = f'width="{WIDTH}" height="{y - GAP + MARGIN}"'
    view = f'viewBox="0 0 {WIDTH} {y - GAP + MARGIN}" font-family="Helvetica, Arial, sans-serif"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {view}>'
    return "\n".join([head, f'<rect {size} fill="#ffffff"/>', *parts, "</svg>\n"])


def _text(x: float, y: float, text: str, size: int, colour: str, more: str = "") -> str:
    place = f'x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}"'
    return f"<text {place} {more}>{escape(text)}</text>"


def _row(rooms: list[str], y: int, layer: str) -> list[str]:
    """Return the boxes of rooms beside each other."""
    width = (WIDTH - 2 * MARGIN - AXIS - GAP * (len(rooms) - 1)) / len(rooms)
    colours = f'fill="{FILLS[layer]}" stroke="{EDGES[layer]}"'
    parts = []
    for number, room in enumerate(rooms):
        x = MARGIN + AXIS + number * (width + GAP)
        where, text = TEXTS[room]
        box = f'<rect x="{x:g}" y="{y}" width="{width:g}" height="{ROW}" rx="5" {colours}/>'
        parts.append(box)
        parts.append(_text(x + 12, y + 20, room, 15, "#1b2733", BOLD))
        parts.append(_text(x + width - 12, y + 20, where, 12, GREY, 'text-anchor="end"'))
        parts.append(_text(x + 12, y + 39, text, 13, "#33424f"))
    return parts


def _arrow(top: int, bottom: int) -> list[str]:
    """Return the arrow that says in which direction imports go."""
    x, middle = MARGIN + 34, (top + bottom) // 2
    ends = f'x1="{x}" y1="{top}" x2="{x}" y2="{bottom - 10}"'
    head = f"M {x - 7} {bottom - 12} L {x + 7} {bottom - 12} L {x} {bottom} Z"
    turned = f'text-anchor="middle" transform="rotate(-90 {x - 14} {middle})"'
    return [
        f'<line {ends} stroke="{GREY}" stroke-width="2"/>',
        f'<path d="{head}" fill="{GREY}"/>',
        _text(x - 14, middle, "imports go down only", 14, GREY, turned),
    ]


def main() -> int:
    """Write the picture, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the picture is out of date")
    given = parser.parse_args()
    made = picture()
    if given.check:
        return 0 if PICTURE.is_file() and PICTURE.read_text("utf-8") == made else 1
    PICTURE.write_text(made, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

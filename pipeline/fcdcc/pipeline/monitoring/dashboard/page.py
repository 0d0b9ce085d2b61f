"""The page ``/fcdcc`` of the dashboard as HTML, made from a snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from distributed.http import utils

from ... import templates
from ...anyk.state_machine.workers import STRAGGLER_PACE
from ...formatting import times
from ..drawing import conditions_of, render

REFRESH_MILLISECONDS = 1000
"""Time between two updates of the page in the browser."""

MAX_WORKERS = 25
"""Workers in the table of the page; the map has all of them."""

MAX_LAYERS = 60
"""Layers in the table of the page."""

BEHINDHAND_PACE = 1.2
"""The pace from which on a worker's square has a colour of its own."""

_STATES = {
    "running": "is running",
    "complete": "is complete",
    "incomplete": "is over; some blocks failed",
    "interrupted": "was interrupted",
    "failed": "ended with an error",
    "silent": "has not said anything for a while",
}


def page(extra: Mapping[str, Any], shown: Mapping[str, Any]) -> str:
    """Return the whole page in the frame of Dask's pages.

    Parameters
    ----------
    extra
        What Dask's frame needs: the pages in the menu and the prefix of all paths.
    shown
        The snapshot.
    """
    template = _with_frame().get_template("page.html")
    return template.render(_values(shown), refresh_milliseconds=REFRESH_MILLISECONDS, **extra)


@cache
def _with_frame() -> jinja2.Environment:
    """Return the templates of this package and of Dask, where values may be missing."""
    frame = jinja2.FileSystemLoader(Path(utils.__file__).parent / "templates")
    room = __package__.rpartition(".")[0]
    return templates.environment(room, frame, undefined=jinja2.Undefined)


def live(shown: Mapping[str, Any]) -> str:
    """Return what the page shows now, as HTML."""
    return render("live.html", **_values(shown))


def _values(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the template of the page is filled in with."""
    run, layers = shown["run"], shown["layers"][:MAX_LAYERS]
    return {
        "shown": shown,
        "state": _STATES.get(run["state"], "has coded layers in the scheduler"),
        "about": [*_about(run)],
        "mood": _mood(shown),
        "squares": [*_squares(shown)],
        "longest": max((max(row["seconds"], row["slowest"]) for row in layers), default=0.0) or 1.0,
        "strip": conditions_of(shown["conditions"]),
        "straggler_pace": STRAGGLER_PACE,
        "max_workers": MAX_WORKERS,
        "max_layers": MAX_LAYERS,
    }


def _about(run: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a run is, in a few words each."""
    if run["model"]:
        yield run["model"]
    if run["output"]:
        yield f"to {run['output']}"
    if run["n"] and run["delta"]:
        yield f"{run['n']} shares per layer, any {run['delta']} suffice"
    if run["redundancy"]:
        yield run["redundancy"]


def _mood(shown: Mapping[str, Any]) -> str:
    """Return the class of the sentence: whether a worker is in trouble, or nothing is known."""
    workers = shown["workers"]
    if any(w["silent"] > 0 or w["slow"] or w["gone"] in ("removed", "lost") for w in workers):
        return "say bad"
    return "say" if any(w["pace"] is not None for w in workers) else "say none"


def _squares(shown: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the class and the label of each worker's square on the map."""
    for address, pace, ghosts, silent, slow in shown["paces"]:
        yield square_class(pace, ghosts, silent, slow), f"{address}: {times(pace)}, {ghosts} ghosts"


def square_class(pace: float | None, ghosts: int, silent: float, slow: bool) -> str:
    """Return the class of a worker's square on the map; '' while nothing is known of it.

    >>> square_class(1.0, 0, 0.0, False), square_class(None, 0, 0.0, False)
    ('even', '')
    >>> square_class(1.0, 2, 4.0, False)
    'silent'
    """
    if silent > 0:
        return "silent"
    if slow:
        return "slow"
    if ghosts or (pace is not None and pace >= BEHINDHAND_PACE):
        return "behindhand"
    return "" if pace is None else "even"

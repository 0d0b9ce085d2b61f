"""The page ``/fcdcc`` and its JSON on the scheduler's own HTTP server.

The page is made from a snapshot (:func:`.service.snapshot`). It has the frame of Dask's own pages
and is in their menu. The scheduler draws its contents at most once a second, however many browsers
show it, and not at all while none does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import jinja2
from distributed.http import utils
from tornado.routing import PathMatches
from tornado.web import Application

from ... import templates
from ...anyk.state_machine.seats import most_lost
from ...anyk.state_machine.workers import STRAGGLER_PACE
from ...formatting import counted, times
from ...words import WORDS, WORKER_ORDER
from ..drawing import condition_strip, render
from .on_demand import MODULE, make_pages, on_demand
from .service import SERVICE, MonitoringService

if TYPE_CHECKING:
    from distributed.scheduler import Scheduler

PAGE = "fcdcc"
"""Path of the page, and its name in the menu."""

JSON = "json/fcdcc.json"
"""Path of the JSON with the data of the page."""

REFRESH_MILLISECONDS = 1000
"""Time between two updates of the page in the browser."""

MAX_WORKERS = 25
"""Workers in the table of the page; the map has all of them."""

MAX_LAYERS = 60
"""Layers in the table of the page."""

BEHINDHAND_PACE = 1.2
"""From this pace on, a worker's square on the map has the colour of a slower one."""

PARITY_STARTS = {
    "standby": "parity starts when a share is late",
    "eager": "parity starts at once",
    "off": "no parity",
}
"""What ``--redundancy`` means."""

_STATES = {
    "starting": "is starting: the workers get the model",
    "running": "is running",
    "complete": "is complete",
    "incomplete": "is over; some blocks failed",
    "interrupted": "was interrupted",
    "failed": "ended with an error",
    "silent": "has not reported for a while",
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
    """Return the templates of this package and of Dask; Dask's may use undefined variables."""
    frame = jinja2.FileSystemLoader(Path(utils.__file__).parent / "templates")
    room = __name__.rpartition(".")[0].rpartition(".")[0]
    return templates.environment(room, frame, undefined=jinja2.Undefined)


def live(shown: Mapping[str, Any]) -> str:
    """Return what the page shows now, as HTML."""
    return render("live.html", **_values(shown))


def _values(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the template of the page is filled in with."""
    run, layers, conditions = shown["run"], shown["layers"][:MAX_LAYERS], shown["conditions"]
    return {
        "shown": shown,
        "state": _STATES.get(run["state"], "has coded layers in the scheduler"),
        "about": [*_about(shown)],
        "mood": _mood(shown),
        "squares": [*_squares(shown)],
        "has_late_shares": any(row["erased"] or row["ghosts"] for row in shown["workers"]),
        "longest": max((max(row["seconds"], row["slowest"]) for row in layers), default=0.0) or 1.0,
        "strip": condition_strip(conditions["last"], conditions["max"], conditions["limit"]),
        "straggler_pace": STRAGGLER_PACE,
        "words": WORDS,
        "worker_order": WORKER_ORDER,
        "max_workers": MAX_WORKERS,
        "max_layers": MAX_LAYERS,
    }


def _about(shown: Mapping[str, Any]) -> Iterator[str]:
    """Yield the model, output, code and redundancy of a run, as far as they are known."""
    run = shown["run"]
    if run["model"]:
        yield run["model"]
    if run["output"]:
        yield f"to {run['output']}"
    if run["n"] and run["delta"]:
        yield f"{run['n']} shares per layer, any {run['delta']} suffice"
    redundancy = str(run["redundancy"])
    workers = shown["workers_answering"]
    if workers and run["may_be_lost"] is not None and run["state"] in ("starting", "running"):
        lost = most_lost(workers, run["n"], run["n"] - run["delta"])
        which = "" if workers == run["workers"] else " that answer now"
        which = which.replace("answer", "answers") if workers == 1 else which
        yield f"of the {counted(workers, 'worker')}{which} {lost or 'none'} may be lost at a time"
    if redundancy and run["n"] and run["n"] == run["delta"]:
        yield PARITY_STARTS["off"]
    elif redundancy:
        yield PARITY_STARTS.get(redundancy, redundancy)


def _mood(shown: Mapping[str, Any]) -> str:
    """Return the CSS class of the sentence on stragglers: bad, neutral, or nothing known."""
    workers = shown["workers"]
    if any(
        w["silent"] > 0 or w["slow"] or w["behind"] or w["gone"] in ("removed", "lost")
        for w in workers
    ):
        return "say bad"
    return "say" if any(w["pace"] is not None for w in workers) else "say none"


def _squares(shown: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the CSS class and the label of each worker's square on the map."""
    called = {worker["address"]: worker["called"] for worker in shown["workers"]}
    for address, pace, ghosts, silent, slow in shown["paces"]:
        label = f"{called.get(address, address)}: {times(pace)}, {ghosts} ghosts"
        yield square_class(pace, ghosts, silent, slow), label


def square_class(pace: float | None, ghosts: int, silent: float, slow: bool) -> str:
    """Return the CSS class of a worker's square on the map; '' if its pace is unknown.

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


# ---------------------------------------------------------------------- HTTP server


class _Handler(utils.RequestHandler):
    """Answers with what the service of the scheduler knows now."""

    @property
    def service(self) -> MonitoringService:
        found: MonitoringService = cast("Scheduler", self.server).extensions[SERVICE]
        return found

    def set_default_headers(self) -> None:
        """Forbid caching of the answer."""
        self.set_header("Cache-Control", "no-store")


class _Json(_Handler):
    def get(self) -> None:
        """Answer with everything that is shown."""
        self.write(self.service.timed(self.service.shown))


class _Live(_Handler):
    def get(self) -> None:
        """Answer with what the page shows now."""
        self.write(self.service.timed(lambda: self.service.drawn(live)))


class _Page(_Handler):
    async def get(self) -> None:
        """Answer with the whole page, whose menu has Dask's own pages."""
        with suppress(ImportError):
            await make_pages(cast("Scheduler", self.server))
        extra = {**self.extra, **_menu(cast("Scheduler", self.server))}
        self.write(self.service.timed(lambda: page(extra, self.service.shown())))


def install(scheduler: Scheduler) -> None:
    """Add the page and the JSON to the HTTP server; adding them again changes nothing."""
    application: Application = scheduler.http_application
    prefix = _prefix(application)
    present = {str(rule.matcher.regex.pattern) for rule in _rules(application)}
    routes = {
        f"{prefix}{JSON}": _Json,
        f"{prefix}{PAGE}/live": _Live,
        f"{prefix}{PAGE}": _Page,
    }
    _menu(scheduler)
    later = on_demand(scheduler)
    if later is not None:
        later.afterwards.append(lambda: _menu(scheduler))
    extra = {"prefix": prefix}
    fresh: list[Any] = [
        (path, handler, {"dask_server": scheduler, "extra": extra})
        for path, handler in routes.items()
        if f"{path}$" not in present
    ]
    if fresh:
        application.add_handlers(r".*", fresh)


def _menu(scheduler: Scheduler) -> dict[str, Any]:
    """Put the page into the menu of the dashboard; return what the menu is made from."""
    dashboard = sys.modules.get(MODULE)
    if dashboard is None:  # this scheduler has no dashboard, and so no menu
        return {"pages": [PAGE], "plots": []}
    found: dict[str, Any] = dashboard.template_variables(scheduler)
    pages: list[str] = found["pages"]  # the one list that all pages of this scheduler share
    if PAGE not in pages:
        pages.insert(1, PAGE)
    return found


def _prefix(application: Application) -> str:
    """Return the prefix of all paths of the server, found from one of Dask's own paths."""
    known = "json/counts.json"
    for rule in _rules(application):
        path = str(rule.matcher.regex.pattern).rstrip("$")
        if path.replace("\\", "").endswith(known):
            return path.replace("\\", "").removesuffix(known)
    return "/"


def _rules(application: Application) -> list[Any]:
    """Return all rules that match a path."""
    found, routers = [], [application.default_router]
    while routers:
        router = routers.pop()
        for rule in router.rules:
            if isinstance(rule.matcher, PathMatches):
                found.append(rule)
            if hasattr(rule.target, "rules"):
                routers.append(rule.target)
    return found

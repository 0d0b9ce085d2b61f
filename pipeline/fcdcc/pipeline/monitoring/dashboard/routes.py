"""The page and the JSON on the scheduler's own HTTP server.

The page is drawn on the scheduler, at most once a second whoever is looking, and not at all
when nobody is; the browser replaces its contents. It has the frame of Dask's own pages, and
is in their menu.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import jinja2
from distributed.http import utils
from tornado.routing import PathMatches
from tornado.web import Application

from .metrics import BOARD
from .page import live, page

if TYPE_CHECKING:
    from distributed.scheduler import Scheduler

    from .service import MonitoringService


PAGE = "fcdcc"
JSON = "json/fcdcc.json"


class _Handler(utils.RequestHandler):
    """Answers from the board that the scheduler has now."""

    @property
    def watching(self) -> MonitoringService:
        found: MonitoringService = cast("Scheduler", self.server).extensions[BOARD]
        return found

    def set_default_headers(self) -> None:
        """Forbid keeping the answer: what is shown is of this moment."""
        self.set_header("Cache-Control", "no-store")


class _Json(_Handler):
    def get(self) -> None:
        """Answer with everything that is shown."""
        self.write(self.watching.measured(self.watching.shown))


class _Live(_Handler):
    def get(self) -> None:
        """Answer with what the page shows now."""
        self.write(self.watching.measured(lambda: self.watching.drawn(live)))


class _Page(_Handler):
    def get(self) -> None:
        """Answer with the page, filled for this moment."""
        watching = self.watching
        self.write(watching.measured(lambda: page(_template(), self.extra, watching.shown())))


def install(scheduler: Scheduler) -> None:
    """Add the page and the JSON, where there is an HTTP server; again changes nothing."""
    application: Application = scheduler.http_application
    prefix = _prefix(application)
    present = {str(rule.matcher.regex.pattern) for rule in _rules(application)}
    routes = {
        f"{prefix}{JSON}": _Json,
        f"{prefix}{PAGE}/live": _Live,
        f"{prefix}{PAGE}": _Page,
    }
    extra = {"prefix": prefix, **_menu(scheduler)}
    fresh: list[Any] = [
        (path, handler, {"dask_server": scheduler, "extra": extra})
        for path, handler in routes.items()
        if f"{path}$" not in present
    ]
    if fresh:
        application.add_handlers(r".*", fresh)


def _menu(scheduler: Scheduler) -> dict[str, Any]:
    """Put the page into the menu of the dashboard; return what the menu is made from."""
    dashboard = sys.modules.get("distributed.dashboard.scheduler")
    if dashboard is None:  # this scheduler has no dashboard, and so no menu
        return {"pages": [PAGE], "plots": []}
    found: dict[str, Any] = dashboard.template_variables(scheduler)
    pages: list[str] = found["pages"]  # the one list that all pages of this scheduler share
    if PAGE not in pages:
        pages.insert(1, PAGE)
    return found


def _prefix(application: Application) -> str:
    """Return what stands before all paths, by a path of Dask's own that is there."""
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


def _template() -> jinja2.Template:
    """Return the frame of Dask's own pages."""
    folder = Path(utils.__file__).parent / "templates"
    loader = jinja2.FileSystemLoader(folder)
    environment = jinja2.Environment(loader=loader, autoescape=False)  # noqa: S701 - page() escapes
    return environment.get_template("base.html")

"""The page and the JSON on the scheduler's own HTTP server.

The page has the frame of Dask's own pages and is in their menu. The scheduler draws its contents
at most once a second, however many browsers show it, and not at all while none does.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

from distributed.http import utils
from tornado.routing import PathMatches
from tornado.web import Application

from .page import live, page
from .service import SERVICE, MonitoringService

if TYPE_CHECKING:
    from distributed.scheduler import Scheduler

PAGE = "fcdcc"
"""Path of the page, and its name in the menu."""

JSON = "json/fcdcc.json"
"""Path of what the page shows, as JSON."""


class _Handler(utils.RequestHandler):
    """Answers with what the service of the scheduler knows now."""

    @property
    def service(self) -> MonitoringService:
        found: MonitoringService = cast("Scheduler", self.server).extensions[SERVICE]
        return found

    def set_default_headers(self) -> None:
        """Forbid that the answer is kept: it is out of date at once."""
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
    def get(self) -> None:
        """Answer with the whole page."""
        self.write(self.service.timed(lambda: page(self.extra, self.service.shown())))


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

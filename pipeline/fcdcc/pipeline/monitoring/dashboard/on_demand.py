"""Dask's own pages on the scheduler of a local cluster, made when somebody opens one.

They need bokeh, whose import takes half a second, and most runs are over before anybody looks.
Until then every path that the scheduler's HTTP server does not know leads here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from distributed.http.utils import RequestHandler
from tornado.web import Application

if TYPE_CHECKING:
    from distributed.scheduler import Scheduler

ON_DEMAND = "fcdcc-dashboard-on-demand"
"""Name among a scheduler's extensions of the pages that are not made yet."""

MODULE = "distributed.dashboard.scheduler"
"""Dask's module of the pages."""


class DashboardOnDemand(Application):
    """Stands for the pages of a scheduler that was started without them.

    Parameters
    ----------
    scheduler
        It runs in this process, and its HTTP server is listening.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__([(r".*", _AnyPage, {"dask_server": scheduler})])
        self._scheduler = scheduler
        self._made = False
        self.afterwards: list[Callable[[], object]] = []
        """Called when the pages have been made."""
        scheduler.extensions[ON_DEMAND] = self
        scheduler.http_application.add_application(self)

    async def make(self) -> None:
        """Make the pages, unless that has been done.

        Raises
        ------
        ImportError
            If there is no bokeh, or one that Dask does not take.
        """
        # In a thread, so that the scheduler goes on.
        dashboard = await asyncio.to_thread(import_module, MODULE)
        if self._made:
            return
        self._made = True
        scheduler = self._scheduler
        dashboard.connect(scheduler.http_application, scheduler.http_server, scheduler, prefix="/")
        scheduler.http_application.applications.remove(self)
        for action in self.afterwards:
            action()


class _AnyPage(RequestHandler):
    async def get(self) -> None:
        """Make the pages and have the browser ask again."""
        try:
            await make_pages(cast("Scheduler", self.server))
        except ImportError as error:
            self.send_error(404, reason=f"no dashboard: {error}")
            return
        self.redirect(self.request.uri)


async def make_pages(scheduler: Scheduler) -> None:
    """Make the pages of a scheduler that has them on demand; others are left as they are.

    Raises
    ------
    ImportError
        If there is no bokeh, or one that Dask does not take.
    """
    found = on_demand(scheduler)
    if found is not None:
        await found.make()


def on_demand(scheduler: Scheduler) -> DashboardOnDemand | None:
    """Return what stands for the pages of a scheduler that has them on demand."""
    found: Any = scheduler.extensions.get(ON_DEMAND)
    return found if isinstance(found, DashboardOnDemand) else None

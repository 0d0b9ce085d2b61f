"""The scheduler plugin that adds the ``/fcdcc`` page, its JSON and the Prometheus metrics."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from distributed.diagnostics.plugin import SchedulerPlugin
from tornado.ioloop import PeriodicCallback

from . import metrics, page
from .service import EXCHANGE, REFRESH_SECONDS, SERVICE, MonitoringService

if TYPE_CHECKING:
    from dask.typing import Key
    from distributed.scheduler import Scheduler

logger = logging.getLogger(__name__)


class DashboardPlugin(SchedulerPlugin):
    """Shows the runs of a scheduler on its dashboard.

    ``client.register_plugin(DashboardPlugin())`` adds it. Registering it again, by any client,
    changes nothing. What it shows comes from the any-k plugin, which may be registered before or
    after it, and anew at any time.
    """

    name = "fcdcc-dashboard"
    idempotent = True

    def __init__(self) -> None:
        self._service: MonitoringService | None = None

    async def start(self, scheduler: Scheduler) -> None:
        """Add handlers, routes, metrics and the page to a scheduler.

        What cannot be added is left out with a warning: a scheduler may have no dashboard, and
        a run must not fail because it cannot be watched.
        """
        service = self._service = MonitoringService(scheduler)
        scheduler.extensions[SERVICE] = service
        scheduler.handlers[EXCHANGE] = service.exchange
        if SERVICE in scheduler.periodic_callbacks:  # of a plugin that was unregistered
            scheduler.periodic_callbacks[SERVICE].stop()
        ticker = PeriodicCallback(service.look, REFRESH_SECONDS * 1000)
        scheduler.periodic_callbacks[SERVICE] = ticker
        ticker.start()
        for add in (page.install, metrics.register):
            try:
                add(scheduler)
            except Exception as error:  # noqa: BLE001 - a run must not fail for it
                logger.warning("%s: runs cannot be watched this way: %r", add.__module__, error)

    def transition(
        self,
        key: Key,
        start: str,  # noqa: ARG002 - the hook's signature
        finish: str,
        *args: Any,  # noqa: ARG002 - the hook's signature
        **kwargs: Any,
    ) -> None:
        """Take note of a task that is done, for the timeline of its run."""
        if finish == "memory" and self._service is not None:
            self._service.take_task(key, kwargs.get("worker"), kwargs.get("startstops") or ())

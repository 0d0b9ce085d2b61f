"""The scheduler plugin that adds the ``/fcdcc`` page, its JSON and the Prometheus metrics."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from distributed.diagnostics.plugin import SchedulerPlugin
from tornado.ioloop import PeriodicCallback

from ...anyk import AnyKPlugin
from . import metrics, routes
from .exchange import EXCHANGE
from .metrics import BOARD
from .service import EVERY, MonitoringService

if TYPE_CHECKING:
    from distributed.scheduler import Scheduler

logger = logging.getLogger(__name__)


class DashboardPlugin(SchedulerPlugin):
    """Shows the runs of a scheduler on its dashboard.

    ``client.register_plugin(DashboardPlugin())`` adds it.

    The any-k plugin must be registered before it: what is shown comes from its state machine.
    Registering it again, by any client, changes nothing.
    """

    name = "fcdcc-dashboard"
    idempotent = True

    async def start(self, scheduler: Scheduler) -> None:
        """Add handlers, routes, metrics and the page to a scheduler.

        What cannot be added is left out with a warning: a scheduler may have no dashboard, and
        a run must not fail because it cannot be watched.

        Raises
        ------
        RuntimeError
            If the any-k plugin is not registered on this scheduler.
        """
        anyk = scheduler.plugins.get(AnyKPlugin.name)
        if not isinstance(anyk, AnyKPlugin):
            raise RuntimeError("the any-k plugin is not registered: register AnyKPlugin() first")
        watching = MonitoringService(scheduler, anyk.state, anyk.catch_up)
        scheduler.extensions[BOARD] = watching
        scheduler.handlers[EXCHANGE] = watching.exchange
        if BOARD in scheduler.periodic_callbacks:
            scheduler.periodic_callbacks[BOARD].stop()
        ticker = PeriodicCallback(watching.look, EVERY * 1000)
        scheduler.periodic_callbacks[BOARD] = ticker
        ticker.start()
        for add in (routes.install, metrics.register):
            try:
                add(scheduler)
            except Exception as error:  # noqa: BLE001 - a run must not fail for it
                logger.warning("%s: runs cannot be watched this way: %r", add.__module__, error)

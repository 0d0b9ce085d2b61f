"""Registers the scheduler plugins that a run uses."""

from __future__ import annotations

import logging

from distributed import Client
from distributed.comm.core import CommClosedError

from ..anyk import AnyKPlugin
from ..monitoring.dashboard.dashboard_plugin import DashboardPlugin

logger = logging.getLogger(__name__)


def register_plugins(client: Client) -> None:
    """Register the any-k plugin on the client's scheduler, and the dashboard plugin after it.

    Registering them again changes nothing. A scheduler that does not take the dashboard plugin
    is a warning only: the run goes on, and cannot be watched.

    Raises
    ------
    Exception
        Whatever keeps the scheduler from taking the any-k plugin.
    """
    client.register_plugin(AnyKPlugin())
    try:
        client.register_plugin(DashboardPlugin())
    except Exception as error:  # whatever hinders it, the run can do without
        if client.status != "running" or isinstance(error, CommClosedError):
            raise
        logger.warning("the page /fcdcc cannot be added to the dashboard: %s", error)

"""Register the scheduler plugins that runs use: the only place that does so."""

from __future__ import annotations

import logging

from distributed import Client

from ..anyk import AnyKPlugin
from ..errors import PluginRefusedError
from ..monitoring.dashboard.dashboard_plugin import DashboardPlugin
from ..worker.executable_plugin import TaskModulesPlugin
from ..worker.graph_executables import GraphExecutablesPlugin
from .cluster import is_connection_loss, translate_connection_loss

logger = logging.getLogger(__name__)


def register_plugins(client: Client) -> None:
    """Register the any-k plugin on the client's scheduler, and then those for modules and pages.

    Registering them again changes nothing. If the scheduler refuses the dashboard plugin, a
    warning says so, and the run goes on without the page ``/fcdcc``.

    Raises
    ------
    PluginRefusedError
        If the scheduler does not accept the any-k plugin, for example because its version of
        Dask is not supported or it has no fcdcc installed.
    ClusterLostError
        If the connection to the scheduler is lost.
    """
    with translate_connection_loss(client):
        try:
            client.register_plugin(AnyKPlugin())
        except Exception as error:
            if is_connection_loss(client, error):
                raise
            address = client.scheduler_info().get("address", "the scheduler")
            raise PluginRefusedError(
                f"the any-k plugin cannot be registered on {address} ({error})"
            ) from error
        client.register_plugin(TaskModulesPlugin())
        try:
            client.register_plugin(DashboardPlugin())
        except Exception as error:
            if is_connection_loss(client, error):
                raise
            logger.warning("the page /fcdcc cannot be added to the dashboard: %s", error)


def register_graph_executables(client: Client) -> bool:
    """Register the plugin that loads executables for graphs; return whether that is possible.

    Registering it again changes nothing. A scheduler without fcdcc refuses it.
    """
    try:
        client.register_plugin(GraphExecutablesPlugin())
    except Exception as error:  # noqa: BLE001 - a scheduler without fcdcc raises what it likes
        logger.info("the weights are sent with every graph: %r", error)
        return False
    return True

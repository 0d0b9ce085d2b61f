"""Warn in a session that computes predictions of ``infer`` when a worker is removed."""

from __future__ import annotations

import logging
from typing import Any
from weakref import WeakKeyDictionary

from distributed import Client

from ..anyk import AnyKPlugin

logger = logging.getLogger(__name__)

_listening: WeakKeyDictionary[Client, Any] = WeakKeyDictionary()
"""By client, the connection to the scheduler on which it listens."""


def warn_of_removed_workers(client: Client) -> None:
    """Have a client log a warning whenever a worker of its cluster is removed for silence.

    Calling it again changes nothing, unless the client has connected to a scheduler anew. Nothing
    happens for an asynchronous client. ``fcdcc run`` has a client of its own, and warns by itself.
    """
    if client.asynchronous or _listening.get(client) is client.scheduler_comm:
        return
    _listening[client] = client.scheduler_comm
    client.subscribe_topic(AnyKPlugin.name, _warn)


def _warn(event: tuple[float, Any]) -> None:
    """Log a warning if an event of the any-k plugin's log is that it removed a worker."""
    _, message = event
    if isinstance(message, dict) and message.get("event") == "remove-worker":
        logger.warning(
            "worker %s does not answer and was removed: others compute what it had, and it ends if "
            "it answers again; start another one in its place", message.get("worker"),
        )  # fmt: skip

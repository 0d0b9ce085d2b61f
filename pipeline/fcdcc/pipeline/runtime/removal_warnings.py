"""Warn in a session that computes predictions of ``infer`` when a worker is removed."""

from __future__ import annotations

import logging
from typing import Any
from weakref import WeakSet

from distributed import Client

from ..monitoring.dashboard.service import TOPIC

logger = logging.getLogger(__name__)

_listening: WeakSet[Client] = WeakSet()
"""The clients that listen already."""


def warn_of_removed_workers(client: Client) -> None:
    """Have a client log a warning whenever a worker of its cluster is removed for silence.

    Calling it again changes nothing, and nothing happens for an asynchronous client. ``fcdcc run``
    has a client of its own, and warns by itself.
    """
    if client.asynchronous or client in _listening:
        return
    _listening.add(client)
    client.subscribe_topic(TOPIC, _warn)


def _warn(event: tuple[float, Any]) -> None:
    """Log a warning if an event of the scheduler's log is that a worker was removed."""
    _, message = event
    if isinstance(message, dict) and message.get("event") == "removed":
        logger.warning(
            "worker %s does not answer and was removed: others compute what it had, and it ends if "
            "it answers again; start another one in its place", message.get("worker"),
        )  # fmt: skip

"""Any-k nodes for Dask: tasks that run as soon as sufficiently many of their inputs are computed.

::

    tasks, keys       what a graph says: the node, its shares, and the keys of tasks
    scheduler/        the scheduler plugin: connects Dask to the state machine
    state_machine/    all decisions, without Dask and without a clock
    worker            what a share does on its worker: stop early, report wrong shares
    queries           what clients can query from the plugin
    client_loop       the same without the plugin, by a loop in the client
"""

from __future__ import annotations

from .queries import anyk_alive, anyk_forget, anyk_report
from .scheduler.anyk_plugin import AnyKPlugin
from .scheduler.dask_contract import UnsupportedDaskError
from .state_machine.events import Readiness
from .tasks import ERASED, AnyK, AnyKError, Share, any_k
from .worker import abandonable, wanted

__all__ = [
    "ERASED",
    "AnyK",
    "AnyKError",
    "AnyKPlugin",
    "Readiness",
    "Share",
    "UnsupportedDaskError",
    "abandonable",
    "any_k",
    "anyk_alive",
    "anyk_forget",
    "anyk_report",
    "wanted",
]

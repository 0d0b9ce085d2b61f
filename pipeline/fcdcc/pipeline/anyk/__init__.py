"""Any-k nodes for Dask: tasks that run as soon as sufficiently many of their inputs are computed.

::

    tasks, keys       what a graph says: the node, its shares, and the keys of tasks
    scheduler/        the scheduler plugin: connects Dask to the state machine
    state_machine/    all decisions, without Dask and without a clock
    worker            what a share does on its worker: stop early, report wrong shares
    queries           what clients can query from the plugin
    client_loop       the same without the plugin, by a loop in the client

Names are imported when they are first used, since ``fcdcc report`` reads records of the state
machine and needs no Dask.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .queries import anyk_alive, anyk_forget, anyk_report
    from .scheduler.anyk_plugin import AnyKPlugin
    from .scheduler.dask_contract import UnsupportedDaskError
    from .state_machine.events import Readiness
    from .tasks import ERASED, AnyK, AnyKError, BackedUpTask, Share, any_k
    from .worker import abandonable, wanted

__all__ = [
    "ERASED",
    "AnyK",
    "AnyKError",
    "AnyKPlugin",
    "BackedUpTask",
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

_MODULE_OF = {
    "ERASED": "tasks",
    "AnyK": "tasks",
    "AnyKError": "tasks",
    "AnyKPlugin": "scheduler.anyk_plugin",
    "BackedUpTask": "tasks",
    "Readiness": "state_machine.events",
    "Share": "tasks",
    "UnsupportedDaskError": "scheduler.dask_contract",
    "abandonable": "worker",
    "any_k": "tasks",
    "anyk_alive": "queries",
    "anyk_forget": "queries",
    "anyk_report": "queries",
    "wanted": "worker",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)

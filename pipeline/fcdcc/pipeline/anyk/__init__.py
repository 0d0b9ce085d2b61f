"""Any-k nodes for Dask: tasks that start as soon as sufficiently many inputs are there."""

from __future__ import annotations

from .errors import AnyKError, UnsupportedDaskError
from .queries import anyk_alive, anyk_forget, anyk_report
from .scheduler.anyk_plugin import AnyKPlugin
from .state_machine.readiness import Readiness
from .tasks import ERASED, AnyK, Share, any_k
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

"""Any-k nodes for Dask: tasks that start as soon as sufficiently many inputs are there."""

from __future__ import annotations

from .errors import AnyKError, UnsupportedDaskError
from .nodes import ERASED, AnyK, Share, any_k
from .readiness import Readiness
from .report import anyk_alive, anyk_forget, anyk_report
from .scheduler_plugin import AnyKPlugin
from .wanted import abandonable, wanted

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

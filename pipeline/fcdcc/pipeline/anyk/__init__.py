"""Any-k nodes for Dask: tasks that start as soon as sufficiently many inputs are there."""

from __future__ import annotations

from .errors import AnyKError, UnsupportedDaskError
from .nodes import ERASED, AnyK, Readiness, Share, any_k
from .wanted import abandonable, wanted

__all__ = [
    "ERASED",
    "AnyK",
    "AnyKError",
    "Readiness",
    "Share",
    "UnsupportedDaskError",
    "abandonable",
    "any_k",
    "wanted",
]

"""Kept for ``dask worker --preload fcdcc.pipeline.worker_memory``: see :mod:`.worker.malloc`."""

from __future__ import annotations

from .worker.malloc import dask_setup

__all__ = ["dask_setup"]

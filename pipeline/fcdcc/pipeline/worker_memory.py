"""The supported name of :mod:`.worker.memory` in ``--preload fcdcc.pipeline.worker_memory``."""

from __future__ import annotations

from .worker.memory import dask_setup

__all__ = ["dask_setup"]

"""Settings of a local worker process, preloaded before anything that takes time to import.

Importing this module in a worker process makes it ignore SIGINT; in other processes it does
nothing. ``dask_setup``, which Dask calls when the worker starts, makes it keep freed memory.
"""

from __future__ import annotations

from .memory import dask_setup
from .signals import ignore_sigint

__all__ = ["dask_setup"]

ignore_sigint()

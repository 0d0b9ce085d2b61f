"""The command line: ``fcdcc``, ``python -m fcdcc.pipeline`` and ``dask fcdcc``."""

from .main import main

__all__ = ["main"]

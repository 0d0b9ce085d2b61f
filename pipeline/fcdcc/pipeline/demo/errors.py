"""What can go wrong before the demonstration starts."""

from __future__ import annotations

from fcdcc.coding.errors import FcdccError

__all__ = ["DemoError", "MissingExtraError"]


class DemoError(FcdccError, ValueError):
    """A demonstration that cannot be given as it was asked for."""


class MissingExtraError(FcdccError, ImportError):
    """A package that only the demonstration needs is not installed."""

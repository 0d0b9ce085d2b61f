"""The errors of the any-k extension; see :mod:`fcdcc.coding.errors` for the rules."""

from __future__ import annotations

from fcdcc.coding.errors import FcdccError


class AnyKError(FcdccError, ValueError):
    """An any-k node whose shares, threshold and positions do not fit together."""


class UnsupportedDaskError(FcdccError, RuntimeError):
    """A distributed scheduler that differs from what the plugin relies on."""

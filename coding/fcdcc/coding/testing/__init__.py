"""A contract suite to subclass for testing a code of your own."""

from __future__ import annotations

from .contract import CodeContract

__all__ = ["CodeContract"]

"""Tests for people who write a code of their own: a contract suite to subclass."""

from __future__ import annotations

from .contract import CodeContract

__all__ = ["CodeContract"]

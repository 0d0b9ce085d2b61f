"""Models, plans, graphs and jobs: what people call.

The names are loaded when they are first used: torch takes seconds to import, and the
command line should answer ``--help`` at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .inference import infer, plan
    from .job import run
    from .model import Model, open_model
    from .options import JobConfig
    from .plans import Plan
    from .summary import Summary

__all__ = ["JobConfig", "Model", "Plan", "Summary", "infer", "open_model", "plan", "run"]

_ROOMS = {
    "JobConfig": "options",
    "Model": "model",
    "Plan": "plans",
    "Summary": "summary",
    "infer": "inference",
    "open_model": "model",
    "plan": "inference",
    "run": "job",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_ROOMS[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)

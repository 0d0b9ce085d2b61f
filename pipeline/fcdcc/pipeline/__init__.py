"""The public Python interface: models, plans, lazy inference and jobs.

Names are imported on first use: importing torch takes seconds, and the command line should
answer ``--help`` at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .model import Model, open_model
    from .monitoring.summary import Summary
    from .options import JobConfig
    from .plans.plan import Plan
    from .runtime.infer import infer, plan
    from .runtime.job import run

__all__ = ["JobConfig", "Model", "Plan", "Summary", "infer", "open_model", "plan", "run"]

_MODULES = {
    "JobConfig": "options",
    "Model": "model",
    "Plan": "plans.plan",
    "Summary": "monitoring.summary",
    "infer": "runtime.infer",
    "open_model": "model",
    "plan": "runtime.infer",
    "run": "runtime.job",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)

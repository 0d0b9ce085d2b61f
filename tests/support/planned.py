"""Plans of a known form, for tests that are about what is done with them."""

from __future__ import annotations

import pytest

from fcdcc.pipeline.planner import search as planner
from fcdcc.pipeline.plans.forecast import DEFAULTS

__all__ = ["usual_plans"]


def usual_plans(patch: pytest.MonkeyPatch, share_work: float = 0.0) -> None:
    """Have the planner take the usual form, whatever would be faster.

    Parameters
    ----------
    patch
        Undoes it.
    share_work
        Multiply-adds that come together before a layer is coded; with none every layer is.
    """
    patch.setattr(planner, "MIN_GAIN", 1)
    patch.setattr(
        planner, "MIN_WORK_PER_OVERHEAD", share_work / DEFAULTS.task / DEFAULTS.multiply_adds
    )

"""Plans as values: how a network is run, what it will cost, and how both are shown.

:mod:`.plan` is the plan, :mod:`.forecast` its cost on some workers and :mod:`.display` shows both.
:mod:`.fused_stages` and :mod:`.row_layout` say which stages and which rows each task of a block
computes; workers derive that from the plan themselves.
"""

from __future__ import annotations

from .plan import Plan, show_plans_with


def _text(plan: Plan) -> str:
    from .display import plan_text  # workers show no plans and need no tables

    return plan_text(plan)


def _line(plan: Plan) -> str:
    from .display import plan_line

    return plan_line(plan)


def _html(plan: Plan) -> str:
    from .display import plan_html

    return plan_html(plan)


show_plans_with(_text, _line, _html)

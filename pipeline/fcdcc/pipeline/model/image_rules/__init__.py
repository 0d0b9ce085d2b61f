"""Rules that say what each operator of the list makes of its arguments, before it is called.

A rule checks the arguments of one call: ranks, sizes, types, and that windows fit. It returns
the shape and the type of the results, and proves that the operator treats images one by one.
Each module has a table ``RULES`` from the name of an operator without its overload to its rule.
"""

from __future__ import annotations

from . import (
    constructors,
    cutting_and_joining,
    elementwise,
    indexing,
    products,
    reductions,
    reshaping,
    windows,
)
from .facts import Rule

RULES: dict[str, Rule] = {
    **elementwise.RULES,
    **reshaping.RULES,
    **cutting_and_joining.RULES,
    **constructors.RULES,
    **reductions.RULES,
    **windows.RULES,
    **products.RULES,
    **indexing.RULES,
}

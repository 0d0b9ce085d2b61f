"""Constant folding: steps that depend on the model's tensors alone are computed at import.

Masks, position tables and normalised weights are such constants. The steps are those after
:mod:`~fcdcc.pipeline.model.passes.mutation`: none of them changes its arguments, and the
prediction needs each of them. Before a step is computed its rule has checked its arguments, and
the size of its result and its work have been taken from the budget of the import.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ...errors import ModelError, one_line
from ..budget import ImportBudget
from ..image_analysis import step_facts
from ..image_rules.facts import Facts, constant_facts
from ..network import Ref, Step
from ..operators import needs_device, resolve
from ..rewriting import convert, redirect_step


def fold_constants(
    steps: Sequence[Step],
    tensors: Mapping[str, torch.Tensor],
    output: str,
    budget: ImportBudget,
    unused: Sequence[Step] = (),
) -> tuple[list[Step], dict[str, torch.Tensor]]:
    """Compute the steps that depend on the model's tensors alone.

    Parameters
    ----------
    steps
        In order; none changes its arguments.
    tensors
        The model's own, which are not changed.
    output
        The name of the prediction.
    budget
        What constants may take.
    unused
        Steps that the prediction does not need. They are not computed; those that depend on
        the model's tensors alone are checked like the others.

    Returns
    -------
    The remaining steps, and the tensors including the new ones.

    Raises
    ------
    ModelError
        If a constant cannot be computed or is too large, or if the prediction is a constant.
    """
    known: dict[str, Any] = dict(tensors)
    found = dict(tensors)
    kept: list[Step] = []
    targets: dict[str, Any] = {}
    for step in steps:
        references = step.references
        if all(name in known for name in references):
            known[step.name] = _computed(step, known, budget)
            continue
        for name in references:
            if name in known and name not in found and name not in targets:
                targets[name] = _as_argument(name, known[name], found)
        kept.append(redirect_step(step, targets) if targets else step)
    _check_unused(unused, known)
    if output in known:
        raise ModelError("the prediction does not depend on the images; expected one that does")
    return kept, found


def _check_unused(unused: Sequence[Step], known: Mapping[str, Any]) -> None:
    facts: dict[str, Any] = {}

    def lookup(name: str) -> Any:
        return facts[name] if name in facts else _facts_of(known[name])

    for step in unused:
        if all(name in facts or name in known for name in step.references):
            facts[step.name], _ = step_facts(step, lookup, None)


def _as_argument(name: str, value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Return the argument that replaces a constant: a number, or a tensor by name."""
    if isinstance(value, torch.Tensor):
        tensors[name] = value
        return Ref(name)
    if isinstance(value, (list, tuple)):
        return [_as_argument(f"{name}.{i}", item, tensors) for i, item in enumerate(value)]
    return value


def _computed(step: Step, known: Mapping[str, Any], budget: ImportBudget) -> Any:
    def facts(name: str) -> Any:
        return _facts_of(known[name])

    result, work = step_facts(step, facts, None)
    size = _bytes_of(result)
    budget.take_constant(step.name, size, work + size)

    def value(leaf: Any) -> Any:
        if isinstance(leaf, Ref):
            return known[leaf.name]
        return torch.device("cpu") if isinstance(leaf, torch.device) else leaf

    args, kwargs = convert(step.args, value), convert(step.kwargs, value)
    if needs_device(step.op):
        kwargs["device"] = torch.device("cpu")
    try:
        with torch.no_grad():
            return resolve(step.op)(*args, **kwargs)
    except (RuntimeError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise ModelError(
            f"the constant {step!r:.200} cannot be computed: {one_line(error)}"
        ) from error


def _facts_of(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return constant_facts(value)
    if isinstance(value, (list, tuple)):
        return [_facts_of(item) for item in value]
    return value


def _bytes_of(result: Any) -> int:
    """Return the bytes that the result of a step takes, views counted as copies."""
    if isinstance(result, Facts):
        return result.elements * result.dtype.itemsize
    if isinstance(result, (list, tuple)):
        return sum(map(_bytes_of, result))
    return 0

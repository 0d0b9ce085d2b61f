"""Constant folding: steps that depend on the model's tensors alone are computed at import.

Masks, position tables and normalised weights are such constants. Models often make them by
changing memory step by step, so the steps are run as the model would run them, and a value
that is read before a later change is copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ...errors import ModelError, one_line
from ..network import Ref, Step
from ..operators import is_number, may_alias, needs_device, resolve, written_arguments
from ..rewriting import NameSource, redirect_step, substitute
from .mutation import SHAPE_ONLY

_MAX_CONSTANT_BYTES = 1 << 30


def fold_constants(
    steps: Sequence[Step], tensors: Mapping[str, torch.Tensor], output: str
) -> tuple[list[Step], dict[str, torch.Tensor]]:
    """Compute the steps that depend on the model's tensors alone.

    Parameters
    ----------
    steps
        In order; they may change their arguments.
    tensors
        The model's own, which are not changed.
    output
        The name of the prediction.

    Returns
    -------
    The remaining steps, and the tensors including the new ones.

    Raises
    ------
    ModelError
        If the model changes its own tensors, if a constant cannot be computed or is too
        large, or if the prediction is a constant.
    """
    memory = _Sharing(steps)
    constant = _constant_names(steps, tensors, memory)
    if output in constant:
        raise ModelError("the prediction does not depend on the images; expected one that does")
    _check_unchanged(steps, tensors, constant, memory)
    known: dict[str, Any] = dict(tensors)
    found = dict(tensors)
    names = NameSource([*tensors, *(step.name for step in steps)])
    kept: list[Step] = []
    for step in steps:
        if step.name in constant:
            known[step.name] = _computed(step, known)
            continue
        targets: dict[str, Any] = {}
        for name in step.references:
            if name not in constant or name in tensors:
                continue
            if memory.root(name) in memory.changed:  # a later step may change it: copy it
                targets[name] = _as_argument(names.fresh(name), _copied(known[name]), found)
            else:
                targets[name] = _as_argument(name, known[name], found)
        kept.append(redirect_step(step, targets))
    return kept, found


class _Sharing:
    """Which values may share memory: a disjoint-set forest over names."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._above: dict[str, str] = {}
        changed: list[str] = []
        for step in steps:
            if written_arguments(step.op):
                changed.extend(step.references[:1])
            elif is_number(step.op) or not may_alias(step.op):
                continue
            for name in step.references:
                self._above[self.root(name)] = self.root(step.name)
        self.changed = {self.root(name) for name in changed}

    def root(self, name: str) -> str:
        """Return the representative of the values that may share memory with this one."""
        while (above := self._above.get(name, name)) != name:
            self._above[name] = self._above.get(above, above)
            name = above
        return name


def _constant_names(
    steps: Sequence[Step], tensors: Mapping[str, torch.Tensor], memory: _Sharing
) -> set[str]:
    """Return the names of tensors, and of steps that depend on nothing but tensors.

    Memory that a step fills with values that are not constant holds no constant.
    """
    overwritten: set[str] = set()
    while True:
        constant = set(tensors)
        before = len(overwritten)
        for step in steps:
            if memory.root(step.name) not in overwritten and constant.issuperset(step.references):
                constant.add(step.name)
            elif written_arguments(step.op):
                overwritten.add(memory.root(step.name))
        if len(overwritten) == before:
            return constant


def _check_unchanged(
    steps: Sequence[Step],
    tensors: Mapping[str, torch.Tensor],
    constant: set[str],
    memory: _Sharing,
) -> None:
    """Refuse a model whose constant steps change its own tensors."""
    own = {memory.root(name): name for name in tensors}
    for step in steps:
        packet = step.op.split(".")[1]
        if step.name not in constant or not written_arguments(step.op) or packet in SHAPE_ONLY:
            continue
        if (name := own.get(memory.root(step.name))) is not None:
            raise ModelError(
                f"the model changes its own tensor {name!r} as it runs ({step.op}); expected a "
                "network that computes the same each time: call model.eval() before the export"
            )


def _copied(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_copied(item) for item in value]
    return value.clone() if isinstance(value, torch.Tensor) else value


def _as_argument(name: str, value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Return the argument that replaces a constant: a number, or a tensor by name."""
    if isinstance(value, torch.Tensor):
        tensors[name] = value
        return Ref(name)
    if isinstance(value, (list, tuple)):
        return [_as_argument(f"{name}.{i}", item, tensors) for i, item in enumerate(value)]
    return value


def _computed(step: Step, known: Mapping[str, Any]) -> Any:
    function = resolve(step.op)

    def value(ref: Ref) -> Any:
        return known[ref.name]

    args, kwargs = substitute(step.args, value), substitute(step.kwargs, value)
    try:
        with torch.no_grad():
            _refuse_large(step, function, args, kwargs)
            return function(*args, **kwargs)
    except (RuntimeError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise ModelError(
            f"the constant {step!r:.200} cannot be computed: {one_line(error)}"
        ) from error


def _refuse_large(step: Step, function: Any, args: Any, kwargs: Any) -> None:
    """Refuse a constant that would take too much memory, before it is computed."""
    try:
        device = {"device": torch.device("meta")} if needs_device(step.op) else {}
        result = function(*_on_meta(args), **{**_on_meta(kwargs), **device})
    except (RuntimeError, NotImplementedError):
        return  # the shape depends on values, or the operator has no meta kernel
    results = result if isinstance(result, (list, tuple)) else [result]
    for tensor in results:
        if isinstance(tensor, torch.Tensor) and tensor.nbytes > _MAX_CONSTANT_BYTES:
            raise ModelError(
                f"the constant {step.name!r} of shape {tuple(tensor.shape)} takes {tensor.nbytes} "
                f"bytes; expected at most {_MAX_CONSTANT_BYTES}"
            )


def _on_meta(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to("meta")
    if isinstance(value, torch.device):
        return torch.device("meta")
    if isinstance(value, (list, tuple)):
        return type(value)(_on_meta(item) for item in value)
    if isinstance(value, dict):
        return {key: _on_meta(item) for key, item in value.items()}
    return value

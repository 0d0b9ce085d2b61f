"""Steps that do nothing in inference are dropped; what depends on constants is computed now.

What would make the answers depend on chance or on the other images of a batch, dropout and
batch normalisation in training mode, is refused here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .errors import ModelError
from .network import Ref, Step
from .operators import bound_arguments, resolve, words
from .rewriting import redirect_step, substitute

__all__ = ["fold_constants", "simplified"]

# Return their first argument as it is.
_IDENTITIES = frozenset({"detach", "alias", "lift", "lift_fresh", "lift_fresh_copy"})
_DROPOUTS = frozenset(
    {"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "native_dropout"}
)
# Checks of sizes and types, for which there is nobody to tell.
_CHECKS = words(
    """
    _assert_async _assert_scalar _assert_tensor_metadata _functional_assert_async
    _functional_assert_scalar sym_constrain_range sym_constrain_range_for_size
    _functional_sym_constrain_range _functional_sym_constrain_range_for_size
    """
)
_TRAINING_FLAGS = {
    "batch_norm": "training",
    "native_batch_norm": "training",
    "_native_batch_norm_legit": "training",
    "_native_batch_norm_legit_functional": "training",
    "rrelu": "training",
    **dict.fromkeys(_DROPOUTS, "train"),
}
# The same values whatever the layout in memory; a view fails on some layouts.
_RESHAPES = frozenset({"aten.view.default", "aten._unsafe_view.default"})
# Memory with nothing in it is not a value: the same network would never be the same twice.
_ZEROED = {
    "aten.empty.memory_format": "aten.zeros.default",
    "aten.new_empty.default": "aten.new_zeros.default",
    "aten.empty_like.default": "aten.zeros_like.default",
}
_LARGEST_CONSTANT = 1 << 30


def simplified(steps: Sequence[Step], output: str) -> tuple[list[Step], str]:
    """Return the steps without those that do nothing when the network is only used.

    The name of the output is returned too: it changes where the last step is one of these.

    Raises
    ------
    ModelError
        If the network was exported in training mode.
    """
    kept: list[Step] = []
    same: dict[str, Any] = {}
    for original in steps:
        step = redirect_step(original, same)
        packet = step.op.split(".")[1]
        if packet in _CHECKS:
            continue
        _refuse_training(step, packet)
        if packet in _IDENTITIES or (packet in _DROPOUTS and packet != "native_dropout"):
            same[step.name] = step.args[0]
            continue
        kept.append(_normalised(step))
    return kept, same[output].name if output in same else output


def _refuse_training(step: Step, packet: str) -> None:
    flag = _TRAINING_FLAGS.get(packet)
    if packet == "scaled_dot_product_attention":
        if bound_arguments(step)["dropout_p"]:
            raise ModelError(f"{step.name!r} drops values at random; {_EVAL}")
    elif flag is not None and bound_arguments(step)[flag] is not False:
        raise ModelError(f"{step.name!r} ({step.op}) runs in training mode; {_EVAL}")


_EVAL = "expected a network for inference: call model.eval() before the export"


def _normalised(step: Step) -> Step:
    if step.op in _RESHAPES:
        return Step(step.name, "aten.reshape.default", step.args, step.kwargs)
    if step.op in _ZEROED:
        kwargs = {k: v for k, v in step.kwargs.items() if k != "memory_format"}
        return Step(step.name, _ZEROED[step.op], step.args, kwargs)
    return step


def fold_constants(
    steps: Sequence[Step], tensors: Mapping[str, torch.Tensor]
) -> tuple[list[Step], dict[str, torch.Tensor]]:
    """Compute now what depends on the model's tensors alone.

    Returns
    -------
    The steps that are left, and the tensors with the new ones among them.

    Raises
    ------
    ModelError
        If a constant cannot be computed, or is absurdly large.
    """
    known: dict[str, Any] = dict(tensors)
    found = dict(tensors)
    kept: list[Step] = []
    for step in steps:
        if all(name in known for name in step.references):
            known[step.name] = _computed(step, known)
            continue
        targets: dict[str, Any] = {}
        for name in step.references:
            if name in known and name not in found:
                targets[name] = _as_argument(name, known[name], found)
        kept.append(redirect_step(step, targets))
    return kept, found


def _as_argument(name: str, value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Return what a step has in the place of a constant: a number, or a tensor by name."""
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
            _refuse_absurd(step, function, args, kwargs)
            return function(*args, **kwargs)
    except (RuntimeError, TypeError, ValueError, IndexError, OverflowError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"the constant {step!r:.200} cannot be computed: {reason[0]}") from error


def _refuse_absurd(step: Step, function: Any, args: Any, kwargs: Any) -> None:
    """Refuse a constant that would fill the memory, before it is made."""
    try:
        result = function(*_on_meta(args), **_on_meta(kwargs))
    except (RuntimeError, NotImplementedError):
        return  # it depends on values, or PyTorch cannot tell
    results = result if isinstance(result, (list, tuple)) else [result]
    for tensor in results:
        if isinstance(tensor, torch.Tensor) and tensor.nbytes > _LARGEST_CONSTANT:
            raise ModelError(
                f"the constant {step.name!r} of shape {tuple(tensor.shape)} takes {tensor.nbytes} "
                f"bytes; expected at most {_LARGEST_CONSTANT}"
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

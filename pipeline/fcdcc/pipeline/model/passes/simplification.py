"""Drops steps that do nothing in inference, and writes equivalent steps in one form.

Dropout and batch normalisation in training mode, with which the prediction of an image depends
on chance or on the other images of its batch, are refused here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import ModelError
from ..network import Ref, Step
from ..operators import bound_arguments, words
from ..pt2.program import TensorMeta
from ..rewriting import redirect_step
from .mutation import is_contiguous

# Return their first argument unchanged, dropouts in inference.
_IDENTITIES = words("detach detach_ alias lift lift_fresh requires_grad_")
_DROPOUTS = words(
    """
    dropout dropout_ feature_dropout feature_dropout_ alpha_dropout alpha_dropout_
    feature_alpha_dropout feature_alpha_dropout_
    """
)
# Assertions about sizes and types; the importer does not need them.
_CHECKS = words(
    """
    _assert_async _assert_scalar _assert_tensor_metadata _functional_assert_async
    _functional_assert_scalar sym_constrain_range sym_constrain_range_for_size
    _functional_sym_constrain_range _functional_sym_constrain_range_for_size
    """
)
_TRAINING_FLAGS = {
    **dict.fromkeys(words("batch_norm native_batch_norm rrelu rrelu_"), "training"),
    **dict.fromkeys(
        words("_native_batch_norm_legit _native_batch_norm_legit_functional"), "training"
    ),
    **dict.fromkeys(_DROPOUTS | words("native_dropout"), "train"),
}
_RECURRENT = words("gru lstm rnn_tanh rnn_relu")
_EVAL = "expected a network for inference: call model.eval() before the export"
# Uninitialised memory becomes zeros: otherwise predictions would differ from run to run.
_ZEROED = {
    "aten.empty.memory_format": "aten.zeros.default",
    "aten.new_empty.default": "aten.new_zeros.default",
    "aten.empty_like.default": "aten.zeros_like.default",
}
# Tensors filled with one number; constants where their shape is fixed.
_FILLED = {
    "aten.zeros_like.default": 0,
    "aten.new_zeros.default": 0,
    "aten.ones_like.default": 1,
    "aten.new_ones.default": 1,
}
# Their results depend on the order of elements in memory.
_LAYOUT_READERS = words(
    """
    as_strided as_strided_copy as_strided_scatter stride sym_stride storage_offset
    sym_storage_offset is_contiguous sym_is_contiguous
    """
)
# Replaced by reshape, which gives the same values and works for every layout in memory.
_RESHAPES = words("aten.view.default aten._unsafe_view.default")


def simplified(
    steps: Sequence[Step], output: str, metas: Mapping[str, TensorMeta]
) -> tuple[list[Step], str]:
    """Return the steps without those that do nothing in inference.

    The steps may change their arguments. The name of the output is returned too: it changes
    if the last step is dropped.

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
        _refuse_training(step, packet, metas)
        if packet in _IDENTITIES or packet in _DROPOUTS:
            same[step.name] = step.args[0]
        else:
            kept.append(_filled(step, metas))
    return kept, same[output].name if output in same else output


def _refuse_training(step: Step, packet: str, metas: Mapping[str, TensorMeta]) -> None:
    if packet == "scaled_dot_product_attention":
        if bound_arguments(step)["dropout_p"]:
            raise ModelError(f"{step.name!r} ({step.op}) drops values at random; {_EVAL}")
        return
    if packet in _RECURRENT:
        given = bound_arguments(step)
        if given["train"] and given["dropout"]:
            raise ModelError(f"{step.name!r} ({step.op}) drops values at random; {_EVAL}")
        return
    flag = _TRAINING_FLAGS.get(packet)
    if flag is None:
        return
    given = bound_arguments(step)
    if given[flag] is not False and not _is_of_one_image(given, metas):
        if "running_mean" in given and given["running_mean"] is None:
            raise ModelError(
                f"{step.name!r} ({step.op}) normalises by the mean of each batch; expected a "
                "prediction of each image by itself: make the layer with track_running_stats=True"
            )
        raise ModelError(f"{step.name!r} ({step.op}) runs in training mode; {_EVAL}")


def _is_of_one_image(given: Mapping[str, Any], metas: Mapping[str, TensorMeta]) -> bool:
    """Return whether a normalisation is over one image at a time, as in instance norm."""
    source = given.get("input")
    if given.get("running_mean") is not None or not isinstance(source, Ref):
        return False
    meta = metas.get(source.name)
    return meta is not None and len(meta.sizes) > 0 and meta.sizes[0] == 1


def _filled(step: Step, metas: Mapping[str, TensorMeta]) -> Step:
    op = _ZEROED.get(step.op, step.op)
    kwargs = step.kwargs
    if op != step.op:
        kwargs = {key: value for key, value in kwargs.items() if key != "memory_format"}
    meta = metas.get(step.name)
    if op not in _FILLED or meta is None or not all(isinstance(n, int) for n in meta.sizes):
        return step if op == step.op else Step(step.name, op, step.args, kwargs)
    return Step(
        step.name, "aten.full.default", (list(meta.sizes), _FILLED[op]), {"dtype": meta.dtype}
    )


def in_plain_form(steps: Sequence[Step], metas: Mapping[str, TensorMeta]) -> list[Step]:
    """Return the steps with one form for operators that PyTorch writes in several.

    The steps do not change their arguments any more, so copies may replace views, and values
    may have any layout in memory.

    Raises
    ------
    ModelError
        If the result of a step depends on a layout in memory that cannot be restored.
    """
    plain: list[Step] = []
    same: dict[str, Any] = {}
    tuples: set[str] = set()
    made: dict[str, Step] = {}
    for original in steps:
        step = redirect_step(original, same)
        if step.op in _RESHAPES:
            plain.append(Step(step.name, "aten.reshape.default", step.args, step.kwargs))
        elif step.op == "aten._native_batch_norm_legit_no_training.default":
            given = bound_arguments(step)
            names = ("input", "weight", "bias", "running_mean", "running_var")
            args = (*(given[name] for name in names), False, given["momentum"], given["eps"], False)
            plain.append(Step(step.name, "aten.batch_norm.default", args, {}))
            tuples.add(step.name)
        elif step.op == "operator.getitem" and step.args[0].name in tuples and step.args[1] == 0:
            same[step.name] = step.args[0]
        elif _undoes(step, made.get(_source(step)), metas):
            same[step.name] = made[_source(step)].args[0]
        elif step.op.split(".")[1] in _LAYOUT_READERS:
            plain.extend(_in_known_order(step, metas))
        else:
            plain.append(step)
        made[step.name] = step
    return plain


PERMUTATIONS = frozenset({"permute", "transpose", "movedim"})
"""Operators that change the order of axes."""


def permutation(step: Step, rank: int) -> list[int] | None:
    """Return the axes of its argument, of so many axes, in the order that a step gives them."""
    given = bound_arguments(step)
    packet = step.op.split(".")[1]
    if packet == "permute":
        return [dim % rank for dim in given["dims"]]
    order = list(range(rank))
    if packet == "transpose" and isinstance(given.get("dim0"), int):
        one, other = given["dim0"] % rank, given["dim1"] % rank
        order[one], order[other] = order[other], order[one]
        return order
    if packet == "movedim" and isinstance(given.get("source"), int):
        moved = order.pop(given["source"] % rank)
        order.insert(given["destination"] % rank, moved)
        return order
    return None


def _source(step: Step) -> str:
    return step.references[0] if step.references else ""


def _undoes(step: Step, earlier: Step | None, metas: Mapping[str, TensorMeta]) -> bool:
    """Return whether a step gives the axes of what an earlier step took their order again."""
    meta = metas.get(step.name)
    if earlier is None or meta is None:
        return False
    if not {op.split(".")[1] for op in (step.op, earlier.op)} <= PERMUTATIONS:
        return False
    rank = len(meta.sizes)
    first, second = permutation(earlier, rank), permutation(step, rank)
    if first is None or second is None:
        return False
    return [first[axis] for axis in second] == list(range(rank))


def _in_known_order(step: Step, metas: Mapping[str, TensorMeta]) -> list[Step]:
    """Return a step that reads memory by position, after making its argument contiguous."""
    source = step.args[0]
    if not isinstance(source, Ref) or not is_contiguous(metas.get(source.name)):
        raise ModelError(
            f"{step.name!r} ({step.op}) depends on how a tensor lies in memory; expected steps "
            "that depend on values only: use reshape, permute or unfold instead"
        )
    ordered = Step(f"{step.name}_ordered", "aten.contiguous.default", (source,), {})
    return [ordered, Step(step.name, step.op, (Ref(ordered.name), *step.args[1:]), step.kwargs)]

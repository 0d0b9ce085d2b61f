"""Which operators return views, and how a change to a view is carried back.

A view is the same memory under another shape. Where a schema says so plainly it is known
here; several operators return a view or a copy as the layout in memory has it, and there the
layout that the export recorded decides, if it recorded enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from ..network import Ref, Step
from ..operators import bound_arguments, is_number, may_alias, words
from ..pt2.program import TensorMeta

# Whether a step's result is the memory of its first argument.
Sharing: TypeAlias = Literal["same", "new", "doubtful"]

_ALWAYS = words(
    """
    aten.alias.default aten.detach.default aten.slice.Tensor aten.select.int
    aten.narrow.default aten.unsqueeze.default aten.squeeze.default aten.squeeze.dim
    aten.squeeze.dims aten.transpose.int aten.swapaxes.default aten.swapdims.default
    aten.t.default aten.permute.default aten.view.default aten.expand.default
    aten.diagonal.default aten.movedim.int aten.movedim.intlist aten.unfold.default
    """
)
_LISTS = words(
    """
    aten.chunk.default aten.split.Tensor aten.split.sizes aten.split_with_sizes.default
    aten.unbind.int aten.tensor_split.sections aten.tensor_split.indices
    """
)
# Views where the memory lies in order, as it does for most; copies where it does not.
_IN_ORDER = words(
    "aten.reshape.default aten.flatten.using_ints aten.unflatten.int aten.contiguous.default"
)
_CASTS = words("aten.to.dtype aten.type_as.default aten.to.device aten.to.dtype_layout")
# Undone by giving the members the shape that they had.
_RESHAPED = words(
    """
    aten.unsqueeze.default aten.squeeze.default aten.squeeze.dim aten.squeeze.dims
    aten.view.default aten.reshape.default aten.flatten.using_ints aten.unflatten.int
    """
)
_SAME_SHAPE = words("aten.alias.default aten.detach.default aten.contiguous.default") | _CASTS
_OWN_INVERSE = words(
    "aten.transpose.int aten.swapaxes.default aten.swapdims.default aten.t.default"
)
_SCATTERS = {
    "aten.slice.Tensor": "aten.slice_scatter.default",
    "aten.select.int": "aten.select_scatter.default",
    "aten.diagonal.default": "aten.diagonal_scatter.default",
}


def is_list_of_views(op: str) -> bool:
    """Return whether the operator returns a list of views of its first argument."""
    return op in _LISTS


def sharing(step: Step, metas: Mapping[str, TensorMeta]) -> Sharing:
    """Return whether a step's result is the memory of its first argument.

    Members of lists are not looked at: ``operator.getitem`` counts as new.
    """
    if step.op in _ALWAYS or step.op in _LISTS:
        return "same"
    if step.op == "operator.getitem" or is_number(step.op) or not may_alias(step.op):
        return "new"
    source = step.args[0] if step.args else None
    before = metas.get(source.name) if isinstance(source, Ref) else None
    after = metas.get(step.name)
    if before is None or after is None:
        return "doubtful"
    if step.op in _CASTS and before.dtype != after.dtype:
        return "new"
    if step.op in _IN_ORDER and len(step.kwargs) == 0:
        return "same" if lies_in_order(before) else "doubtful"
    return "doubtful"


def lies_in_order(meta: TensorMeta | None) -> bool:
    """Return whether a tensor is known to lie in memory without gaps, last axis fastest."""
    if meta is None:
        return False
    expected = 1
    for size, stride in zip(reversed(meta.sizes), reversed(meta.strides), strict=True):
        if size == 1:
            continue
        if stride != expected:
            return False
        # The first axis may be of any size: nothing lies beyond it.
        expected = expected * size if isinstance(size, int) else -1
    return True


def carried_back(link: Step, before: Ref, after: Ref, name: str) -> Step | None:
    """Return the step that puts a changed view back into what it is a view of.

    Parameters
    ----------
    link
        The step that made the view.
    before
        What it is a view of, unchanged.
    after
        The view, changed.
    name
        The name of the result: ``before`` with the change in it.

    Returns
    -------
    The step, or None where this kind of view cannot be put back.
    """
    if link.op in _SAME_SHAPE:
        return Step(name, "aten.alias.default", (after,), {})
    if link.op in _RESHAPED:
        return Step(name, "aten.reshape_as.default", (after, before), {})
    if link.op in _OWN_INVERSE:
        return Step(name, link.op, (after, *link.args[1:]), link.kwargs)
    if link.op in _SCATTERS:
        return Step(name, _SCATTERS[link.op], (before, after, *link.args[1:]), link.kwargs)
    if link.op == "aten.narrow.default":
        given = bound_arguments(link)
        start, length = given["start"], given["length"]
        if not (isinstance(start, int) and isinstance(length, int) and start >= 0):
            return None
        args = (before, after, given["dim"], start, start + length)
        return Step(name, "aten.slice_scatter.default", args, {})
    if link.op == "aten.permute.default":
        dims = bound_arguments(link)["dims"]
        places = [dim % len(dims) for dim in dims]
        inverse = [places.index(axis) for axis in range(len(places))]
        return Step(name, link.op, (after, inverse), {})
    return None

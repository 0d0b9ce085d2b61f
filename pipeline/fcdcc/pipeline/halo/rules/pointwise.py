"""Rules for pointwise operators, normalisation, and operators along one axis.

Operands are broadcast as in PyTorch. Operands without rows (a parameter for each channel, the
weights of a squeeze-excitation block) are used with every range; operands that are held whole
but have all rows, such as a parameter for each pixel, are cut to the range.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..operation import (
    Aligned,
    Call,
    NotLocalError,
    Operand,
    RowOperation,
    Rule,
    Source,
    aligned,
    source_of,
)
from ..ranges import Rows

_POINTWISE = """
    abs add addcdiv addcmul atan2 bitwise_and bitwise_not bitwise_or bitwise_xor ceil celu
    clamp clamp_max clamp_min clip clone contiguous copysign cos cosh div divide elu eq erf
    erfc exp exp2 expand_as expm1 floor floor_divide fmod frac full_like ge gelu gt hardshrink
    hardsigmoid hardswish hardtanh isfinite isinf isnan le leaky_relu lerp lgamma log log10
    log1p log2 log_sigmoid logical_and logical_not logical_or logical_xor logit lt masked_fill
    maximum minimum mish mul multiply nan_to_num ne neg negative ones_like positive pow
    reciprocal relu relu6 remainder round rrelu rsqrt rsub selu sgn sigmoid sign silu sin sinc
    sinh softplus softshrink sqrt square sub subtract tan tanh tanhshrink threshold to _to_copy
    true_divide trunc type_as where xlogy zeros_like
"""


def broadcast(call: Call) -> Aligned:
    """Return the operation of a step whose operands are broadcast against each other."""
    if not isinstance(call.result, torch.Tensor):
        raise NotLocalError("its result is not one tensor")
    ndim = call.result.ndim
    axes = {ndim - o.ndim + o.axis for o in call.operands if o.axis is not None}
    if len(axes) != 1:
        raise NotLocalError("broadcasting matches the rows of one operand with another axis")
    (axis,) = axes
    rows = int(call.result.shape[axis])
    found = (_broadcast_source(o, axis - (ndim - o.ndim), rows) for o in call.operands)
    return Aligned(call.op, axis, rows, tuple(source for source in found if source is not None))


def _broadcast_source(operand: Operand, axis: int, rows: int) -> Source | None:
    if operand.axis is not None:
        return source_of(operand)
    if axis < 0 or operand.shape[axis] != rows or rows == 1:
        return None
    return Source(operand.name, axis, rows, whole=True)


def _batch_norm(call: Call) -> RowOperation:
    """With fixed statistics: a scale and a shift for each channel."""
    x = call.main("input")
    if call.arguments.get("training", False):
        raise NotLocalError("batch normalisation by the statistics of its input")
    if x.axis == 1:
        raise NotLocalError("a batch normalisation that takes rows as channels")
    return aligned(call, x, x.rows_at)


class _FirstOfSeveral(Aligned):
    """An operator of which only the first result is by rows; the others are statistics."""

    @property
    def first_only(self) -> bool:
        """See :class:`RowOperation`."""
        return True


def _batch_norm_with_statistics(call: Call) -> RowOperation:
    found = _batch_norm(call)
    return _FirstOfSeveral(found.op, found.axis, found.rows, found.sources)


def _normalise_last_axes(call: Call) -> RowOperation:
    """Layer and RMS normalisation over axes other than the rows."""
    x = call.main("input")
    if x.rows_at >= x.ndim - len(call["normalized_shape"]):
        raise NotLocalError("it normalises over the rows")
    return aligned(call, x, x.rows_at)


def _native_layer_norm(call: Call) -> RowOperation:
    found = _normalise_last_axes(call)
    return _FirstOfSeveral(found.op, found.axis, found.rows, found.sources)


def _prelu(call: Call) -> RowOperation:
    x = call.main()
    if x.axis == 1 and call["weight"].tensor.numel() > 1:
        raise NotLocalError("a slope for each row")
    return aligned(call, x, x.rows_at)


def _along_axis(call: Call) -> RowOperation:
    """Operators such as softmax that combine values along one axis."""
    x = call.main()
    if int(call["dim"]) % x.ndim == x.axis:
        raise NotLocalError("it works along the rows")
    return aligned(call, x, x.rows_at)


def _channel_shuffle(call: Call) -> RowOperation:
    x = call.main()
    if x.rows_at == 1:
        raise NotLocalError("a channel shuffle that takes rows as channels")
    return aligned(call, x, x.rows_at)


def _linear(call: Call) -> RowOperation:
    x = call.main("input")
    if x.rows_at == x.ndim - 1:
        raise NotLocalError("a linear layer along the rows")
    return aligned(call, x, x.rows_at)


def _matmul(call: Call) -> RowOperation:
    x = call.main()
    if x.rows_at == x.ndim - 1 or call["other"].ndim != 2 or x.ndim < 2:
        raise NotLocalError("a matrix product along the rows")
    return aligned(call, x, x.rows_at)


class _Size(RowOperation):
    """The size of an axis: of the whole tensor along the rows, else of any range of rows."""

    @property
    def makes_number(self) -> bool:
        """See :class:`RowOperation`."""
        return True

    def needs(self, out: Rows) -> tuple[Rows | None, ...]:  # noqa: ARG002  # any rows will do
        """See :meth:`RowOperation.needs`."""
        return (None,)

    def run(
        self,
        arguments: Mapping[str, Any],
        out: Rows,  # noqa: ARG002  # the size is that of all rows
    ) -> int:
        """Return the size; see :meth:`RowOperation.run`."""
        x: torch.Tensor = arguments["self"]
        dim = int(arguments["dim"]) % x.ndim
        return self.source.rows if dim == self.source.axis else int(x.shape[dim])


def _size(call: Call) -> RowOperation:
    source = source_of(call.main())
    return _Size(call.op, source.axis, source.rows, (source,))


RULES: dict[str, Rule] = {
    **dict.fromkeys(_POINTWISE.split(), broadcast),
    "batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm_with_statistics,
    "layer_norm": _normalise_last_axes,
    "native_layer_norm": _native_layer_norm,
    "rms_norm": _normalise_last_axes,
    "prelu": _prelu,
    "_prelu_kernel": broadcast,
    "softmax": _along_axis,
    "_softmax": _along_axis,
    "log_softmax": _along_axis,
    "_log_softmax": _along_axis,
    "cumsum": _along_axis,
    "glu": _along_axis,
    "channel_shuffle": _channel_shuffle,
    "linear": _linear,
    "matmul": _matmul,
    "sym_size": _size,
}

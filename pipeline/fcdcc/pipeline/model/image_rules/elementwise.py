"""Rules of operators that work element by element, with PyTorch's broadcasting and casts."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .facts import (
    ArgumentsError,
    BatchSize,
    Facts,
    NotPerImageError,
    OperatorCall,
    Result,
    Rule,
    broadcast,
    check_fits,
    in_floating_point,
    keeps_image_axis,
    kind,
    like,
    made,
    names,
    promoted,
)

Typed = Callable[[OperatorCall], torch.dtype]


def operands_of(call: OperatorCall) -> list[Facts]:
    """Return the tensors of a step, after a check that no number depends on the batch."""
    found: list[Facts] = []
    for name, value in call.arguments.items():
        if isinstance(value, Facts):
            found.append(value)
        elif isinstance(value, BatchSize):
            raise NotPerImageError(f"its argument {name!r} depends on the number of images")
    if not found:
        raise ArgumentsError("it has no tensor among its arguments")
    return found


def _elementwise(typed: Typed) -> Rule:
    def rule(call: OperatorCall) -> Result:
        sizes, axis, outer = broadcast(operands_of(call), call.batch)
        return made(sizes, typed(call), axis, outer)

    return rule


def _same_type(call: OperatorCall) -> torch.dtype:
    """Return the type of the first tensor: parameters of activations do not widen it."""
    return operands_of(call)[0].dtype


def _squared(call: OperatorCall) -> torch.dtype:
    dtype = operands_of(call)[0].dtype
    return torch.int64 if dtype == torch.bool else dtype


def _angle(call: OperatorCall) -> torch.dtype:
    dtype = _in_floating_point(call)
    return dtype.to_real() if dtype.is_complex else dtype


def _promoted(call: OperatorCall) -> torch.dtype:
    return promoted(call.arguments.values())


def _arithmetic(call: OperatorCall) -> torch.dtype:
    """Return the promoted type of operands; ``alpha`` and ``value`` do not widen it."""
    named = call.arguments.items()
    found = promoted([v for name, v in named if name not in ("alpha", "value", "decimals")])
    minus = call.packet in ("sub", "subtract", "rsub")
    if minus and (kind(found) == 0 or isinstance(call["other"], bool)):
        raise ArgumentsError("it subtracts truth values")
    return found


def _in_floating_point(call: OperatorCall) -> torch.dtype:
    return in_floating_point(_promoted(call))


def _real(call: OperatorCall) -> torch.dtype:
    dtype = _promoted(call)
    return dtype.to_real() if dtype.is_complex else dtype


def _where(call: OperatorCall) -> torch.dtype:
    if call.tensor("condition").dtype != torch.bool:
        raise ArgumentsError("its condition is not of truth values")
    return promoted([call["self"], call["other"]])


def _division(call: OperatorCall) -> torch.dtype:
    rounding = call.arguments.get("rounding_mode")
    if rounding not in (None, "floor", "trunc"):
        raise ArgumentsError(f"its argument 'rounding_mode' is {rounding!r:.40}")
    return _promoted(call) if rounding else _in_floating_point(call)


def _inside(call: OperatorCall) -> Result:
    """Operators whose result has the shape of ``self``: the others are broadcast to it."""
    x = call.tensor()
    mask = call.arguments.get("mask")
    if mask is not None and call.tensor("mask").dtype != torch.bool:
        raise ArgumentsError("its mask is not of truth values")
    sizes, axis, outer = broadcast(operands_of(call), call.batch)
    if sizes != x.sizes or axis != x.axis:
        raise ArgumentsError(f"it writes values of shape {sizes} into a tensor of {x.sizes}")
    value = call.arguments.get("value")
    if isinstance(value, Facts) and value.ndim and call.packet == "masked_fill":
        raise ArgumentsError("it fills a tensor with one that has axes")
    check_fits(value, x.dtype)
    return made(sizes, x.dtype, axis, outer)


def _filled(call: OperatorCall) -> Result:
    """``fill`` and ``zero``: the shape of ``self`` with one number."""
    x = call.tensor()
    value = call.arguments.get("value", 0)
    if isinstance(value, BatchSize):
        raise NotPerImageError("its argument 'value' depends on the number of images")
    if isinstance(value, Facts):
        if value.ndim:
            raise ArgumentsError("it fills a tensor with one that has axes")
        if value.axis is not None:
            raise NotPerImageError("it fills a tensor with a value that depends on an image")
    check_fits(value, x.dtype)
    return like(x, x.sizes)


def _clamp(call: OperatorCall) -> Result:
    if call["min"] is None and call["max"] is None:
        raise ArgumentsError("it has neither a lower nor an upper bound")
    return _elementwise(_promoted)(call)


def _cast(call: OperatorCall) -> Result:
    x = call.tensor()
    other = call.arguments.get("other")
    operands_of(call)
    dtype = other.dtype if isinstance(other, Facts) else call.dtype(x.dtype)
    if call.arguments.get("layout") not in (None, torch.strided):
        raise ArgumentsError("it changes the layout of a tensor")
    if not isinstance(dtype, torch.dtype):
        raise ArgumentsError(f"its argument 'dtype' is {dtype!r:.40}")
    return made(x.sizes, dtype, x.axis, x.outer)


def _part_of_complex(call: OperatorCall) -> Result:
    x = call.tensor()
    return made(x.sizes, x.dtype.to_real() if x.dtype.is_complex else x.dtype, x.axis, x.outer)


def _imaginary(call: OperatorCall) -> Result:
    if not call.tensor().dtype.is_complex:
        raise ArgumentsError("it takes the imaginary part of real numbers")
    return _part_of_complex(call)


def _complex(call: OperatorCall) -> Result:
    operands = operands_of(call)
    sizes, axis, outer = broadcast(operands, call.batch)
    first = operands[0].dtype
    if first not in (torch.float32, torch.float64) or any(o.dtype != first for o in operands):
        raise ArgumentsError("it joins a real and an imaginary part of types that do not fit")
    return made(sizes, first.to_complex(), axis, outer)


def _view_as_real(call: OperatorCall) -> Result:
    x = call.tensor()
    if not x.dtype.is_complex:
        raise ArgumentsError("it takes the parts of real numbers")
    return made((*x.sizes, 2), x.dtype.to_real(), x.axis, x.outer)


def _view_as_complex(call: OperatorCall) -> Result:
    x = call.tensor()
    if x.dtype not in (torch.float32, torch.float64) or not x.sizes or x.sizes[-1] != 2:
        raise ArgumentsError(f"it takes pairs of numbers, not {x.sizes} of {x.dtype}")
    if x.axis == x.ndim - 1:
        raise NotPerImageError("it makes one number of two images")
    return made(x.sizes[:-1], x.dtype.to_complex(), x.axis, x.outer)


def _prelu(call: OperatorCall) -> Result:
    x, weight = call.tensor(), call.tensor("weight")
    if weight.axis is not None:
        raise NotPerImageError("its slopes depend on the images")
    channels = x.sizes[1] if x.ndim > 1 else 1
    if weight.ndim > 1 or weight.elements not in (1, channels) or weight.dtype != x.dtype:
        raise ArgumentsError(f"it has slopes of shape {weight.sizes} for {channels} channels")
    if weight.elements != 1:
        keeps_image_axis(x, [1], "has a slope for each channel, which it takes")
    return like(x, x.sizes)


def _glu(call: OperatorCall) -> Result:
    x = call.tensor()
    axis = call.axis_of("dim", x.ndim)
    keeps_image_axis(x, [axis], "multiplies halves")
    if not x.sizes or x.sizes[axis] % 2:
        raise ArgumentsError(f"it halves axis {axis} of a tensor of shape {x.sizes}")
    sizes = list(x.sizes)
    sizes[axis] //= 2
    return like(x, sizes)


def _rrelu(call: OperatorCall) -> Result:
    if call["training"] is not False:
        raise ArgumentsError("it draws random numbers: call model.eval() before the export")
    if not call["lower"] <= call["upper"]:
        raise ArgumentsError(f"it has slopes from {call['lower']} to {call['upper']}")
    return like(call.tensor(), call.tensor().sizes)


def _one_hot(call: OperatorCall) -> Result:
    x = call.tensor()
    classes = call.integer("num_classes", 1)
    if x.dtype != torch.int64:
        raise ArgumentsError(f"it takes classes of {x.dtype}; expected int64")
    return made((*x.sizes, classes), torch.int64, x.axis, x.outer)


def _bucketize(call: OperatorCall) -> Result:
    x, limits = call.tensor(), call.tensor("boundaries")
    if limits.ndim != 1 or limits.axis is not None:
        raise ArgumentsError("its boundaries are not one list of constants")
    dtype = torch.int32 if call.flag("out_int32") else torch.int64
    return made(x.sizes, dtype, x.axis, x.outer)


def _elementwise_truth(call: OperatorCall) -> Result:
    sizes, axis, outer = broadcast(operands_of(call), call.batch)
    return made(sizes, torch.bool, axis, outer)


def _of_one_type(typed: Typed) -> Rule:
    """Return the rule of an operator whose operands must be of one type."""

    def rule(call: OperatorCall) -> Result:
        operands = operands_of(call)
        if any(operand.dtype != operands[0].dtype for operand in operands):
            types = ", ".join(str(operand.dtype) for operand in operands)
            raise ArgumentsError(f"it combines values of the types {types}")
        return _elementwise(typed)(call)

    return rule


def _bitwise(call: OperatorCall) -> Result:
    for value in call.arguments.values():
        if not isinstance(value, (Facts, int)):
            raise ArgumentsError(f"it combines the bits of {value!r:.40}")
    return _elementwise(_promoted)(call)


def _rounded(call: OperatorCall) -> Result:
    if "decimals" in call.arguments:
        call.integer("decimals")
    return _same(call)


_same = _elementwise(_same_type)

RULES: dict[str, Rule] = {
    **dict.fromkeys(
        names("""
        abs absolute neg negative positive ceil floor round trunc fix frac sign sgn relu
        clone contiguous alias detach lift_fresh_copy lift_fresh conj_physical conj resolve_conj
        resolve_neg nan_to_num bitwise_not relu6 gelu silu mish hardswish hardsigmoid hardtanh
        leaky_relu elu celu selu softplus log_sigmoid hardshrink softshrink threshold
        """),
        _same,
    ),
    "abs": _elementwise(_real),
    "absolute": _elementwise(_real),
    "angle": _elementwise(_angle),
    "square": _elementwise(_squared),
    **dict.fromkeys(
        names("""
        acos acosh asin asinh atan atanh cos cosh sin sinh tan tanh exp exp2 expm1 log log10 log1p
        log2 sqrt rsqrt erf erfc erfinv lgamma digamma sigmoid reciprocal sinc logit deg2rad
        rad2deg atan2 arctan2 copysign xlogy special_expit special_erf special_exp2 special_expm1
        special_log1p special_logit special_sinc special_xlogy
        """),
        _elementwise(_in_floating_point),
    ),
    **dict.fromkeys(
        names("""
        isnan isinf isfinite isposinf isneginf signbit logical_not logical_and logical_or
        logical_xor eq ne lt le gt ge not_equal less less_equal greater greater_equal isclose
        """),
        _elementwise_truth,
    ),
    **dict.fromkeys(
        names("""
        add sub mul rsub multiply subtract addcmul addcdiv
        """),
        _elementwise(_arithmetic),
    ),
    **dict.fromkeys(
        names("""
        maximum minimum fmax fmin fmod remainder floor_divide pow hypot logaddexp
        clamp_max clamp_min
        """),
        _elementwise(_promoted),
    ),
    **dict.fromkeys(("div", "divide", "true_divide"), _elementwise(_division)),
    **dict.fromkeys(("clamp", "clip"), _clamp),
    "where": _elementwise(_where),
    **dict.fromkeys(("masked_fill", "copy"), _inside),
    **dict.fromkeys(("fill", "zero"), _filled),
    **dict.fromkeys(("to", "_to_copy", "type_as"), _cast),
    **dict.fromkeys(("heaviside", "lerp"), _of_one_type(_promoted)),
    **dict.fromkeys(names("bitwise_and bitwise_or bitwise_xor __and__ __or__ __xor__"), _bitwise),
    "isclose": _of_one_type(lambda call: torch.bool),  # noqa: ARG005  # whatever it compares
    "round": _rounded,
    "real": _part_of_complex,
    "imag": _imaginary,
    "complex": _complex,
    "polar": _complex,
    "view_as_real": _view_as_real,
    "view_as_complex": _view_as_complex,
    "prelu": _prelu,
    "_prelu_kernel": _of_one_type(_same_type),
    "glu": _glu,
    "rrelu": _rrelu,
    "one_hot": _one_hot,
    "bucketize": _bucketize,
}

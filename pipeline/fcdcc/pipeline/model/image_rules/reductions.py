"""Rules of operators that combine the values along axes: reductions, norms, softmax, sorting."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from .elementwise import operands_of
from .facts import (
    ArgumentsError,
    BatchSize,
    Facts,
    NotPerImageError,
    OperatorCall,
    Result,
    Rule,
    as_axis,
    broadcast,
    in_floating_point,
    keeps_image_axis,
    kind,
    like,
    made,
    names,
    promoted,
)


def _reduced_axes(call: OperatorCall, x: Facts) -> list[int]:
    """Return the axes that a step reduces; all of them where none are named."""
    dims = call.arguments.get("dim")
    if dims is None or dims == []:
        return list(range(x.ndim))
    return call.axes_of("dim", x.ndim)


def without(x: Facts, axes: Sequence[int], keep: bool, dtype: torch.dtype) -> Facts:
    """Return the facts of x reduced over axes that are not the images'."""
    gone = set(axes)
    if keep:
        sizes = [1 if axis in gone else size for axis, size in enumerate(x.sizes)]
        return made(sizes, dtype, x.axis, x.outer)
    sizes = [size for axis, size in enumerate(x.sizes) if axis not in gone]
    axis = None if x.axis is None else x.axis - sum(a < x.axis for a in gone)
    return made(sizes, dtype, axis, x.outer)


def _reduction(what: str, result: str = "same", needs_elements: bool = False) -> Rule:
    """Return the rule of a reduction.

    Parameters
    ----------
    what
        What it does, as a phrase.
    result
        ``same``, ``sum`` (integers become int64), ``real`` (needs floating point), ``truth`` or
        ``places`` (int64).
    needs_elements
        Whether it has no value over no elements.
    """

    def rule(call: OperatorCall) -> Result:
        x = call.tensor()
        axes = _reduced_axes(call, x)
        if call.packet in ("logsumexp", "all", "any") and call.arguments.get("dim") == []:
            raise ArgumentsError("it names no axis")
        keeps_image_axis(x, axes, what)
        if needs_elements and any(x.sizes[axis] == 0 for axis in axes if x.sizes):
            raise ArgumentsError(f"it {what} over no elements: its operand has {x.sizes}")
        dtype = _type_of(call, x, result)
        keep = bool(call.arguments.get("keepdim"))
        found = without(x, axes, keep, dtype)
        if call.overload in ("dim", "dim_max", "dim_min") and call.packet in (
            "max",
            "min",
            "median",
        ):
            return [found, without(x, axes, keep, torch.int64)]
        return found

    return rule


def _type_of(call: OperatorCall, x: Facts, result: str) -> torch.dtype:
    if result == "truth":
        return torch.uint8 if x.dtype == torch.uint8 else torch.bool
    if result == "places":
        return torch.int64
    wanted = call.arguments.get("dtype")
    if wanted is not None:
        if result == "real" and kind(wanted) < 2:
            raise ArgumentsError(f"it computes a mean in {wanted}")
        return wanted  # type: ignore[no-any-return]  # checked where arguments are read
    if result == "sum":
        return torch.int64 if kind(x.dtype) < 2 else x.dtype
    if result == "real":
        if kind(x.dtype) < 2:
            raise ArgumentsError(f"it computes a mean of {x.dtype}; expected floating point")
        return x.dtype
    return in_floating_point(x.dtype) if result == "float" else x.dtype


def _extremum(call: OperatorCall) -> Result:
    if "other" in call.arguments:
        operands = operands_of(call)
        sizes, axis, outer = broadcast(operands, call.batch)
        return made(sizes, promoted(operands), axis, outer)
    return _reduction("takes an extremum", needs_elements=True)(call)


def _with_mean(call: OperatorCall) -> Result:
    """``std_mean`` and ``var_mean``."""
    found = _mean(call)
    return [_variance(call), found]  # type: ignore[list-item]  # both are tensors


def _variance(call: OperatorCall) -> Result:
    return _in_real_numbers(_reduction("takes a variance", "real")(call))


def _in_real_numbers(found: Result) -> Facts:
    assert isinstance(found, Facts)  # noqa: S101 - for the type checker
    real = found.dtype.to_real() if found.dtype.is_complex else found.dtype
    return made(found.sizes, real, found.axis, found.outer)


def _norm(call: OperatorCall) -> Result:
    order = call.arguments.get("ord", call.arguments.get("p", 2))
    if isinstance(order, BatchSize):
        raise NotPerImageError("its order depends on the number of images")
    if order is not None and not isinstance(order, (int, float)):
        raise ArgumentsError(f"it takes a norm of order {order!r:.40}")
    wanted = call.arguments.get("dtype")
    if wanted is not None and call.tensor().dtype.is_complex and not wanted.is_complex:
        raise ArgumentsError(f"it takes a norm of {call.tensor().dtype} in {wanted}")
    empty = order in (math.inf, -math.inf) or (order is not None and order < 0)
    return _in_real_numbers(_reduction("takes a norm", "real", needs_elements=empty)(call))


def _along_axis(what: str, result: str = "same") -> Rule:
    """Return the rule of an operator that keeps the shape and combines values along an axis."""

    def rule(call: OperatorCall) -> Result:
        x = call.tensor()
        axis = call.axis_of("dim", x.ndim)
        keeps_image_axis(x, [axis], what)
        dtype = x.dtype
        if result == "sum" and kind(dtype) < 2:
            dtype = torch.int64
        if result == "real" and call.arguments.get("dtype") is None and kind(dtype) != 2:
            raise ArgumentsError(f"it takes {dtype}; expected floating point")
        if call.arguments.get("half_to_float"):
            raise ArgumentsError("it casts half precision as it goes")
        return made(x.sizes, call.dtype(dtype), x.axis, x.outer)

    return rule


def _running_extremum(call: OperatorCall) -> Result:
    x = call.tensor()
    keeps_image_axis(x, [call.axis_of("dim", x.ndim)], "takes a running extremum")
    return [like(x, x.sizes), made(x.sizes, torch.int64, x.axis, x.outer)]


def _sorted(call: OperatorCall) -> Result:
    x = call.tensor()
    keeps_image_axis(x, [call.axis_of("dim", x.ndim)], "sorts")
    if x.dtype.is_complex:
        raise ArgumentsError("it sorts complex numbers")
    call.work = x.elements * max(x.elements.bit_length(), 1)
    places = made(x.sizes, torch.int64, x.axis, x.outer)
    return places if call.packet == "argsort" else [like(x, x.sizes), places]


def _topk(call: OperatorCall) -> Result:
    x = call.tensor()
    axis = call.axis_of("dim", x.ndim)
    keeps_image_axis(x, [axis], "takes the largest")
    count = call.integer("k", 0)
    if x.dtype.is_complex or count > (x.sizes[axis] if x.sizes else 1):
        raise ArgumentsError(f"it takes {count} of a tensor of shape {x.sizes}, {x.dtype}")
    sizes = list(x.sizes)
    if sizes:
        sizes[axis] = count
    call.work = x.elements * max(x.elements.bit_length(), 1)
    return [like(x, sizes), made(sizes, torch.int64, x.axis, x.outer)]


HALF = (torch.float16, torch.bfloat16)


def _channels(call: OperatorCall, x: Facts, name: str, count: int, axis: int) -> None:
    """Check a list of numbers for each channel; it may hold those of the images side by side."""
    found = call.optional(name)
    if found is None:
        return
    if found.ndim != 1 or found.sizes[0] != count:
        raise ArgumentsError(f"its argument {name!r} has the shape {found.sizes}, not ({count},)")
    if found.dtype != x.dtype and not (x.dtype in HALF and found.dtype == torch.float32):
        raise ArgumentsError(f"its argument {name!r} is of {found.dtype}, its operand of {x.dtype}")
    along = x.axis == axis
    if found.axis is not None and not (along and found.outer == x.outer):
        raise NotPerImageError(f"its argument {name!r} depends on the images")
    if found.axis is None and along:
        raise NotPerImageError("it has numbers of its own for each image")


def _batch_norm(call: OperatorCall) -> Result:
    x = call.tensor("input")
    if x.ndim < 2 or kind(x.dtype) != 2 or not x.elements:
        raise ArgumentsError(f"it normalises a tensor of shape {x.sizes}, {x.dtype}")
    for name in ("weight", "bias", "running_mean", "running_var"):
        _channels(call, x, name, x.sizes[1], 1)
    statistics = [call.arguments.get(name) is not None for name in ("running_mean", "running_var")]
    training = call.arguments.get("training", call.arguments.get("use_input_stats", False))
    if call.packet == "_native_batch_norm_legit" and call.overload == "no_stats":
        statistics = [False, False]
    if call.packet == "_native_batch_norm_legit" and training is not True:
        raise ArgumentsError("it normalises by statistics that it does not have")
    if training is not False:
        if any(statistics):
            raise ArgumentsError(
                "it changes running statistics: call model.eval() before the export"
            )
        keeps_image_axis(x, [axis for axis in range(x.ndim) if axis != 1], "normalises")
    elif not all(statistics):
        raise ArgumentsError("it normalises by statistics that it does not have")
    found = like(x, x.sizes)
    if call.packet == "batch_norm":
        return found
    kept = made([0 if training is False else x.sizes[1]], x.dtype, x.axis and 0, x.outer)
    return [found, kept, kept]


def _instance_norm(call: OperatorCall) -> Result:
    x = call.tensor("input")
    if x.ndim < 3 or kind(x.dtype) != 2 or math.prod(x.sizes[2:]) == 0:
        raise ArgumentsError(f"it normalises a tensor of shape {x.sizes}, {x.dtype}")
    if x.axis not in (None, 0):
        raise NotPerImageError("it normalises across images")
    for name in ("weight", "bias", "running_mean", "running_var"):
        _channels(call, x, name, x.sizes[1], 1)
    if call["use_input_stats"] is not True:
        if call["running_mean"] is None or call["running_var"] is None:
            raise ArgumentsError("it normalises by statistics that it does not have")
    elif call["running_mean"] is not None or call["running_var"] is not None:
        raise ArgumentsError("it changes running statistics: call model.eval() before the export")
    return like(x, x.sizes)


def _layer_norm(call: OperatorCall) -> Result:
    x = call.tensor("input")
    shape = tuple(call.integers("normalized_shape", None, 0))
    first = x.ndim - len(shape)
    if not shape or first < 0 or x.sizes[first:] != shape or kind(x.dtype) != 2:
        raise ArgumentsError(f"it normalises {shape} of a tensor of shape {x.sizes}, {x.dtype}")
    keeps_image_axis(x, range(first, x.ndim), "normalises")
    for name in ("weight", "bias"):
        found = call.optional(name)
        if found is None:
            continue
        if found.axis is not None:
            raise NotPerImageError(f"its argument {name!r} depends on the images")
        half = x.dtype in HALF and found.dtype == torch.float32
        if found.sizes != shape or not (half or found.dtype == x.dtype):
            raise ArgumentsError(f"its argument {name!r} has the shape {found.sizes}, not {shape}")
    found_x = like(x, x.sizes)
    statistics = made([*x.sizes[:first], *[1] * len(shape)], x.dtype, x.axis, x.outer)
    if call.packet == "native_layer_norm":
        return [found_x, statistics, statistics]
    return [found_x, statistics] if call.packet == "_fused_rms_norm" else found_x


def _group_norm(call: OperatorCall) -> Result:
    x = call.tensor("input")
    groups = call.integer("num_groups" if "num_groups" in call.arguments else "group", 1)
    if x.ndim < 2 or kind(x.dtype) != 2 or x.sizes[1] % groups or not x.elements:
        raise ArgumentsError(f"it normalises {groups} groups of a tensor of shape {x.sizes}")
    if x.axis not in (None, 0):
        raise NotPerImageError("it normalises across images")
    for name in ("weight", "bias"):
        _channels(call, x, name, x.sizes[1], 1)
    if call.packet == "group_norm":
        return like(x, x.sizes)
    sizes = (call["N"], call["C"], call["HxW"])
    whole = x.sizes[0] if x.axis is None or call.batch is None else x.sizes[0] * call.batch
    images = BatchSize(whole) if x.axis is not None and call.batch is None else whole
    if sizes != (images, x.sizes[1], math.prod(x.sizes[2:])):
        raise ArgumentsError(f"it is told sizes that are not those of its operand, {x.sizes}")
    statistics = made([x.sizes[0], groups], x.dtype, x.axis, x.outer)
    return [like(x, x.sizes), statistics, statistics]


def _cosine_similarity(call: OperatorCall) -> Result:
    operands = [call.tensor("x1"), call.tensor("x2")]
    sizes, axis, outer = broadcast(operands, call.batch)
    x = made(sizes, promoted(operands), axis, outer)
    if kind(x.dtype) != 2:
        raise ArgumentsError(f"it compares directions of {x.dtype}")
    reduced = as_axis(call["dim"], x.ndim)
    keeps_image_axis(x, [reduced], "compares directions")
    return without(x, [reduced], False, x.dtype)


def _fft(call: OperatorCall) -> Result:
    """Fourier transforms over axes that are not the images'."""
    x = call.tensor()
    name = call.packet.removeprefix("fft_")
    axes = [call.axis_of("dim", x.ndim)] if name[-1] == "t" else _fft_axes(call, x)
    keeps_image_axis(x, axes, "transforms")
    given = call.arguments.get("n", call.arguments.get("s"))
    wanted = [None] * len(axes) if given is None else given if isinstance(given, list) else [given]
    if len(wanted) != len(axes) or not axes or not x.sizes or not x.elements:
        raise ArgumentsError(f"it transforms the axes {axes} to the sizes {wanted}")
    if call["norm"] not in (None, "forward", "backward", "ortho"):
        raise ArgumentsError(f"its argument 'norm' is {call['norm']!r:.40}")
    sizes = list(x.sizes)
    last = axes[-1]
    inverse_real = name.startswith("irfft")
    for axis, size in zip(axes, wanted, strict=True):
        if isinstance(size, BatchSize):
            raise NotPerImageError("it transforms to a size that depends on the number of images")
        own = sizes[axis]
        if size is None or (size == -1 and given is None):
            size = 2 * (own - 1) if inverse_real and axis == last else own
        if not isinstance(size, int) or size < 1:
            raise ArgumentsError(f"it transforms axis {axis} to {size} entries")
        sizes[axis] = size // 2 + 1 if name.startswith("rfft") and axis == last else size
    real = name.startswith("rfft")
    if real and x.dtype.is_complex:
        raise ArgumentsError("it transforms complex numbers as real ones")
    if kind(x.dtype) < 2:
        raise ArgumentsError(f"it transforms {x.dtype}; expected floating point")
    complexes = x.dtype if x.dtype.is_complex else x.dtype.to_complex()
    dtype = complexes.to_real() if inverse_real else complexes
    found = made(sizes, dtype, x.axis, x.outer)
    call.work = 8 * max(x.elements, found.elements) * max(found.elements.bit_length(), 1)
    return found


def _fft_axes(call: OperatorCall, x: Facts) -> list[int]:
    if call["dim"] is not None:
        return call.axes_of("dim", x.ndim)
    if call.arguments.get("s") is not None:
        raise ArgumentsError("it transforms to sizes of axes that it does not name")
    return list(range(x.ndim))


def _fft_shift(call: OperatorCall) -> Result:
    x = call.tensor()
    axes = list(range(x.ndim)) if call["dim"] is None else call.axes_of("dim", x.ndim)
    keeps_image_axis(x, axes, "rolls")
    if not axes:
        raise ArgumentsError("it rolls no axis")
    return like(x, x.sizes)


_mean = _reduction("takes a mean", "real")

RULES: dict[str, Rule] = {
    **dict.fromkeys(("mean", "nanmean"), _mean),
    **dict.fromkeys(("sum", "nansum"), _reduction("takes a sum", "sum")),
    **dict.fromkeys(("amax", "amin"), _reduction("takes an extremum", needs_elements=True)),
    **dict.fromkeys(("max", "min"), _extremum),
    "prod": _reduction("takes a product", "sum"),
    **dict.fromkeys(("std", "var"), _variance),
    **dict.fromkeys(("std_mean", "var_mean"), _with_mean),
    "logsumexp": _reduction("takes a sum", "float"),
    **dict.fromkeys(("argmax", "argmin"), _reduction("looks for an extremum", "places", True)),
    **dict.fromkeys(("linalg_vector_norm", "norm", "frobenius_norm"), _norm),
    **dict.fromkeys(("all", "any"), _reduction("tests values", "truth")),
    "count_nonzero": _reduction("counts", "places"),
    **dict.fromkeys(("softmax", "log_softmax"), _along_axis("takes a softmax", "real")),
    **dict.fromkeys(("_softmax", "_log_softmax"), _along_axis("takes a softmax", "real")),
    "_safe_softmax": _along_axis("takes a softmax", "real"),
    **dict.fromkeys(
        ("special_softmax", "special_log_softmax"), _along_axis("takes a softmax", "real")
    ),
    **dict.fromkeys(("cumsum", "cumprod"), _along_axis("takes running totals", "sum")),
    "logcumsumexp": _along_axis("takes running totals", "real"),
    **dict.fromkeys(("cummax", "cummin"), _running_extremum),
    **dict.fromkeys(("sort", "argsort"), _sorted),
    "topk": _topk,
    **dict.fromkeys(("batch_norm", "_native_batch_norm_legit"), _batch_norm),
    "instance_norm": _instance_norm,
    **dict.fromkeys(("layer_norm", "native_layer_norm", "rms_norm"), _layer_norm),
    "_fused_rms_norm": _layer_norm,
    **dict.fromkeys(("group_norm", "native_group_norm"), _group_norm),
    "cosine_similarity": _cosine_similarity,
    **dict.fromkeys(
        names("""
        fft_fft fft_ifft fft_rfft fft_irfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn
        fft_ifftn fft_rfftn fft_irfftn
        """),
        _fft,
    ),
    **dict.fromkeys(("fft_fftshift", "fft_ifftshift"), _fft_shift),
}

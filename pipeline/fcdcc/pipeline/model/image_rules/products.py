"""Rules of matrix products, attention and recurrent layers."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch

from .facts import (
    ArgumentsError,
    Facts,
    NotPerImageError,
    OperatorCall,
    Result,
    Rule,
    broadcast,
    is_uniform,
    kind,
    made,
)


def _checked_types(operands: Sequence[Facts]) -> None:
    first = operands[0].dtype
    if any(operand.dtype != first for operand in operands) or kind(first) < 1:
        raise ArgumentsError(f"it multiplies {', '.join(str(o.dtype) for o in operands)}")


def _independent(call: OperatorCall, name: str) -> Facts | None:
    """Return an optional tensor that must be the same for all images."""
    found = call.optional(name)
    if found is not None and found.axis is not None:
        raise NotPerImageError(f"its argument {name!r} depends on the images")
    return found


def product(call: OperatorCall, x: Facts, y: Facts) -> Facts:
    """Return the facts of a matrix product, batches of matrices broadcast."""
    _checked_types([x, y])
    if not x.ndim or not y.ndim:
        raise ArgumentsError("it multiplies a tensor without axes")
    x_sizes = x.sizes if x.ndim > 1 else (1, *x.sizes)
    y_sizes = y.sizes if y.ndim > 1 else (*y.sizes, 1)
    if x_sizes[-1] != y_sizes[-2]:
        raise ArgumentsError(f"it multiplies the shapes {x.sizes} and {y.sizes}")
    if x.axis == x.ndim - 1 or y.axis == max(y.ndim - 2, 0):
        raise NotPerImageError("it takes sums over the images of a batch")
    rows = x.axis is not None and x.axis == x.ndim - 2
    columns = y.axis is not None and y.axis == y.ndim - 1 and y.ndim > 1
    if (rows and y.axis is not None) or (columns and x.axis is not None):
        raise NotPerImageError("it multiplies images by other images")
    batches = [
        Facts(sizes[:-2], f.dtype, None if inside else f.axis, f.outer)
        for sizes, f, inside in ((x_sizes, x, rows), (y_sizes, y, columns))
    ]
    sizes, axis, outer = broadcast(batches, call.batch)
    whole = [*sizes]
    if x.ndim > 1:
        whole.append(x_sizes[-2])
    if y.ndim > 1:
        whole.append(y_sizes[-1])
    if rows:
        axis, outer = len(sizes), x.outer
    elif columns:
        axis, outer = len(whole) - 1, y.outer
    found = made(whole, x.dtype, axis, outer)
    call.work = found.elements * x_sizes[-1]
    return found


def _matmul(call: OperatorCall) -> Result:
    x, y = call.tensor(), call.tensor("mat2" if "mat2" in call.arguments else "other")
    ndim = {"mm": 2, "bmm": 3}.get(call.packet)
    if ndim is not None:
        if x.ndim != ndim or y.ndim != ndim:
            raise ArgumentsError(f"it multiplies the shapes {x.sizes} and {y.sizes}")
        if ndim == 3 and (x.sizes[0], x.axis == 0) != (y.sizes[0], y.axis == 0):
            raise ArgumentsError(f"it multiplies the shapes {x.sizes} and {y.sizes}")
    return product(call, x, y)


def _matrix_vector(call: OperatorCall) -> Result:
    x, y = call.tensor(), call.tensor("vec")
    if x.ndim != 2 or y.ndim != 1:
        raise ArgumentsError(f"it multiplies the shapes {x.sizes} and {y.sizes}")
    return product(call, x, y)


def _product_and_sum(call: OperatorCall) -> Result:
    """``addmm`` and ``baddbmm``: a sum of a tensor and a matrix product."""
    names = ("mat1", "mat2") if call.packet == "addmm" else ("batch1", "batch2")
    ndim = 2 if call.packet == "addmm" else 3
    x, y = (call.tensor(name) for name in names)
    if x.ndim != ndim or y.ndim != ndim:
        raise ArgumentsError(f"it multiplies the shapes {x.sizes} and {y.sizes}")
    if ndim == 3 and (x.sizes[0], x.axis == 0) != (y.sizes[0], y.axis == 0):
        raise ArgumentsError(f"it multiplies the shapes {x.sizes} and {y.sizes}")
    for name in ("alpha", "beta"):
        if not isinstance(call[name], (int, float)):
            raise ArgumentsError(f"its argument {name!r} is {call[name]!r:.40}")
    found = product(call, x, y)
    added = call.tensor()
    _checked_types([added, x])
    sizes, axis, outer = broadcast([added, found], call.batch)
    if sizes != found.sizes or (axis, outer) != (found.axis, found.outer):
        raise ArgumentsError(f"it adds the shape {added.sizes} to {found.sizes}")
    return found


def _linear(call: OperatorCall) -> Result:
    x, weight, bias = call.tensor("input"), call.tensor("weight"), _independent(call, "bias")
    if weight.axis is not None:
        raise NotPerImageError("its weights depend on the images")
    if weight.ndim != 2 or not x.ndim or x.sizes[-1] != weight.sizes[1]:
        raise ArgumentsError(f"it has weights of shape {weight.sizes} for values of {x.sizes}")
    _checked_types([x, weight])
    if bias is not None and (bias.sizes != weight.sizes[:1] or bias.dtype != x.dtype):
        raise ArgumentsError(f"it has a bias of shape {bias.sizes} for {weight.sizes[0]} outputs")
    if x.axis == x.ndim - 1:
        raise NotPerImageError("it takes sums over the images of a batch")
    found = made([*x.sizes[:-1], weight.sizes[0]], x.dtype, x.axis, x.outer)
    call.work = found.elements * weight.sizes[1]
    return found


_EQUATION = re.compile(r"[A-Za-z., ]+(->[A-Za-z. ]*)?")
_MAX_EQUATION_CHARACTERS = 200


def _einsum(call: OperatorCall) -> Result:
    operands, equation = call.tensors("tensors"), call["equation"]
    if (
        not isinstance(equation, str)
        or len(equation) > _MAX_EQUATION_CHARACTERS
        or _EQUATION.fullmatch(equation) is None
    ):
        raise ArgumentsError(f"its equation is {equation!r:.60}")
    if call.arguments.get("path") is not None:
        raise ArgumentsError("it is given an order of products; expected it to choose one")
    _checked_types(operands)
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(operands) or "." in equation.replace("...", ""):
        raise ArgumentsError(f"its equation {equation!r} does not fit {len(operands)} tensors")
    labelled = [_labels(term, o.ndim) for term, o in zip(terms, operands, strict=True)]
    dots = max((sum(isinstance(n, int) for n in names) for names in labelled), default=0)
    sizes: dict[str | int, int] = {}
    images: str | int | None = None
    structure: tuple[int, int] | None = None
    for names, operand in zip(labelled, operands, strict=True):
        for place, name in enumerate(names):
            size = operand.sizes[place]
            if place == operand.axis:
                own = (operand.outer, size)
                if (
                    names.count(name) > 1
                    or structure not in (None, own)
                    or images not in (None, name)
                ):
                    raise NotPerImageError("the images of one operand meet other images of another")
                images, structure = name, own
            if sizes.get(name, 1) == 1:
                sizes[name] = size
            elif size not in (1, sizes[name]):
                raise ArgumentsError(f"its equation {equation!r} does not fit {operand.sizes}")
    for names, operand in zip(labelled, operands, strict=True):
        if images in names and operand.axis is None and operand.sizes[names.index(images)] != 1:
            raise NotPerImageError("a constant has values of its own for some images")
    if arrow:
        kept = _labels(right, (len(right) - 3 + dots) if "..." in right else len(right))
    else:
        flat = [name for names in labelled for name in names if isinstance(name, str)]
        kept = [*range(-dots, 0), *sorted(n for n in set(flat) if flat.count(n) == 1)]
    if len(set(kept)) != len(kept) or not set(kept) <= set(sizes):
        raise ArgumentsError(f"its equation is {equation!r}")
    if images is not None and images not in kept:
        raise NotPerImageError("it takes sums over the images of a batch")
    axis = None if images is None else kept.index(images)
    found = made([sizes[name] for name in kept], operands[0].dtype, axis, (structure or (1, 1))[0])
    call.work = math.prod(sizes.values()) * len(operands)
    made([call.work], found.dtype)  # refuse sums without bounds
    return found


def _labels(term: str, ndim: int) -> list[str | int]:
    """Return the labels of the axes of a term; those of ``...`` count from the right, -1 last."""
    before, dots, after = term.partition("...")
    named = len(before) + len(after)
    if (named != ndim and not dots) or named > ndim:
        raise ArgumentsError(f"its equation has the term {term!r} for a tensor with {ndim} axes")
    return [*before, *range(named - ndim, 0), *after]


def _attention(call: OperatorCall) -> Result:
    query, key, value = (call.tensor(name) for name in ("query", "key", "value"))
    _checked_types([query, key, value])
    if kind(query.dtype) != 2:
        raise ArgumentsError(f"it attends to {query.dtype}")
    if call["dropout_p"] != 0:
        raise ArgumentsError("it drops values at random: call model.eval() before the export")
    if call.arguments.get("dropout_mask") is not None:
        raise ArgumentsError("it is given the values to drop")
    scale = call.arguments.get("scale")
    if scale is not None and not isinstance(scale, float):
        raise ArgumentsError(f"its argument 'scale' is {scale!r:.40}")
    whole = call.packet != "scaled_dot_product_attention"
    ndims = {query.ndim, key.ndim, value.ndim}
    if min(ndims) < 2 or len(ndims) > 1 or (whole and ndims != {4}):
        raise ArgumentsError(f"it attends to {query.sizes}, {key.sizes}, {value.sizes}")
    if "flash" in call.packet and query.sizes[-1] != value.sizes[-1]:
        raise ArgumentsError(f"it attends to {query.sizes}, {key.sizes}, {value.sizes}")
    if query.sizes[-1] != key.sizes[-1] or key.sizes[-2] != value.sizes[-2]:
        raise ArgumentsError(f"it attends to {query.sizes}, {key.sizes}, {value.sizes}")
    if not (query.elements and key.elements and value.elements):
        raise ArgumentsError(f"it attends to {query.sizes}, {key.sizes}, {value.sizes}")
    if any(f.axis is not None and f.axis >= f.ndim - 2 for f in (query, key, value)):
        raise NotPerImageError("it attends to other images of a batch")
    batches = [_batch_of(f) for f in (query, key, value)]
    if call.arguments.get("enable_gqa"):
        batches[1:] = [
            _grouped(batches[0], b, f) for b, f in zip(batches[1:], (key, value), strict=True)
        ]
    elif whole and len({(b.sizes, b.axis, b.outer) for b in batches}) > 1:
        raise ArgumentsError(f"it attends to {query.sizes}, {key.sizes}, {value.sizes}")
    sizes, axis, outer = broadcast(batches, call.batch)
    length, keys = query.sizes[-2], key.sizes[-2]
    mask = call.optional("attn_mask")
    if mask is not None:
        scores = made([*sizes, length, keys], query.dtype, axis, outer)
        if mask.ndim > scores.ndim or mask.dtype not in (torch.bool, query.dtype):
            raise ArgumentsError(f"it has a mask of shape {mask.sizes}, {mask.dtype}")
        if mask.ndim < 2 or broadcast([scores, mask], call.batch) != (scores.sizes, axis, outer):
            raise ArgumentsError(f"it has a mask of shape {mask.sizes} for {scores.sizes}")
        if call.arguments.get("is_causal"):
            raise ArgumentsError("it is causal and has a mask")
    found = made([*sizes, length, value.sizes[-1]], query.dtype, axis, outer)
    call.work = math.prod(sizes) * length * keys * (query.sizes[-1] + value.sizes[-1])
    if not whole:
        return found
    if "flash" in call.packet:
        return [found, made([*sizes, length], query.dtype, axis, outer)]
    return [found, made([*sizes, length, keys], query.dtype, axis, outer)]


def _batch_of(f: Facts) -> Facts:
    return Facts(f.sizes[:-2], f.dtype, f.axis, f.outer)


def _grouped(query: Facts, batch: Facts, f: Facts) -> Facts:
    """Return the batch axes of keys whose heads each serve several heads of queries."""
    heads, own = query.sizes[-1:], batch.sizes[-1:]
    if not heads or f.ndim < 3 or heads[0] % own[0] or batch.axis == batch.ndim - 1:
        raise ArgumentsError(f"it attends with {heads} heads to {own}")
    return Facts((*batch.sizes[:-1], heads[0]), batch.dtype, batch.axis, batch.outer)


_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def _recurrent(call: OperatorCall) -> Result:
    x = call.tensor("input")
    if x.ndim != 3 or kind(x.dtype) != 2 or not x.elements:
        raise ArgumentsError(f"it reads sequences of shape {x.sizes}, {x.dtype}")
    if call["train"] and call["dropout"]:
        raise ArgumentsError("it drops values at random: call model.eval() before the export")
    batch_axis = 0 if call.flag("batch_first") else 1
    if x.axis not in (None, batch_axis):
        raise NotPerImageError("it reads the images of a batch as a sequence")
    layers = call.integer("num_layers", 1)
    directions = 2 if call.flag("bidirectional") else 1
    each = 4 if call.flag("has_biases") else 2
    weights = call.tensors("params")
    if len(weights) != layers * directions * each:
        raise ArgumentsError(f"it has {len(weights)} weights for {layers} layers")
    if any(weight.axis is not None or weight.dtype != x.dtype for weight in weights):
        raise NotPerImageError("its weights depend on the images or are of another type")
    hidden = weights[1].sizes[-1] if weights[1].ndim == 2 else 0
    gates = _GATES[call.packet] * hidden
    entering = x.sizes[2]
    for layer in range(layers):
        for direction in range(directions):
            first = (layer * directions + direction) * each
            shapes = [weight.sizes for weight in weights[first : first + each]]
            if shapes != [(gates, entering), (gates, hidden), (gates,), (gates,)][:each]:
                raise ArgumentsError(f"layer {layer} has weights of the shapes {shapes}")
        entering = hidden * directions
    states = call.tensors("hx") if call.packet == "lstm" else [call.tensor("hx")]
    if len(states) != (2 if call.packet == "lstm" else 1) or not hidden:
        raise ArgumentsError(f"it has {len(states)} states of {hidden} numbers")
    entries = x.sizes[batch_axis]
    for state in states:
        if x.axis is not None and state.axis is None and call.batch is not None:
            fixed = state.ndim == 3 and state.sizes[1] == entries * call.batch
            if fixed and is_uniform(state, 1):
                state = Facts((state.sizes[0], entries, state.sizes[2]), state.dtype, 1, x.outer)
        if state.sizes != (layers * directions, entries, hidden) or state.dtype != x.dtype:
            raise ArgumentsError(f"it has a state of shape {state.sizes}")
        if (state.axis, state.outer) != ((None, 1) if x.axis is None else (1, x.outer)):
            raise NotPerImageError("its state is not that of its images")
    sizes = [x.sizes[0], x.sizes[1], hidden * directions]
    call.work = x.elements // x.sizes[2] * sum(math.prod(w.sizes) for w in weights)
    found = made(sizes, x.dtype, x.axis, x.outer)
    axis = None if x.axis is None else 1
    last = made([layers * directions, entries, hidden], x.dtype, axis, x.outer)
    return [found, *[last] * len(states)]


RULES: dict[str, Rule] = {
    **dict.fromkeys(("matmul", "mm", "bmm", "linalg_matmul"), _matmul),
    "mv": _matrix_vector,
    **dict.fromkeys(("addmm", "baddbmm"), _product_and_sum),
    "linear": _linear,
    "einsum": _einsum,
    "scaled_dot_product_attention": _attention,
    "_scaled_dot_product_attention_math": _attention,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    **dict.fromkeys(_GATES, _recurrent),
}

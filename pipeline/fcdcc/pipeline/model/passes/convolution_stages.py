"""Finds the convolutions that can be coded, and folds batch normalisation into them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from ..network import ConvStage, Ref, Step
from ..operators import bound_arguments, is_number, words
from ..pt2.program import TensorMeta
from ..rewriting import Item, NameSource, inputs_of, redirect

_CONVOLUTIONS = words(
    """
    aten.conv1d.default aten.conv2d.default aten.conv3d.default aten.conv1d.padding
    aten.conv2d.padding aten.conv3d.padding aten.convolution.default aten._convolution.default
    """
)
_BATCH_NORMS = frozenset({"aten.batch_norm.default"})


def recognise_convolutions(
    steps: Sequence[Step],
    tensors: Mapping[str, torch.Tensor],
    metas: Mapping[str, TensorMeta],
    modules: Mapping[str, str],
    dtype: torch.dtype,
) -> list[Item]:
    """Return the steps with each convolution that can be coded as a ConvStage.

    A convolution can be coded if its weight is one of the model's tensors, in the network's
    precision ``dtype``, and its input is a batch. Transposed convolutions and those with
    computed weights stay steps.
    """
    items: list[Item] = []
    for step in steps:
        found = convolution_of(step, tensors, modules.get(step.name, step.name))
        coded = (
            found is not None
            and tensors[found.weight].dtype == dtype
            and found.input in metas
            and len(metas[found.input].sizes) == tensors[found.weight].ndim
            and found.input not in tensors
        )
        items.append(found if found is not None and coded else step)
    return items


def convolution_of(step: Step, tensors: Mapping[str, torch.Tensor], name: str) -> ConvStage | None:
    """Return the convolution that a step is; None for others, and if it is transposed.

    Its weight and bias are among the tensors. Its input may be a single image.
    """
    if step.op not in _CONVOLUTIONS:
        return None
    given = bound_arguments(step)
    image, weight, bias = given["input"], given["weight"], given["bias"]
    if not (isinstance(image, Ref) and isinstance(weight, Ref) and weight.name in tensors):
        return None
    if given.get("transposed") or (bias is not None and bias.name not in tensors):
        return None
    kernel = tensors[weight.name]
    spatial = kernel.ndim - 2
    numbers = {name: _per_axis(given[name], spatial) for name in ("stride", "dilation")}
    padding = _padding(given["padding"], kernel.shape[2:], numbers["dilation"], spatial)
    if padding is None or None in numbers.values() or not isinstance(given["groups"], int):
        return None
    return ConvStage(
        index=-1,
        name=name,
        input=image.name,
        output=step.name,
        weight=weight.name,
        bias=None if bias is None else bias.name,
        stride=numbers["stride"] or (),
        padding=padding,
        dilation=numbers["dilation"] or (),
        groups=given["groups"],
    )


def _per_axis(value: Any, spatial: int) -> tuple[int, ...] | None:
    """Return one number per spatial axis; None if one of them is computed at run time."""
    numbers = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if not all(isinstance(number, int) for number in numbers):
        return None
    return numbers * spatial if len(numbers) == 1 else numbers


def _padding(
    value: Any, kernel: Iterable[int], dilation: tuple[int, ...] | None, spatial: int
) -> tuple[tuple[int, int], ...] | None:
    """Return (before, after) per spatial axis."""
    if value == "valid":
        return ((0, 0),) * spatial
    if value == "same":
        totals = [d * (size - 1) for d, size in zip(dilation or (), kernel, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    numbers = _per_axis(value, spatial)
    return None if numbers is None else tuple((number, number) for number in numbers)


def fold_batch_norms_into(
    items: Sequence[Item], tensors: Mapping[str, torch.Tensor], output: str
) -> tuple[list[Item], dict[str, torch.Tensor], str]:
    """Fold each batch normalisation that is the only reader of a convolution into it.

    Returns
    -------
    The items, the tensors with the new weights among them, and the name of the output, which
    changes where the last item is folded.
    """
    # Steps that read only a size are not affected by the folding.
    readers = Counter(
        name
        for item in items
        if not (isinstance(item, Step) and is_number(item.op))
        for name in inputs_of(item)
    )
    readers[output] += 1
    convolutions = {item.output: i for i, item in enumerate(items) if isinstance(item, ConvStage)}
    names = NameSource(tensors)
    found = dict(tensors)
    targets: dict[str, Ref] = {}
    kept: list[Item | None] = list(items)
    for position, item in enumerate(items):
        if not isinstance(item, Step) or item.op not in _BATCH_NORMS:
            continue
        given = bound_arguments(item)
        place = convolutions.get(given["input"].name)
        if place is None or readers[given["input"].name] != 1 or not _is_fixed(given, tensors):
            continue
        convolution = kept[place]
        assert isinstance(convolution, ConvStage)  # noqa: S101 - for the type checker
        weight, bias = _folded(convolution, given, tensors)
        weight_name = names.fresh(f"{convolution.output}.weight")
        bias_name = names.fresh(f"{convolution.output}.bias")
        found[weight_name], found[bias_name] = weight, bias
        kept[place] = replace(convolution, weight=weight_name, bias=bias_name)
        kept[position] = None
        targets[item.name] = Ref(convolution.output)
    left = [redirect(item, targets) for item in kept if item is not None]
    return left, found, targets[output].name if output in targets else output


def _is_fixed(given: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> bool:
    """Return whether the statistics and parameters of a normalisation are constants."""
    optional = [given[name] for name in ("weight", "bias")]
    needed = [given[name] for name in ("running_mean", "running_var")]
    return all(isinstance(ref, Ref) and ref.name in tensors for ref in needed) and all(
        ref is None or (isinstance(ref, Ref) and ref.name in tensors) for ref in optional
    )


def _folded(
    convolution: ConvStage, given: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight and bias of the convolution with the normalisation, computed in float64."""
    weight = tensors[convolution.weight]

    def number(name: str) -> torch.Tensor | None:
        ref = given[name]
        return None if ref is None else tensors[ref.name].double()

    mean, variance = number("running_mean"), number("running_var")
    gain, shift = number("weight"), number("bias")
    assert mean is not None  # noqa: S101 - for the type checker
    assert variance is not None  # noqa: S101 - for the type checker
    scale = torch.rsqrt(variance + given["eps"])
    if gain is not None:
        scale = scale * gain
    offset = -mean * scale
    if convolution.bias is not None:
        offset = offset + tensors[convolution.bias].double() * scale
    if shift is not None:
        offset = offset + shift
    folded = weight.double() * scale.reshape(-1, *(1,) * (weight.ndim - 1))
    return folded.to(weight.dtype).contiguous(), offset.to(weight.dtype)

"""Random calls of all operators of the list, right ones and wrong ones.

A call is made from a sample by changing shapes, axes, numbers and types of some arguments. Where
the rule of the operator accepts it, the operator must run, give a result of the shape and type
that the rule says, and treat images one by one.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import torch

from fcdcc.pipeline.model.image_rules import RULES
from fcdcc.pipeline.model.image_rules.element_types import check_kinds, check_types
from fcdcc.pipeline.model.image_rules.facts import (
    ArgumentsError,
    BatchSize,
    Facts,
    NotPerImageError,
    OperatorCall,
)
from fcdcc.pipeline.model.network import Step
from fcdcc.pipeline.model.operator_list import CALLED
from fcdcc.pipeline.model.operators import argument_kinds, bound_arguments, resolve
from support.operator_samples import (
    BOOL,
    COUNT,
    F32,
    F64,
    INT,
    Constant,
    Images,
    Sample,
    known,
    sample,
)

OPERATORS = sorted(CALLED)
MAX_ELEMENTS = 1 << 16
TYPES = (F32, F32, F32, F64, INT, BOOL, torch.float16, torch.complex64, torch.uint8, torch.int32)
NUMBERS = (-3, -2, -1, 0, 1, 2, 3, 4, 5, 7, 64, 2**31, 2**63 - 1, 0.5, -1.5, True, None, COUNT, "x")


def facts_of(call: Sample) -> Any:
    """Return what the rule says about the result of a call.

    Raises
    ------
    ArgumentsError, NotPerImageError
        If it refuses the call.
    """
    kwargs = {name: known(value) for name, value in call.kwargs.items()}
    step = Step("y", f"aten.{call.op}", tuple(map(known, call.args)), kwargs)
    packet, _, overload = call.op.partition(".")
    checked = OperatorCall(packet, overload, bound_arguments(step))
    check_kinds(checked, argument_kinds(step.op))
    check_types(checked)
    return RULES[packet](checked)


def run(call: Sample, images: Any) -> Any:
    """OperatorCall the operator."""
    args, kwargs = call.arguments(images)
    with torch.no_grad():
        return resolve(f"aten.{call.op}")(*args, **kwargs)


def each_image(value: torch.Tensor, facts: Facts, images: int) -> list[torch.Tensor]:
    """Return the part of each image in a value."""
    if facts.axis is None:
        return [value] * images
    parts = value.unflatten(facts.axis, (facts.outer, images, facts.inner))
    return list(parts.unbind(facts.axis + 1))


def as_list(value: Any) -> list[Any]:
    """Return several results as a list."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def check_result(call: Sample, facts: Any) -> None:
    """Check that a call does what its rule says, image by image."""
    images, shuffled, padded = (0, 1, 2), (2, 0, 1), (0, 1, 2, 9, 8)
    whole = as_list(run(call, images))
    each = as_list(facts)
    assert len(whole) == len(each), (call, facts)
    for value, fact in zip(whole, each, strict=True):
        if isinstance(value, torch.Tensor):
            sizes = [n * 3 if a == fact.axis else n for a, n in enumerate(fact.sizes)]
            assert list(value.shape) == sizes, (call, fact, value.shape)
            assert value.dtype == fact.dtype, (call, fact, value.dtype)
        elif isinstance(fact, BatchSize):
            assert fact.factor is None or value == 3 * fact.factor, (call, fact, value)
    if not all(isinstance(value, torch.Tensor) for value in whole):
        return
    others = [as_list(run(call, batch)) for batch in (shuffled, padded, (0,))]
    for place, fact in enumerate(each):
        parts = each_image(whole[place], fact, 3)
        again = each_image(others[0][place], fact, 3)
        longer = each_image(others[1][place], fact, 5)
        (alone,) = each_image(others[2][place], fact, 1)
        close(alone, parts[0], call)
        for image, part in enumerate(parts):
            close(again[shuffled.index(image)], part, call)
            close(longer[image], part, call)


def close(one: torch.Tensor, other: torch.Tensor, call: Sample) -> None:
    """Compare two values up to rounding."""
    loose = one.dtype in (torch.float16, torch.bfloat16)
    exact = not (one.dtype.is_floating_point or one.dtype.is_complex)
    rtol, atol = (0, 0) if exact else (2e-2, 2e-2) if loose else (1e-3, 1e-4)
    torch.testing.assert_close(
        one, other, rtol=rtol, atol=atol, equal_nan=True, msg=lambda text: f"{call}: {text}"
    )


def changed(call: Sample, draw: random.Random) -> Sample:
    """Return a call with one to three of its arguments changed."""
    args, kwargs = list(call.args), dict(call.kwargs)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        place = draw.randrange(len(args) + len(kwargs)) if args or kwargs else 0
        if place < len(args):
            args[place] = _changed(args[place], draw)
        elif kwargs:
            name = list(kwargs)[place - len(args)]
            kwargs[name] = _changed(kwargs[name], draw)
    return Sample(call.op, tuple(args), kwargs)


def _changed(value: Any, draw: random.Random) -> Any:
    if isinstance(value, (Images, Constant)):
        return _changed_tensor(value, draw)
    if isinstance(value, list) and value:
        items = list(value)
        place = draw.randrange(len(items))
        action = draw.choice(("change", "change", "drop", "double"))
        if action == "change":
            items[place] = _changed(items[place], draw)
        elif action == "drop":
            items.pop(place)
        else:
            items.insert(place, items[place])
        return items
    if isinstance(value, bool):
        return not value
    return draw.choice(NUMBERS)


def _changed_tensor(value: Images | Constant, draw: random.Random) -> Images | Constant:
    shape = list(value.shape)
    action = draw.choice(("size", "size", "drop", "add", "axis", "type", "kind", "below"))
    if action == "size" and shape:
        shape[draw.randrange(len(shape))] = draw.choice((0, 1, 2, 3, 5, 6))
    elif action == "drop" and shape:
        shape.pop(draw.randrange(len(shape)))
    elif action == "add":
        shape.insert(draw.randrange(len(shape) + 1), draw.choice((1, 2, 3)))
    elif action == "type":
        return replace(value, dtype=draw.choice(TYPES))
    elif action == "below":
        return replace(value, below=draw.choice((1, 2, 5, 20)))
    elif action == "kind":
        other = Constant if isinstance(value, Images) else Images
        return other(tuple(shape), value.dtype, below=value.below)
    if isinstance(value, Images):
        axis = draw.randrange(len(shape) + 1) if action == "axis" else min(value.axis, len(shape))
        return replace(value, shape=tuple(shape), axis=axis)
    return replace(value, shape=tuple(shape))


def small_enough(facts: Any) -> bool:
    """Return whether a result is small enough to be computed in a test."""
    return all(not isinstance(f, Facts) or f.elements <= MAX_ELEMENTS for f in as_list(facts))


def random_call(seed: int, op: str | None = None) -> Sample:
    """Return a random call of an operator, of any operator if none is given."""
    draw = random.Random(seed)
    return changed(sample(op or draw.choice(OPERATORS)), draw)


def accepted(call: Sample) -> Any:
    """Return what the rule says about a call; None if it refuses it."""
    try:
        return facts_of(call)
    except (ArgumentsError, NotPerImageError):
        return None

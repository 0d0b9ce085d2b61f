"""Every operator of the list: its rule knows the result, and images are treated one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fcdcc.pipeline.model.image_rules import RULES
from fcdcc.pipeline.model.image_rules.facts import BatchSize, Call, Facts
from fcdcc.pipeline.model.network import Step
from fcdcc.pipeline.model.operator_list import CALLED
from fcdcc.pipeline.model.operators import bound_arguments, resolve
from support.operator_samples import Sample, known, sample

IMAGES = (0, 1, 2, 3, 4)


def facts_of(call: Sample) -> Any:
    """What the rule says about the result."""
    step = Step(
        "y",
        f"aten.{call.op}",
        tuple(map(known, call.args)),
        {name: known(value) for name, value in call.kwargs.items()},
    )
    packet, _, overload = call.op.partition(".")
    return RULES[packet](Call(packet, overload, bound_arguments(step)))


def result_of(call: Sample, images: Any) -> Any:
    args, kwargs = call.arguments(images)
    return resolve(f"aten.{call.op}")(*args, **kwargs)


def each_image(value: torch.Tensor, facts: Facts, images: int) -> list[torch.Tensor]:
    """The part of each image in a value."""
    if facts.axis is None:
        return [value] * images
    parts = value.unflatten(facts.axis, (facts.outer, images, -1))
    return list(parts.unbind(facts.axis + 1))


def check(value: Any, facts: Any, call: Sample, images: int) -> None:
    if isinstance(facts, (list, tuple)):
        assert len(value) == len(facts)
        for one, fact in zip(value, facts, strict=True):
            check(one, fact, call, images)
        return
    if not isinstance(value, torch.Tensor):
        expected = facts.factor * images if isinstance(facts, BatchSize) else facts
        assert value == expected
        return
    shape = tuple(n * images if a == facts.axis else n for a, n in enumerate(facts.sizes))
    assert (tuple(value.shape), value.dtype) == (shape, facts.dtype)


def tensors(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


@pytest.mark.parametrize("op", sorted(CALLED))
def test_every_operator_treats_images_one_by_one(op: str) -> None:
    call = sample(op)
    facts = facts_of(call)
    whole = result_of(call, IMAGES)
    check(whole, facts, call, len(IMAGES))
    if not isinstance(tensors(whole)[0], torch.Tensor):
        return
    shuffled, padded = (3, 0, 4, 2, 1), (*IMAGES, 9, 9)
    other = result_of(call, shuffled)
    longer = result_of(call, padded)
    singles = [result_of(call, (image,)) for image in IMAGES]
    for place, fact in enumerate(tensors(facts)):
        parts = each_image(tensors(whole)[place], fact, len(IMAGES))
        again = each_image(tensors(other)[place], fact, len(IMAGES))
        more = each_image(tensors(longer)[place], fact, len(padded))
        for image, part in enumerate(parts):
            alone = each_image(tensors(singles[image])[place], fact, 1)[0]
            torch.testing.assert_close(alone, part, equal_nan=True)
            torch.testing.assert_close(again[shuffled.index(image)], part, equal_nan=True)
            torch.testing.assert_close(more[image], part, equal_nan=True)

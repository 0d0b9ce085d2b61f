"""Every operator of the list does what its rule says, and treats images one by one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fcdcc.pipeline.model.image_rules import RULES
from fcdcc.pipeline.model.image_rules.facts import (
    ArgumentsError,
    Facts,
    NotPerImageError,
    broadcast,
    promoted,
)
from fcdcc.pipeline.model.operator_list import CALLED
from support.operator_programs import accepted, check_result, facts_of, random_call, small_enough
from support.operator_samples import sample

# What a kernel says of places and divisors that are values: they are known in a run only.
OF_VALUES = ("out of", "index", "ZeroDivision", "Class values", "must be smaller")


@pytest.mark.parametrize("op", sorted(CALLED))
def test_every_operator_of_the_list(op: str) -> None:
    call = sample(op)
    assert op.partition(".")[0] in RULES
    check_result(call, facts_of(call))


@settings(max_examples=600, deadline=None)
@given(op=st.sampled_from(sorted(CALLED)), seed=st.integers(0, 2**32))
def test_calls_that_a_rule_accepts_run_and_keep_images_apart(op: str, seed: int) -> None:
    call = random_call(seed, op)
    facts = accepted(call)
    if facts is None or not small_enough(facts):
        return
    try:
        check_result(call, facts)
    except (RuntimeError, IndexError) as error:
        if not any(words in str(error) for words in OF_VALUES):
            raise


def f32(*sizes: int, axis: int | None = None, outer: int = 1) -> Facts:
    return Facts(sizes, torch.float32, axis, outer)


def test_images_meet_the_same_images_only() -> None:
    images = f32(1, 4, 6, axis=0)
    assert broadcast([images, f32(6)], None) == ((1, 4, 6), 0, 1)
    assert broadcast([images, f32(1, 1, 6)], None) == ((1, 4, 6), 0, 1)
    for other in (f32(4, 1, axis=0), f32(1, 4, 6, axis=1), f32(2, 4, 6, axis=0)):
        with pytest.raises((NotPerImageError, ArgumentsError)):
            broadcast([images, other], None)
    with pytest.raises(NotPerImageError, match="constant"):
        broadcast([images, f32(3, 4, 6)], None)


def test_constants_of_a_fixed_batch_are_the_same_for_all_its_images() -> None:
    images = f32(1, 2, axis=0)
    same = Facts((3, 2), torch.float32, constant=torch.ones(3, 2))
    own = Facts((3, 2), torch.float32, constant=torch.arange(6.0).reshape(3, 2))
    assert broadcast([images, same], 3) == ((1, 2), 0, 1)
    with pytest.raises(NotPerImageError):
        broadcast([images, own], 3)


NUMBERS = (True, 2, 2.5, 1j)
TYPES = (
    *(torch.bool, torch.uint8, torch.int32, torch.int64, torch.float16, torch.bfloat16),
    *(torch.float32, torch.float64, torch.complex64, torch.complex128),
)


@given(
    tensors=st.lists(st.tuples(st.sampled_from(TYPES), st.booleans()), min_size=1, max_size=2),
    number=st.sampled_from((None, *NUMBERS)),
)
def test_types_are_promoted_as_in_pytorch(
    tensors: list[tuple[torch.dtype, bool]], number: complex | None
) -> None:
    values = [torch.ones((2,) if has_axes else (), dtype=dtype) for dtype, has_axes in tensors]
    facts = [Facts(tuple(v.shape), v.dtype) for v in values]
    other = values[1] if len(values) > 1 else number
    if other is None:
        return
    assert promoted([*facts[:1], facts[1] if len(facts) > 1 else number]) == torch.result_type(
        values[0], other
    )

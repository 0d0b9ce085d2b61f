"""Numbers that depend on the number of images: the factor holds for every batch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fcdcc.pipeline.errors import ModelError
from fcdcc.pipeline.model.image_rules.facts import BatchSize
from fcdcc.pipeline.model.size_arithmetic import (
    NUMBER_OPERATORS,
    number_function,
    number_of_batch,
)

SIZES = st.integers(-6, 12) | st.integers(-3, 6).map(BatchSize)


def in_batch(value: object, images: int) -> object:
    """A number for a batch of so many images."""
    if isinstance(value, BatchSize):
        assert value.factor is not None
        return value.factor * images
    return value


@given(op=st.sampled_from(sorted(NUMBER_OPERATORS)), values=st.lists(SIZES, min_size=1, max_size=2))
def test_a_multiple_of_the_images_is_one_for_every_batch(
    op: str, values: list[int | BatchSize]
) -> None:
    try:
        found = number_of_batch(op, tuple(values))
    except ModelError:  # another number of arguments, or no result
        return
    if isinstance(found, BatchSize) and found.factor is None:
        return
    for images in (1, 2, 3, 7):
        plain = tuple(in_batch(value, images) for value in values)
        try:
            assert number_function(op)(*plain) == in_batch(found, images)
        except ModelError:
            assert images > 1  # too large a number


def test_what_is_no_multiple_of_the_images_is_unknown() -> None:
    images = BatchSize(2)
    for op, values in (
        ("operator.add", (images, 1)),
        ("operator.floordiv", (images, 3)),
        ("operator.mul", (images, images)),
        ("operator.add", (BatchSize(None), 0)),
    ):
        assert number_of_batch(op, values) == BatchSize(None)
    assert number_of_batch("operator.floordiv", (images, 2)) == BatchSize(1)
    assert number_of_batch("operator.sub", (images, images)) == 0
    assert number_of_batch("operator.floordiv", (BatchSize(6), images)) == 3

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcdcc.storage import BlockLayout, OutputError
from fcdcc.storage.layout import CHUNK_LIMIT, chunk_shape

layouts = st.builds(BlockLayout, images=st.integers(0, 500), batch=st.integers(1, 60))


@given(layouts)
def test_blocks_hold_every_image_once_and_in_order(layout: BlockLayout) -> None:
    images = [image for start, stop in layout for image in range(start, stop)]
    assert images == list(range(layout.images))


@given(layouts)
def test_blocks_start_at_multiples_of_the_batch_and_only_the_last_is_shorter(
    layout: BlockLayout,
) -> None:
    bounds = list(layout)
    assert len(bounds) == layout.blocks
    assert all(start == block * layout.batch for block, (start, _) in enumerate(bounds))
    assert all(stop - start == layout.batch for start, stop in bounds[:-1])
    assert all(layout.block_of(image) == b for b, s in enumerate(bounds) for image in range(*s))


@given(layouts, st.integers(0, 200))
def test_appended_images_change_exactly_the_blocks_whose_images_differ(
    layout: BlockLayout, appended: int
) -> None:
    grown = BlockLayout(layout.images + appended, layout.batch)
    before = list(layout)
    changed = [b for b, bounds in enumerate(grown) if b >= len(before) or before[b] != bounds]
    found = [b for b in layout.changed_by(grown.images) if appended]
    assert found == changed


@pytest.mark.parametrize("block", [-1, 3])
def test_a_block_that_is_not_there_is_refused(block: int) -> None:
    with pytest.raises(OutputError, match="blocks 0 to 2"):
        BlockLayout(10, 4).bounds(block)


@pytest.mark.parametrize(("images", "batch"), [(-1, 4), (4, 0)])
def test_numbers_that_mean_nothing_are_refused(images: int, batch: int) -> None:
    with pytest.raises(OutputError, match="expected"):
        BlockLayout(images, batch)


@given(
    st.integers(1, 512),
    st.lists(st.integers(1, 3000), max_size=3).map(tuple),
    st.sampled_from([4, 8]),
)
def test_a_chunk_is_a_whole_block_unless_that_is_too_large(
    batch: int, shape: tuple[int, ...], itemsize: int
) -> None:
    chunk = chunk_shape(batch, shape, itemsize)
    assert chunk[0] == batch
    assert all(1 <= c <= s for c, s in zip(chunk[1:], shape, strict=True))
    if batch * itemsize * math.prod(shape) <= CHUNK_LIMIT:
        assert chunk[1:] == shape
    assert batch * itemsize * math.prod(chunk[1:]) // batch <= CHUNK_LIMIT

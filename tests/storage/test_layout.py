from __future__ import annotations

import math

import numpy as np
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


banded = st.builds(
    BlockLayout,
    images=st.integers(1, 40),
    batch=st.integers(1, 5),
    rows=st.integers(1, 60),
    band=st.integers(1, 70),
)


@given(banded)
def test_bands_hold_every_row_of_every_image_once(layout: BlockLayout) -> None:
    places = [
        (image, row)
        for block in range(layout.blocks)
        for image in range(*layout.bounds(block))
        for row in range(*(layout.rows_of(block) or (0, 0)))
    ]
    wanted = [(image, row) for image in range(layout.images) for row in range(layout.rows or 0)]
    assert sorted(places) == wanted


@given(banded, st.data())
def test_an_image_is_done_when_all_its_bands_are(layout: BlockLayout, data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.booleans(), min_size=layout.blocks, max_size=layout.blocks))
    done = np.array(chosen)
    whole = [i for i in range(layout.images) if done[[*layout.beside(layout.block_of(i))]].all()]
    assert layout.images_in(done) == len(whole)


@pytest.mark.parametrize(("rows", "band"), [(10, None), (None, 4), (10, 0), (0, 4)])
def test_bands_that_mean_nothing_are_refused(rows: int | None, band: int | None) -> None:
    with pytest.raises(OutputError, match="expected"):
        BlockLayout(10, 4, rows, band)


def test_a_chunk_keeps_the_rows_of_its_band_however_large() -> None:
    assert chunk_shape(1, (64, 512, 8192), 4, kept=1) == (1, 8, 512, 8192)
    assert chunk_shape(1, (64, 8192, 8192), 4, kept=1) == (1, 1, 8192, 4096)

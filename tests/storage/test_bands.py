"""Predictions in bands: blocks of some rows of some images, which own whole chunks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from fcdcc.storage import OutputArray, OutputError, inspect_output, open_predictions, verify
from fcdcc.storage import layout as layouts
from fcdcc.storage.chunks import decode, encode
from support.stored import make_output

DENSE = OutputArray("prediction", (3, 10, 4), "float32", ("class", "y", "x"), row_axis=1, band=4)
MASK = OutputArray("mask", (10, 4), "int32", ("y", "x"), row_axis=0, band=4)


def whole(images: int = 3) -> dict[str, np.ndarray[Any, Any]]:
    scores = np.random.default_rng(0).random((images, 3, 10, 4), dtype=np.float32)
    return {"prediction": scores, "mask": scores.argmax(1).astype(np.int32)}


def some(block: int, images: int = 3) -> dict[str, np.ndarray[Any, Any]]:
    """Return what block ``block`` of two images at a time, in bands of four rows, holds."""
    run, band = divmod(block, 3)
    rows = slice(4 * band, min(4 * band + 4, 10))
    of_images = {name: a[2 * run : 2 * run + 2] for name, a in whole(images).items()}
    return {"prediction": of_images["prediction"][:, :, rows], "mask": of_images["mask"][:, rows]}


def test_bands_are_written_read_and_found_again(place: str) -> None:
    store = make_output(f"{place}/out", images=3, batch=2, arrays=[DENSE, MASK])
    assert store.progress().pending == [0, 1, 2, 3, 4, 5]
    for block in (4, 0, 2, 5, 1, 3):
        record = store.write(block, some(block))
        assert (record.start, record.stop) == ((0, 2), (2, 3))[block // 3]
        assert np.array_equal(store.read(block), some(block)["prediction"])
        assert np.array_equal(store.read(block, "mask"), some(block)["mask"])
    again = open_predictions(f"{place}/out")
    assert again == store
    assert again.progress().complete
    assert verify(f"{place}/out") == []


def test_any_reader_of_zarr_sees_whole_predictions(tmp_path: Path) -> None:
    store = make_output(str(tmp_path / "out"), images=3, batch=2, arrays=[DENSE, MASK])
    for block in range(store.layout.blocks):
        store.write(block, some(block))
    stored = xr.open_zarr(tmp_path / "out")
    for name, values in whole().items():
        np.testing.assert_array_equal(stored[name].values, values)
    assert stored["prediction"].encoding["chunks"] == (2, 3, 4, 4)
    run = json.loads((tmp_path / "out" / ".fcdcc" / "run.json").read_text())
    assert run["schema"] == 2  # versions that know no bands refuse it in words
    assert inspect_output(tmp_path / "out") is not None


def test_damage_is_laid_to_the_block_of_the_band(tmp_path: Path) -> None:
    store = make_output(str(tmp_path / "out"), images=3, batch=2, arrays=[DENSE, MASK])
    for block in range(store.layout.blocks):
        store.write(block, some(block))
    (tmp_path / "out" / "prediction" / "c.1.0.2.0").write_bytes(b"cut")
    (tmp_path / "out" / "mask" / "c.0.1.0").unlink()
    assert [(d.path, d.block) for d in verify(tmp_path / "out")] == [
        ("mask/c.0.1.0", 1), ("prediction/c.1.0.2.0", 5),
    ]  # fmt: skip
    progress = store.progress()
    assert progress.pending == [1, 5]
    store.clear(progress)
    for block in progress.pending:
        store.write(block, some(block))
    assert verify(tmp_path / "out") == []


@given(
    band=st.integers(1, 12),
    block=st.integers(0, 30),
    images=st.integers(1, 2),
    limit=st.sampled_from([16, 100, 10_000]),
)
@settings(max_examples=30)
def test_chunks_of_a_band_come_back_and_belong_to_it_alone(
    band: int, block: int, images: int, limit: int
) -> None:
    array = OutputArray("prediction", (3, 10, 4), "float32", ("class", "y", "x"), 1, band)
    layout = array.layout(60, 2)
    first, last = layout.rows_of(block) or (0, 0)
    values = np.random.default_rng(block).random((images, 3, last - first, 4), dtype=np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layouts, "CHUNK_LIMIT", limit)
        files = encode(array, block, 2, values)
        assert {array.block_of(name, 2) for name in files} == {block}
        assert [*files] == array.chunk_names(block, 2)
        np.testing.assert_array_equal(decode(array, block, 2, images, files), values)


def test_values_of_other_rows_are_refused(tmp_path: Path) -> None:
    store = make_output(str(tmp_path / "out"), images=3, batch=2, arrays=[DENSE])
    with pytest.raises(OutputError, match=r"expected up to 2 images of \(3, 2, 4\)"):
        store.write(2, np.zeros((2, 3, 4, 4), np.float32))


@pytest.mark.parametrize(("row_axis", "band"), [(3, 4), (None, 4), (1, None), (1, 0)])
def test_bands_that_mean_nothing_are_refused(row_axis: int | None, band: int | None) -> None:
    with pytest.raises(OutputError, match="in bands of"):
        OutputArray("prediction", (3, 10, 4), "float32", ("class", "y", "x"), row_axis, band)


def test_arrays_in_different_bands_are_refused(tmp_path: Path) -> None:
    other = OutputArray("mask", (10, 4), "int32", ("y", "x"), row_axis=0, band=5)
    with pytest.raises(OutputError, match="arrays in different blocks"):
        make_output(str(tmp_path / "out"), images=3, batch=2, arrays=[DENSE, other])

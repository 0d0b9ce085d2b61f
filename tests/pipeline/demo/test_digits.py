from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from fcdcc.coding.errors import FcdccError
from fcdcc.pipeline.demo.digits import load_digits, split_digits, write_digits
from fcdcc.pipeline.demo.files import DemoError, MissingExtraError
from fcdcc.storage import Preparation, open_images


@pytest.fixture(scope="module")
def digits():
    return load_digits()


def test_all_digits_are_there_in_the_size_that_lenet_takes(digits):
    assert digits.images.shape == (1797, 1, 32, 32)
    assert digits.images.dtype == np.uint8
    assert set(digits.labels.tolist()) == set(range(10))


def test_enlarged_digits_are_the_same_pictures(digits):
    from sklearn import datasets

    small = datasets.load_digits().images / 16
    cells = digits.images[:, 0].reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4)) / 255
    # Cells of 4 × 4 of the enlarged image average to about what the original says.
    assert np.corrcoef(cells.ravel(), small.ravel())[0, 1] > 0.97
    assert digits.images.min() == 0
    assert digits.images.max() == 255


def test_the_split_is_fixed_and_loses_nothing(digits):
    training, held_out = split_digits(digits)
    again, _ = split_digits(digits)
    assert len(training) + len(held_out) == len(digits)
    assert not set(training.ids) & set(held_out.ids)
    np.testing.assert_array_equal(training.ids, again.ids)
    np.testing.assert_array_equal(held_out.labels, digits.labels[held_out.ids])


@pytest.mark.parametrize("held_out", [0, 1797, -1])
def test_a_split_with_an_empty_side_is_refused(digits, held_out):
    with pytest.raises(DemoError, match="1797"):
        split_digits(digits, held_out=held_out)


def test_a_run_reads_what_the_network_was_trained_on(digits, tmp_path: Path):
    from fcdcc.pipeline.demo.lenet import prepare

    _, held_out = split_digits(digits, held_out=40)
    write_digits(held_out, tmp_path / "digits.zarr")
    source = open_images(str(tmp_path / "digits.zarr"), None, expect=(None, 1, 32, 32), limit=None)
    assert source.images == 40
    prepared = Preparation().apply(source.read(0, 40))
    np.testing.assert_array_equal(prepared, prepare(held_out.images).numpy())
    ids = source.read_ids(0, 40)
    assert ids is not None
    np.testing.assert_array_equal(ids, held_out.ids)


def test_xarray_opens_the_images_without_a_warning(digits, tmp_path: Path):
    _, held_out = split_digits(digits, held_out=20)
    write_digits(held_out, tmp_path / "digits.zarr")
    with xr.open_zarr(tmp_path / "digits.zarr") as group:
        assert group.image.dims == ("n", "c", "y", "x")
        assert "image_id" in group.image.coords
        np.testing.assert_array_equal(group.label, held_out.labels)
        np.testing.assert_array_equal(group.image, held_out.images)


def test_nothing_is_written_over_what_is_there(digits, tmp_path: Path):
    _, held_out = split_digits(digits, held_out=20)
    write_digits(held_out, tmp_path / "digits.zarr")
    with pytest.raises(FileExistsError):
        write_digits(held_out, tmp_path / "digits.zarr")


def test_without_scikit_learn_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fcdcc\[demo\]'") as caught:
        load_digits()
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, FcdccError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)

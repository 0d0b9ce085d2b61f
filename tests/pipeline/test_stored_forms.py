"""What is stored of the answers: logits, probabilities, classes, the top k, with names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from distributed import LocalCluster
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fcdcc.pipeline import JobConfig, run
from fcdcc.pipeline.errors import OptionError
from fcdcc.pipeline.stored_forms import StoredForm
from support.small import IMAGES, Files

SCORES = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=4, max_side=5),
    elements=st.floats(-30, 30, width=32),
)


@given(SCORES)
def test_probabilities_are_what_pytorch_gives(logits: np.ndarray[Any, Any]) -> None:
    expected = torch.softmax(torch.from_numpy(logits), 1).numpy()
    made = StoredForm.parse("probabilities").apply(logits)["prediction"]
    np.testing.assert_allclose(made, expected, atol=1e-6)
    assert made.dtype == logits.dtype


@given(SCORES, st.data())
def test_the_top_k_are_the_largest_in_order(logits: np.ndarray[Any, Any], data: Any) -> None:
    k = data.draw(st.integers(1, logits.shape[1]))
    made = StoredForm.parse(f"top:{k}").apply(logits)
    chosen = np.take_along_axis(logits, made["prediction"].astype(np.int64), axis=1)
    np.testing.assert_array_equal(chosen, -np.sort(-logits, axis=1)[:, :k])
    best = StoredForm.parse("classes").apply(logits)["prediction"]
    np.testing.assert_array_equal(best, made["prediction"][:, 0])


def test_what_is_no_number_has_no_class() -> None:
    logits = np.array([[0.0, np.nan, 2.0], [3.0, 1.0, 2.0]], dtype=np.float32)
    assert StoredForm.parse("classes").apply(logits)["prediction"].tolist() == [-1, 0]
    top = StoredForm.parse("top:2").apply(logits)
    assert top["prediction"].tolist() == [[-1, -1], [0, 2]]
    assert np.isnan(top["probability"][0]).all()


@pytest.mark.parametrize(
    "text", ["", "top", "top:", "top:0", "top:-1", "top:²", "Logits", "top:1.5"]
)
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match=r"--store.*top:K"):
        JobConfig.of(model="m", input="i", output="o", store=text)


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    with LocalCluster(
        n_workers=2, processes=False, threads_per_worker=2, dashboard_address=":0"
    ) as cluster:
        yield cluster.scheduler_address


NAMES = [f"kind {number}" for number in range(10)]


def make(files: Files, scheduler: str, folder: Path, **options: Any) -> xr.Dataset:
    (folder / "names.txt").write_text("\n".join(NAMES) + "\n")
    config = JobConfig.of(
        model=str(files.model),
        input=str(files.images),
        output=str(folder / "out.zarr"),
        scheduler=scheduler,
        **{"n": 2, "tolerate": 1, "code": "replication", "batch": 16} | options,
    )
    assert run(config).status == "complete"
    return xr.open_zarr(folder / "out.zarr").load()


@pytest.mark.cluster
def test_probabilities_have_the_names_of_their_classes(
    files: Files, scheduler: str, tmp_path: Path
) -> None:
    stored = make(
        files, scheduler, tmp_path, store="probabilities", classes=str(tmp_path / "names.txt")
    )
    assert stored["class"].values.tolist() == NAMES
    expected = torch.softmax(torch.from_numpy(files.expected), 1).numpy()
    np.testing.assert_allclose(stored["prediction"], expected, atol=1e-5)
    np.testing.assert_allclose(
        stored["prediction"].sel({"class": "kind 3"}), expected[:, 3], atol=1e-5
    )


@pytest.mark.cluster
def test_the_top_three_and_their_names(files: Files, scheduler: str, tmp_path: Path) -> None:
    stored = make(files, scheduler, tmp_path, store="top:3", classes=str(tmp_path / "names.txt"))
    order = np.argsort(-files.expected, axis=1)[:, :3]
    np.testing.assert_array_equal(stored["prediction"], order)
    assert stored["prediction"].dims == ("n", "rank")
    shares = torch.softmax(torch.from_numpy(files.expected), 1).numpy()
    np.testing.assert_allclose(
        stored["probability"], np.take_along_axis(shares, order, 1), atol=1e-5
    )
    named = stored["class"][stored["prediction"]]
    assert named[0, 0] == NAMES[order[0, 0]]


@pytest.mark.cluster
def test_classes_are_numbers_and_another_form_is_another_job(
    files: Files, scheduler: str, tmp_path: Path
) -> None:
    stored = make(files, scheduler, tmp_path, store="classes")
    assert stored["prediction"].shape == (IMAGES,)
    np.testing.assert_array_equal(stored["prediction"], files.expected.argmax(1))
    with pytest.raises(OSError, match="store"):
        make(files, scheduler, tmp_path, store="logits")


def test_names_and_k_must_fit_the_model(files: Files, tmp_path: Path) -> None:
    (tmp_path / "few.txt").write_text("cat\ndog\n")
    config = {"model": str(files.model), "input": str(files.images), "output": str(tmp_path / "o")}
    for options, words in [
        ({"classes": str(tmp_path / "few.txt")}, r"2 names.*10 classes"),
        ({"classes": str(tmp_path / "none.txt")}, "cannot be read"),
        ({"store": "top:11"}, "10 classes"),
    ]:
        with pytest.raises(OptionError, match=words):
            run(JobConfig.of(**config, **options))
    assert not (tmp_path / "o").exists()

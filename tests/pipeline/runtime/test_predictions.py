"""What jobs store of networks that do not end in logits, against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from torch import Tensor

from fcdcc.pipeline import infer, open_model
from fcdcc.pipeline.model.description import DESCRIPTION_FILE, ModelDescription
from support.jobs import fcdcc
from support.modules import Lambda, conv, ready
from support.pt2 import pt2
from support.small import SHAPE, Files

pytestmark = [pytest.mark.cluster, pytest.mark.long]

Function = Callable[..., Tensor]


class Job:
    """A network, its file, and what PyTorch makes of the images."""

    def __init__(self, function: Function, outputs: int, files: Files, folder: Path) -> None:
        module = ready(Lambda(function, conv=conv(3, outputs, 3, padding=1)))
        self.folder, self.images, self.model = folder, files.images, folder / "model.pt2"
        self.model.write_bytes(pt2(module, (2, *SHAPE)))
        pixels = torch.from_numpy(np.asarray(zarr.open_array(files.images / "image")))
        with torch.inference_mode():
            self.expected = module(pixels.float() / 255)

    def run(self, scheduler: str, *options: object, code: int = 0) -> str:
        command = ["run", self.model, self.images, self.folder / "out.zarr"]
        result = fcdcc(*command, "--scheduler", scheduler, *options)
        assert result.exit_code == code, result.output
        return result.output

    @property
    def stored(self) -> xr.DataArray:
        return xr.open_zarr(self.folder / "out.zarr")["prediction"].load()


def mean(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def test_no_softmax_is_applied_twice(files: Files, scheduler: str, tmp_path: Path) -> None:
    job = Job(lambda x, conv: mean(conv(x)).softmax(1), 4, files, tmp_path)
    job.run(scheduler, "--store", "probabilities")
    np.testing.assert_allclose(job.stored, job.expected, atol=1e-6)
    said = fcdcc("plan", job.model, job.images).output
    assert "Prediction: probabilities of 4 classes, float32" in said


def test_the_classes_of_one_score(files: Files, scheduler: str, tmp_path: Path) -> None:
    job = Job(lambda x, conv: mean(conv(x)), 1, files, tmp_path)
    limit = float(job.expected.sigmoid().median())
    assert 0 < limit < 1
    names = tmp_path / "names.txt"
    names.write_text("no\nyes\n")
    options = ("--store", "classes", "--threshold", limit, "--classes", names)
    job.run(scheduler, *options)
    chances = job.expected.sigmoid().squeeze(1)
    clear = (chances - limit).abs() > 1e-5
    found = torch.from_numpy(job.stored.values)
    assert job.stored.dims == ("n",)
    assert torch.equal(found[clear], (chances > limit)[clear].to(found.dtype))
    assert 0 < int(found.sum()) < len(found)
    assert xr.open_zarr(tmp_path / "out.zarr")["class"].values.tolist() == ["no", "yes"]
    said = job.run(scheduler, "--store", "classes", "--threshold", 0.9, code=2)
    assert "made by another job (prediction.threshold: 0.9 here" in said


def test_class_numbers_stay_integers(files: Files, scheduler: str, tmp_path: Path) -> None:
    job = Job(lambda x, conv: conv(x).argmax(1), 5, files, tmp_path)
    job.run(scheduler)
    assert (job.stored.dtype, job.stored.dims) == (np.int64, ("n", "y", "x"))
    assert (job.stored.values == job.expected.numpy()).mean() > 0.999
    assert "use --store classes" in job.run(scheduler, "--store", "top:2", code=2)


def test_a_mask_of_true_and_false(files: Files, scheduler: str, tmp_path: Path) -> None:
    job = Job(lambda x, conv: conv(x).sigmoid() > 0.4, 1, files, tmp_path)
    job.run(scheduler)
    assert (job.stored.dtype, job.stored.dims) == (np.uint8, ("n", "channel", "y", "x"))
    assert (job.stored.values == job.expected.numpy()).mean() > 0.999


def test_infer_gives_the_type_and_the_axes_of_the_network(files: Files, tmp_path: Path) -> None:
    job = Job(lambda x, conv: conv(x).argmax(1), 5, files, tmp_path)
    lazy: Any = infer(open_model(job.model), job.images, limit=5, n=2, tolerate=0)
    assert (lazy.dtype, lazy.dims) == (np.int64, ("n", "y", "x"))
    assert (lazy.compute().values == job.expected[:5].numpy()).mean() > 0.999


def test_what_the_file_says_and_what_the_option_says(files: Files, tmp_path: Path) -> None:
    job = Job(lambda x, conv: mean(conv(x)), 4, files, tmp_path)
    module = ready(Lambda(lambda x, conv: mean(conv(x)), conv=conv(3, 4, 3, padding=1)))
    program = torch.export.export(module, (torch.zeros(2, *SHAPE),))
    for kind in ("labels", "mask"):
        text = ModelDescription(output=kind).to_json()
        torch.export.save(program, job.model, extra_files={DESCRIPTION_FILE: text})
        said = fcdcc("plan", job.model, job.images)
        if kind == "labels":
            assert "logits of 4 labels, float32" in said.output
        else:
            assert said.exit_code == 2
            assert "says that mask is the output" in " ".join(said.output.split())
        given = fcdcc("plan", job.model, job.images, "--head", "logits")
        assert "Prediction: logits of 4 classes, float32: --head says so" in given.output

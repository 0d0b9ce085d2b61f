"""Jobs of networks with several outputs, against PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from torch import Tensor, nn
from torch.nn import functional as fn

from fcdcc.pipeline import JobConfig, Plan, infer, open_model, plan, run
from fcdcc.pipeline.errors import OptionError, PlanError
from fcdcc.pipeline.monitoring.progress import Quiet
from fcdcc.storage import open_predictions, verify
from support.jobs import fcdcc
from support.modules import Lambda, conv, ready
from support.planned import usual_plans
from support.pt2 import pt2
from support.several_outputs import segmenter, two_heads
from support.small import SHAPE, Files
from support.spoiling import spoil

pytestmark = pytest.mark.cluster

IMAGES = 11


class Job:
    """A network, its file, and what PyTorch makes of the images."""

    def __init__(self, module: nn.Module, files: Files, folder: Path, dynamic: bool = True) -> None:
        self.folder, self.images, self.model = folder, files.images, folder / "model.pt2"
        self.output = folder / "out.zarr"
        self.model.write_bytes(pt2(module, (2, *SHAPE), dynamic))
        pixels = torch.from_numpy(np.asarray(zarr.open_array(files.images / "image")))
        with torch.inference_mode():
            made = module(pixels[:IMAGES].float() / 255)
        numbered = made if isinstance(made, dict) else enumerate(made)
        self.expected: dict[str, Tensor] = (
            made if isinstance(made, dict) else {f"output_{i}": one for i, one in numbered}
        )

    def config(self, scheduler: str, **options: Any) -> JobConfig:
        places = {"model": self.model, "input": self.images, "output": self.output}
        given = {"limit": IMAGES, "batch": 4, "n": 6, "tolerate": 2, **options}
        return JobConfig.of(**places, scheduler=scheduler, **given)

    def run(self, scheduler: str, **options: Any) -> Any:
        summary = run(self.config(scheduler, **options))
        assert summary.status == "complete"
        return summary

    def refused(self, *options: object) -> str:
        result = fcdcc("run", self.model, self.images, self.output, "--limit", IMAGES, *options)
        assert result.exit_code == 2, result.output
        assert len(result.output.strip().splitlines()) == 1
        return " ".join(result.output.split())

    def agrees(self) -> None:
        with xr.open_zarr(self.output) as dataset:
            assert set(dataset.data_vars) == set(self.expected)
            for name, wanted in self.expected.items():
                np.testing.assert_allclose(dataset[name], wanted, rtol=1e-4, atol=1e-4)
                assert dataset[name].dtype == wanted.numpy().dtype
        assert verify(self.output) == []


@pytest.mark.parametrize("split", ["images", "rows"])
@pytest.mark.long
def test_every_output_is_an_array_of_its_name(
    files: Files, scheduler: str, tmp_path: Path, split: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual_plans(monkeypatch)
    job = Job(segmenter(), files, tmp_path)
    summary = job.run(scheduler, split=split)
    assert summary.groups > 0
    job.agrees()
    with xr.open_zarr(job.output) as dataset:
        assert dataset["out"].dims == dataset["aux"].dims == ("n", "class", "y", "x")
        assert dataset.attrs["heads"] == {"out": "dense", "aux": "dense"}
    assert fcdcc("status", job.output).exit_code == 0
    assert fcdcc("report", job.output).exit_code == 0


def test_outputs_of_different_sizes_and_types(files: Files, scheduler: str, tmp_path: Path) -> None:
    job = Job(two_heads(), files, tmp_path)
    job.run(scheduler)
    with xr.open_zarr(job.output) as dataset:
        assert dataset["output_0"].dims == ("n", "y", "x")
        assert dataset["output_1"].dims == ("n", "class", "y_output_1", "x_output_1")
        assert (dataset["output_0"].dtype, dataset["output_1"].dtype) == (np.int64, np.float32)
        assert "y" in dataset.sizes
        same = dataset["output_0"].values == job.expected["output_0"].numpy()
        assert same.mean() > 0.999
        np.testing.assert_allclose(dataset["output_1"], job.expected["output_1"], atol=1e-4)
    assert verify(job.output) == []


@pytest.mark.long
def test_the_last_block_of_a_fixed_batch_is_padded(
    files: Files, scheduler: str, tmp_path: Path
) -> None:
    job = Job(segmenter(), files, tmp_path, dynamic=False)
    job.run(scheduler, batch=None)
    job.agrees()


@pytest.mark.long
def test_one_chosen_output_is_the_prediction(files: Files, scheduler: str, tmp_path: Path) -> None:
    job = Job(segmenter(), files, tmp_path)
    job.run(scheduler, outputs="aux")
    with xr.open_zarr(job.output) as dataset:
        assert list(dataset.data_vars) == ["prediction"]
        np.testing.assert_allclose(dataset["prediction"], job.expected["aux"], atol=1e-4)
    assert job.run(scheduler, outputs="aux").blocks_skipped == 3
    assert "was made by another job (" in job.refused("--batch", 4)
    assert "was made by another job (model:" in job.refused("--batch", 4, "--output", "out")


@pytest.mark.long
def test_a_file_of_options_chooses_outputs(files: Files, scheduler: str, tmp_path: Path) -> None:
    job = Job(segmenter(), files, tmp_path)
    text = f"""
        model = "{job.model}"
        input = "{job.images}"
        output = "{job.output}"
        outputs = ["out"]
        scheduler = "{scheduler}"
        limit = {IMAGES}
    """
    (tmp_path / "job.toml").write_text(text)
    assert fcdcc("run", "--config", tmp_path / "job.toml").exit_code == 0
    with xr.open_zarr(job.output) as dataset:
        np.testing.assert_allclose(dataset["prediction"], job.expected["out"], atol=1e-4)


def test_damage_to_a_second_output_is_found_and_mended(
    files: Files, scheduler: str, tmp_path: Path
) -> None:
    job = Job(segmenter(), files, tmp_path)
    job.run(scheduler)
    chunk = job.output / "aux" / "c.1.0.0.0"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    (job.output / "aux" / "c.2.0.0.0").unlink()
    result = fcdcc("verify", job.output)
    assert result.exit_code == 5
    assert "aux/c.1.0.0.0 (block 1)" in result.output
    assert "aux/c.2.0.0.0 (block 2)" in result.output
    assert job.run(scheduler).blocks_done == 2
    job.agrees()


@pytest.mark.long
def test_an_interrupted_run_is_continued_and_grows(
    files: Files, scheduler: str, tmp_path: Path
) -> None:
    class Stops(Quiet):
        def advance(self, advance: Any) -> None:
            if advance.blocks_done:
                raise KeyboardInterrupt

    job = Job(segmenter(), files, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(job.config(scheduler, limit=10, in_flight=1), Stops())
    before = int(open_predictions(job.output).progress().done.sum())
    assert 0 < before < 3
    assert job.run(scheduler).blocks_skipped == before
    job.agrees()


@pytest.mark.parametrize("wrong", ["share", "image"])
@pytest.mark.long
def test_a_block_is_made_again(
    files: Files, scheduler: str, tmp_path: Path, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual_plans(monkeypatch)
    job = Job(segmenter(), files, tmp_path)
    if wrong == "share":
        hit = spoil(monkeypatch, lambda key, position, _: (key.block, position) == (1, 2))
    else:
        hit = spoil(
            monkeypatch, lambda key, position, _: (key.block, position) == (1, 2),
            lambda values: values * np.float32(np.nan),
        )  # fmt: skip
    job.run(scheduler, verify="all", split="images")
    assert hit
    job.agrees()
    record = json.loads((job.output / ".fcdcc" / "blocks" / "00000001.json").read_text())
    assert "again" in json.dumps(record)


@pytest.mark.long
def test_values_that_are_not_finite_are_said_of_their_output(
    files: Files, scheduler: str, tmp_path: Path
) -> None:
    job = Job(
        ready(Lambda(lambda x, c: {"a": c(x).mean((2, 3)), "b": (c(x).mean((2, 3)) * 0).log()},
                     c=conv(3, 4, 3))), files, tmp_path,
    )  # fmt: skip
    job.run(scheduler)
    said = "".join(path.read_text() for path in (job.output / ".fcdcc").rglob("*.json"))
    assert "not finite in the output b" in said
    assert "not finite in the output a" not in said


@pytest.mark.long
def test_stored_forms_of_several_outputs(files: Files, scheduler: str, tmp_path: Path) -> None:
    job = Job(segmenter(), files, tmp_path)
    names = tmp_path / "names.txt"
    names.write_text("a\nb\nc\nd\ne\n")
    job.run(scheduler, store="classes", classes=str(names))
    with xr.open_zarr(job.output) as dataset:
        for name, wanted in job.expected.items():
            assert dataset[name].dims == ("n", "y", "x")
            assert (dataset[name].values == wanted.argmax(1).numpy()).mean() > 0.999
        assert dataset["class"].values.tolist() == list("abcde")
    other = Job(segmenter(), files, tmp_path)
    other.output = tmp_path / "top.zarr"
    other.run(scheduler, store="top:2")
    with xr.open_zarr(other.output) as dataset:
        assert set(dataset.data_vars) == {"out", "out_probability", "aux", "aux_probability"}
        values, places = other.expected["aux"].softmax(1).topk(2, 1)
        np.testing.assert_allclose(dataset["aux_probability"], values, atol=1e-5)
        assert (dataset["aux"].values == places.numpy()).mean() > 0.99


@pytest.mark.long
def test_what_cannot_be_stored_of_one_output_is_refused(files: Files, tmp_path: Path) -> None:
    module = ready(
        Lambda(lambda x, c: {"classes": c(x).mean((2, 3)), "features": fn.silu(c(x)).mean((2, 3))},
               c=conv(3, 4, 1))
    )  # fmt: skip
    job = Job(module, files, tmp_path)
    assert "the output features: --store top:2 for" in job.refused("--store", "top:2")
    assert "choose others with --output" in job.refused("--store", "probabilities")
    assert "the network has no such output; expected classes or" in job.refused("--output", "boxes")
    assert "--threshold 0.4" in job.refused("--threshold", 0.4)
    assert "several outputs (classes, features)" in job.refused("--band", 4)
    assert not job.output.exists()


@pytest.mark.long
def test_a_plan_names_all_outputs(files: Files, tmp_path: Path) -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = segmenter()

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            made = self.net(x)
            return {**made, "loss": made["out"].mean()}

    job = Job(Counting().eval(), files, tmp_path)
    page, saved = tmp_path / "plan.html", tmp_path / "plan.json"
    result = fcdcc("plan", job.model, job.images, "--html", page, "--json", saved)
    said = " ".join(result.output.split())
    for text in (said, " ".join(page.read_text().split())):
        assert "out: logits of 5 classes at 16 × 16 places, float32" in text
        assert "aux: logits of 5 classes at 16 × 16 places, float32" in text
        assert "an auxiliary head, for training: --output out leaves it out" in text
        assert "loss: its first axis is not that of the images" in text
    assert "left out: loss" in str(Plan.from_json(saved.read_text()))
    one = " ".join(fcdcc("plan", job.model, job.images, "--output", "aux").output.split())
    assert "Prediction: logits of 5 classes" in one
    assert "auxiliary" not in one
    refused = fcdcc("run", job.model, job.images, job.output, "--plan", saved, "--output", "out")
    assert refused.exit_code == 2
    assert "for other outputs of it" in " ".join(refused.output.split())


@pytest.mark.long
def test_infer_gives_a_dataset(files: Files, tmp_path: Path) -> None:
    job = Job(two_heads(), files, tmp_path)
    model = open_model(job.model)
    options: dict[str, Any] = {"limit": IMAGES, "n": 2, "tolerate": 0, "batch": 4}
    lazy = infer(model, job.images, **options)
    assert isinstance(lazy, xr.Dataset)
    assert lazy["output_0"].dims == ("n", "y", "x")
    assert lazy["output_1"].dims == ("n", "class", "y_output_1", "x_output_1")
    assert lazy["output_1"].chunks is not None
    made = lazy.compute(scheduler="synchronous")
    assert (made["output_0"].values == job.expected["output_0"].numpy()).mean() > 0.999
    np.testing.assert_allclose(made["output_1"], job.expected["output_1"], atol=1e-4)
    least = lazy["output_1"].min() + lazy["output_0"].min()
    wanted = job.expected["output_1"].min() + job.expected["output_0"].min()
    np.testing.assert_allclose(least.compute(scheduler="synchronous"), wanted, atol=1e-4)
    one = infer(model, job.images, outputs=["output_1"], **options)
    assert (one.name, one.dims) == ("prediction", ("n", "class", "y", "x"))
    np.testing.assert_allclose(one.compute(), job.expected["output_1"], atol=1e-4)
    made_for_one = plan(model, job.images, outputs="output_1", n=2, tolerate=0)
    again = infer(model, job.images, plan=made_for_one, outputs="output_1", limit=3)
    np.testing.assert_allclose(again.compute(), job.expected["output_1"][:3], atol=1e-4)
    with pytest.raises(PlanError, match="for other outputs of it"):
        infer(model, job.images, plan=made_for_one)
    with pytest.raises(OptionError, match=r"^outputs .*no such output"):
        infer(model, job.images, outputs="boxes", n=2, tolerate=0)

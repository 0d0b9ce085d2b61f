"""What is said of the range of the images before a run, and what the advice in it does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from numpy.typing import NDArray
from torch import nn

from support.jobs import fcdcc, predictions

pytestmark = pytest.mark.cluster

SHAPE = (3, 16, 16)
IMAGENET = ["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"]


class Scaling(nn.Module):
    """A small network that first divides its input."""

    def __init__(self, divisor: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.divisor = divisor
        self.features = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.divisor != 1.0:
            x = x / self.divisor
        return self.head(torch.relu(self.features(x)).mean((2, 3)))


def make_network(folder: Path, divisor: float = 1.0) -> Path:
    batch = {0: torch.export.Dim("batch")}
    module = Scaling(divisor).eval()
    program = torch.export.export(module, (torch.zeros(2, *SHAPE),), dynamic_shapes=(batch,))
    torch.export.save(program, folder / f"net-{divisor:g}.pt2")
    return folder / f"net-{divisor:g}.pt2"


def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (6, *SHAPE), dtype=np.uint8)


def store(place: Path, values: NDArray[Any], **options: Any) -> Path:
    group = zarr.open_group(place, mode="w")
    group.create_array("image", data=values, dimension_names=("n", "c", "y", "x"), **options)
    return place


def said(scheduler: str, command: str, *words: object) -> str:
    """Return what a command writes to standard error."""
    options = ["--scheduler", scheduler] if command == "run" else []
    result = fcdcc(command, *words, *options)
    assert result.exit_code == 0, result.output
    return " ".join(result.stderr.split())


def warned(text: str) -> str:
    """Return the warnings in what a command has written."""
    return " ".join(re.findall(r"fcdcc: WARNING: (.*?)(?= fcdcc: |$)", text))


CASES: dict[str, tuple[Any, list[str], str, list[str]]] = {
    # stored values, options, what is said, the options that it advises and that give no warning
    "16 bits": (lambda x: x.astype(np.uint16) * 257, IMAGENET, r"uint16.*not scaled.*--scale max",
                ["--scale", "max"]),
    "12 bits": (lambda x: x.astype(np.uint16) * 16, [], r"uint16.*not scaled.*--scale 4095",
                ["--scale", "4095"]),
    "12 bits by the largest of 16": (lambda x: x.astype(np.uint16) * 16, ["--scale", "max"],
                                     r"largest value of the sample is 4080.*--scale 4095",
                                     ["--scale", "4095"]),
    "floats to 255": (lambda x: x.astype(np.float32), IMAGENET, r"values up to 255.*--scale 255",
                      ["--scale", "255"]),
    "mean of bytes": (lambda x: x, ["--mean", "123.7", "--std", "58.4"],
                      r"above 1.*divided by 255.*--scale none", ["--scale", "none"]),
    "a scale that should multiply": (lambda x: x, ["--scale", "0.00392157"],
                                     r"divides.*--scale 255", ["--scale", "255"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_implausible_range_is_named_and_the_advice_ends_the_warning(
    tmp_path: Path, scheduler: str, case: str
) -> None:
    change, options, message, advice = CASES[case]
    model, images = make_network(tmp_path), store(tmp_path / "i.zarr", change(pixels()))
    for command, words in (("plan", []), ("run", [tmp_path / "o.zarr"])):
        text = said(scheduler, command, model, images, *words, *options)
        assert re.search(message, warned(text)), text
    kept = [] if "--scale" in options else options
    text = said(scheduler, "run", model, images, tmp_path / "p.zarr", *kept, *advice)
    assert "WARNING" not in text


def test_pictures_of_all_depths_give_the_same_answers_when_scaled(
    tmp_path: Path, scheduler: str
) -> None:
    model, made = make_network(tmp_path), []
    for name, values, scale in (
        ("bytes", pixels(), []),
        ("uint16", pixels().astype(np.uint16) * 257, ["--scale", "max"]),
        ("floats", pixels().astype(np.float32), ["--scale", "255"]),
    ):
        images, output = store(tmp_path / name, values), tmp_path / f"{name}.out"
        said(scheduler, "run", model, images, output, *IMAGENET, *scale)
        made.append(predictions(output))
    np.testing.assert_allclose(made[1], made[0], atol=1e-5)
    np.testing.assert_allclose(made[2], made[0], atol=1e-5)


def test_a_network_that_divides_itself_is_named(tmp_path: Path, scheduler: str) -> None:
    model, images = make_network(tmp_path, 255.0), store(tmp_path / "i.zarr", pixels())
    for command, words in (("plan", []), ("run", [tmp_path / "o.zarr"])):
        text = warned(said(scheduler, command, model, images, *words))
        assert re.search(r"begins by dividing by 255.*--scale none", text)
    text = said(scheduler, "run", model, images, tmp_path / "p.zarr", "--scale", "none")
    assert "WARNING" not in text
    with torch.inference_mode():
        wanted = Scaling(255.0).eval()(torch.from_numpy(pixels()).float()).numpy()
    np.testing.assert_allclose(predictions(tmp_path / "p.zarr"), wanted, atol=1e-5)
    floats = store(tmp_path / "f.zarr", (pixels() / 255).astype(np.float32))
    text = warned(said(scheduler, "plan", model, floats))
    assert re.search(r"no values above 1.*scaled already", text)


@pytest.mark.parametrize(
    ("values", "options"),
    [
        (pixels(), []),
        (pixels(), IMAGENET),
        (pixels() / np.float32(255), IMAGENET),
        (np.random.default_rng(1).integers(0, 9, (6, *SHAPE), dtype=np.uint16), []),
        (pixels().astype(np.uint16) * 40, ["--mean", "5000", "--std", "3000"]),
        (np.random.default_rng(1).normal(280, 10, (6, *SHAPE)), []),
        (pixels(), ["--scale", "none", "--mean", "123.7", "--std", "58.4"]),
        (np.zeros((6, *SHAPE), np.uint16), []),
    ],
)
def test_nothing_is_said_of_a_plausible_range(
    tmp_path: Path, scheduler: str, values: NDArray[Any], options: list[str]
) -> None:
    model, images = make_network(tmp_path), store(tmp_path / "i.zarr", values)
    assert "WARNING" not in said(scheduler, "plan", model, images, *options)


def test_the_sample_is_in_the_plan_the_run_and_the_summary(tmp_path: Path, scheduler: str) -> None:
    values = pixels()
    values[:, 1] = 51
    model, images = make_network(tmp_path), store(tmp_path / "i.zarr", values)
    planned = fcdcc("plan", model, images)
    line = (
        "uint8, divided by 255, as float32; values of 6 images from 0 to 1, on average "
        f"{(values / 255).mean():.3g}"
    )
    assert line in " ".join(planned.stdout.split())
    result = fcdcc(
        "run", model, images, tmp_path / "o.zarr", "--scheduler", scheduler,
        "--json", tmp_path / "s.json",
    )  # fmt: skip
    assert f"images: {line} fcdcc: " in " ".join(result.stderr.split())  # nothing of channels
    sample = json.loads((tmp_path / "s.json").read_text())["sample"]
    assert (sample["stored_dtype"], sample["dtype"], sample["divisor"]) == ("uint8", "float32", 255)
    assert [round(found["mean"], 4) for found in sample["channels"]][1] == 0.2
    assert (sample["values"]["smallest"], sample["values"]["largest"]) == (0, 1)
    assert sample["missing"] == 0
    again = fcdcc("run", model, images, tmp_path / "o.zarr", "--json", tmp_path / "s.json")
    assert again.exit_code == 0
    assert json.loads((tmp_path / "s.json").read_text())["sample"] is None


def test_what_nan_does_is_said(tmp_path: Path, scheduler: str) -> None:
    values = pixels().astype(np.int16)
    values[2, :, :4, :4] = -9999
    images = store(
        tmp_path / "i.zarr", values, attributes={"_FillValue": -9999, "scale_factor": 0.004}
    )
    model = make_network(tmp_path)
    planned = " ".join(fcdcc("plan", model, images).stdout.split())
    assert "scale_factor 0.004, _FillValue -9999 for missing values; decoded to float64" in planned
    assert re.search(r"% of the values are NaN, and so is most of what is predicted", planned)
    said(scheduler, "run", model, images, tmp_path / "o.zarr")
    finite = np.isfinite(predictions(tmp_path / "o.zarr")).all(axis=1)
    assert finite.tolist() == [True, True, False, True, True, True]


def test_only_one_chunk_is_read_for_the_sample(tmp_path: Path) -> None:
    """A damaged chunk elsewhere, or in the sample itself, does not stop a plan."""
    model, images = make_network(tmp_path), store(tmp_path / "i.zarr", pixels(), chunks=(2, *SHAPE))
    for number in (1, 2):
        (images / f"image/c/{number}/0/0/0").write_bytes(b"damaged")
    planned = fcdcc("plan", model, images)
    assert planned.exit_code == 0
    assert "values of 2 images from" in " ".join(planned.stdout.split())
    (images / "image/c/0/0/0/0").write_bytes(b"damaged")
    planned = fcdcc("plan", model, images)
    assert planned.exit_code == 0
    assert "a sample of the images cannot be read" in planned.stderr


@pytest.mark.parametrize("scale", ["half", "0", "-1", "nan"])
def test_a_scale_that_means_nothing_is_one_clear_line(tmp_path: Path, scale: str) -> None:
    result = fcdcc("plan", "absent.pt2", "absent.zarr", "--scale", scale)
    assert result.exit_code == 2
    assert re.search(r"auto, none, max.*number.*divide", result.output)

"""Images in bands: some rows of a prediction, from the rows of the image that they need."""

from __future__ import annotations

from functools import cache
from io import BytesIO
from typing import Any

import dask
import numpy as np
import pytest
import torch
from dask._task_spec import Task
from dask.typing import Key
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import zoo
from fcdcc.pipeline import open_model
from fcdcc.pipeline.errors import PlanError
from fcdcc.pipeline.graph import Block, build_block
from fcdcc.pipeline.halo import Rows
from fcdcc.pipeline.model.network import Network
from fcdcc.pipeline.options import PlanOptions
from fcdcc.pipeline.planner.bands import MAX_BAND_BYTES, barrier_in, peak_bytes, row_axis
from fcdcc.pipeline.planner.search import choose_plan
from fcdcc.pipeline.plans.plan import Plan
from fcdcc.pipeline.plans.row_layout import analysed
from fcdcc.pipeline.worker.executable import Executable
from support.erasing import erase, reading
from support.planned import usual_plans
from zoo.segmentation import UNet

DENSE = ("unet", "unet_bilinear", "fcn", "volume")


@cache
def network_of(name: str) -> Network:
    stored = BytesIO()
    torch.export.save(zoo.export(zoo.ZOO[name]), stored)
    return open_model(stored.getvalue()).network


@cache
def expected_of(name: str, count: int) -> np.ndarray[Any, Any]:
    entry = zoo.ZOO[name]
    with torch.inference_mode():
        made: np.ndarray[Any, Any] = zoo.build(entry)(zoo.images(entry, count)).numpy()
    return made


def band_of(
    network: Network, plan: Plan, images: torch.Tensor, band: Rows, erased: int = 0, seed: int = 0
) -> tuple[np.ndarray[Any, Any], Rows]:
    """Compute a band, and return it with the rows of the image that were read."""
    rows_read: list[Rows] = []

    def reader(key: Key, start: int, stop: int, pad_to: int, rows: Rows | None = None) -> Task:
        assert rows is not None
        rows_read.append(rows)
        return reading(images)(key, start, stop, pad_to, rows)

    executable = Executable(network, plan).at(band)
    graph = build_block(network, plan, Block(executable, "r", 0, len(images), reader), band)
    last = Task("prediction", lambda values: values, graph.prediction)
    made = dask.get(erase({**graph.tasks, last.key: last}, erased, seed), last.key)
    (rows,) = rows_read
    return made, rows


def difference(made: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    return float(np.abs(made - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("name", DENSE)
@given(data=st.data())
@settings(max_examples=8)
def test_any_band_agrees_with_pytorch(name: str, data: st.DataObject) -> None:
    entry, network = zoo.ZOO[name], network_of(name)
    images, expected = zoo.images(entry, 2), expected_of(name, 2)
    axis = 1 + row_axis(analysed(network, entry.input_shape))
    start = data.draw(st.integers(0, expected.shape[axis] - 1), label="start")
    stop = data.draw(st.integers(start + 1, expected.shape[axis]), label="stop")
    erased = data.draw(st.sampled_from([0, 2]), label="shares that are lost of every group")
    work = data.draw(st.sampled_from([0.0, 1e6, 1e9]), label="work between coded layers")
    with pytest.MonkeyPatch.context() as patch:
        usual_plans(patch, work)
        plan = choose_plan(network, entry.input_shape, PlanOptions(batch=2, band=stop - start))
    made, _ = band_of(network, plan, images, Rows(start, stop), erased, start)
    wanted = expected.take(range(start, stop), axis=axis)
    assert made.shape == wanted.shape
    assert difference(made, wanted) <= 1e-5


class Odd(nn.Module):
    """Strides, dilation and padding that leave rows over, and a prediction of other rows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first = nn.Conv2d(2, 5, 5, stride=2, padding=1)
        self.wide = nn.Conv2d(5, 6, 3, padding=4, dilation=3)
        self.last = nn.Conv2d(6, 3, (4, 1), stride=(3, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.max_pool2d(torch.relu(self.first(x)), 3, stride=2, padding=1)
        return self.last(torch.relu(self.wide(x)))


@given(
    rows=st.integers(33, 90),
    band=st.integers(1, 12),
    erased=st.sampled_from([0, 2]),
    n=st.sampled_from([3, 6]),
)
@settings(max_examples=12)
def test_bands_of_odd_sizes_make_the_whole_prediction(
    rows: int, band: int, erased: int, n: int
) -> None:
    module, images = Odd().eval(), torch.rand(1, 2, rows, 21)
    network = exported(module, images)
    plan = choose_plan(network, (2, rows, 21), PlanOptions(n=n, tolerate=n - 2 * n // 3, band=band))
    with torch.inference_mode():
        expected = module(images).numpy()
    starts = range(0, expected.shape[2], band)
    bands = [Rows(start, min(start + band, expected.shape[2])) for start in starts]
    lost = min(erased, plan.tolerate)
    made = [band_of(network, plan, images, some, lost, some.start)[0] for some in bands]
    assert difference(np.concatenate(made, axis=2), expected) <= 1e-5


def test_a_band_reads_the_rows_that_it_sees_and_no_others() -> None:
    """Changing rows that are not read changes nothing, and few are read."""
    torch.manual_seed(1)
    module, images = UNet(bilinear=False, width=4).eval(), torch.rand(1, 3, 128, 16)
    network = exported(module, images)
    plan = choose_plan(network, (3, 128, 16), PlanOptions(band=4))
    made, rows = band_of(network, plan, images, Rows(0, 4))
    assert rows.start == 0
    assert rows.stop <= 64
    with torch.inference_mode():
        changed = images.clone()
        changed[:, :, rows.stop :] += 7.0
        beyond = module(changed).numpy()[:, :, :4]
        changed[:, :, rows.stop - 1] += 7.0
        within = module(changed).numpy()[:, :, :4]
    assert difference(made, beyond) <= 1e-5
    assert not np.array_equal(beyond, within)


def exported(module: nn.Module, example: torch.Tensor) -> Network:
    stored = BytesIO()
    torch.export.save(torch.export.export(module.eval(), (example,)), stored)
    assert len(stored.getvalue()) < 2**21
    return open_model(stored.getvalue()).network


def exported_at(module: nn.Module, size: int) -> Network:
    """Export at a size, with one number of memory for the example and none for activations."""
    return exported(module, torch.zeros(1).expand(1, 3, size, size))


def test_an_image_that_is_too_large_is_planned_in_bands_that_fit() -> None:
    network = exported_at(UNet(bilinear=False, width=8), 8192)
    shape = (3, 8192, 8192)
    found = analysed(network, shape)
    plan = choose_plan(network, shape, PlanOptions())
    assert plan.split == "rows"
    assert plan.batch == 1
    assert plan.band is not None
    assert f"blocks of {plan.band} rows of the prediction of 1 image" in str(plan)
    assert Plan.from_json(plan.to_json()) == plan
    whole = peak_bytes(found, {n: Rows(0, v.rows) for n, v in found.layouts.items()}, 1, "float32")
    assert whole > 3 * MAX_BAND_BYTES
    larger = choose_plan(network, shape, PlanOptions(memory="4GiB")).band
    smaller = choose_plan(network, shape, PlanOptions(memory="1500MiB")).band
    assert larger is not None
    assert smaller is not None
    assert larger > plan.band > smaller
    assert choose_plan(network, shape, PlanOptions(), in_bands=False).band is None
    assert not plan.warnings
    (warning,) = choose_plan(network, shape, PlanOptions(band=64)).warnings
    assert "bands of 64 of 8192 rows are" in warning


def test_small_images_stay_whole() -> None:
    entry = zoo.ZOO["unet"]
    for options in (PlanOptions(), PlanOptions(batch=4000), PlanOptions(split="images")):
        assert choose_plan(network_of("unet"), entry.input_shape, options).band is None


def test_a_network_that_needs_all_rows_says_so_and_is_refused_where_it_does_not_fit() -> None:
    network = exported_at(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.Hardswish(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 2),
        ),
        8192,
    )
    shape = (3, 8192, 8192)
    assert "global pooling" in (barrier_in(analysed(network, shape)) or "")
    plan = choose_plan(network, shape, PlanOptions(memory="64GiB"))
    assert plan.band is None
    (warning,) = (text for text in plan.warnings if "stays whole" in text)
    assert "global pooling" in warning
    with pytest.raises(PlanError, match=r"takes .* GiB at once .* global pooling\. Use workers"):
        choose_plan(network, shape, PlanOptions(memory="2GiB"))
    with pytest.raises(PlanError, match=r"--band 64: blocks hold whole images here: .* pooling"):
        choose_plan(network, shape, PlanOptions(band=64))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"code": "crme"}, "--code crme gathers every layer"),
        ({"split": "images"}, "--split images leaves images whole"),
    ],
)
def test_options_that_bands_do_not_go_with_are_refused(
    options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(PlanError, match=reason):
        choose_plan(network_of("unet"), (3, 44, 36), PlanOptions(band=8, **options))


def test_a_row_that_does_not_fit_is_refused() -> None:
    network = exported_at(UNet(bilinear=False, width=8), 8192)
    with pytest.raises(PlanError, match="one row of the prediction takes"):
        choose_plan(network, (3, 8192, 8192), PlanOptions(memory="420MiB"))


def test_sizes_may_be_left_open_in_the_export() -> None:
    module = UNet(bilinear=False, width=4).eval()
    dim = torch.export.Dim
    free = {0: dim("batch"), 2: 8 * dim("h", min=2), 3: 8 * dim("w", min=2)}
    program = torch.export.export(module, (torch.zeros(2, 3, 32, 32),), dynamic_shapes=(free,))
    stored = BytesIO()
    torch.export.save(program, stored)
    network = open_model(stored.getvalue()).network
    images = torch.rand(1, 3, 72, 40)
    plan = choose_plan(network, (3, 72, 40), PlanOptions(band=20))
    made, rows = band_of(network, plan, images, Rows(0, 20), erased=1)
    with torch.inference_mode():
        expected = module(images).numpy()[:, :, :20]
    assert difference(made, expected) <= 1e-5
    assert rows.size < 72

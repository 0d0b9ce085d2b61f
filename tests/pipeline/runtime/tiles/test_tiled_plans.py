"""Plans for tiles: they stay whole, however large they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import zarr
from torch import nn

from fcdcc.pipeline import JobConfig
from fcdcc.pipeline.errors import OptionError, PlanMemoryError
from fcdcc.pipeline.plans.plan import Plan
from fcdcc.pipeline.runtime.job_plan import apply_saved_plan, preview_job

ROWS, COLUMNS, TILE = 1200, 1100, 1024


@pytest.fixture
def job(tmp_path: Path) -> dict[str, Any]:
    """Two convolutions for images of any size, and a large image, of which nothing is stored."""
    module = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 4, 3, padding=1)).eval()
    axes = {0: torch.export.Dim("b"), 2: torch.export.Dim("h"), 3: torch.export.Dim("w")}
    program = torch.export.export(module, (torch.zeros(2, 3, 32, 40),), dynamic_shapes=(axes,))
    torch.export.save(program, tmp_path / "m.pt2")
    zarr.open_group(tmp_path / "i.zarr", mode="w").create_array(
        "image", shape=(1, 3, ROWS, COLUMNS), chunks=(1, 3, 256, 256), dtype="uint8",
        dimension_names=list("ncyx"),
    )  # fmt: skip
    names = {"model": "m.pt2", "input": "i.zarr", "output": "o.zarr"}
    paths = {name: str(tmp_path / file) for name, file in names.items()}
    return {**paths, "workers": 2, "progress": False}


def planned(job: dict[str, Any], **options: Any) -> Plan:
    return preview_job(apply_saved_plan(JobConfig(**job, **options))).plan


def test_tiles_stay_whole_and_those_that_fit_no_worker_are_refused(job: dict[str, Any]) -> None:
    assert planned(job, memory="500MiB").band is not None  # an image without tiles is cut
    with pytest.raises(PlanMemoryError, match=r"or a smaller --tile$"):
        planned(job, memory="500MiB", tile=TILE)
    assert planned(job, memory="500MiB", tile=256).band is None


def test_saved_plans_with_bands_are_refused(job: dict[str, Any], tmp_path: Path) -> None:
    plan = planned(job, tile=TILE)
    (tmp_path / "plan.json").write_text(replace(plan, band=100).to_json())
    with pytest.raises(OptionError, match="band 100 for images in tiles, which are not cut into"):
        planned(job, tile=TILE, plan=str(tmp_path / "plan.json"))

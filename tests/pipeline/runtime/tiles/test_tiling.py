"""How images are cut into tiles, and what cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fcdcc.pipeline import open_model
from fcdcc.pipeline.errors import OptionError
from fcdcc.pipeline.model import Model
from fcdcc.pipeline.options import PlanOptions
from fcdcc.pipeline.runtime.tiles.tiling import Tiling, find_tiling


def same(channels: int, kernel: int | tuple[int, int], **options: Any) -> nn.Conv2d:
    return nn.Conv2d(channels, 3, kernel, padding="same", **options)


def opened(folder: Path, module: nn.Module, *, free: bool = True, size: int = 32) -> Model:
    axes: dict[int, Any] = {0: torch.export.Dim("batch")}
    if free:
        axes |= {2: 8 * torch.export.Dim("h", min=2), 3: 8 * torch.export.Dim("w", min=2)}
    example = torch.zeros(2, 3, size, size)
    torch.export.save(
        torch.export.export(module.eval(), (example,), dynamic_shapes=(axes,)), folder / "m.pt2"
    )
    return open_model(folder / "m.pt2")


def tiling(model: Model, size: tuple[int, ...] = (100, 120), **options: Any) -> Tiling:
    found = find_tiling(PlanOptions(**options), model, size)
    assert found is not None
    return found


DENSE = nn.Sequential(same(3, 3), nn.ReLU(), same(3, 5))
"""Looks at 3 pixels around each."""


def test_margins_are_what_the_network_sees_of_the_edges(tmp_path: Path) -> None:
    model = opened(tmp_path, DENSE)
    wide = tiling(model, tile=32, overlap=8)
    assert (wide.margin, wide.grid.stride, wide.warning) == ((3, 3), (24, 24), "")
    assert str(wide) == (
        "each image of 100 × 120 is 4 × 5 tiles of 32 × 32 that overlap by 8 × 8 pixels; their "
        "predictions are blended (hann), without the outer 3 × 3 places of each tile"
    )
    assert tiling(model, tile=32, overlap=6).warning == ""
    narrow = tiling(model, tile=32, overlap=4)
    assert narrow.margin == (1, 1)  # there the other tile sees no edge, and further in both do
    assert "with --overlap 6 or more none do" in narrow.warning


def test_tiles_begin_where_a_network_that_pools_sees_the_image_in_the_same_way(
    tmp_path: Path,
) -> None:
    pooled = nn.Sequential(
        same(3, 3), nn.MaxPool2d(4), same(3, 3), nn.Upsample(scale_factor=4, mode="nearest")
    )
    found = tiling(opened(tmp_path, pooled), tile=48, overlap=10)
    assert found.grid.stride == (36, 36)
    assert found.overlap == (12, 12)


def test_tiles_begin_where_the_places_of_the_prediction_do(tmp_path: Path) -> None:
    """A place as long as the tile leaves no room for an overlap."""
    model = opened(tmp_path, nn.Sequential(same(3, 3), nn.AvgPool2d((16, 64))), free=False, size=64)
    found = tiling(model, (128, 128))
    assert (found.grid.stride, found.overlap) == ((48, 64), (16, 0))
    assert [window.starts for window in found.windows] == [(0, 3, 4), (0, 1)]


def test_tiles_smaller_than_what_a_network_sees_alike_are_refused(tmp_path: Path) -> None:
    pooled = nn.Sequential(same(3, 3), nn.AvgPool2d((16, 28)))
    model = opened(tmp_path, pooled, size=112)
    with pytest.raises(OptionError, match="every 16 × 112 pixels only: expected tiles of at least"):
        tiling(model, (160, 112), tile=[80, 56])


def test_what_depends_on_the_size_of_the_image_is_said(tmp_path: Path) -> None:
    resized = nn.Sequential(
        same(3, 3), nn.MaxPool2d(2),
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), same(3, 3),
    )  # fmt: skip
    found = tiling(opened(tmp_path, resized), tile=32, overlap=16)
    assert found.margin == (0, 0)
    assert "predictions differ from those of the whole image" in found.warning


def test_smaller_and_larger_predictions_have_smaller_and_larger_images(tmp_path: Path) -> None:
    model = opened(tmp_path, nn.Sequential(same(3, 3), nn.MaxPool2d(4)))
    smaller = tiling(model, tile=32, overlap=16)
    assert [window.length for window in smaller.windows] == [25, 30]
    assert smaller.windows[0].starts == (0, 4, 8, 12, 16, 17)
    with pytest.raises(OptionError, match=r"a place for each 4 pixels: .* multiples of 4"):
        tiling(model, (99, 120), tile=32)
    larger = tiling(
        opened(tmp_path, nn.Sequential(same(3, 3), nn.Upsample(scale_factor=2))), tile=32
    )
    assert [window.length for window in larger.windows] == [200, 240]


def test_a_fixed_size_is_that_of_the_tiles(tmp_path: Path) -> None:
    model = opened(tmp_path, DENSE, free=False)
    found = tiling(model)
    assert (found.grid.tile, found.overlap) == ((32, 32), (4, 4))
    assert "m.pt2 takes images of 32 × 32: each image of 100 × 120 is" in str(found)
    assert find_tiling(PlanOptions(), model, (32, 32)) is None
    with pytest.raises(OptionError, match=r"tile 16 for .*m\.pt2, which takes images of 32 × 32"):
        tiling(model, tile=16)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"tile": 32, "overlap": 32}, "overlap 32 of tiles of 32 × 32: expected less than"),
        ({"tile": 104}, "tile 104 for images of 100 × 120: expected tiles no larger"),
        ({"tile": [32, 32, 32]}, "expected one number, or one for each axis"),
        ({"tile": 32, "overlap": [1, 2, 3]}, "expected one number, or one for each axis"),
        ({"overlap": 8}, "overlap without tiles"),
        ({"blend": "linear"}, "blend without tiles"),
        ({"tile": 32, "band": 16}, "band 16 for images in tiles"),
    ],
)
def test_options_that_make_no_tiles(tmp_path: Path, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(OptionError, match=expected):
        find_tiling(PlanOptions(**options), opened(tmp_path, DENSE), (100, 120))


@pytest.mark.parametrize("given", [0, -1, "a", [], [1, 2, 3, 4], 1.5, True])
def test_values_that_are_no_sizes(given: Any) -> None:
    with pytest.raises(OptionError, match="tile was given as"):
        PlanOptions(tile=given)


def test_valid_convolutions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="predicts 30 × 30 places of a tile of 32 × 32"):
        tiling(opened(tmp_path, nn.Conv2d(3, 2, 3)), tile=32)


def test_several_outputs_are_refused(tmp_path: Path) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = same(3, 3)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            made = self.conv(x)
            return {"edges": made, "mean": made.mean((2, 3))}

    model = opened(tmp_path, Two())
    with pytest.raises(OptionError, match="the outputs edges, mean: choose one"):
        tiling(model, tile=32)
    assert tiling(model.with_outputs(["edges"]), tile=32).is_blended

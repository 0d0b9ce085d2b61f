from __future__ import annotations

from pathlib import Path

import pytest

from fcdcc.coding import ConvGeometry
from fcdcc.coding.comparison import compare_codes
from fcdcc.pipeline.cli.codes_command import draw_codes

LAYER = ConvGeometry.of((1, 8, 12, 12), (32, 8, 3, 3), padding=1)


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_picture_is_drawn(tmp_path: Path, ending: str) -> None:
    rows = compare_codes(6, 4, geometry=LAYER, sets=1)
    path = tmp_path / f"codes.{ending}"
    draw_codes(rows, path)
    assert path.stat().st_size > 5000


def test_nothing_to_draw_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        draw_codes([], tmp_path / "codes.png")

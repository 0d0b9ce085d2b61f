"""Resampling: any rows of the result, from the claimed rows of the input alone."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fcdcc.pipeline.halo import Layout, Rows, analyse, needed
from fcdcc.pipeline.model.interpreter import run_steps
from support.rowcheck import (
    X,
    check_ends_are_needed,
    from_claimed_rows,
    layouts_of,
    one,
    per_axis,
    random_tensor,
    spaces,
    whole_result,
)

NDIM = pytest.mark.parametrize("ndim", [1, 2, 3])


class TestResampling:
    SMOOTH: ClassVar[dict[int, list[str]]] = {
        1: ["upsample_linear1d"],
        2: ["upsample_bilinear2d", "upsample_bicubic2d"],
        3: ["upsample_trilinear3d"],
    }

    @NDIM
    @pytest.mark.parametrize("kind", ["nearest", "exact", "linear", "aligned"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @settings(max_examples=10, deadline=None)
    @given(data=st.data())
    def test_any_factor(
        self, ndim: int, kind: str, dtype: torch.dtype, data: st.DataObject
    ) -> None:
        draw = data.draw
        name = {
            "nearest": [f"upsample_nearest{ndim}d"],
            "exact": [f"_upsample_nearest_exact{ndim}d"],
        }.get(kind, self.SMOOTH[ndim])[-1 if draw(st.booleans()) else 0]
        sizes = draw(spaces(ndim, 1, 40))
        how = draw(st.sampled_from(["sizes", "factors", "both"]))
        factors = [draw(st.sampled_from([0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 3.3])) for _ in sizes]
        align: list[bool] = (
            [] if kind in ("nearest", "exact") else [kind == "aligned" or draw(st.booleans())]
        )
        if how == "sizes":
            results = [draw(st.integers(1, 50)), *per_axis(draw, ndim - 1, 1, 8)]
            stage = one(f"aten.{name}.vec", X, results, *align, None)
        elif how == "factors":
            stage = one(f"aten.{name}.vec", X, None, *align, factors)
        else:
            results = [max(1, int(s * f)) for s, f in zip(sizes, factors, strict=True)]
            stage = one(f"aten.{name}.default", X, results, *align, *factors)
        values = {"x": random_tensor(2, 3, *sizes).to(dtype)}
        whole = whole_result(stage, values, {})
        found = analyse(stage, layouts_of(values, {}), {})
        start = draw(st.integers(0, whole.shape[2] - 1))
        rows = Rows(start, draw(st.integers(start + 1, whole.shape[2])))
        check_ends_are_needed(found, values["x"], {}, data)
        got = from_claimed_rows(found, values, {}, rows)
        expected = whole[:, :, rows.start : rows.stop]
        if kind in ("nearest", "exact"):
            assert torch.equal(got, expected)
        else:
            bound = 2e-6 if dtype == torch.float32 else 1e-12
            torch.testing.assert_close(got, expected, rtol=bound, atol=bound)

    @pytest.mark.parametrize("align", [True, False])
    def test_large_sizes_are_rounded_as_pytorch_rounds_them(self, align: bool) -> None:
        x = random_tensor(1, 1, 1733, 1).float()
        stage = one("aten.upsample_bilinear2d.vec", X, [4099, 1], align, None)
        whole = run_steps(stage, {"x": x}, {})["y"]
        found = analyse(stage, {"x": Layout(tuple(x.shape))}, {})
        for start in range(0, 4099, 500):
            rows = Rows(start, min(start + 500, 4099))
            got = from_claimed_rows(found, {"x": x}, {}, rows)
            torch.testing.assert_close(got, whole[:, :, start : rows.stop], rtol=0, atol=2e-6)

    def test_claims_a_strip_and_a_row_around(self) -> None:
        stage = one("aten.upsample_bilinear2d.vec", X, None, False, [2.0, 2.0])
        found = analyse(stage, {"x": Layout((1, 1, 16, 4))}, {})
        assert needed(found, {"y": (0, 8)}) == {"x": (0, 5)}
        assert needed(found, {"y": (8, 16)}) == {"x": (3, 9)}
        assert needed(found, {"y": (24, 32)}) == {"x": (11, 16)}

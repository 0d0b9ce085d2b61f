"""Pooling: any rows of the result, from the claimed rows of the input alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcdcc.pipeline.halo import Barrier, Layout, analyse
from fcdcc.pipeline.model.network import Ref, Step
from support.rowcheck import (
    SLOW,
    X,
    check_ends_are_needed,
    check_rows,
    one,
    per_axis,
    random_tensor,
    spaces,
    stage_of,
)

NDIM = pytest.mark.parametrize("ndim", [1, 2, 3])


class TestPooling:
    @NDIM
    @SLOW
    @given(data=st.data())
    def test_max(self, ndim: int, data: st.DataObject) -> None:
        draw = data.draw
        kernel = per_axis(draw, ndim, 1, 4)
        options = (
            kernel,
            draw(st.sampled_from([[], per_axis(draw, ndim, 1, 4)])),
            [draw(st.integers(0, k // 2)) for k in kernel],
            per_axis(draw, ndim, 1, 3),
            draw(st.booleans()),
        )
        stage = one(f"aten.max_pool{ndim}d.default", X, *options)
        values = {"x": random_tensor(2, 3, *draw(spaces(ndim)))}
        found = check_rows(stage, values, {}, data, exact=True)
        if options[3][0] == 1:
            check_ends_are_needed(found, values["x"], {}, data)

    @NDIM
    @SLOW
    @given(data=st.data())
    def test_average(self, ndim: int, data: st.DataObject) -> None:
        draw = data.draw
        kernel = per_axis(draw, ndim, 1, 4)
        options: list[Any] = [
            kernel,
            draw(st.sampled_from([[], per_axis(draw, ndim, 1, 4)])),
            [draw(st.integers(0, k // 2)) for k in kernel],
            draw(st.booleans()),
            draw(st.booleans()),
        ]
        if ndim > 1:
            options.append(draw(st.sampled_from([None, 3])))
        stage = one(f"aten.avg_pool{ndim}d.default", X, *options)
        values = {"x": random_tensor(2, 3, *draw(spaces(ndim)))}
        found = check_rows(stage, values, {}, data)
        check_ends_are_needed(found, values["x"], {}, data)

    @NDIM
    @pytest.mark.parametrize("kind", ["avg", "max"])
    @SLOW
    @given(data=st.data())
    def test_adaptive(self, ndim: int, kind: str, data: st.DataObject) -> None:
        draw = data.draw
        sizes = [draw(st.integers(2, 14)), *per_axis(draw, ndim - 1, 1, 5)]
        steps = [Step("p", f"aten.adaptive_{kind}_pool{ndim}d.default", (X, sizes), {})]
        if kind == "max":
            steps.append(Step("y", "operator.getitem", (Ref("p"), 0), {}))
        values = {"x": random_tensor(2, 3, *draw(spaces(ndim, 1, 14)))}
        found = check_rows(stage_of(*steps), values, {}, data)
        check_ends_are_needed(found, values["x"], {}, data)

    @pytest.mark.parametrize("axis", [0, 1, 2, 3])
    @SLOW
    @given(data=st.data())
    def test_rows_on_any_axis(self, axis: int, data: st.DataObject) -> None:
        stage = one("aten.max_pool2d.default", X, [3, 2], [2, 1], [1, 0], [1, 2], True)
        check_rows(stage, {"x": random_tensor(4, 5, 7, 8)}, {}, data, {"x": axis}, exact=True)

    def test_places_of_the_maxima_are_of_the_whole(self) -> None:
        steps = (
            Step("p", "aten.max_pool2d_with_indices.default", (X, [2, 2]), {}),
            Step("y", "operator.getitem", (Ref("p"), 1), {}),
        )
        found = analyse(stage_of(*steps), {"x": Layout((2, 3, 8, 8))}, {})
        assert isinstance(found.outputs["y"], Barrier)

    def test_global_pooling_is_a_barrier(self) -> None:
        found = analyse(
            one("aten.adaptive_avg_pool2d.default", X, [1, 1]), {"x": Layout((2, 3, 8, 8))}, {}
        )
        assert found.outputs["y"] == Barrier(
            "y", "aten.adaptive_avg_pool2d.default", "global pooling"
        )
        assert not found.local

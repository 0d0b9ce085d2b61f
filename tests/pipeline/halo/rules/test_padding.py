"""Padding, cropping and pixel shuffle: any rows, from the claimed rows of the input alone."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fcdcc.pipeline.halo import Layout, analyse, needed
from support.rowcheck import (
    SLOW,
    X,
    check_ends_are_needed,
    check_rows,
    one,
    per_axis,
    random_tensor,
    whole_result,
)


class TestEdges:
    @SLOW
    @given(data=st.data(), mode=st.sampled_from(["constant", "reflect", "replicate"]))
    def test_padding(self, data: st.DataObject, mode: str) -> None:
        draw = data.draw
        rows = draw(st.integers(5, 9))
        low = -2 if mode == "constant" else 0
        amounts = per_axis(draw, 4, low, 4)
        value = 1.5 if mode == "constant" and draw(st.booleans()) else None
        stage = one("aten.pad.default", X, amounts, mode, value)
        found = check_rows(stage, {"x": random_tensor(2, 3, rows, 7)}, {}, data, exact=True)
        for index in (0, found.layouts["y"].rows - 1):
            claimed = needed(found, {"y": (index, index + 1)})["x"]
            assert claimed is not None
            assert claimed.size == 1

    @pytest.mark.parametrize("op", ["reflection_pad2d", "replication_pad2d", "constant_pad_nd"])
    @SLOW
    @given(data=st.data())
    def test_padding_operators(self, op: str, data: st.DataObject) -> None:
        amounts = per_axis(data.draw, 4, 0, 4)
        stage = one(f"aten.{op}.default", X, amounts)
        check_rows(stage, {"x": random_tensor(2, 3, 6, 7)}, {}, data, exact=True)

    @SLOW
    @given(data=st.data(), step=st.integers(1, 3))
    def test_slices(self, data: st.DataObject, step: int) -> None:
        start = data.draw(st.sampled_from([None, -9, -4, 0, 1, 3]))
        stop = data.draw(st.sampled_from([None, -1, 5, 9, 2**63 - 1]))
        stage = one("aten.slice.Tensor", X, 2, start, stop, step)
        x = random_tensor(2, 3, 9, 7)
        assume(whole_result(stage, {"x": x}, {}).shape[2])
        found = check_rows(stage, {"x": x}, {}, data, exact=True)
        check_ends_are_needed(found, x, {}, data)

    @SLOW
    @given(data=st.data(), up=st.booleans(), axis=st.sampled_from([0, 2, 3]))
    def test_pixel_shuffle(self, data: st.DataObject, up: bool, axis: int) -> None:
        op = "aten.pixel_shuffle.default" if up else "aten.pixel_unshuffle.default"
        check_rows(one(op, X, 2), {"x": random_tensor(3, 8, 6, 4)}, {}, data, {"x": axis})

    def test_a_range_of_padding_alone_claims_one_row(self) -> None:
        found = analyse(one("aten.pad.default", X, [0, 0, 6, 6]), {"x": Layout((2, 3, 4, 5))}, {})
        assert needed(found, {"y": (0, 3)}) == {"x": (0, 1)}
        assert needed(found, {"y": (12, 16)}) == {"x": (3, 4)}

"""Convolutions in the glue: any rows of the result, from the claimed rows of the input alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcdcc.pipeline.model.network import Ref
from support.rowcheck import (
    SLOW,
    X,
    check_ends_are_needed,
    check_rows,
    one,
    per_axis,
    random_tensor,
    spaces,
)

NDIM = pytest.mark.parametrize("ndim", [1, 2, 3])


class TestConvolutions:
    @NDIM
    @SLOW
    @given(data=st.data())
    def test_plain(self, ndim: int, data: st.DataObject) -> None:
        draw = data.draw
        groups = draw(st.sampled_from([1, 2]))
        tensors = {
            "w": random_tensor(6, 4 // groups, *per_axis(draw, ndim, 1, 4), seed=1),
            "b": random_tensor(6, seed=2),
        }
        named = draw(st.sampled_from([None, "same", "valid"]))
        stride = [1] * ndim if named == "same" else per_axis(draw, ndim, 1, 3)
        dilation = per_axis(draw, ndim, 1, 2)
        bias = draw(st.sampled_from([Ref("b"), None]))
        if named == "same":
            # PyTorch warns where it has to pad unevenly; that is tested below.
            tensors["w"] = random_tensor(6, 4 // groups, *[3] * ndim, seed=1)
        numbers = per_axis(draw, ndim, 0, 3)
        padding = named or numbers
        op = f"aten.conv{ndim}d." + ("padding" if named else "default")
        stage = one(op, X, Ref("w"), bias, stride, padding, dilation, groups)
        values = {"x": random_tensor(2, 4, *draw(spaces(ndim, 5)))}
        found = check_rows(stage, values, tensors, data)
        padded = 1 if named else numbers[0]
        if dilation[0] == 1 and padded < tensors["w"].shape[2]:
            check_ends_are_needed(found, values["x"], tensors, data)

    @pytest.mark.filterwarnings("ignore:Using padding='same'")
    @SLOW
    @given(data=st.data(), kernel=st.integers(1, 5), dilation=st.integers(1, 3))
    def test_same_padding_may_be_uneven(
        self, data: st.DataObject, kernel: int, dilation: int
    ) -> None:
        tensors = {"w": random_tensor(3, 4, kernel, 2, seed=1)}
        stage = one("aten.conv2d.padding", X, Ref("w"), None, [1], "same", [dilation, 1])
        check_rows(stage, {"x": random_tensor(2, 4, 9, 6)}, tensors, data)

    @NDIM
    @SLOW
    @given(data=st.data())
    def test_transposed(self, ndim: int, data: st.DataObject) -> None:
        draw = data.draw
        groups = draw(st.sampled_from([1, 2]))
        kernel = per_axis(draw, ndim, 1, 4)
        tensors = {
            "w": random_tensor(4, 3, *kernel, seed=1),
            "b": random_tensor(3 * groups, seed=2),
        }
        stride, dilation = per_axis(draw, ndim, 1, 4), per_axis(draw, ndim, 1, 3)
        bounds = [max(s, d) - 1 for s, d in zip(stride, dilation, strict=True)]
        options = (
            draw(st.sampled_from([Ref("b"), None])),
            stride,
            per_axis(draw, ndim, 0, 3),
            [draw(st.integers(0, bound)) for bound in bounds],
        )
        values = {"x": random_tensor(2, 4, *draw(spaces(ndim)))}
        if draw(st.booleans()):
            bias, stride, padding, output_padding = options
            stage = one(
                "aten.convolution.default",
                *(X, Ref("w"), bias, stride, padding, dilation, True, output_padding, groups),
            )
        else:
            op = f"aten.conv_transpose{ndim}d." + ("default" if ndim == 1 else "input")
            stage = one(op, X, Ref("w"), *options, groups, dilation)
        check_rows(stage, values, tensors, data)

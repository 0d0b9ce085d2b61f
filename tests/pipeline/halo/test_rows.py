"""Any rows of one step's result, from the claimed rows of its inputs alone."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fcdcc.pipeline.halo import Barrier, Layout, Rows, analyse, needed
from fcdcc.pipeline.model.interpreter import run_steps
from fcdcc.pipeline.model.network import Ref, Step
from support.rowcheck import (
    SLOW,
    X,
    check_ends_are_needed,
    check_rows,
    from_claimed_rows,
    layouts_of,
    one,
    per_axis,
    random_tensor,
    spaces,
    stage_of,
    whole_result,
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

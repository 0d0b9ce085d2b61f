"""What has no rows, what needs all rows, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fcdcc.pipeline.errors import RowsError
from fcdcc.pipeline.halo import (
    Barrier,
    Layout,
    RowLocal,
    Rows,
    StageRows,
    Whole,
    analyse,
    barrier_stage,
    needed,
    plan_rows,
    run_rows,
)
from fcdcc.pipeline.model.interpreter import run_steps
from fcdcc.pipeline.model.network import GlueStage, Ref, Step
from support.rowcheck import SLOW, X, check_rows, from_claimed_rows, one, random_tensor, stage_of


class TestWholeValues:
    def test_squeeze_excitation_is_local_once_its_weights_are_there(self) -> None:
        steps = (
            Step("mean", "aten.mean.dim", (X, [2, 3], True), {}),
            Step("gate", "aten.sigmoid.default", (Ref("mean"),), {}),
            Step("y", "aten.mul.Tensor", (X, Ref("gate")), {}),
        )
        found = analyse(stage_of(*steps), {"x": Layout((2, 3, 8, 8))}, {})
        assert found.outputs["y"] == RowLocal(2, requires=("gate",))
        assert found.barriers == (Barrier("mean", "aten.mean.dim", "a mean over all rows"),)
        assert needed(found, {"y": (3, 5)}) == {"x": (3, 5), "gate": None}
        part = barrier_stage(found)
        assert part is not None
        assert (part.inputs, part.outputs, len(part.steps)) == (("x",), ("gate",), 2)

    @SLOW
    @given(data=st.data(), how=st.sampled_from(["expand_as", "expand", "upsample"]))
    def test_what_is_spread_over_the_rows_travels_before_it_is(
        self, data: st.DataObject, how: str
    ) -> None:
        spread = {
            "expand_as": Step("all", "aten.expand_as.default", (Ref("gate"), X), {}),
            "expand": Step("all", "aten.expand.default", (Ref("gate"), [-1, 3, 8, 5]), {}),
            "upsample": Step(
                "all", "aten.upsample_bilinear2d.vec", (Ref("gate"), [8, 5], False, None), {}
            ),
        }[how]
        stage = stage_of(
            Step("mean", "aten.adaptive_avg_pool2d.default", (X, [1, 1]), {}),
            Step("gate", "aten.sigmoid.default", (Ref("mean"),), {}),
            spread,
            Step("y", "aten.mul.Tensor", (X, Ref("all")), {}),
        )
        found = check_rows(stage, {"x": random_tensor(2, 3, 8, 5)}, {}, data)
        assert needed(found, {"y": (3, 5)}) == {"x": (3, 5), "gate": None}

    def test_a_value_without_rows_stays_without(self) -> None:
        layouts = {"x": Layout((2, 3, 1, 1), None)}
        found = analyse(one("aten.sigmoid.default", X), layouts, {})
        assert found.outputs["y"] == Whole()
        assert found.local
        assert barrier_stage(found) is None

    @SLOW
    @given(data=st.data())
    def test_a_whole_value_meets_rows(self, data: st.DataObject) -> None:
        steps = (
            Step("up", "aten.upsample_bilinear2d.vec", (Ref("w"), [7, 5], False, None), {}),
            Step("y", "aten.cat.default", ([X, Ref("up")], 1), {}),
        )
        stage = stage_of(*steps, inputs=("x", "w"))
        values = {"x": random_tensor(2, 3, 7, 5), "w": random_tensor(2, 2, 1, 1)}
        found = check_rows(stage, values, {}, data, {"x": 2, "w": None}, exact=True)
        assert needed(found, {"y": (2, 4)}) == {"x": (2, 4), "w": None}

    @SLOW
    @given(data=st.data())
    def test_one_row_is_broadcast_over_all(self, data: st.DataObject) -> None:
        stage = stage_of(
            Step("mean", "aten.avg_pool2d.default", (X, [7, 1]), {}),
            Step("y", "aten.sub.Tensor", (X, Ref("mean")), {}),
        )
        found = check_rows(stage, {"x": random_tensor(2, 3, 7, 5)}, {}, data)
        assert needed(found, {"y": (2, 4)}) == {"x": (0, 7)}

    def test_only_inputs_that_are_used_are_needed(self) -> None:
        steps = (
            Step("a", "aten.relu.default", (X,), {}),
            Step("b", "aten.relu.default", (Ref("z"),), {}),
        )
        stage = GlueStage(0, ("x", "z"), ("a", "b"), steps)
        found = analyse(stage, {"x": Layout((2, 3, 8, 8)), "z": Layout((2, 3, 8, 8))}, {})
        assert needed(found, {"b": (1, 3)}) == {"z": (1, 3)}
        assert needed(found, {"a": (0, 2), "b": (1, 3)}) == {"x": (0, 2), "z": (1, 3)}

    def test_sizes_are_those_of_the_whole(self) -> None:
        """``x.shape[2]`` in a network is not the number of rows of a strip."""
        steps = (
            Step("size", "aten.sym_size.int", (X, 2), {}),
            Step("twice", "operator.mul", (Ref("size"), 2), {}),
            Step("y", "aten.upsample_nearest2d.vec", (X, [Ref("twice"), 4], None), {}),
        )
        x = random_tensor(2, 3, 6, 4)
        found = analyse(stage_of(*steps), {"x": Layout((2, 3, 6, 4))}, {})
        got = from_claimed_rows(found, {"x": x}, {}, Rows(4, 8))
        assert torch.equal(got, run_steps(found.stage, {"x": x}, {})["y"][:, :, 4:8])


class TestBarriers:
    @pytest.mark.parametrize(
        ("steps", "why"),
        [
            ([("aten.flatten.using_ints", X, 1)], "joins the rows"),
            ([("aten.reshape.default", X, [2, 3, -1])], "joins the rows"),
            ([("aten.softmax.int", X, 2)], "along the rows"),
            ([("aten.mean.default", X)], "all axes"),
            ([("aten.amax.default", X, [-2])], "a maximum over all rows"),
            ([("aten.cat.default", [X, X], 2)], "below each other"),
            ([("aten.chunk.default", X, 2, 2), ("operator.getitem", Ref("s0"), 0)], "splits"),
            ([("aten.select.int", X, 2, 0)], "single rows"),
            ([("aten.squeeze.default", X)], "whatever axis"),
            ([("aten.group_norm.default", X, 3)], "not known"),
            ([("aten.instance_norm.default", X, *[None] * 4, True, 0.1, 1e-5, False)], "not known"),
            ([("aten.layer_norm.default", X, [6, 4])], "normalises over the rows"),
            ([("aten.flip.default", X, [2])], "along the rows"),
            ([("aten.pad.default", X, [0, 0, 1, 1], "circular")], "circular"),
            ([("aten.permute.default", X, [0, 1, 3, 2]),
              ("aten.linear.default", Ref("s0"), Ref("w"))],
             "along the rows"),
            ([("aten.permute.default", X, [0, 2, 1, 3]),
              ("aten.conv2d.default", Ref("s0"), Ref("k"))],
             "rows as channels"),
            ([("aten.matmul.default", X, Ref("square")),
              ("aten.transpose.int", X, 2, 3), ("aten.matmul.default", Ref("s0"), Ref("s1"))],
             "fixed values"),
            ([("aten.permute.default", X, [0, 1, 3, 2]), ("aten.mul.Tensor", Ref("s0"), Ref("row")),
              ("aten.mean.dim", Ref("s1"), [1], True), ("aten.transpose.int", Ref("s2"), 2, 3),
              ("aten.reshape.default", Ref("s3"), [2, 24])], "joins the rows"),
            ([("aten.index.Tensor", X, [None, None, Ref("places")])], "picks rows"),
            ([("aten.nonzero.default", X)], "not known"),
        ],
    )  # fmt: skip
    def test_what_needs_all_rows_says_why(self, steps: list[tuple[Any, ...]], why: str) -> None:
        tensors = {
            "w": random_tensor(2, 6),
            "k": random_tensor(2, 6, 1, 1),
            "square": random_tensor(4, 4),
            "row": random_tensor(6),
            "places": torch.arange(3),
        }
        stage = stage_of(
            *(Step(f"s{i}", op, tuple(args), {}) for i, (op, *args) in enumerate(steps))
        )
        found = analyse(stage, {"x": Layout((2, 3, 6, 4), 2, torch.float64)}, tensors)
        output = found.outputs[stage.outputs[0]]
        assert isinstance(output, Barrier)
        assert why in output.reason
        assert why in str(output)
        with pytest.raises(RowsError, match="not local to rows"):
            plan_rows(found, {stage.outputs[0]: (0, 1)})

    def test_rows_meeting_columns_are_a_barrier(self) -> None:
        steps = (
            Step("turned", "aten.transpose.int", (X, 2, 3), {}),
            Step("y", "aten.add.Tensor", (X, Ref("turned")), {}),
        )
        found = analyse(stage_of(*steps), {"x": Layout((2, 3, 6, 6))}, {})
        assert isinstance(found.outputs["y"], Barrier)

    def test_everything_behind_a_barrier_is_told_why(self) -> None:
        steps = (
            Step("pool", "aten.adaptive_avg_pool2d.default", (X, [1, 1]), {}),
            Step("y", "aten.flatten.using_ints", (Ref("pool"), 1), {}),
        )
        found = analyse(stage_of(*steps), {"x": Layout((2, 3, 6, 6))}, {})
        assert found.outputs["y"] == found.barriers[0]
        assert found.barriers[0].step == "pool"

    def test_a_reshape_that_moves_rows_at_another_batch_size_is_found_out(self) -> None:
        """At a batch of 1, (N, 1, H, W) to (1, N, H, W) and to (H, N, W) look alike."""
        stage = one("aten.reshape.default", X, [6, -1, 4])
        found = analyse(stage, {"x": Layout((1, 1, 6, 4))}, {})
        plan = plan_rows(found, {"y": (0, 3)})
        run_rows(plan, {"x": random_tensor(1, 1, 3, 4)}, {})
        with pytest.raises(RowsError, match="batch of 2"):
            run_rows(plan, {"x": random_tensor(2, 1, 3, 4)}, {})
        again = analyse(stage, {"x": Layout((2, 1, 6, 4))}, {})
        assert isinstance(again.outputs["y"], Barrier)


class TestRefusals:
    def found(self) -> StageRows:
        return analyse(one("aten.relu.default", X), {"x": Layout((2, 3, 8, 8))}, {})

    @pytest.mark.parametrize("rows", [(3, 3), (-1, 2), (0, 9), (5, 4)])
    def test_rows_that_do_not_exist(self, rows: tuple[int, int]) -> None:
        with pytest.raises(RowsError, match="which has 8"):
            needed(self.found(), {"y": rows})

    def test_outputs_that_do_not_exist(self) -> None:
        with pytest.raises(RowsError, match="'z'"):
            needed(self.found(), {"z": (0, 1)})

    def test_missing_and_wrong_inputs(self) -> None:
        plan = plan_rows(self.found(), {"y": (2, 4)})
        with pytest.raises(RowsError, match="rows 2 to 4"):
            run_rows(plan, {}, {})
        with pytest.raises(RowsError, match="expected the rows 2 to 4"):
            run_rows(plan, {"x": torch.zeros(2, 3, 8, 8)}, {})
        with pytest.raises(RowsError, match="expected the rows 2 to 4"):
            run_rows(plan, {"x": torch.zeros(2, 3, 2, 8)}, {}, held={"x": (3, 5)})

    def test_inputs_may_hold_more_than_is_needed(self) -> None:
        x = random_tensor(2, 3, 8, 8)
        plan = plan_rows(self.found(), {"y": (2, 4)})
        got = run_rows(plan, {"x": x[:, :, 1:7]}, {}, held={"x": (1, 7)})["y"]
        assert torch.equal(got, x[:, :, 2:4].relu())

    def test_layouts_that_do_not_fit(self) -> None:
        stage = one("aten.relu.default", X)
        with pytest.raises(RowsError, match="no layout of 'x'"):
            analyse(stage, {}, {})
        with pytest.raises(RowsError, match="row axis 4"):
            analyse(stage, {"x": Layout((2, 3, 8, 8), 4)}, {})
        with pytest.raises(RowsError, match="'w' is neither"):
            analyse(one("aten.mul.Tensor", X, Ref("w")), {"x": Layout((2, 3, 8, 8))}, {})

"""Any rows of any run of steps, from the claimed rows of its input alone."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fcdcc.pipeline.model.interpreter import run_steps
from fcdcc.pipeline.model.network import GlueStage, Ref, Step
from support.rowcheck import Draw, check_rows, per_axis, random_tensor, stage_of


class Chain:
    """A random run of steps that grows as long as PyTorch accepts it."""

    def __init__(self, draw: Draw, x: torch.Tensor) -> None:
        self.draw = draw
        self.values: dict[str, Any] = {"x": x}
        self.tensors: dict[str, torch.Tensor] = {}
        self.steps: list[Step] = []
        self.open = ["x"]

    @property
    def last(self) -> Ref:
        return Ref(self.open[-1])

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values[self.last.name].shape)

    def add(self, op: str, *args: Any, keep: bool = True, **kwargs: Any) -> Ref:
        step = Step(f"s{len(self.steps)}", op, args, kwargs)
        stage = GlueStage(0, tuple(self.values), (step.name,), (step,))
        known = {**self.values, **self.tensors}
        self.values[step.name] = run_steps(stage, known, self.tensors)[step.name]
        self.steps.append(step)
        if keep:
            self.open.append(step.name)
        return Ref(step.name)

    def parameter(self, *shape: int) -> Ref:
        name = f"p{len(self.tensors)}"
        self.tensors[name] = random_tensor(*shape, seed=len(self.tensors) + 10)
        return Ref(name)

    def pointwise(self) -> None:
        op, *args = self.draw(
            st.sampled_from(
                [
                    ("aten.relu.default",),
                    ("aten.hardswish.default",),
                    ("aten.clamp.default", -0.5, 1.0),
                    ("aten.mul.Scalar", 1.5),
                    ("aten.leaky_relu.default", 0.1),
                    ("aten.neg.default",),
                ]
            )
        )
        self.add(op, self.last, *args)

    def smooth(self) -> None:
        ops = ("gelu", "silu", "sigmoid", "tanh", "hardsigmoid", "elu")
        self.add(f"aten.{self.draw(st.sampled_from(ops))}.default", self.last)

    def with_parameter(self) -> None:
        _, channels, rows, columns = self.shape
        shape = self.draw(
            st.sampled_from([(channels, 1, 1), (1, channels, rows, columns), (rows, 1), (columns,)])
        )
        op = self.draw(st.sampled_from(["aten.mul.Tensor", "aten.add.Tensor"]))
        pair = [self.last, self.parameter(*shape)]
        self.add(op, *(pair if self.draw(st.booleans()) else pair[::-1]))

    def batch_norm(self) -> None:
        channels = self.shape[1]
        weight, bias, mean = (self.parameter(channels) for _ in range(3))
        variance = self.parameter(channels)
        self.tensors[variance.name].abs_().add_(0.5)
        statistics = (weight, bias, mean, variance, False, 0.1, 1e-5, False)
        self.add("aten.batch_norm.default", self.last, *statistics)

    def max_pool(self) -> None:
        kernel = self.draw(st.integers(1, 3))
        padding = self.draw(st.integers(0, kernel // 2))
        stride, dilation = self.draw(st.integers(1, 2)), self.draw(st.integers(1, 2))
        ceil = self.draw(st.booleans())
        sizes = [[n] * 2 for n in (kernel, stride, padding, dilation)]
        self.add("aten.max_pool2d.default", self.last, *sizes, ceil)

    def average_pool(self) -> None:
        kernel = self.draw(st.integers(1, 3))
        padding = self.draw(st.integers(0, kernel // 2))
        options = (self.draw(st.booleans()), self.draw(st.booleans()))
        stride = self.draw(st.integers(1, 2))
        self.add("aten.avg_pool2d.default", self.last, [kernel], [stride], [padding], *options)

    def adaptive_pool(self) -> None:
        size = [self.draw(st.integers(2, 6)), self.draw(st.integers(1, 6))]
        self.add("aten.adaptive_avg_pool2d.default", self.last, size)

    def convolve(self) -> None:
        kernel = self.draw(st.integers(1, 3))
        weight = self.parameter(4, self.shape[1], kernel, 2)
        numbers = [self.draw(st.integers(1, 2)), self.draw(st.integers(0, 2)), 1]
        self.add("aten.conv2d.default", self.last, weight, None, *([n] for n in numbers))

    def transposed(self) -> None:
        weight = self.parameter(self.shape[1], 3, self.draw(st.integers(1, 3)), 2)
        stride, padding = self.draw(st.integers(1, 3)), self.draw(st.integers(0, 1))
        bias = self.parameter(3)
        self.add("aten.conv_transpose2d.input", self.last, weight, bias, [stride, 1], [padding, 0])

    def upsample(self) -> None:
        op, *options = self.draw(
            st.sampled_from(
                [
                    ("aten.upsample_nearest2d.vec",),
                    ("aten.upsample_bilinear2d.vec", True),
                    ("aten.upsample_bilinear2d.vec", False),
                    ("aten.upsample_bicubic2d.vec", False),
                ]
            )
        )
        if self.draw(st.booleans()):
            size = [self.draw(st.integers(2, 15)), self.draw(st.integers(2, 6))]
            self.add(op, self.last, size, *options, None)
        else:
            self.add(op, self.last, None, *options, [self.draw(st.sampled_from([0.6, 2.0])), 1.0])

    def pad(self) -> None:
        mode = self.draw(st.sampled_from(["constant", "reflect", "replicate"]))
        amounts = per_axis(self.draw, 4, 0, 2)
        self.add("aten.pad.default", self.last, amounts, mode)

    def crop(self) -> None:
        start, stop = self.draw(st.integers(0, 2)), self.draw(st.sampled_from([-1, 2**63 - 1]))
        self.add("aten.slice.Tensor", self.last, 2, start, stop, self.draw(st.integers(1, 2)))

    def channels_last(self) -> None:
        channels = self.shape[1]
        last = self.add("aten.permute.default", self.last, [0, 2, 3, 1], keep=False)
        scale, shift = self.parameter(channels), self.parameter(channels)
        normal = self.add(
            "aten.layer_norm.default", last, [channels], scale, shift, 1e-5, keep=False
        )
        weight = self.parameter(5, channels)
        linear = self.add("aten.linear.default", normal, weight, None, keep=False)
        self.add("aten.permute.default", linear, [0, 3, 1, 2])

    def shuffle(self) -> None:
        _, channels, rows, columns = self.shape
        groups = next(g for g in (3, 2, 1) if channels % g == 0)
        inner = [self.add("aten.sym_size.int", self.last, 0, keep=False), groups]
        inner += [channels // groups, rows, columns]
        view = self.add("aten.reshape.default", self.last, inner, keep=False)
        turned = self.add("aten.transpose.int", view, 1, 2, keep=False)
        self.add("aten.reshape.default", turned, [-1, channels, rows, columns])

    def halves(self) -> None:
        parts = self.add(
            "aten.chunk.default", self.last, 2, self.draw(st.sampled_from([1, 3])), keep=False
        )
        count = len(self.values[parts.name])
        chosen = self.draw(st.permutations(range(count)))
        items = [self.add("operator.getitem", parts, i, keep=False) for i in chosen]
        self.add(
            "aten.cat.default",
            items,
            1 if len({self.values[i.name].shape for i in items}) == 1 else 3,
        )

    def softmax(self) -> None:
        self.add("aten.softmax.int", self.last, self.draw(st.sampled_from([1, 3, -1])))

    def weighted_columns(self) -> None:
        mean = self.add("aten.mean.dim", self.last, [3], True, keep=False)
        self.add("aten.mul.Tensor", self.last, mean)

    def squeeze_excite(self) -> None:
        mean = self.add("aten.mean.dim", self.last, [2, 3], True, keep=False)
        gate = self.add("aten.sigmoid.default", mean, keep=False)
        self.add("aten.mul.Tensor", gate, self.last)

    def join(self) -> None:
        """Sum or concatenation with an earlier value of the same size."""
        shape = self.shape
        others = [n for n in self.open if self.values[n].shape[2:] == shape[2:]]
        other = Ref(self.draw(st.sampled_from(others)))
        if self.values[other.name].shape == shape and self.draw(st.booleans()):
            self.add("aten.add.Tensor", self.last, other)
        else:
            self.add("aten.cat.default", [self.last, other], 1)

    def grow(self, length: int) -> None:
        kinds = (
            *(self.pointwise, self.smooth, self.with_parameter, self.batch_norm, self.max_pool),
            *(self.average_pool, self.adaptive_pool, self.convolve, self.transposed),
            *(self.upsample, self.pad, self.crop, self.channels_last, self.shuffle, self.halves),
            *(self.softmax, self.weighted_columns, self.squeeze_excite, self.join, self.join),
        )
        for _ in range(length):
            before = (dict(self.values), list(self.steps), list(self.open))
            try:
                self.draw(st.sampled_from(kinds))()
            except ValueError:
                self.values, self.steps, self.open = before
            shape = self.shape
            if 0 in shape or max(shape[1:]) > 40:
                self.values, self.steps, self.open = before


class TestChains:
    @settings(max_examples=150, deadline=None)
    @given(data=st.data())
    def test_any_rows_of_any_chain(self, data: st.DataObject) -> None:
        rows = data.draw(st.integers(2, 12), label="rows")
        x = random_tensor(2, 4, rows, 5)
        chain = Chain(data.draw, x)
        chain.grow(data.draw(st.integers(1, 6), label="length"))
        assume(chain.steps)
        check_rows(stage_of(*chain.steps), {"x": x}, chain.tensors, data)

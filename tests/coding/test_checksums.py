from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from fcdcc.coding import ConvGeometry
from fcdcc.coding.checksums import (
    CHECKSUM_KINDS,
    ChecksumKind,
    ConvChecksum,
    cheapest_checksum,
    checksum_cost,
)
from fcdcc.coding.errors import GeometryError, TensorError
from fcdcc.coding.position_sums import ValueSums, sums_around
from fcdcc.coding.sum_weights import axis_weights
from fcdcc.coding.testing.faults import FAULTS, flip_bit

CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


class Layer:
    """A random convolution with its checksum, its input and its output."""

    def __init__(self, draw: st.DrawFn, dtype: torch.dtype = torch.float32) -> None:
        axes = draw(st.integers(1, 3))

        def one_each(low: int, high: int) -> tuple[int, ...]:
            return tuple(draw(st.integers(low, high)) for _ in range(axes))

        self.groups = draw(st.sampled_from([1, 1, 2, 4]))
        channels = self.groups * draw(st.integers(1, 4))
        filters = self.groups * draw(st.integers(1, 5))
        kernel, self.stride = one_each(1, 4), one_each(1, 3)
        self.dilation, padding = one_each(1, 2), one_each(0, 3)
        space = tuple(
            (k - 1) * d + 1 + extra
            for k, d, extra in zip(kernel, self.dilation, one_each(0, 9), strict=True)
        )
        self.padding = tuple((p, p) for p in padding)
        images = draw(st.integers(1, 3))
        generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

        def random(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

        self.x = random(images, channels, *space)
        if draw(st.booleans()):
            self.x = self.x.relu()
        self.weight = random(filters, channels // self.groups, *kernel)
        self.bias = random(filters) if draw(st.booleans()) else None
        self.is_last = draw(st.booleans())
        if self.is_last:
            self.x = self.x.movedim(1, -1).contiguous().movedim(-1, 1)
        self.y = self.convolve(self.x, self.weight)
        self.checksum = ConvChecksum(
            self.weight.clone(),
            self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            seed=draw(st.integers(0, 99)),
        )

    def convolve(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Return the convolution by PyTorch, in the memory layout of the input."""
        padding = [before for before, _ in self.padding]
        convolution = CONVOLUTIONS[x.ndim - 2]
        y = convolution(x, weight, self.bias, self.stride, padding, self.dilation, self.groups)
        return y.movedim(1, -1).contiguous().movedim(-1, 1) if self.is_last else y.contiguous()


layers = st.composite(Layer)


@settings(max_examples=60, deadline=None)
@given(layer=layers(), kind=st.sampled_from(CHECKSUM_KINDS))
def test_clean_layers_are_right(layer: Layer, kind: ChecksumKind) -> None:
    if kind == "images" and layer.bias is not None:
        with pytest.raises(TensorError, match="without bias"):
            layer.checksum.check(layer.x, layer.y, kind=kind)
        return
    found = layer.checksum.check(layer.x, layer.y, kind=kind)
    assert found.is_right
    assert found.worst < 0.5
    assert layer.checksum.is_right(layer.x, layer.y)


@settings(max_examples=60, deadline=None)
@given(layer=layers(), data=st.data())
def test_one_element_wrong_by_more_than_ten_bounds_is_found(
    layer: Layer, data: st.DataObject
) -> None:
    image = data.draw(st.integers(0, len(layer.y) - 1))
    bound = float(layer.checksum.check(layer.x, layer.y).bounds[image])
    place = (image, *(data.draw(st.integers(0, size - 1)) for size in layer.y.shape[1:]))
    layer.y[place] += data.draw(st.sampled_from([-1.0, 1.0])) * 10 * bound
    found = layer.checksum.check(layer.x, layer.y)
    assert not found.is_right
    assert not layer.checksum.is_right(layer.x, layer.y)
    assert found.worst > 1
    wrong = (found.differences.abs() > found.bounds).any(dim=1)
    assert wrong.nonzero().flatten().tolist() == [image]


@settings(max_examples=40, deadline=None)
@given(layer=layers(), fault=st.sampled_from(sorted(FAULTS)), seed=st.integers(0, 2**31))
def test_faults_whose_effect_is_far_above_rounding_are_found(
    layer: Layer, fault: str, seed: int
) -> None:
    right = layer.y.clone()
    FAULTS[fault](layer.y, np.random.default_rng(seed))
    found = layer.checksum.check(layer.x, layer.y)
    effect = (layer.y - right).to(torch.float64).flatten(1).norm(dim=1)
    if not bool(torch.isfinite(effect).all()) or bool((effect > 100 * found.bounds[:, 0]).any()):
        assert not found.is_right
    if not bool(effect.any()):
        assert found.is_right
    assert layer.checksum.is_right(layer.x, layer.y) == found.is_right


@pytest.mark.parametrize("places", ["one filter", "everywhere"])
def test_errors_that_are_spread_over_many_outputs_do_not_cancel_in_all_sums(places: str) -> None:
    checksum, x, _, y = layer_of(16, 24, 14, 3, 1, torch.float32)
    bound = float(checksum.check(x, y).bounds[0])
    generator = torch.Generator().manual_seed(5)
    missed = 0
    for number in range(1000):
        error = torch.randn(y[0].shape, generator=generator)
        if places == "one filter":
            error[torch.arange(24) != number % 24] = 0.0
        wrong = y.clone()
        wrong[0] += error * (10 * bound / error.norm())
        missed += checksum.is_right(x, wrong)
    # By chance all of four independent sums are below a tenth once in some thousand such errors.
    assert missed <= 2


@settings(max_examples=30, deadline=None)
@given(layer=layers(), seed=st.integers(0, 2**31))
def test_a_filter_that_was_damaged_in_memory_is_found(layer: Layer, seed: int) -> None:
    right = layer.y
    flip_bit(layer.weight, np.random.default_rng(seed), bit=29)  # of the exponent
    damaged = layer.convolve(layer.x, layer.weight)
    found = layer.checksum.check(layer.x, damaged)
    effect = (damaged - right).to(torch.float64).flatten(1).norm(dim=1)
    if bool((effect > 100 * found.bounds[:, 0]).any()):
        assert not found.is_right


def layer_of(
    channels: int, filters: int, size: int, kernel: int, groups: int, dtype: torch.dtype
) -> tuple[ConvChecksum, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn((filters, channels // groups, kernel, kernel), generator=generator)
    x = torch.randn((2, channels, size, size), generator=generator).relu()
    weight, x = weight.to(dtype), x.to(dtype)
    pad = kernel // 2
    y = functional.conv2d(x, weight, None, 1, pad, 1, groups)
    checksum = ConvChecksum(
        weight, stride=(1, 1), padding=((pad, pad),) * 2, dilation=(1, 1), groups=groups
    )
    return checksum, x, weight, y


@pytest.mark.parametrize("sign", ["mixed", "one", "constant"])
@pytest.mark.parametrize("groups", [1, 64])
def test_products_of_one_sign_stay_within_the_bound(sign: str, groups: int) -> None:
    checksum, x, weight, y = layer_of(64, 64, 20, 3, groups, torch.float32)
    if sign != "mixed":
        x = torch.full_like(x, 0.7371) if sign == "constant" else x
        weight = weight.abs()
        checksum = ConvChecksum(
            weight, stride=(1, 1), padding=((1, 1),) * 2, dilation=(1, 1), groups=groups
        )
        y = functional.conv2d(x, weight, None, 1, 1, 1, groups)
    for layout in (torch.contiguous_format, torch.channels_last):
        found = checksum.check(
            x.contiguous(memory_format=layout), y.contiguous(memory_format=layout)
        )
        assert found.worst < 0.5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes(dtype: torch.dtype) -> None:
    checksum, x, _, y = layer_of(16, 24, 12, 3, 1, dtype)
    found = checksum.check(x, y)
    assert found.worst < 0.5
    y[1, 5, 3, 3] += 10 * float(found.bounds[1])
    assert not checksum.check(x, y).is_right


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [14, 28, 56])
def test_float64_is_checked_to_its_own_precision(kernel: int, stride: int, size: int) -> None:
    generator = torch.Generator().manual_seed(kernel)
    x = torch.randn((2, 32, size, size), generator=generator, dtype=torch.float64)
    weight = torch.randn((8, 32, kernel, kernel), generator=generator, dtype=torch.float64)
    pad = kernel // 2
    checksum = ConvChecksum(
        weight, stride=(stride, stride), padding=((pad, pad),) * 2, dilation=(1, 1)
    )
    for layout in (torch.contiguous_format, torch.channels_last):
        x = x.contiguous(memory_format=layout)
        y = functional.conv2d(x, weight, None, stride, pad)
        assert checksum.check(x, y).worst < 0.5
        assert checksum.is_right(x, y)


@pytest.mark.parametrize("length", [1024, 4096, 16_000])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(1, 1, 1), (3, 1, 1), (7, 2, 1), (3, 3, 2)]
)
def test_long_axes_are_checked_as_accurately(
    length: int, kernel: int, stride: int, dilation: int
) -> None:
    generator = torch.Generator().manual_seed(length)
    x = torch.randn((2, 16, length), generator=generator, dtype=torch.float64)
    weight = torch.randn((16, 16, kernel), generator=generator, dtype=torch.float64)
    checksum = ConvChecksum(
        weight, stride=(stride,), padding=((kernel // 2,) * 2,), dilation=(dilation,)
    )
    for value in (x, x.abs(), x.movedim(1, -1).contiguous().movedim(-1, 1)):
        y = functional.conv1d(value, weight, None, stride, kernel // 2, dilation)
        found = checksum.check(value, y)
        assert found.worst < 0.5
        y[1, 3, -2] += 10 * float(found.bounds[1])
        assert not checksum.is_right(value, y)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("length", "width", "channels"), [(16_000, 1, 8), (160_000, 1, 48), (224, 224, 48)]
)
def test_an_input_with_the_pattern_of_the_weights_is_right(
    length: int, width: int, channels: int, stride: int, positive: bool, channels_last: bool
) -> None:
    """Its sums, and their rounding errors, grow with the number of positions."""
    generator = torch.Generator().manual_seed(length)
    size = (length - 1) // stride + 1
    pattern = torch.nn.functional.interpolate(axis_weights(0, size, 1)[None], length)[0, 0]
    space = (length, width) if width > 1 else (length,)
    x = (
        pattern.reshape(length, *[1] * (len(space) - 1))
        .expand(1, channels, *space)
        .to(torch.float32)
    )
    x = x * (0.75 + torch.rand((1, channels, *[1] * len(space)), generator=generator) / 2)
    weight = torch.randn((channels, channels, *[3] * len(space)), generator=generator)
    weight = weight.abs() if positive else weight
    if channels_last:
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    y = CONVOLUTIONS[len(space)](x, weight, None, stride, 1)
    checksum = ConvChecksum(
        weight, stride=(stride,) * len(space), padding=((1, 1),) * len(space),
        dilation=(1,) * len(space),
    )  # fmt: skip
    found = checksum.check(x, y)
    assert found.worst < 0.5
    assert checksum.is_right(x, y)
    before, after = sums_around(y, torch.relu_, checksum.sums, after=True)
    known = {id(x): ValueSums(x), id(y): before}
    assert checksum.is_right(x, y, None, lambda value: known[id(value)])
    assert after is not None
    y[0, 3, length // stride // 2] += 10 * float(found.bounds[0])
    assert not checksum.is_right(x, y)


@pytest.mark.parametrize(
    ("padding", "stride", "shares"),
    [(((1, 1), (1, 1)), 1, True), (((0, 0), (1, 1)), 1, False), (((2, 1), (1, 1)), 1, False),
     (((1, 1), (1, 1)), 2, False), (((65, 65), (1, 1)), 2, False)],
)  # fmt: skip
def test_layers_share_the_sums_of_a_value_where_their_weights_are_the_same(
    padding: tuple[tuple[int, int], tuple[int, int]], stride: int, shares: bool
) -> None:
    """The last one has a stride, and an output as high as its input."""
    generator = torch.Generator().manual_seed(4)
    x = torch.randn((2, 32, 128, 64), generator=generator).to(memory_format=torch.channels_last)
    weight = torch.randn((8, 32, 3, 3), generator=generator)
    checksum = ConvChecksum(weight, stride=(stride,) * 2, padding=padding, dilation=(1, 1))
    padded = functional.pad(x, (*padding[1], *padding[0]))
    y = functional.conv2d(padded, weight, None, stride)
    assert checksum.uses_sums(x) == shares
    known = {id(x): ValueSums(x), id(y): ValueSums(y)}
    known[id(x)].along_first()
    assert checksum.is_right(x, y, None, lambda value: known[id(value)])
    assert checksum.check(x, y).worst < 0.5
    y[1, 3, 60] += 10 * float(checksum.check(x, y).bounds[1])
    assert not checksum.is_right(x, y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kernel", [1, 3])
def test_a_part_of_a_value_with_channels_last(dtype: torch.dtype, kernel: int) -> None:
    """The part is neither dense nor channels last, and would become so in another dtype."""
    checksum, x, weight, _ = layer_of(8, 12, 24, kernel, 1, dtype)
    whole = torch.cat([x, x.flip(1)], dim=1).contiguous(memory_format=torch.channels_last)
    for part in (whole[:, :8], whole[:, 8:], whole[:, :8, 2:, 3:]):
        y = functional.conv2d(part, weight, None, 1, kernel // 2)
        assert checksum.check(part, y).worst < 0.5
        assert checksum.is_right(part, y)
        y[0] = -y[0]
        assert not checksum.is_right(part, y)


def test_what_was_added_is_part_of_the_sum() -> None:
    checksum, x, _, y = layer_of(8, 12, 10, 3, 1, torch.float32)
    added = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    assert checksum.check(x, y + added, added).is_right
    assert not checksum.check(x, y + added).is_right


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-18, 1e17, 1e18, 1e20, 1e25])
@pytest.mark.parametrize("size", [10, 64])
def test_very_small_and_very_large_images(scale: float, size: int) -> None:
    checksum, x, weight, _ = layer_of(8, 12, size, 3, 1, torch.float32)
    x = x * scale
    y = functional.conv2d(x, weight, None, 1, 1)
    assert checksum.check(x, y).is_right
    assert checksum.is_right(x, y)
    y[0, 0, 0, 0] += max(100 * scale, 1e-25)
    assert not checksum.check(x, y).is_right
    assert not checksum.is_right(x, y)


def test_large_images_and_tiny_filters_are_not_accused() -> None:
    """The sums of the input overflow in float32, and the output does not."""
    generator = torch.Generator().manual_seed(1)
    x = 3e37 * torch.rand((1, 8, 32, 32), generator=generator)
    weight = 1e-10 * torch.randn((8, 8, 1, 1), generator=generator)
    y = functional.conv2d(x, weight)
    assert bool(y.isfinite().all())
    checksum = ConvChecksum(weight, stride=(1, 1), padding=((0, 0),) * 2, dilation=(1, 1))
    assert checksum.is_right(x, y)


@pytest.mark.parametrize("number", [math.inf, math.nan])
@pytest.mark.parametrize("groups", [1, 4])
def test_filters_that_are_not_finite_have_not_changed(number: float, groups: int) -> None:
    weight = torch.randn((8, 8 // groups, 3, 3), generator=torch.Generator().manual_seed(2))
    weight[3, 1, 0, 0] = number
    checksum = ConvChecksum(
        weight, stride=(1, 1), padding=((1, 1),) * 2, dilation=(1, 1), groups=groups
    )
    assert checksum.is_of(weight)
    weight[5, 0, 2, 1] = math.inf
    assert not checksum.is_of(weight)


def test_an_image_that_is_not_finite_is_not_accused_and_the_others_are_checked() -> None:
    checksum, x, weight, _ = layer_of(8, 12, 10, 3, 1, torch.float32)
    x[0, 2, 3, 3] = math.inf
    x[0, 2, 5, 3] = math.nan
    y = functional.conv2d(x, weight, None, 1, 1)
    assert checksum.check(x, y).is_right
    assert checksum.is_right(x, y)
    y[1, 2, 3, 4] = math.nan
    assert not checksum.check(x, y).is_right
    assert not checksum.is_right(x, y)
    assert checksum.check(x, y).worst == math.inf


def test_the_cheapest_checksum_costs_little() -> None:
    sizes = {
        (64, 64, 224, 3, 1): 0.03,
        (512, 512, 14, 3, 1): 0.01,
        (256, 64, 56, 1, 1): 0.1,
        (960, 960, 7, 5, 960): 1.0,
    }
    for (channels, filters, size, kernel, groups), most in sizes.items():
        geometry = ConvGeometry.of(
            (8, channels, size, size),
            (filters, channels // groups, kernel, kernel),
            padding=kernel // 2,
            groups=groups,
        )
        cheapest = cheapest_checksum(geometry, 8)
        costs = {kind: checksum_cost(kind, geometry, 8) for kind in CHECKSUM_KINDS}
        assert costs[cheapest].multiply_adds == min(c.multiply_adds for c in costs.values())
        assert costs[cheapest].relative_to(geometry, 8) < most


def test_no_images_are_right() -> None:
    checksum, x, _, y = layer_of(8, 12, 10, 3, 1, torch.float32)
    for kind in CHECKSUM_KINDS:
        assert checksum.check(x[:0], y[:0], kind=kind).is_right
    assert checksum.check(x[:0], y[:0]).worst == 0.0


def test_sums_over_images_need_the_filters() -> None:
    _, x, weight, y = layer_of(8, 12, 10, 3, 1, torch.float32)
    checksum = ConvChecksum(
        weight, stride=(1, 1), padding=((1, 1),) * 2, dilation=(1, 1), keep_filters=False
    )
    assert checksum.check(x, y).is_right
    with pytest.raises(TensorError, match="keeps none; expected keep_filters=True"):
        checksum.check(x, y, kind="images")


def test_what_does_not_fit_is_refused() -> None:
    checksum, x, weight, y = layer_of(8, 12, 10, 3, 1, torch.float32)
    with pytest.raises(TensorError, match="expected"):
        checksum.check(x, y[:, :11])
    with pytest.raises(TensorError, match="floating-point"):
        checksum.check(x.to(torch.int32), y)
    with pytest.raises(GeometryError, match="each spatial dimension"):
        ConvChecksum(weight, stride=(1,), padding=((1, 1),) * 2, dilation=(1, 1))

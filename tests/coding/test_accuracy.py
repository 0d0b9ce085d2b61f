"""What is promised about the accuracy of the default code, on a layer of AlexNet."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from fcdcc.coding import CodedConv, ConvGeometry, make_code
from fcdcc.coding.comparison import layer_errors, survivor_sets

CONV3 = ConvGeometry.of((1, 256, 13, 13), (384, 256, 3, 3), padding=1)

WORST_CONDITION = 4.1
"""Of the default code at (6, 4): decoding multiplies errors by at most so much."""


@pytest.fixture(scope="module")
def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((1, 256, 13, 13), generator=generator, dtype=torch.float64)
    weight = torch.randn(CONV3.weight_shape, generator=generator, dtype=torch.float64) / 48.0
    return x, weight, CONV3.convolve(x, weight)


@pytest.mark.parametrize(("k_a", "k_b"), [(1, 16), (2, 8), (16, 1)])
def test_any_two_of_six_missing_in_float32(data, k_a: int, k_b: int) -> None:
    x, weight, reference = data
    layer = CodedConv(CONV3, make_code("systematic", n=6, k_a=k_a, k_b=k_b))
    survivors = list(itertools.combinations(range(6), 4))
    errors = layer_errors(layer, x.float(), weight.float(), survivors, reference)
    # What float32 itself loses depends on the processor: 8 · 10⁻⁷ without AVX-512.
    own = CONV3.convolve(x.float(), weight.float()).double() - reference
    relative = math.sqrt(float((own**2).mean() / (reference**2).mean()))
    assert relative <= 1e-6
    assert math.sqrt(max(errors)) <= WORST_CONDITION * relative


@pytest.mark.parametrize(("k_a", "k_b"), [(1, 64), (2, 32), (4, 16)])
def test_sixteen_of_twenty_in_float64(data, k_a: int, k_b: int) -> None:
    x, weight, reference = data
    code = make_code("systematic", n=20, k_a=k_a, k_b=k_b)
    errors = layer_errors(CodedConv(CONV3, code), x, weight, survivor_sets(code, 4), reference)
    assert max(errors) <= 1e-28

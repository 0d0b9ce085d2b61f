from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from hypothesis import given

from fcdcc.coding import ConvGeometry, GeometryError
from support.convolutions import Layer, layers, oracle


@given(layers())
def test_output_shape_is_that_of_torch(layer: Layer) -> None:
    geometry = ConvGeometry.of(layer.x_shape, layer.weight_shape, *layer.arguments)
    x, weight = layer.tensors()
    expected = oracle(x, weight, None, *layer.arguments)
    assert (layer.batch, geometry.out_channels, *geometry.output_spatial) == expected.shape
    assert geometry.weight_shape == layer.weight_shape
    assert torch.allclose(geometry.convolve(x, weight), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("arguments", [(2, 1, 2), ((2,), (1,), (2,)), ([2, 2], [1, 1], [2, 2])])
def test_numbers_and_sequences_mean_the_same(arguments: tuple[Any, ...]) -> None:
    expected = ConvGeometry(
        in_channels=4,
        out_channels=6,
        spatial=(9, 8),
        kernel=(3, 2),
        stride=(2, 2),
        padding=((1, 1), (1, 1)),
        dilation=(2, 2),
        groups=2,
    )
    assert ConvGeometry.of((5, 4, 9, 8), (6, 2, 3, 2), *arguments, 2) == expected
    assert ConvGeometry.of((4, 9, 8), (6, 2, 3, 2), *arguments, 2) == expected


def test_same_puts_the_odd_zero_at_the_end() -> None:
    geometry = ConvGeometry.of((1, 1, 9), (1, 1, 4), padding="same")
    assert geometry.padding == ((1, 2),)


def test_derived_sizes() -> None:
    geometry = ConvGeometry.of((1, 3, 32, 30), (8, 3, 3, 5), (2, 1), ((1, 2), (0, 4)), (2, 1))
    assert geometry.ndim == 2
    assert geometry.effective_kernel == (5, 5)
    assert geometry.padded_spatial == (35, 34)
    assert geometry.output_spatial == (16, 30)
    assert geometry.multiply_adds == 8 * 3 * 3 * 5 * 16 * 30


def test_a_value() -> None:
    one = ConvGeometry.of((1, 3, 32, 30), (8, 3, 3, 5), padding=1)
    two = ConvGeometry.of((7, 3, 32, 30), (8, 3, 3, 5), padding=(1, 1))
    assert one == two
    assert hash(one) == hash(two)
    assert pickle.loads(pickle.dumps(one)) == one


BAD: list[tuple[dict[str, Any], str]] = [
    ({"x_shape": (1, 3, 8)}, r"\(1, 3, 8\).*\(8, 3, 3, 3\)|3 channels"),
    ({"x_shape": (1, 3, 8, 8, 8, 8)}, "as many spatial dimensions"),
    ({"x_shape": (1, 4, 8, 8)}, "4 channels.*expected 3 channels"),
    ({"x_shape": (1, 3, 0, 8)}, r"spatial \(0, 8\); expected 1 or more"),
    ({"weight_shape": (8, 3)}, "0 spatial dimensions|expected filters"),
    ({"weight_shape": (0, 3, 3, 3)}, "0 out_channels"),
    ({"weight_shape": (8, 3, 9, 9)}, r"kernel of size \(9, 9\).*\(8, 8\)"),
    ({"dilation": 4}, r"kernel of size \(9, 9\).*\(8, 8\)"),
    ({"stride": 0}, r"stride \(0, 0\); expected 1 or more"),
    ({"stride": (1, 1, 1)}, r"stride \(1, 1, 1\) for 2 spatial dimensions"),
    ({"padding": -1}, "padding.*0 or more"),
    ({"padding": "full"}, "'full'; expected 'same', 'valid' or numbers"),
    ({"padding": "same", "stride": 2}, r"'same' with stride \(2, 2\)"),
    ({"padding": ((1, 1),)}, r"padding .*expected 2 entries"),
    ({"padding": ((1, 1), (1, 1, 1))}, "expected a pair"),
    ({"padding": (1, (1, 1))}, "expected a pair"),
    ({"weight_shape": (8, 1, 3, 3), "groups": 3}, "8 out_channels in 3 groups"),
    ({"groups": 0}, "expected 0 channels|0 groups"),
]


@pytest.mark.parametrize(("change", "words"), BAD)
def test_what_does_not_fit_is_refused_in_words(change: dict[str, Any], words: str) -> None:
    arguments: dict[str, Any] = {"x_shape": (1, 3, 8, 8), "weight_shape": (8, 3, 3, 3)}
    with pytest.raises(GeometryError, match=words):
        ConvGeometry.of(**(arguments | change))

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcdcc.coding import CodedConv, CodeError, ConvGeometry
from fcdcc.coding.cost import (
    Cost,
    Partition,
    cheapest,
    coded_share_cost,
    crme_partitions,
    share_cost,
)
from fcdcc.coding.crme import crme, crme_threshold
from support.convolutions import Layer, layers

EARLY = ConvGeometry.of((1, 3, 224, 224), (64, 3, 3, 3), padding=1)
LATE = ConvGeometry.of((1, 512, 14, 14), (512, 512, 3, 3), padding=1)


def coded(layer: Layer, k_a: int, k_b: int, split: Any) -> CodedConv:
    geometry = ConvGeometry.of(layer.x_shape, layer.weight_shape, *layer.arguments)
    return CodedConv(geometry, crme(crme_threshold(k_a, k_b) + 1, k_a, k_b), split)


def chosen(geometry: ConvGeometry, delta: int, *options: Any, **prices: float) -> tuple[int, ...]:
    """The (k_a, k_b) of the CRME that is cheapest for a layer."""
    return cheapest(geometry, crme_partitions(delta), *options, **prices)[:2]


K = st.sampled_from([1, 2, 4, 6])


@given(layers(), K, K, st.sampled_from(["rows", "images"]))
def test_costs_are_those_of_the_tensors(layer: Layer, k_a: int, k_b: int, split: Any) -> None:
    value = coded(layer, k_a, k_b, split)
    x, weight = layer.tensors()
    for share in (0, value.code.n - 1):
        coded_input = value.encode_input(x, share)
        coded_filters = value.encode_filters(weight, share)
        cost = share_cost(value, share, layer.batch)
        assert cost.upload == coded_input.numel()
        assert cost.stored == coded_filters.numel()
        assert cost.download == math.prod(value.share_shape(share, layer.batch))
        assert cost.multiply_adds == cost.download * math.prod(layer.weight_shape[1:])


def test_the_formulas_of_the_paper() -> None:
    cost = coded_share_cost(EARLY, Partition(8, 4, 2, 2))
    assert cost.upload == 2 * 3 * (28 - 1 + 3) * 226
    assert cost.download == 4 * 16 * 28 * 224
    assert cost.stored == 2 * 16 * 3 * 9
    assert cost.multiply_adds == 4 * 3 * 16 * 28 * 224 * 9
    assert cost.communication == cost.upload + cost.download
    assert cost.price() == pytest.approx(0.09 * cost.communication + 0.023 * cost.stored)
    assert cost.multiply_adds * 8 == EARLY.multiply_adds


def test_rounding_up_is_paid_for() -> None:
    seven_rows = ConvGeometry.of((1, 64, 7, 7), (64, 64, 3, 3), padding=1)
    by_rows = coded_share_cost(seven_rows, Partition(32, 1, 2, 1))
    by_filters = coded_share_cost(seven_rows, Partition(1, 32, 1, 2))
    assert by_rows.multiply_adds * 7 == by_filters.multiply_adds * 32
    assert chosen(seven_rows, 16) == (1, 32)


@pytest.mark.parametrize("delta", [1, 2, 4, 12, 16])
def test_every_allowed_partition_has_the_threshold(delta: int) -> None:
    partitions = crme_partitions(delta)
    assert len(set(partitions)) == len(partitions)
    for k_a, k_b, ell_a, ell_b in partitions:
        assert crme_threshold(k_a, k_b) == delta
        assert (ell_a, ell_b) == (min(k_a, 2), min(k_b, 2))
    everything = {
        (k_a, k_b)
        for k_a in [1, *range(2, 2 * delta + 1, 2)]
        for k_b in [1, *range(2, 2 * delta + 1, 2)]
        if crme_threshold(k_a, k_b) == delta
    }
    assert {(k_a, k_b) for k_a, k_b, *_ in partitions} == everything


@given(layers(), st.integers(1, 8), st.sampled_from(["rows", "images"]))
def test_nothing_allowed_is_cheaper(layer: Layer, delta: int, split: Any) -> None:
    geometry = ConvGeometry.of(layer.x_shape, layer.weight_shape, *layer.arguments)
    costs = [coded_share_cost(geometry, p, split, 4) for p in crme_partitions(delta)]
    for objective, rank in (("work", lambda c: c.multiply_adds), ("paper", Cost.price)):
        best = cheapest(geometry, crme_partitions(delta), objective, split=split, batch=4)
        assert rank(coded_share_cost(geometry, best, split, 4)) == min(map(rank, costs))


def test_early_layers_are_split_by_rows_and_late_ones_by_filters() -> None:
    for objective in ("work", "paper"):
        assert chosen(EARLY, 16, objective)[0] >= 16
        assert chosen(LATE, 16, objective)[1] >= 16


def test_dearer_storage_makes_larger_filter_splits() -> None:
    cheap = chosen(LATE, 16, "paper", storage=0.0)
    dear = chosen(LATE, 16, "paper", storage=10.0)
    assert dear[1] >= cheap[1]


def test_no_threshold() -> None:
    with pytest.raises(CodeError, match="threshold 0; expected 1"):
        crme_partitions(0)


def geometry(channels: int, size: int, filters: int, kernel: int, **options: int) -> ConvGeometry:
    shape = (1, channels, size, size)
    return ConvGeometry.of(shape, (filters, channels, kernel, kernel), **options)


LENET = {"c1": geometry(1, 32, 6, 5), "c2": geometry(6, 14, 16, 5)}
ALEXNET = {
    "c1": geometry(3, 227, 96, 11, stride=4),
    "c2": geometry(96, 27, 256, 5, padding=2),
    "c3": geometry(256, 13, 384, 3, padding=1),
    "c4": geometry(384, 13, 384, 3, padding=1),
    "c5": geometry(384, 13, 256, 3, padding=1),
}
VGG = {
    f"{stage}_{number}": geometry(before, 448 >> stage, 64 << min(stage - 1, 3), 3, padding=1)
    for stage, widths in enumerate(
        [(3, 64), (64, 128), (128, 256, 256), (256, 512, 512), (512,) * 3], start=1
    )
    for number, before in enumerate(widths, start=1)
}


@pytest.mark.parametrize(
    ("layers", "pairs"),
    [
        (LENET, {"c1": (16, 2), "c2": (1, 16)}),
        (ALEXNET, {"c1": (16, 2), "c2": (4, 8), "c": (1, 16)}),
        (VGG, {"1": (16, 2), "2": (16, 2), "3": (8, 4), "4": (4, 8), "5": (1, 16)}),
    ],
    ids=["lenet", "alexnet", "vgg16"],
)
def test_the_pairs_of_the_paper(
    layers: dict[str, ConvGeometry], pairs: dict[str, tuple[int, int]]
) -> None:
    """At δ = 8, prices 0.09 and 0.023; where one part costs what two do, it is two."""
    for name, layer in layers.items():
        expected = pairs.get(name) or next(p for key, p in pairs.items() if name.startswith(key))
        assert chosen(layer, 8, "paper") == expected, name


def test_one_part_and_two_often_cost_the_same() -> None:
    whole, halves = (
        coded_share_cost(EARLY, p) for p in (Partition(16, 1, 2, 1), Partition(16, 2, 2, 2))
    )
    assert whole == halves

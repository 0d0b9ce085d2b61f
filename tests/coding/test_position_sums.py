"""Sums over positions: in every memory layout, before and after a change, in pieces."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fcdcc.coding import position_sums as module
from fcdcc.coding.position_sums import (
    InputSums,
    ValueSums,
    sums_around,
)
from fcdcc.coding.sum_weights import axis_weights, position_weights

SHAPES = [(3, 5, 7), (2, 4, 37, 41), (3, 70, 8, 9), (2, 6, 64, 64), (2, 3, 5, 6, 7)]
SUMS = 4


def laid_out(shape: tuple[int, ...], *, channels_last: bool) -> torch.Tensor:
    value = torch.randn(shape, generator=torch.Generator().manual_seed(7))
    if channels_last and len(shape) > 2:
        return value.movedim(1, -1).contiguous().movedim(-1, 1)
    return value


def directly(value: torch.Tensor, sums: int = SUMS) -> torch.Tensor:
    weights = position_weights(tuple(value.shape[2:]), sums)
    return torch.einsum("bcp,sp->bsc", value.to(torch.float64).flatten(2), weights)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("sums", [1, 2, 3, SUMS])
def test_sums_are_those_of_the_weights(
    shape: tuple[int, ...], channels_last: bool, sums: int
) -> None:
    value = laid_out(shape, channels_last=channels_last)
    found = ValueSums(value).positions(sums)
    torch.testing.assert_close(found, directly(value, sums), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("piece", [1, 20_000, 2**30])
def test_a_value_is_summed_changed_and_summed_again(
    shape: tuple[int, ...], channels_last: bool, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", piece)
    value = laid_out(shape, channels_last=channels_last)
    expected = torch.relu(value)
    sums, wanted = directly(value), directly(expected)
    before, after = sums_around(value, torch.relu_, SUMS, after=True)
    assert torch.equal(value, expected)
    assert after is not None
    torch.testing.assert_close(before.positions(SUMS), sums, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(after.positions(SUMS), wanted, rtol=1e-5, atol=1e-3)
    assert sums_around(value, torch.relu_, SUMS, after=False)[1] is None


@pytest.mark.parametrize("space", [(1,), (1, 1), (1, 9), (2, 2), (7, 7), (56, 56)])
def test_no_position_is_without_weight_and_none_of_the_sums_is_void(space: tuple[int, ...]) -> None:
    weights = position_weights(space, SUMS).abs()
    assert float(weights.amax(dim=0).min()) > 0.35
    assert float(weights[:, 0].min()) > 0.3  # the only position of a linear layer


@given(
    size=st.integers(1, 3000),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 3),
    padding=st.tuples(st.integers(0, 4), st.integers(0, 4)),
)
def test_the_turned_rows_give_what_every_element_of_the_kernel_meets(
    size: int, kernel: int, stride: int, dilation: int, padding: tuple[int, int]
) -> None:
    out = (size + sum(padding) - (kernel - 1) * dilation - 1) // stride + 1
    if out < 1:
        return
    found = InputSums.of(
        1000, (size,), (out,), (kernel,), (stride,), (dilation,), padding[:1], SUMS, torch.float64
    )
    weights = axis_weights(0, out, 2)
    expected = torch.zeros((2, kernel, size), dtype=torch.float64)
    for column in range(kernel):
        for position in range(out):
            place = position * stride + column * dilation - padding[0]
            if 0 <= place < size:
                expected[:, column, place] = weights[:, position]
    made = found.combine if found.first is None else found.combine @ found.first
    torch.testing.assert_close(made, expected, rtol=0.0, atol=3e-15)


@pytest.mark.parametrize("axis", [1, 2])
def test_an_error_that_is_the_same_at_every_position_is_seen_with_about_its_norm(axis: int) -> None:
    """As ``docs/trust.md`` says, for every height and width up to 1,024."""
    sizes = range(1, 1025)
    first = torch.stack([axis_weights(0, size, SUMS).sum(dim=1).abs() for size in sizes])
    further = axis_weights(axis, sizes[-1], SUMS).cumsum(dim=1).abs().T
    root = torch.arange(1, 1025, dtype=torch.float64).sqrt()[:, None]
    seen = (first / root)[:, None] * (further / root)[None]
    assert float(seen.amax(dim=2).min()) > 0.25
    assert float(seen.max()) < 2.2


def test_the_weights_of_a_short_axis_are_those_of_a_longer_one() -> None:
    long = axis_weights(1, 300, SUMS)
    for size in (1, 2, 3, 255, 256, 257):
        assert torch.equal(axis_weights(1, size, SUMS), long[:, :size])


@given(size=st.integers(1, 3000))
def test_no_two_positions_of_the_first_axis_have_the_same_weights(size: int) -> None:
    weights = axis_weights(0, size, 2).T
    # Neighbouring angles are at least a 128th of a position's part of the circle apart.
    least = math.tau / (128 * size) / 2
    order = torch.argsort(torch.atan2(weights[:, 1], weights[:, 0]))
    apart = torch.linalg.vector_norm(weights[order] - weights[order].roll(1, 0), dim=1)
    assert size == 1 or float(apart.min()) > least

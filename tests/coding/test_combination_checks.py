"""Encoding and decoding are checked by weighted sums."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fcdcc.coding import Code, CodedConv, ConvGeometry, Split, make_code
from fcdcc.coding.code import _decoder
from fcdcc.coding.combination_checks import (
    Combinations,
    coded_filters,
    coded_input,
    decoded_output,
    first_wrong,
    recovered_share,
    wrong_decoder,
)
from fcdcc.coding.conditioning import refusal_limit
from fcdcc.coding.testing.faults import flip_bit, repeat_row, take_stale
from support.convolutions import layers

CODES = [
    ("crme", 6, 4, 4),
    ("crme", 5, 2, 4),
    ("crme", 9, 4, 1),
    ("crme", 12, 4, 8),
    ("systematic", 4, 8, 1),
    ("systematic", 6, 16, 1),
    ("systematic", 5, 2, 4),
    ("systematic", 10, 4, 4),
    ("polynomial", 12, 4, 2),
    ("khatri-rao", 10, 2, 4),
    ("replication", 4, 2, 1),
]
"""Name, n, k_a and k_b; survivors of the polynomial code are ill-conditioned."""

DTYPES = (torch.float32, torch.float64)

IMAGES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mixed": lambda x: x,
    "one sign": torch.Tensor.abs,
    "constant": lambda x: torch.full_like(x, 0.7371),
    "mostly zero": lambda x: x * (x > 1.5),
    "small": lambda x: x * 1e-25,
    "large": lambda x: x * 1e12,
}


class Case:
    """A coded convolution with its tensors and some survivors."""

    def __init__(self, draw: st.DrawFn) -> None:
        layer = draw(layers())
        name, n, k_a, k_b = draw(st.sampled_from(CODES))
        self.code = make_code(name, n=n, k_a=k_a, k_b=k_b)
        geometry = ConvGeometry.of(layer.x_shape, layer.weight_shape, *layer.arguments)
        self.coded = CodedConv(geometry, self.code, draw(st.sampled_from(("rows", "images"))))
        self.dtype = draw(st.sampled_from(DTYPES))
        x, self.weight = layer.tensors(self.dtype)
        self.x = IMAGES[draw(st.sampled_from(sorted(IMAGES)))](x)
        self.batch = layer.batch
        threshold = self.code.recovery_threshold
        chosen = draw(st.permutations(range(n)))[: draw(st.integers(threshold, n))]
        self.survivors = sorted(chosen)
        assume(self.code.is_decodable(self.survivors))
        assume(self.code.condition_number(self.survivors) <= refusal_limit(self.dtype))

    def encoded(self, share: int) -> tuple[torch.Tensor, torch.Tensor]:
        return (
            self.coded.encode_input(self.x, share),
            self.coded.encode_filters(self.weight, share),
        )

    def shares(self) -> dict[int, torch.Tensor]:
        """Return the results of the survivors, as the tasks of a job return them."""
        found = {}
        for share in self.survivors:
            made = self.coded.convolve(*self.encoded(share), share)
            if self.coded.split == "rows" and self.coded.is_plain(share):
                made = made[:, :, : len(self.coded.rows_of(share))]
            found[share] = made
        return found

    def whole_shares(self) -> dict[int, torch.Tensor]:
        return {share: self.coded.convolve(*self.encoded(share), share) for share in self.survivors}

    @property
    def missing(self) -> list[int]:
        """Plain shares that can be recovered."""
        others = (share for share in range(self.code.n) if share not in self.survivors)
        return [share for share in others if self.coded.is_plain(share)]


cases = st.composite(Case)


def all_combinations(case: Case) -> list[Combinations]:
    """Return those of every encoding and decoding of a layer."""
    found: list[Combinations] = []
    for share in range(case.code.n):
        x, weight = case.encoded(share)
        found += coded_input(case.coded, case.x, share, x)
        found += coded_filters(case.coded, case.weight, share, weight)
    whole = case.whole_shares()
    found += decoded_output(case.coded, whole, case.batch, case.coded.decode(whole, case.batch))
    shares = case.shares()
    for share in case.missing:
        made = case.coded.recover(shares, share, case.batch)
        found += recovered_share(case.coded, shares, share, case.batch, made)
    return found


@settings(max_examples=50, deadline=None)
@given(case=cases())
def test_nothing_right_is_accused(case: Case) -> None:
    for found in all_combinations(case):
        assert found.residues().worst < 0.5
        assert found.wrong() is None
    assert wrong_decoder(case.code, case.survivors) is None


FAULTS = {"bit": flip_bit, "row": repeat_row, "stale": take_stale}
KINDS = ("input", "filters", "decoded", "recovered")


def make_one(
    case: Case, kind: str, data: st.DataObject
) -> tuple[torch.Tensor, Callable[[], list[Combinations]]]:
    """Return something that was encoded or decoded, and what looks at it again."""
    coded = case.coded
    share = data.draw(st.integers(0, case.code.n - 1))
    if kind == "input":
        x = coded.encode_input(case.x, share).clone()
        return x, lambda: coded_input(coded, case.x, share, x)
    if kind == "filters":
        weight = coded.encode_filters(case.weight, share).clone()
        return weight, lambda: coded_filters(coded, case.weight, share, weight)
    if kind == "decoded":
        shares = case.whole_shares()
        y = coded.decode(shares, case.batch)
        return y, lambda: decoded_output(coded, shares, case.batch, y)
    assume(case.missing)
    share = data.draw(st.sampled_from(case.missing))
    shares = case.shares()
    part = coded.recover(shares, share, case.batch)
    return part, lambda: recovered_share(coded, shares, share, case.batch, part)


@settings(max_examples=120, deadline=None)
@given(
    case=cases(),
    kind=st.sampled_from(KINDS),
    fault=st.sampled_from(sorted(FAULTS)),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
def test_faults_with_an_effect_above_ten_bounds_are_found(
    case: Case, kind: str, fault: str, seed: int, data: st.DataObject
) -> None:
    made, look = make_one(case, kind, data)
    assume(made.numel())
    before = [result.values.clone() for found in look() for result in found.results]
    bounds = [row for found in look() for row in found.residues().bounds]
    FAULTS[fault](made, np.random.default_rng(seed))
    after = [result.values for found in look() for result in found.results]
    is_wrong = first_wrong(look()) is not None
    effects = [
        (new.to(torch.float64) - old.to(torch.float64)).flatten(1).norm(dim=1) / bound[: len(new)]
        for old, new, bound in zip(before, after, bounds, strict=True)
    ]
    worst = max((float(effect.nan_to_num(math.inf).max()) for effect in effects), default=0.0)
    if worst > 10:
        assert is_wrong
    if worst == 0:
        assert not is_wrong


SPLITS: tuple[Split, ...] = ("rows", "images")


def whole_layer(
    split: Split, name: str = "systematic", dtype: torch.dtype = torch.float32
) -> tuple[CodedConv, dict[int, torch.Tensor], torch.Tensor]:
    """Return a layer of usual size with the results of shares, of which plain ones are missing."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn((8, 16, 20, 20), generator=generator, dtype=torch.float64).relu().to(dtype)
    weight = torch.randn((32, 16, 3, 3), generator=generator, dtype=torch.float64).to(dtype)
    k_b = 1 if name == "systematic" else 4
    k_a = 16 if name == "systematic" else 4
    code = make_code(name, n=6, k_a=k_a, k_b=k_b)
    coded = CodedConv(ConvGeometry.of(x.shape, weight.shape, padding=1), code, split)
    shares = {
        share: coded.convolve(
            coded.encode_input(x, share), coded.encode_filters(weight, share), share
        )
        for share in range(2, 6)
    }
    return coded, shares, x


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", ["systematic", "crme"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_part_of_a_layer_of_usual_size_that_is_of_other_shares_is_found(
    split: Split, name: str, dtype: torch.dtype
) -> None:
    coded, shares, _ = whole_layer(split, name, dtype)
    y = coded.decode(shares, 8)
    assert first_wrong(decoded_output(coded, shares, 8, y)) is None
    stale = coded.decode({share: 1.001 * value for share, value in shares.items()}, 8)
    found = first_wrong(decoded_output(coded, shares, 8, stale))
    assert found is not None
    assert found.worst > 1


@pytest.mark.parametrize("split", SPLITS)
def test_a_decoder_that_is_damaged_in_memory_is_found(split: Split) -> None:
    coded, shares, _ = whole_layer(split)
    decoder = coded.code.decoder(shares)
    assert wrong_decoder(coded.code, shares) is None
    matrix = decoder.matrix.copy()
    matrix[1, 2] += 1e-6
    object.__setattr__(decoder, "matrix", matrix)
    try:
        assert wrong_decoder(coded.code, shares) is not None
    finally:
        _decoder.cache_clear()


def test_images_without_numbers_accuse_nobody_and_the_others_are_checked() -> None:
    coded, _, x = whole_layer("rows")
    share = next(s for s in range(6) if not coded.is_plain(s))
    x[0, 2, 3, 3], x[1, 2, 3, 3] = math.nan, 1e38
    made = coded.encode_input(x, share)
    assert first_wrong(coded_input(coded, x, share, made)) is None
    made[5, 2, 3, 4] = math.nan
    found = first_wrong(coded_input(coded, x, share, made))
    assert found is not None
    assert found.worst == math.inf


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_inputs_in_any_memory_layout_are_checked(layout: torch.memory_format) -> None:
    coded, _, x = whole_layer("images")
    share = next(s for s in range(6) if not coded.is_plain(s))
    x = x.contiguous(memory_format=layout)
    made = coded.encode_input(x, share)
    assert first_wrong(coded_input(coded, x, share, made)) is None
    made[0, 3, 4, 5] += 0.01
    assert first_wrong(coded_input(coded, x, share, made)) is not None


def test_what_is_copied_is_no_combination() -> None:
    coded, shares, x = whole_layer("images", "systematic")
    plain: Code = coded.code
    weight = torch.randn(coded.geometry.weight_shape)
    assert plain.input_run(0) is not None
    assert coded_input(coded, x, 0, coded.encode_input(x, 0)) == []
    assert coded_filters(coded, weight, 0, coded.encode_filters(weight, 0)) == []
    both = {share: shares.get(share, shares[2]) for share in range(plain.recovery_threshold)}
    assert decoded_output(coded, both, 8, coded.decode(both, 8)) == []

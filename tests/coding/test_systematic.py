from __future__ import annotations

import itertools
import json
from importlib.resources import files

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from fcdcc.coding import CodedConv, CodeError, ConvGeometry, coded_conv, make_code
from fcdcc.coding.conditioning import measure
from fcdcc.coding.parity_quaternion import parity_table, seeded_table, shipped_tables
from fcdcc.coding.partitions import code_partitions, planned_parity, systematic_partitions
from fcdcc.coding.quaternions import complex_form, left_matrices, quaternion_blocks
from fcdcc.coding.spectrum import Spectrum, contiguous_losses
from fcdcc.coding.systematic import systematic, systematic_threshold

PARTS = [(16, 1), (1, 16), (8, 2), (2, 8), (4, 4)]


@pytest.mark.parametrize(("k_a", "k_b"), PARTS)
@pytest.mark.parametrize("split", ["rows", "images"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_with_nothing_missing_the_output_is_that_of_the_uncoded_split_bit_for_bit(
    k_a: int, k_b: int, split: str, dtype: torch.dtype
) -> None:
    code = systematic(6, k_a, k_b)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((16, 3, 19, 9), generator=generator, dtype=dtype)
    weight = torch.randn((17, 3, 3, 3), generator=generator, dtype=dtype)
    y = coded_conv(x, weight, padding=1, code=code, split=split)

    # Independently: each share's part, convolved alone by torch.
    expected = torch.empty_like(functional.conv2d(x, weight, padding=1))
    on_input = code.ell_a == 4
    runs_a, runs_b = (k_a // 4, k_b) if on_input else (k_a, k_b // 4)
    height = {"rows": expected.shape[2], "images": len(x)}[split]
    per_a = -(-height // k_a) * (4 if on_input else 1)
    per_b = -(-17 // k_b) * (1 if on_input else 4)
    padded = functional.pad(x, (1, 1, 1, per_a * runs_a - height + 1 if split == "rows" else 1))
    for i, j in itertools.product(range(runs_a), range(runs_b)):
        filters = slice(j * per_b, (j + 1) * per_b)
        # A run of filters is filled up with zero filters, as a share does it.
        kernel = functional.pad(weight[filters], (0,) * 6 + (0, per_b - len(weight[filters])))
        if split == "rows":
            rows = slice(i * per_a, (i + 1) * per_a)
            strip = padded[:, :, i * per_a : (i + 1) * per_a + 2]
            part = functional.conv2d(strip.contiguous(), kernel)
            place = expected[:, filters, rows]
            place.copy_(part[:, : place.shape[1], : place.shape[2]])
        else:
            images = slice(i * per_a, (i + 1) * per_a)
            part = functional.conv2d(x[images], kernel, padding=1)
            expected[images, filters] = part[:, : expected[images, filters].shape[1]]
    assert torch.equal(y, expected)


@pytest.mark.parametrize(("k_a", "k_b"), PARTS)
def test_the_first_shares_are_plain_and_nothing_is_solved_for(k_a: int, k_b: int) -> None:
    code = systematic(6, k_a, k_b)
    layer = CodedConv(ConvGeometry.of((1, 3, 32, 8), (16, 3, 3, 3), padding=1), code)
    assert [layer.is_plain(share) for share in range(6)] == [True] * 4 + [False] * 2
    assert code.decoder(range(4)).solved == ()
    assert len(code.decoder([0, 2, 3, 5]).solved) == 4


@settings(max_examples=40, deadline=None)
@given(
    gamma=st.integers(0, 3),
    delta_q=st.integers(1, 4),
    delta_r=st.sampled_from([1, 2, 3, 4]),
    on_input=st.booleans(),
    data=st.data(),
)
def test_any_shares_decode(
    gamma: int, delta_q: int, delta_r: int, on_input: bool, data: st.DataObject
) -> None:
    k_a, k_b = (4 * delta_q, delta_r) if on_input else (delta_r, 4 * delta_q)
    delta = delta_q * delta_r
    code = systematic(delta + gamma, k_a, k_b)
    assert code.recovery_threshold == delta == systematic_threshold(k_a, k_b)
    survivors = data.draw(st.permutations(range(code.n)))[:delta]
    assert code.condition_number(survivors) < 1e5


@pytest.mark.parametrize(("k_a", "k_b"), [(8, 8), (32, 2), (2, 32), (32, 1), (1, 32)])
def test_rotation_parity_is_as_computed_by_hand(k_a: int, k_b: int) -> None:
    code = systematic(20, k_a, k_b, parity="rotation")
    assert code.recovery_threshold == 16
    assert measure(code).worst == pytest.approx(516.27, abs=0.01)


@pytest.mark.parametrize(
    ("n", "delta", "bound"),
    [(5, 4, 3.74), (6, 4, 4.2), (8, 6, 5.8), (12, 10, 8.5), (18, 16, 12), (20, 16, 30)],
)
def test_worst_condition_numbers_over_all_losses(n: int, delta: int, bound: float) -> None:
    for k_a, k_b in ((4 * delta, 1), (1, 4 * delta)):
        statistics = measure(systematic(n, k_a, k_b))
        assert statistics.method == "all"
        assert statistics.worst <= bound


@pytest.mark.parametrize(
    ("n", "delta", "sampled", "climbed"),
    [(40, 32, 500, 500), (48, 32, 500, 4000), (60, 48, 1000, 5000)],
)
def test_large_codes_over_samples_and_under_a_search_for_bad_losses(
    n: int, delta: int, sampled: float, climbed: float
) -> None:
    code = systematic(n, 4 * delta, 1)
    spectrum, rng = Spectrum.of(code), np.random.default_rng(11)
    order = np.argsort(rng.random((1000, n)), axis=1)[:, : n - delta]
    losses = np.concatenate([contiguous_losses(n, n - delta), np.sort(order, axis=1)])
    assert spectrum.conditions(losses).max() <= sampled
    assert spectrum.conditions(spectrum.climb(losses[:200])).max() <= climbed


@pytest.mark.parametrize("name", shipped_tables(), ids=str)
def test_shipped_tables_are_as_good_as_they_say(name: tuple[int, int, int]) -> None:
    table = parity_table(*name)
    assert table.source == "shipped"
    gamma, delta_q, delta_r = name
    text = files("fcdcc.coding").joinpath("data", "parity-{}-{}-{}.json".format(*name))
    assert json.loads(text.read_text())["worst"] == table.worst
    code = systematic(gamma + delta_q * delta_r, 4 * delta_q, delta_r)
    few = measure(code, samples=300, countable=3000)
    assert few.worst <= table.worst * (1 + 1e-5)


@pytest.mark.parametrize("name", shipped_tables(), ids=str)
def test_shipped_coefficients_are_exact_in_float32(name: tuple[int, int, int]) -> None:
    table = parity_table(*name)
    for values in (table.quaternions, table.reals):
        assert np.array_equal(values.astype(np.float32).astype(np.float64), values)


def test_a_smaller_code_is_cut_from_a_larger_one_and_no_worse() -> None:
    shipped = set(shipped_tables())
    gamma, delta = next(
        (g, d)
        for g, d in itertools.product((3, 2, 4), range(15, 2, -1))
        if (g, d, 1) not in shipped
    )
    table = parity_table(gamma, delta, 1)
    assert table.source == "cut"
    assert measure(systematic(delta + gamma, 4 * delta, 1)).worst <= table.worst * (1 + 1e-9)


def test_sizes_beyond_the_tables_take_the_best_of_some_seeds() -> None:
    table = parity_table(2, 70, 1)
    assert table.source == "seeded"
    assert measure(systematic(72, 280, 1)).worst < 1e3
    again = seeded_table(2, 70, 1, 3)
    assert np.array_equal(again.quaternions, seeded_table(2, 70, 1, 3).quaternions)


def test_seed_and_parity_are_options_by_name() -> None:
    assert make_code("systematic", n=6, k_a=16, k_b=1) == systematic(6, 16, 1)
    assert make_code("systematic", n=6, k_a=16, k_b=1, seed=2) == systematic(6, 16, 1, seed=2)
    assert systematic(6, 16, 1, seed=2) != systematic(6, 16, 1, seed=3)
    rotation = make_code("systematic", n=6, k_a=4, k_b=4, parity="rotation", q=7)
    assert rotation == systematic(6, 4, 4, parity="rotation", q=7)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n": 6, "k_a": 6, "k_b": 2}, "multiple of 4.*k_a = 8"),
        ({"n": 3, "k_a": 16, "k_b": 1}, "n >= 4"),
        ({"n": 6, "k_a": 0, "k_b": 4}, "at least 1"),
        ({"n": 6, "k_a": 16, "k_b": 1, "q": 5}, "no q"),
        (
            {"n": 6, "k_a": 16, "k_b": 1, "parity": "octonion"},
            "'quaternion', 'complex', 'rot.*'real'",
        ),
        ({"n": 6, "k_a": 4, "k_b": 4, "parity": "rotation", "q": 4}, "prime"),
        ({"n": 6, "k_a": 4, "k_b": 4, "parity": "rotation", "q": 3}, "at least 4"),
        ({"n": 6, "k_a": 4, "k_b": 4, "parity": "rotation", "seed": 1}, "no seed"),
    ],
)
def test_what_is_not_a_systematic_code_is_refused_in_words(
    arguments: dict[str, object], words: str
) -> None:
    with pytest.raises(CodeError, match=words):
        systematic(**arguments)


@pytest.mark.parametrize("delta", [1, 2, 4, 6, 10, 16, 32])
def test_partitions_are_those_of_the_code(delta: int) -> None:
    assert len(systematic_partitions(delta, 5)) == 2
    partitions = systematic_partitions(delta, 1)
    for k_a, k_b, ell_a, ell_b in partitions:
        code = systematic(delta + 1, k_a, k_b, planned_parity(k_a, k_b))
        assert (code.recovery_threshold, code.ell_a, code.ell_b) == (delta, ell_a, ell_b)
    assert len(set(partitions)) == len(partitions)


@pytest.mark.parametrize(
    ("name", "n", "delta", "parity"),
    [
        ("systematic", 12, 10, "quaternion"),
        ("systematic", 12, 10, "rotation"),
        ("crme", 12, 10, ""),
        ("polynomial", 6, 4, ""),
        ("chebyshev", 6, 4, ""),
        ("khatri-rao", 6, 4, ""),
        ("replication", 6, 4, ""),
        ("uncoded", 6, 6, ""),
    ],
)
def test_partitions_by_name(name: str, n: int, delta: int, parity: str) -> None:
    options = {"parity": parity} if name == "systematic" else {}
    for k_a, k_b, ell_a, ell_b in code_partitions(name, n, delta, parity):
        code = make_code(name, n=n, k_a=k_a, k_b=k_b, **options)
        assert (code.ell_a, code.ell_b) == (ell_a, ell_b)


@pytest.mark.parametrize(
    ("name", "n", "delta"), [("replication", 7, 5), ("uncoded", 6, 4), ("crme", 6, 7), ("x", 6, 4)]
)
def test_partitions_that_do_not_exist(name: str, n: int, delta: int) -> None:
    with pytest.raises(CodeError):
        code_partitions(name, n, delta)


def test_quaternions_multiply_as_matrices_and_in_complex_form() -> None:
    rng = np.random.default_rng(0)
    quaternions = rng.normal(size=(3, 2, 4))
    blocks = left_matrices(quaternions)
    real = blocks.transpose(0, 2, 1, 3).reshape(12, 8)
    assert np.array_equal(quaternion_blocks(real.reshape(3, 4, 8)), quaternions)
    assert quaternion_blocks(rng.normal(size=(3, 4, 8))) is None
    values = np.linalg.svd(real, compute_uv=False)
    assert np.allclose(values, np.repeat(np.linalg.svd(complex_form(quaternions))[1], 2))

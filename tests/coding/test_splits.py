"""Condition numbers of every split, recomputed from the matrices of the codes alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fcdcc.coding import Code, make_code
from fcdcc.coding.comparison import VARIANTS, split_conditions
from fcdcc.coding.parity_complex import complex_table, shipped_complex_tables
from fcdcc.coding.partitions import code_partitions, every_partition, planned_parity
from fcdcc.coding.systematic import known_condition, systematic


def worst_condition(code: Code) -> float:
    """Return the worst condition number over all losses of γ shares."""
    a, b = code.input_matrix, code.filter_matrix
    rows = np.stack([np.kron(a[share], b[share]) for share in range(code.n)])
    worst = 0.0
    survivors = itertools.combinations(range(code.n), code.recovery_threshold)
    while some := list(itertools.islice(survivors, 1000)):
        systems = rows[np.array(some)].reshape(len(some), code.k_a * code.k_b, -1)
        values = np.linalg.svd(systems, compute_uv=False)
        worst = max(worst, float((values[:, 0] / values[:, -1]).max()))
    return worst


@pytest.mark.parametrize(
    ("n", "delta", "most"),
    [(5, 4, 3.74), (6, 4, 4.7), (4, 3, 3.2), (8, 6, 7.2), (12, 10, 11.5)],
)
def test_every_planned_split_of_a_small_code(n: int, delta: int, most: float) -> None:
    for k_a, k_b, *_ in code_partitions("systematic", n, delta):
        parity = planned_parity(k_a, k_b)
        worst = worst_condition(make_code("systematic", n=n, k_a=k_a, k_b=k_b, parity=parity))
        assert worst <= most, (k_a, k_b)
        assert worst <= known_condition(n, k_a, k_b, parity) * (1 + 1e-6)


@pytest.mark.parametrize(
    ("k_a", "k_b"),
    [
        (4, 16),
        *(pytest.param(*split, marks=pytest.mark.long) for split in [(2, 32), (1, 64), (16, 4)]),
    ],
)
def test_every_planned_split_of_20_16(k_a: int, k_b: int) -> None:
    assert {tuple(p[:2]) for p in code_partitions("systematic", 20, 16)} == {
        (1, 64), (2, 32), (4, 16), (16, 4), (32, 2), (64, 1),
    }  # fmt: skip
    assert worst_condition(make_code("systematic", n=20, k_a=k_a, k_b=k_b)) <= 40


def test_one_loss_leaves_the_smallest_condition_number_that_there_can_be() -> None:
    for k_a, k_b, *_ in every_partition("systematic", 5, 4):
        worst = worst_condition(systematic(5, k_a, k_b, planned_parity(k_a, k_b)))
        assert worst == pytest.approx(2 + np.sqrt(3), abs=1e-3)


@pytest.mark.parametrize("name", shipped_complex_tables(), ids=str)
def test_shipped_complex_tables_are_as_good_as_they_say(name: tuple[int, int, int]) -> None:
    gamma, delta_a, delta_b = name
    table = complex_table(*name)
    assert table.source == "shipped"
    assert complex_table(gamma, delta_b, delta_a).worst == table.worst
    for values in (table.a.real, table.a.imag, table.b.real, table.b.imag):
        assert np.array_equal(values.astype(np.float32).astype(np.float64), values)
    few = gamma + delta_a * delta_b <= 14
    spectrum = table.spectrum()
    losses = np.array(list(itertools.combinations(range(spectrum.n), gamma)), dtype=np.intp)
    worst = float(spectrum.conditions(losses if few else losses[::7]).max())
    assert worst <= table.worst * (1 + 1e-5)
    if few:
        assert worst == pytest.approx(table.worst, rel=1e-5)


@pytest.mark.parametrize(("n", "k"), [(6, 4), (18, 8)])
def test_quaternions_are_the_default_of_every_split(n: int, k: int) -> None:
    code = make_code("systematic", n=n, k_a=k, k_b=k)
    assert (code.ell_a, code.ell_b) == (4, 1)
    assert code == make_code("systematic", n=n, k_a=k, k_b=k, parity="quaternion")
    assert known_condition(n, k, k) == known_condition(n, k, k, "quaternion")


def test_complex_parity_is_better_where_many_reals_would_be_left() -> None:
    code = systematic(6, 4, 4, parity="complex")
    assert (code.ell_a, code.ell_b) == (2, 2)
    assert worst_condition(code) < 4.7 < 6 < worst_condition(systematic(6, 4, 4))
    (shown,) = (s for s in split_conditions(VARIANTS[0], 6, 4) if s.k_a == s.k_b)
    assert (shown.parity, shown.planned) == ("complex", True)
    assert shown.worst == pytest.approx(worst_condition(code))


def test_splits_that_are_too_badly_conditioned_are_shown_but_not_planned() -> None:
    shown = {(s.k_a, s.k_b): s for s in split_conditions(VARIANTS[0], 15, 12)}
    planned = {tuple(p[:2]) for p in code_partitions("systematic", 15, 12)}
    assert planned == {split for split, found in shown.items() if found.planned}
    assert planned < shown.keys()

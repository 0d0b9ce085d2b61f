from __future__ import annotations

import numpy as np
import pytest

from fcdcc.coding import CodeError
from fcdcc.coding.comparators import chebyshev, khatri_rao, polynomial, replication, uncoded
from fcdcc.coding.conditioning import guaranteed_tolerance, measure
from fcdcc.coding.crme import crme


def test_values_known_for_twenty_shares_and_threshold_sixteen() -> None:
    assert measure(chebyshev(20, 4, 4)).worst == pytest.approx(4.870e5, rel=1e-4)
    equispaced = measure(polynomial(20, 4, 4, points="equispaced")).worst
    assert equispaced == pytest.approx(1.167e8, rel=1e-3)
    assert measure(polynomial(20, 4, 4)).worst == pytest.approx(8.75e6, rel=1e-2)
    assert measure(crme(20, 8, 8)).worst == pytest.approx(462.63, rel=1e-4)
    assert measure(crme(20, 8, 8, q=21)).worst == pytest.approx(1551, rel=1e-3)


@pytest.mark.parametrize(
    ("n", "k_a", "k_b", "worst"),
    [(5, 4, 4, 2.236), (11, 8, 4, 29.2), (12, 20, 1, 13.3), (18, 8, 8, 24.3), (24, 8, 10, 886)],
)
def test_values_known_for_the_crme(n: int, k_a: int, k_b: int, worst: float) -> None:
    assert measure(crme(n, k_a, k_b)).worst == pytest.approx(worst, rel=5e-3)


def test_more_draws_are_not_worse_and_a_seed_is_a_code() -> None:
    one, many = khatri_rao(8, 3, 2, draws=1), khatri_rao(8, 3, 2, draws=40)
    assert measure(many).worst <= measure(one).worst
    assert khatri_rao(8, 3, 2, seed=1) == khatri_rao(8, 3, 2, seed=1)
    assert khatri_rao(8, 3, 2, seed=1) != khatri_rao(8, 3, 2, seed=2)
    assert many.decoder(range(6)).solved == ()


def test_replication_survives_the_loss_of_all_copies_but_one() -> None:
    code = replication(6, 2, 1)
    assert guaranteed_tolerance(code) == 2
    assert code.is_decodable([0, 1])
    assert code.is_decodable([1, 2, 4])
    assert not code.is_decodable([0, 2, 4])
    assert measure(code).worst == pytest.approx(np.sqrt(3.0))
    assert measure(code, lost=4).not_decodable == 6


def test_uncoded_needs_every_share() -> None:
    code = uncoded(6, 3, 2)
    assert guaranteed_tolerance(code) == 0
    assert not code.is_decodable(range(5))
    assert measure(code).worst == 1.0


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: polynomial(5, 2, 3), "n >= 6"),
        (lambda: polynomial(5, 2, 2, points="random"), "'chebyshev' or 'equispaced'"),
        (lambda: chebyshev(5, 0, 3), "1 or more"),
        (lambda: khatri_rao(7, 2, 3, draws=0), "draws"),
        (lambda: replication(7, 2, 1), "take n = 8"),
        (lambda: uncoded(7, 2, 3), "no loss"),
    ],
)
def test_what_is_no_such_code_is_refused_in_words(build, words) -> None:
    with pytest.raises(CodeError, match=words):
        build()

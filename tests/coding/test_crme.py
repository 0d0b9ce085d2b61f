from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from fcdcc.coding import Code, CodeError, NotDecodableError
from fcdcc.coding.crme import crme, crme_threshold

# n, k_a, k_b, q, worst condition number over all losses
WORST = [
    (5, 4, 4, 5, 2.236),
    (11, 8, 4, 11, 29.2),
    (12, 4, 10, 13, 44.9),
    (12, 4, 10, 12, 13.3),
    (18, 8, 8, 19, 118.0),
    (18, 8, 8, 18, 24.3),
    (20, 8, 8, 21, 1551.0),
    (20, 8, 8, 20, 463.0),
    (24, 8, 10, 25, 3473.0),
    (24, 8, 10, 24, 886.0),
    (31, 8, 14, 31, 404.3),
]


def condition_numbers(code: Code, losses: list[tuple[int, ...]]) -> float:
    kept = np.array([[j for j in range(code.n) if j not in lost] for lost in losses])
    systems = code.share_matrices[kept].reshape(len(losses), -1, code.k_a * code.k_b)
    return float(np.linalg.cond(systems).max())


@pytest.mark.parametrize(("n", "k_a", "k_b", "q", "expected"), WORST)
def test_worst_condition_number_is_that_of_adjacent_losses(
    n: int, k_a: int, k_b: int, q: int, expected: float
) -> None:
    code = crme(n, k_a, k_b, q)
    adjacent = [tuple(sorted((first + i) % n for i in range(code.tolerance))) for first in range(n)]
    assert condition_numbers(code, adjacent) == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize(
    ("n", "k_a", "k_b", "q", "expected"), [row for row in WORST if row[0] < 24]
)
def test_worst_condition_number_over_all_losses(
    n: int, k_a: int, k_b: int, q: int, expected: float
) -> None:
    code = crme(n, k_a, k_b, q)
    losses = list(itertools.combinations(range(n), code.tolerance))
    if q == n:  # turning every share on by one changes no condition number
        losses = [lost for lost in losses if lost[0] == 0]
    assert condition_numbers(code, losses) == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize(("k_a", "k_b"), [(8, 8), (2, 32), (32, 2), (4, 16), (1, 32), (32, 1)])
def test_conditioning_does_not_depend_on_the_split(k_a: int, k_b: int) -> None:
    survivors = [j for j in range(20) if j not in (3, 4, 9, 17)]
    expected = crme(20, 8, 8).condition_number(survivors)
    assert crme(20, k_a, k_b).condition_number(survivors) == pytest.approx(expected, rel=1e-9)


def test_condition_number_is_that_of_the_roots_of_unity() -> None:
    survivors = [0, 1, 2, 5, 7, 8]
    roots = np.exp(2j * math.pi * np.array(survivors) / 9)
    expected = np.linalg.cond(np.vander(roots, increasing=True))
    assert crme(9, 4, 6).condition_number(survivors) == pytest.approx(expected, rel=1e-9)


def test_further_survivors_improve_the_condition() -> None:
    code = crme(20, 8, 8)
    conditions = [code.condition_number(range(20 - lost)) for lost in (4, 3, 2)]
    assert conditions == pytest.approx([463, 54, 9.1], rel=2e-2)


@pytest.mark.parametrize(
    ("k_a", "k_b", "threshold"), [(8, 8, 16), (1, 8, 4), (8, 1, 4), (1, 1, 1), (2, 2, 1)]
)
def test_threshold(k_a: int, k_b: int, threshold: int) -> None:
    assert crme_threshold(k_a, k_b) == threshold
    assert crme(20, k_a, k_b).recovery_threshold == threshold


def test_the_default_q_is_n_and_the_odd_one_an_option() -> None:
    assert crme(20, 8, 8) == crme(20, 8, 8, q=20)
    assert crme(20, 8, 8) != crme(20, 8, 8, q=21)


def test_shapes_and_uncoded_sides() -> None:
    code = crme(5, 1, 6)
    assert code.input_matrix.shape == (5, 1, 1)
    assert code.filter_matrix.shape == (5, 2, 6)
    assert code.ell_a == 1
    assert code.ell_b == 2
    assert (code.input_matrix == 1.0).all()


def test_every_block_is_a_rotation() -> None:
    blocks = crme(7, 4, 6).filter_matrix.reshape(7, 2, 3, 2).transpose(0, 2, 1, 3)
    assert np.allclose(blocks @ blocks.transpose(0, 1, 3, 2), np.eye(2), atol=1e-15)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((6, 3, 4), r"k_a = 3; expected 1 or an even number"),
        ((6, 4, 0), r"k_b = 0; expected 1 or an even number"),
        ((3, 4, 4), r"n = 3 shares.*needs 4 results.*expected n >= 4"),
        ((6, 4, 4, 5), r"q = 5 and n = 6.*expected q >= n"),
        ((0, 1, 1), r"n = 0"),
    ],
)
def test_what_is_not_a_crme_is_refused_in_words(arguments: tuple[int, ...], words: str) -> None:
    with pytest.raises(CodeError, match=words):
        crme(*arguments)


def test_a_bad_code_is_shown_to_be_bad() -> None:
    # q < n repeats roots of unity; crme() refuses it, so it is made by hand.
    good = crme(6, 4, 4, q=6)
    inputs, filters = good.input_matrix.copy(), good.filter_matrix.copy()
    inputs[4], filters[4] = inputs[1], filters[1]
    bad = Code("twice the same", inputs, filters, recovery_threshold=4)
    assert bad.condition_number([0, 1, 2, 4]) > 1e15
    with pytest.raises(NotDecodableError, match=r"shares \[0, 1, 2, 4\].*full rank"):
        bad.decoder([0, 1, 2, 4])
    assert bad.condition_number([0, 1, 2, 3]) == good.condition_number([0, 1, 2, 3])

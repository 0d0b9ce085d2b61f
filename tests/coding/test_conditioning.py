from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fcdcc.coding import CodeError, make_code
from fcdcc.coding.comparators import polynomial
from fcdcc.coding.conditioning import (
    check_tolerance,
    condition_limit,
    condition_of,
    is_enough,
    measure,
    refusal_limit,
    tolerance_within,
)
from fcdcc.coding.crme import crme
from fcdcc.coding.errors import IllConditionedError, TensorError
from fcdcc.coding.spectrum import Spectrum, contiguous_losses, every_loss
from fcdcc.coding.systematic import systematic

CODES = [
    systematic(7, 20, 1),
    systematic(7, 4, 5),
    systematic(6, 2, 8),
    systematic(4, 8, 1),
    systematic(7, 4, 4, parity="rotation"),
    crme(7, 4, 4),
    crme(6, 1, 8),
    polynomial(7, 2, 2),
]


def kept(n: int, lost: np.ndarray) -> list[int]:
    return sorted(set(range(n)) - set(lost.tolist()))


@pytest.mark.parametrize("code", CODES, ids=lambda c: f"{c.name}-{c.k_a}-{c.k_b}")
def test_all_condition_numbers_at_once_are_those_one_by_one(code) -> None:
    spectrum = Spectrum.of(code)
    for lost in range(code.tolerance + 1):
        losses = every_loss(code.n, lost)
        expected = [code.condition_number(kept(code.n, loss)) for loss in losses]
        assert spectrum.conditions(losses) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("code", CODES, ids=lambda c: f"{c.name}-{c.k_a}-{c.k_b}")
def test_a_search_finds_the_worst_loss_of_a_small_code(code) -> None:
    exhaustive = measure(code)
    searched = measure(code, samples=3, countable=0)
    assert (exhaustive.method, searched.method) == ("all", "search")
    assert searched.worst == pytest.approx(exhaustive.worst, rel=1e-6)
    assert exhaustive.median <= exhaustive.percentile_99 <= exhaustive.worst


def test_searching_goes_uphill() -> None:
    code = systematic(12, 32, 1)
    spectrum = Spectrum.of(code)
    losses = contiguous_losses(12, 4)
    before = spectrum.conditions(losses).max()
    assert spectrum.conditions(spectrum.worsen(losses)).max() >= before * (1 - 1e-9)
    assert spectrum.conditions(spectrum.climb(losses)).max() >= before * (1 - 1e-9)


def test_the_worst_loss_of_the_crme_is_contiguous() -> None:
    statistics = measure(crme(40, 64, 1), samples=500)
    assert statistics.worst == pytest.approx(1.674e6, rel=1e-3)
    gaps = np.diff([*statistics.worst_lost, statistics.worst_lost[0] + 40])
    assert sorted(gaps)[:-1] == [1] * 7


def test_losses_beyond_the_tolerance_are_refused() -> None:
    with pytest.raises(CodeError, match="0 to γ = 2"):
        measure(crme(6, 4, 4), lost=3)
    with pytest.raises(CodeError, match="at most 2"):
        Spectrum.of(crme(6, 4, 4)).conditions(every_loss(6, 3))


def test_a_decode_waits_for_one_more_where_the_condition_is_bad() -> None:
    code = crme(40, 64, 1)
    contiguous = range(32)
    assert not is_enough(code, range(31), torch.float64)
    assert is_enough(code, contiguous, torch.float64)
    assert not is_enough(code, contiguous, torch.float32)
    apart = [share for share in range(40) if share % 5]
    assert is_enough(code, apart, torch.float32)


def test_all_shares_are_enough_however_bad_the_condition() -> None:
    code = polynomial(16, 4, 4, points="equispaced")
    assert condition_of(code, range(16)) > condition_limit(torch.float32)
    assert is_enough(code, range(16), torch.float32)


def test_no_decode_above_the_limit_in_any_order_of_arrival() -> None:
    code = crme(40, 64, 1)
    limit = condition_limit(torch.float32)
    rng = np.random.default_rng(0)
    extra = []
    for _ in range(200):
        order = [int(share) for share in rng.permutation(40)]
        count = 32
        while not is_enough(code, order[:count], torch.float32):
            count += 1
        assert count == 40 or condition_of(code, order[:count]) <= limit
        extra.append(count - 32)
    assert 0 < np.mean(extra) < 1


def test_a_code_too_weak_for_its_dtype_is_refused_with_the_number() -> None:
    code = crme(40, 64, 1)
    with pytest.raises(IllConditionedError, match=r"1.67e\+06.*systematic"):
        check_tolerance(code, torch.float32)
    assert check_tolerance(code, torch.float64).worst < refusal_limit(torch.float64)
    assert 1 <= tolerance_within(crme(20, 8, 8), torch.float32) <= 4
    assert check_tolerance(systematic(20, 64, 1), torch.float32).worst < 30


def test_limits_are_for_floating_point() -> None:
    for function in (condition_limit, refusal_limit):
        with pytest.raises(TensorError, match="float16"):
            function(torch.float16)


def test_condition_of_too_few_is_infinite() -> None:
    assert condition_of(make_code("crme", n=6, k_a=4, k_b=4), [0, 1]) == math.inf

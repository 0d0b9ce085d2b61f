from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fcdcc.coding import CodeError, NotDecodableError, make_code
from fcdcc.coding.comparators import polynomial, replication
from fcdcc.coding.conditioning import (
    check_tolerance,
    condition_limit,
    condition_of,
    measure,
    refusal_limit,
    tolerance_within,
)
from fcdcc.coding.crme import crme
from fcdcc.coding.errors import IllConditionedError, TensorError
from fcdcc.coding.spectrum import Spectrum, contiguous_losses, every_loss
from fcdcc.coding.survivors import choose_survivors, is_enough, spread_positions
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_decode_waits_for_one_more_where_the_condition_is_bad(dtype: torch.dtype) -> None:
    code = crme(20, 8, 8)
    contiguous = list(range(16))
    assert not is_enough(code, contiguous[:15], dtype)
    assert is_enough(code, contiguous, dtype)
    assert not is_enough(code, contiguous, dtype, limit=100.0)
    assert is_enough(code, range(17), dtype, limit=100.0)
    assert is_enough(code, contiguous, dtype, limit=100.0, more_to_come=False)


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


@settings(max_examples=30, deadline=None)
@given(data=st.data(), code=st.sampled_from(CODES))
def test_chosen_survivors_decode_and_are_the_best(data: st.DataObject, code) -> None:
    count = data.draw(st.integers(code.recovery_threshold, code.n))
    available = data.draw(st.permutations(range(code.n)))[:count]
    chosen = choose_survivors(code, available)
    assert set(chosen) <= set(available)
    assert code.is_decodable(chosen)
    if code.name in ("crme", "polynomial"):
        best = min(
            code.condition_number(some)
            for some in itertools.combinations(sorted(available), code.recovery_threshold)
        )
        assert condition_of(code, chosen) <= best * (1 + 1e-6)
    else:
        uncoded = {share for share in available if share < code.recovery_threshold}
        assert uncoded <= set(chosen)


def test_uncoded_shares_are_enough_where_they_are_all_there() -> None:
    assert choose_survivors(systematic(6, 16, 1), range(6)) == (0, 1, 2, 3)
    assert choose_survivors(replication(6, 2, 1), [0, 2, 3, 4]) == (0, 2, 3, 4)
    with pytest.raises(NotDecodableError, match="wait"):
        choose_survivors(systematic(6, 16, 1), [0, 1, 4])


def test_least_squares_where_no_threshold_set_is_good_enough() -> None:
    code = crme(40, 64, 1)
    contiguous = tuple(range(33))
    chosen = choose_survivors(code, contiguous, torch.float32)
    assert chosen == contiguous
    assert condition_of(code, chosen) < condition_of(code, contiguous[:32])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_positions_are_a_permutation(hosts: list[int]) -> None:
    assert sorted(spread_positions(hosts)) == list(range(len(hosts)))


def test_a_rack_that_is_lost_costs_almost_nothing() -> None:
    racks = [worker // 4 for worker in range(20)]
    positions = spread_positions(racks)
    code = crme(20, 8, 8)
    for rack in range(5):
        lost = [p for p, r in zip(positions, racks, strict=True) if r == rack]
        assert condition_of(code, set(range(20)) - set(lost)) == pytest.approx(2.236, rel=1e-3)
    assert condition_of(code, range(16)) == pytest.approx(462.63, rel=1e-4)


def test_condition_of_too_few_is_infinite() -> None:
    assert condition_of(make_code("crme", n=6, k_a=4, k_b=4), [0, 1]) == math.inf

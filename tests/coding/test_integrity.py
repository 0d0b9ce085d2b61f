from __future__ import annotations

import numpy as np
import pytest
import torch

from fcdcc.coding import Code
from fcdcc.coding.comparators import replication
from fcdcc.coding.crme import crme
from fcdcc.coding.errors import TensorError
from fcdcc.coding.integrity import check_shares, parity_relations, threshold
from fcdcc.coding.systematic import systematic

CODES = [systematic(20, 64, 1), systematic(20, 4, 16), crme(20, 8, 8)]
DTYPES = [torch.float64, torch.float32]


def results_of(code: Code, dtype: torch.dtype, seed: int, entries: int = 120) -> torch.Tensor:
    """Results (n, rows, entries) with the rounding that convolutions have."""
    generator = torch.Generator().manual_seed(seed)
    matrices = torch.from_numpy(code.share_matrices.copy())
    products = torch.randn((code.k_a * code.k_b, entries), generator=generator, dtype=torch.float64)
    rounding = 2 * torch.finfo(dtype).eps
    noise = 1 + rounding * torch.randn(
        (code.n, matrices.shape[1], entries), generator=generator, dtype=torch.float64
    )
    return ((matrices @ products) * noise).to(dtype)


@pytest.mark.parametrize("code", CODES, ids=lambda c: f"{c.name}-{c.k_a}")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("kind", ["noise", "percent", "one output"])
def test_wrong_shares_are_located(code: Code, dtype: torch.dtype, count: int, kind: str) -> None:
    rng = np.random.default_rng([count, len(kind)])
    located = 0
    for attempt in range(10):
        results = results_of(code, dtype, attempt)
        wrong = tuple(sorted(int(s) for s in rng.choice(20, count, replace=False)))
        for share in wrong:
            if kind == "noise":
                results[share] = torch.randn(results[share].shape, dtype=dtype)
            elif kind == "percent":
                results[share] *= 1 + 0.01 * torch.randn(results[share].shape, dtype=dtype)
            else:
                results[share, 1] *= 1.02
        verdict = check_shares(code, dict(enumerate(results)))
        assert not verdict.consistent
        assert verdict.wrong in ((), wrong)
        located += verdict.wrong == wrong
    assert located >= (10 if dtype == torch.float64 else 9)


@pytest.mark.parametrize("code", CODES, ids=lambda c: f"{c.name}-{c.k_a}")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_as_many_wrong_shares_as_losses_are_noticed_and_nobody_is_accused(
    code: Code, dtype: torch.dtype
) -> None:
    results = results_of(code, dtype, 1)
    for share in (2, 7, 11, 18):
        results[share] *= 1.5
    verdict = check_shares(code, dict(enumerate(results)))
    assert not verdict.consistent
    assert not verdict.located


@pytest.mark.parametrize("code", CODES, ids=lambda c: f"{c.name}-{c.k_a}")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_clean_groups_are_not_accused(code: Code, dtype: torch.dtype) -> None:
    for attempt in range(100):
        results = results_of(code, dtype, attempt, entries=30)
        assert check_shares(code, dict(enumerate(results))).consistent


def test_the_syndrome_of_a_clean_group_is_rounding() -> None:
    for dtype in DTYPES:
        clean = check_shares(CODES[0], dict(enumerate(results_of(CODES[0], dtype, 0))))
        assert clean.syndrome < threshold(dtype) / 10
        results = results_of(CODES[0], dtype, 0)
        results[3] *= 1.01
        assert check_shares(CODES[0], dict(enumerate(results))).syndrome > 1e-3 / 4


def test_fewer_shares_check_less() -> None:
    code = CODES[0]
    results = dict(enumerate(results_of(code, torch.float64, 0)))
    results[5] = results[5] * 1.01
    first = {share: results[share] for share in range(16)}
    verdict = check_shares(code, first)
    assert verdict.consistent
    assert verdict.syndrome == 0
    one_more = check_shares(code, {share: results[share] for share in range(17)})
    assert not one_more.consistent
    assert not one_more.located
    two_more = check_shares(code, {share: results[share] for share in range(18)})
    assert two_more.wrong == (5,)


def test_a_result_that_is_not_finite_is_wrong() -> None:
    code = CODES[0]
    results = results_of(code, torch.float32, 0)
    results[4, 0, 3] = float("nan")
    results[9] *= 1.1
    verdict = check_shares(code, dict(enumerate(results)))
    assert verdict.wrong == (4, 9)
    assert verdict.syndrome == float("inf")


def test_zero_results_are_consistent() -> None:
    results = torch.zeros((20, 4, 8), dtype=torch.float64)
    assert check_shares(CODES[0], dict(enumerate(results))).consistent


def test_copies_outvote_a_wrong_one() -> None:
    code = replication(6, 2, 1)
    results = results_of(code, torch.float64, 0)
    results[3] += 1.0
    assert check_shares(code, dict(enumerate(results))).wrong == (3,)


def test_relations_vanish_on_every_result() -> None:
    for code in CODES:
        shares = tuple(range(1, 20))
        relations = parity_relations(code, shares)
        assert relations.shape == (12, 76)
        system = np.concatenate(code.share_matrices[list(shares)])
        assert np.abs(relations @ system).max() < 1e-13


def test_a_threshold_is_for_floating_point() -> None:
    with pytest.raises(TensorError, match="float16"):
        threshold(torch.float16)

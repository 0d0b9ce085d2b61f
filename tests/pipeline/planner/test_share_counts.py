"""n and γ where the options leave them open."""

from __future__ import annotations

import pytest

from fcdcc.pipeline.errors import OptionError
from fcdcc.pipeline.options import PlanOptions
from fcdcc.pipeline.planner.share_counts import with_share_counts
from fcdcc.pipeline.plans.forecast import WorkerPool


def counts(workers: int, **options: object) -> tuple[int | str, int | str]:
    """Return n and γ for so many workers."""
    found = with_share_counts(PlanOptions.of(**options), workers)
    return found.n, found.tolerate


@pytest.mark.parametrize(
    ("workers", "expected", "lost"),
    [
        (1, (1, 0), 0),
        (2, (2, 1), 1),
        (3, (3, 1), 1),
        (4, (4, 2), 2),
        (5, (5, 2), 2),
        (6, (6, 2), 2),
        (16, (6, 2), 2),
        (64, (6, 2), 2),
    ],
)
def test_every_worker_has_a_share_and_one_or_two_may_be_lost(
    workers: int, expected: tuple[int, int], lost: int
) -> None:
    assert counts(workers) == expected
    assert WorkerPool(workers).lost(*expected) == lost


@pytest.mark.parametrize(
    ("workers", "n", "tolerate"),
    [(1, 6, 0), (2, 6, 3), (3, 6, 2), (5, 6, 3), (6, 6, 2), (12, 12, 2), (6, 12, 4), (64, 20, 2)],
)
def test_of_a_given_n_so_many_may_be_lost(workers: int, n: int, tolerate: int) -> None:
    assert counts(workers, n=n) == (n, tolerate)


@pytest.mark.parametrize(
    ("workers", "tolerate", "n"),
    [(6, 0, 6), (1, 1, 2), (2, 1, 2), (2, 2, 4), (3, 3, 6), (5, 2, 5), (6, 2, 6), (64, 4, 12)],
)
def test_a_given_tolerance_has_so_many_shares(workers: int, tolerate: int, n: int) -> None:
    assert counts(workers, tolerate=tolerate) == (n, tolerate)


def test_what_is_given_is_kept() -> None:
    assert counts(2, n=20, tolerate=4) == (20, 4)


@pytest.mark.parametrize(
    ("workers", "expected"), [(1, (1, 0)), (2, (2, 1)), (3, (2, 1)), (5, (3, 2)), (6, (6, 2))]
)
def test_replication_has_whole_copies(workers: int, expected: tuple[int, int]) -> None:
    assert counts(workers, code="replication") == expected


@pytest.mark.parametrize("code", ["crme", "polynomial", "chebyshev", "khatri-rao"])
def test_the_other_codes_are_as_flexible_as_the_systematic_one(code: str) -> None:
    for workers in range(1, 8):
        assert counts(workers, code=code) == counts(workers)


def test_uncoded_has_a_part_for_each_worker_and_no_other_share() -> None:
    assert [counts(workers, code="uncoded") for workers in (1, 4, 9)] == [(1, 0), (4, 0), (6, 0)]


def test_numbers_that_no_code_has_are_refused_in_words() -> None:
    with pytest.raises(OptionError, match=r"--n 5 .*multiple of.*give another --n, or --tolerate"):
        counts(6, n=5, code="replication")


def test_checks_need_a_share_that_may_be_lost() -> None:
    assert counts(2, verify="all") == (2, 1)
    with pytest.raises(OptionError, match=r"--verify all .* with 1 worker none may be lost"):
        counts(1, verify="all")
    with pytest.raises(OptionError, match="--verify spare compares more shares"):
        PlanOptions.of(verify="spare", tolerate=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": 0}, "--n was given as 0: .* or auto"),
        ({"n": "six"}, "--n was given as 'six': .* or auto"),
        ({"tolerate": -1}, "--tolerate was given as -1: .* or auto"),
        ({"n": 3, "tolerate": 3}, "--tolerate 3 of --n 3 shares leaves none"),
        ({"code": "uncoded", "tolerate": 1}, "--tolerate 1 with --code uncoded"),
    ],
)
def test_impossible_numbers_are_refused_in_words(options: dict[str, object], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        PlanOptions.of(**options)

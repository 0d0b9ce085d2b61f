"""Blocks that are done again: by whom, and that no wrong answer comes of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import LocalCluster
from hypothesis import given
from hypothesis import strategies as st

from fcdcc.coding.errors import FcdccError
from fcdcc.coding.integrity import Verdict
from fcdcc.pipeline import JobConfig, open_model, run
from fcdcc.pipeline.errors import NotFiniteError, WrongSharesError
from fcdcc.pipeline.options import PlanOptions
from fcdcc.pipeline.planner.search import choose_plan
from fcdcc.pipeline.runtime.block_runner import BlockJob
from fcdcc.pipeline.runtime.retries import Attempt, RetryPolicy, worker_subsets_to_try
from fcdcc.pipeline.worker.executable import Executable
from fcdcc.pipeline.worker.share_checks import raise_wrong_shares
from fcdcc.storage import verify
from support.jobs import predictions
from support.planned import usual_plans
from support.small import SHAPE, Files
from support.spoiling import spoil

NAMES = [f"w{number}" for number in range(9)]


def refused(files: Files, there: Collection[int], odd: Collection[int]) -> type[Exception]:
    """Return the error for shares of images of which some hold NaN; the last two are parity."""
    options = PlanOptions.of(n=6, tolerate=2, split="images", batch=16)
    network = open_model(str(files.model)).network
    held = Executable(network, choose_plan(network, SHAPE, options))
    layer = max(held.plan.coded_layers)
    shares = {p: np.full(4, np.nan if p in odd else 1.0, "float32") for p in there}
    with pytest.raises(FcdccError) as caught:
        raise_wrong_shares(held, layer, shares, Verdict(np.inf, False, ()))
    return caught.type


@pytest.mark.parametrize("there", [*combinations(range(6), 5), range(6)])
def test_numbers_that_are_none_accuse_nobody_whichever_share_is_missing(
    files: Files, there: tuple[int, ...]
) -> None:
    assert refused(files, there, odd=(0, 4, 5)) is NotFiniteError  # as with NaN in an image


@pytest.mark.parametrize("odd", [(4,), (1,)])
def test_one_share_without_numbers_is_wrong(files: Files, odd: tuple[int, ...]) -> None:
    assert refused(files, range(6), odd) is WrongSharesError
    assert refused(files, (1, 2, 3, 4, 5), odd) is WrongSharesError


@given(count=st.integers(3, 9), data=st.data())
def test_whoever_is_wrong_some_try_is_without_it_and_nobody_is_alone(
    count: int, data: st.DataObject
) -> None:
    there = NAMES[:count]
    doubted = data.draw(st.sets(st.sampled_from(there), min_size=1))
    wrong = data.draw(st.sampled_from(sorted(doubted)))
    chosen = worker_subsets_to_try(there, doubted)
    assert any(wrong not in jury for jury in chosen)
    assert all(len(jury) > 1 and set(jury) <= set(there) for jury in chosen)
    if count - len(doubted) > 1:  # nobody who is in doubt where others are there
        assert not doubted & set(chosen[0])


class Tried:
    """Notes how a block was done, one time after the other."""

    def __init__(self) -> None:
        self.trials: list[Attempt] = []

    def __call__(self, block: int, trial: Attempt) -> BlockJob:
        self.trials.append(trial)
        return BlockJob(block, {}, "last")


JOB = BlockJob(7, {}, "last")


def tries(workers: Sequence[str], locates: bool, errors: Sequence[BaseException]) -> list[Attempt]:
    """Return how a block is done that ends with these errors, as far as it is done again."""
    tried = Tried()
    again = RetryPolicy(tried, locates, lambda: workers)
    for error in errors:
        if again(JOB, error) is None:
            break
    return tried.trials


def wrong(*workers: str) -> WrongSharesError:
    return WrongSharesError("shares contradict each other", workers)


def test_who_is_in_doubt_has_no_part_in_the_next_try() -> None:
    found = tries("abcdef", False, [wrong(*"abcd")] * 5)
    assert [trial.allowed_workers for trial in found] == [
        ("e", "f"),
        ("a", "c", "e"),
        ("b", "d", "f"),
    ]
    assert [trial.number for trial in found] == [1, 2, 3]
    assert {trial.mode for trial in found} == {"recheck"}
    assert found[-1].notes == ("all shares were computed again: shares contradict each other",)


def test_first_by_all_where_wrong_shares_can_be_located() -> None:
    found = tries("abcd", True, [wrong(*"abcd")] * 5)
    assert [trial.allowed_workers for trial in found] == [(), ("a", "c"), ("b", "d")]


def test_one_of_two_is_never_asked_alone() -> None:
    assert [trial.allowed_workers for trial in tries("ab", False, [wrong("a", "b")] * 5)] == [()]


def test_workers_that_left_are_not_waited_for() -> None:
    tried = Tried()
    workers = list("abcd")
    again = RetryPolicy(tried, False, lambda: workers)
    assert again(JOB, wrong(*"abcd")) is not None
    workers.remove("b")  # of the second half one is left, and one alone would agree with itself
    assert again(JOB, wrong("a", "c")) is None


def test_without_a_code_once_values_are_not_finite() -> None:
    found = tries("abcd", True, [wrong(*"abcd"), NotFiniteError("shares hold NaN")])
    assert [trial.mode for trial in found] == ["recheck", "uncoded"]
    assert found[1].notes[1] == "computed again without a code: shares hold NaN"


def test_other_errors_are_not_its_business() -> None:
    assert tries("abcd", True, [OSError("disk full")]) == []


# ------------------------------------------------------------------------ on a cluster


def job_with_a_bad_worker(
    files: Files, output: Path, patch: pytest.MonkeyPatch, workers: int, **options: Any
) -> Any:
    """Run a job with γ = 1, all of one worker's shares wrong, each worker with several."""
    usual_plans(patch)
    with LocalCluster(
        n_workers=workers, processes=False, threads_per_worker=1, dashboard_address=":0"
    ) as cluster:
        bad = sorted(cluster.scheduler.workers)[0]
        hit = spoil(patch, lambda key, position, worker: worker == bad)
        config = JobConfig(
            model=str(files.model), input=str(files.images), output=str(output),
            scheduler=cluster.scheduler_address, progress=False, verify="all",
            n=5, tolerate=1, batch=25, **options,
        )  # fmt: skip
        summary = run(config)
    assert hit
    return summary


@pytest.mark.cluster
@pytest.mark.parametrize("workers", [3, 4])
@pytest.mark.parametrize("split", ["images", "rows"])
def test_workers_with_several_shares_are_left_out_together(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, split: str
) -> None:
    output = tmp_path / "out.zarr"
    summary = job_with_a_bad_worker(files, output, monkeypatch, workers, split=split)
    assert summary.status == "complete"
    np.testing.assert_allclose(predictions(output), files.expected, atol=1e-5)
    assert verify(output) == []


@pytest.mark.cluster
def test_of_two_workers_nobody_knows_which_is_wrong_and_the_blocks_fail_in_words(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.zarr"
    summary = job_with_a_bad_worker(files, output, monkeypatch, 2, split="images")
    assert (summary.status, summary.blocks_done, summary.blocks_failed) == ("incomplete", 0, 2)
    assert all("contradict each other" in failure.reason for failure in summary.failures)
    assert np.isnan(predictions(output)).all()

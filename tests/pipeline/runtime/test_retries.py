"""Blocks that are computed again: by which workers, and that predictions stay right."""

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
from fcdcc.pipeline.errors import FailedCheckError, NotFiniteError, WrongSharesError
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


def error_for(files: Files, there: Collection[int], not_finite: Collection[int]) -> type[Exception]:
    """Return the error for shares of images of which some hold NaN; the last two are parity."""
    options = PlanOptions.of(n=6, tolerate=2, split="images", batch=16)
    network = open_model(str(files.model)).network
    held = Executable(network, choose_plan(network, SHAPE, options))
    layer = max(held.plan.coded_layers)
    shares = {p: np.full(4, np.nan if p in not_finite else 1.0, "float32") for p in there}
    with pytest.raises(FcdccError) as caught:
        raise_wrong_shares(held, layer, shares, Verdict(np.inf, False, ()))
    return caught.type


@pytest.mark.parametrize("there", [*combinations(range(6), 5), range(6)])
def test_nan_of_the_images_accuses_no_worker_whichever_share_is_missing(
    files: Files, there: tuple[int, ...]
) -> None:
    assert (
        error_for(files, there, not_finite=(0, 4, 5)) is NotFiniteError
    )  # as with NaN in an image


@pytest.mark.parametrize("not_finite", [(4,), (1,)])
def test_one_share_with_nan_is_wrong(files: Files, not_finite: tuple[int, ...]) -> None:
    assert error_for(files, range(6), not_finite) is WrongSharesError
    assert error_for(files, (1, 2, 3, 4, 5), not_finite) is WrongSharesError


@given(count=st.integers(3, 9), data=st.data())
def test_some_subset_excludes_the_wrong_worker_and_none_is_a_single_worker(
    count: int, data: st.DataObject
) -> None:
    there = NAMES[:count]
    in_doubt = data.draw(st.sets(st.sampled_from(there), min_size=1))
    wrong = data.draw(st.sampled_from(sorted(in_doubt)))
    subsets = worker_subsets_to_try(there, in_doubt)
    assert any(wrong not in subset for subset in subsets)
    assert all(len(subset) > 1 and set(subset) <= set(there) for subset in subsets)
    if count - len(in_doubt) > 1:  # first, only workers that are not in doubt
        assert not in_doubt & set(subsets[0])


class AttemptLog:
    """Builds no graph, but remembers every attempt."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []

    def __call__(self, block: int, attempt: Attempt) -> BlockJob:
        self.attempts.append(attempt)
        return BlockJob(block, {}, "last")


JOB = BlockJob(7, {}, "last")


def attempts(
    workers: Sequence[str], locates: bool, errors: Sequence[BaseException]
) -> list[Attempt]:
    """Return the attempts at a block that fails with these errors, one after the other."""
    log = AttemptLog()
    again = RetryPolicy(log, locates, lambda: workers)
    for error in errors:
        if again(JOB, error) is None:
            break
    return log.attempts


def wrong(*workers: str) -> WrongSharesError:
    return WrongSharesError("shares contradict each other", workers)


def test_workers_in_doubt_have_no_part_in_the_next_attempt() -> None:
    found = attempts("abcdef", False, [wrong(*"abcd")] * 5)
    assert [attempt.allowed_workers for attempt in found] == [
        ("e", "f"),
        ("a", "c", "e"),
        ("b", "d", "f"),
    ]
    assert [attempt.number for attempt in found] == [1, 2, 3]
    assert {attempt.mode for attempt in found} == {"recheck"}
    assert found[-1].notes == ("all shares were computed again: shares contradict each other",)


def test_all_workers_come_first_if_wrong_shares_can_be_located() -> None:
    found = attempts("abcd", True, [wrong(*"abcd")] * 5)
    assert [attempt.allowed_workers for attempt in found] == [(), ("a", "c"), ("b", "d")]


def test_one_of_two_workers_never_computes_alone() -> None:
    assert [
        attempt.allowed_workers for attempt in attempts("ab", False, [wrong("a", "b")] * 5)
    ] == [()]


def test_workers_that_left_are_not_waited_for() -> None:
    log = AttemptLog()
    workers = list("abcd")
    again = RetryPolicy(log, False, lambda: workers)
    assert again(JOB, wrong(*"abcd")) is not None
    workers.remove("b")  # of the second half one is left, and one alone would agree with itself
    assert again(JOB, wrong("a", "c")) is None


def test_no_code_once_values_are_not_finite() -> None:
    found = attempts("abcd", True, [wrong(*"abcd"), NotFiniteError("shares hold NaN")])
    assert [attempt.mode for attempt in found] == ["recheck", "uncoded"]
    assert found[1].notes[1] == "computed again without a code: shares hold NaN"


def test_results_that_fail_their_checksum_are_computed_by_others_as_long_as_there_are() -> None:
    def failed(worker: str) -> FailedCheckError:
        return FailedCheckError(f"{worker} is wrong", [worker])

    found = attempts("abc", False, [failed("a"), failed("c"), failed("b")])
    assert [attempt.allowed_workers for attempt in found] == [("b", "c"), ("b",), ()]
    assert {attempt.mode for attempt in found} == {"elsewhere"}
    assert found[1].notes == ("computed again: a is wrong", "computed again: c is wrong")
    assert len(attempts("ab", False, [failed("a")] * 20)) == 7  # and then it has failed


def test_other_errors_are_not_retried() -> None:
    assert attempts("abcd", True, [OSError("disk full")]) == []


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

from __future__ import annotations

from fcdcc.pipeline.monitoring.record.loss_cost import WorkerLoss
from fcdcc.pipeline.runtime.silence_watch import WARN_AFTER_SECONDS, SilenceWatch

WORKERS = ("a", "b", "c")


def silent_since(*moments: float) -> list[WorkerLoss]:
    """Return losses of the first workers, last heard of at these moments."""
    return [
        WorkerLoss(worker, heard, heard + 2.0, "silent")
        for worker, heard in zip(WORKERS, moments, strict=False)
    ]


def test_each_worker_is_warned_of_once_after_some_seconds_of_silence() -> None:
    watch, late = SilenceWatch(), 10.0 + WARN_AFTER_SECONDS
    assert watch.fresh(silent_since(10.0), WORKERS, late - 0.1) == {}
    assert watch.fresh(silent_since(10.0), WORKERS, late) == {"a": WARN_AFTER_SECONDS}
    both = silent_since(10.0, 11.0)
    assert not watch.is_due(both, late)
    assert watch.is_due(both, late + 1.0)
    assert watch.fresh(both, WORKERS, late + 1.0) == {"b": WARN_AFTER_SECONDS}
    assert not watch.is_due(both, late + 60.0)


def test_workers_that_were_silent_at_the_start_are_not_warned_of_again() -> None:
    watch = SilenceWatch(["a"])
    assert watch.fresh(silent_since(0.0, 0.0), WORKERS, 9.0) == {"b": 9.0}


def test_nobody_is_warned_of_while_all_are_silent_or_once_a_worker_is_gone() -> None:
    watch = SilenceWatch()
    assert watch.fresh(silent_since(0.0, 0.0, 0.0), WORKERS, 9.0) == {}
    assert watch.fresh(silent_since(0.0), ("b", "c"), 9.0) == {}
    assert watch.fresh(silent_since(0.0), WORKERS, 9.5) == {"a": 9.5}

"""Which late workers a run names."""

from __future__ import annotations

import pytest

from fcdcc.pipeline.monitoring import late_workers
from fcdcc.pipeline.monitoring.late_workers import MAX_KEPT, LateWorkers, started_elsewhere
from fcdcc.pipeline.monitoring.record.loss_cost import WorkerLoss


def test_a_bypassed_worker_is_named_however_many_were_late() -> None:
    late = LateWorkers()
    for number in range(MAX_KEPT + 5):
        for _ in range(number + 2):
            late.add({"event": "doubled", "time": 1.0, "worker": f"tcp://late-{number}:1"})
    late.add({"event": "bypassed", "time": 9.0, "worker": "tcp://silent:1"})
    found = late.found([])
    assert len(found) == MAX_KEPT
    assert [worker.worker for worker in found if worker.bypassed] == ["tcp://silent:1"]
    assert [worker.tasks for worker in found] == [*range(MAX_KEPT + 6, 7, -1), 0]


def test_a_worker_that_may_have_waited_for_a_silent_one_is_not_named() -> None:
    late = LateWorkers()
    late.add({"event": "doubled", "worker": "tcp://silent:1", "may_wait": False})
    late.add({"event": "doubled", "worker": "tcp://well:1", "may_wait": True})
    told = started_elsewhere(2, late.found([]))
    assert "tcp://silent:1 was late with 1 of them" in told
    assert told.endswith(", and 1 may have waited for input from a silent worker")
    assert "tcp://well:1" not in told


@pytest.mark.parametrize("latest", [1, 100])
def test_a_task_that_was_late_while_another_worker_was_silent_is_held_against_nobody(
    latest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_workers, "MAX_LATEST_TASKS", latest)
    removed = {"event": "removed", "time": 14.0, "heard": 10.0, "worker": "tcp://silent:1"}
    late = LateWorkers([removed])
    for now in (9.0, 10.5, 13.0, 14.5, 16.0, 30.5):
        late.add({"event": "doubled", "time": now, "worker": "tcp://well:1"})
    late.add({"event": "doubled", "time": 10.5, "worker": "tcp://silent:1"})
    stopped = WorkerLoss("tcp://stopped:1", 30.0, 33.0, "silent")
    found = {worker.worker: worker.tasks for worker in late.found([], [stopped])}
    assert found["tcp://silent:1"] == 1
    # Of older tasks nobody knows any more that a worker was silent that is silent still.
    assert found["tcp://well:1"] == (2 if latest > 1 else 3)

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


def late_tasks(worker: str, *times: float) -> list[dict[str, object]]:
    return [{"event": "doubled", "time": moment, "worker": f"tcp://{worker}:1"} for moment in times]


def removal(worker: str, heard: float, gone: float) -> dict[str, object]:
    return {"event": "removed", "time": gone, "heard": heard, "worker": f"tcp://{worker}:1"}


@pytest.mark.parametrize("latest", [1, 100])
def test_a_task_that_was_late_while_another_worker_was_silent_is_held_against_nobody(
    latest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_workers, "MAX_LATEST_TASKS", latest)
    late = LateWorkers([removal("silent", 10.0, 14.0)])
    for event in [*late_tasks("well", 9.0, 10.5, 13.0, 16.0, 20.0), *late_tasks("silent", 10.5)]:
        late.add(event)
    found = {worker.worker: worker.tasks for worker in late.found([])}
    assert found == {"tcp://well:1": 2, "tcp://silent:1": 1}
    assert late.waiting() == 3
    told = started_elsewhere(6, late.found([]), late.waiting())
    assert "tcp://well:1 was late with 2 of them and tcp://silent:1 with 1" in told
    assert told.endswith(", and 3 may have been late because of a silent worker")


def test_workers_that_stop_together_do_not_excuse_each_other() -> None:
    late = LateWorkers([*late_tasks("a", 10.5), *late_tasks("b", 10.6, 10.7)])
    for name in "ab":
        late.add(removal(name, 10.0, 14.0))
    found = {worker.worker: worker.tasks for worker in late.found([])}
    assert found == {"tcp://a:1": 1, "tcp://b:1": 2}
    assert late.waiting() == 0


def test_a_worker_that_stays_silent_and_is_not_needed_excuses_others_for_a_while_only() -> None:
    late = LateWorkers(late_tasks("well", 10.5, 100.0, 200.0))
    silent = [WorkerLoss("tcp://silent:1", 10.0, 300.0, "silent")]
    [worker] = late.found([], silent)
    assert (worker.worker, worker.tasks, late.waiting(silent)) == ("tcp://well:1", 2, 1)

"""Which late workers a run names."""

from __future__ import annotations

from fcdcc.pipeline.monitoring.late_workers import MAX_KEPT, LateWorkers, started_elsewhere


def test_a_bypassed_worker_is_named_however_many_were_late() -> None:
    late = LateWorkers()
    for number in range(MAX_KEPT + 5):
        for _ in range(number + 2):
            late.add({"event": "doubled", "worker": f"tcp://late-{number}:1"})
    late.add({"event": "bypassed", "worker": "tcp://silent:1"})
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

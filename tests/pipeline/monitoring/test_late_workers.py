"""Which late workers a run names."""

from __future__ import annotations

from fcdcc.pipeline.monitoring.late_workers import MAX_KEPT, LateWorkers


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

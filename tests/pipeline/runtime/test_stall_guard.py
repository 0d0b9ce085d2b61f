"""A stalled run warns, and names what it waits for."""

from __future__ import annotations

import pytest
from distributed import Client, Event, LocalCluster

from fcdcc.pipeline.anyk.keys import task_key
from fcdcc.pipeline.runtime.stall_guard import (
    StallGuard,
    WaitingTask,
    describe_stall,
    waiting_tasks,
)


def task(position: int, worker: str | None = "tcp://a") -> WaitingTask:
    return WaitingTask(12, 3, "share", position, worker, 58.0)


def test_warnings_start_after_the_patience_and_become_rarer() -> None:
    guard = StallGuard(patience=60, now=0.0)
    warned = []
    for now in range(1, 600):
        tasks = [task(2)] if guard.wants_tasks(now) else None
        if guard.check("counts", tasks, now) is not None:
            warned.append(now)
    assert warned == [61, 121, 241, 481]


def test_anything_that_moves_starts_the_patience_anew() -> None:
    guard = StallGuard(patience=60, now=0.0)
    for now in range(300):
        moved = [task(now // 50)] if guard.wants_tasks(now) else None
        assert guard.check(now // 55 if now < 150 else "still", moved, now) is None


def test_tasks_and_workers_are_named() -> None:
    tasks = [task(2), task(4, None), WaitingTask(13, 0, "read", 0, "tcp://b", 0.1)]
    assert describe_stall(61.0, tasks, workers=3) == (
        "nothing has moved for 61 s: block 12, layer 3: share 2 on tcp://a (silent for 58 s), "
        "share 4 has no worker that may run it; block 13, layer 0: "
        "read 0 on tcp://b"
    )


def wait_for(name: str) -> None:
    Event(name).wait()


@pytest.mark.cluster
def test_tasks_of_a_run_are_found_with_their_workers() -> None:
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        event = Event("go", client=client)
        key = task_key("share", "r1", 3, 12, 2)
        other = client.submit(wait_for, "go", key=task_key("share", "r2", 3, 12, 2))
        future = client.submit(wait_for, "go", key=key)
        while len(found := waiting_tasks(client, "r1")) < 1:
            pass
        (worker,) = client.scheduler_info()["workers"]
        assert [t.identity for t in found] == [(12, 3, "share", 2, worker)]
        event.set()
        client.gather([future, other])
        assert waiting_tasks(client, "r1") == []

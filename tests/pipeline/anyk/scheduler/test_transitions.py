"""What transitions of Dask's tasks mean to the state machine; stale results are ignored."""

from __future__ import annotations

from threading import Event
from typing import Any

import pytest
from dask._task_spec import Task

from fcdcc.pipeline.anyk import AnyK
from fcdcc.pipeline.anyk.keys import task_key
from fcdcc.pipeline.anyk.scheduler.transitions import Change, task_event
from fcdcc.pipeline.anyk.state_machine.events import (
    Forgotten,
    TaskChanged,
    TaskKind,
    TaskStatus,
)
from support.anyk_cluster import Running

KINDS: tuple[TaskKind, ...] = ("share", "node", "task")


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("waiting", ("waiting", "waiting", "waiting")),
        ("queued", (None, "started", "waiting")),
        ("no-worker", (None, "started", "waiting")),
        ("processing", ("started", "started", "started")),
        ("memory", ("done", "done", "done")),
        ("released", ("released", "released", "released")),
        ("erred", ("erred", "erred", "erred")),
    ],
)
def test_states_of_dask_mean_states_of_the_state_machine(
    state: str, expected: tuple[TaskStatus | None, ...]
) -> None:
    worker = "w" if state in ("processing", "memory") else ""
    for kind, status in zip(KINDS, expected, strict=True):
        event = task_event(Change(1.0, "key", state, worker), kind)
        if status is None:
            assert event is None
            continue
        times = (1.0, 1.0) if (kind, status) == ("share", "done") else ()
        assert event == TaskChanged(1.0, "key", kind, status, worker, *times)


def test_a_share_without_a_worker_is_neither_started_nor_done() -> None:
    for state in ("processing", "memory"):
        assert task_event(Change(1.0, "key", state), "share") is None
        assert task_event(Change(1.0, "key", state), "task") is None
        assert task_event(Change(1.0, "key", state), "node") is not None


def test_a_task_that_dask_deletes_is_forgotten() -> None:
    for kind in KINDS:
        assert task_event(Change(1.0, "key", "forgotten"), kind) == Forgotten(1.0, "key")


def test_a_share_is_timed_by_its_last_computation() -> None:
    spans = [
        {"action": "transfer", "start": 1.0, "stop": 2.0},
        {"action": "compute", "start": 2.0, "stop": 3.0},
        {"action": "compute", "start": 4.0, "stop": 6.0},
    ]
    event = task_event(Change(9.0, "key", "memory", "w", spans), "share")
    assert event == TaskChanged(9.0, "key", "share", "done", "w", start=4.0, stop=6.0)


HELD: dict[str, Event] = {}


def one() -> int:
    return 1


def only(there: dict[int, int]) -> int:
    return there[0]


def wait(name: str) -> None:
    assert HELD[name].wait(60)


def twice(value: int) -> int:
    return 2 * value


def test_a_stale_result_of_a_task_does_not_remove_its_copies(
    running: Running,
) -> None:
    read, node = task_key("read", "r", 0, 0), task_key("part", "r", 0, 0)
    graph = {read: Task(read, one), node: AnyK(node, only, {0: read}, 1)}
    made, layer = running.client.get(graph, [read, node], sync=False)
    assert layer.result(60) == 1
    task = running.scheduler.tasks[read]
    holders = {worker.address for worker in task.who_has}
    late = next(w for w in running.cluster.workers.values() if w.address not in holders)
    HELD["late"] = Event()
    busy = running.client.submit(wait, "late", workers=[late.address], pure=False)
    user = running.client.submit(twice, made, workers=[late.address], pure=False)
    running.wait_until(lambda: state_on(late, user.key) == "ready", "its input was fetched")

    def report() -> None:
        running.scheduler.stream_handlers["task-finished"](
            key=read, worker=late.address, stimulus_id="late", run_id=task.run_id - 1,
            metadata={}, nbytes=28, typename="int", type=b"", startstops=(), thread=0,
        )  # fmt: skip

    running.cluster.loop.add_callback(report)
    marker = running.client.submit(one, workers=[late.address], pure=False)
    running.wait_until(lambda: state_on(late, marker.key) == "ready", "later messages arrived")
    HELD["late"].set()
    assert user.result(60) == 2
    busy.result(60)
    assert marker.result(60) == 1


def state_on(worker: Any, key: object) -> str:
    task = worker.state.tasks.get(key)
    return "" if task is None else str(task.state)


@pytest.mark.cluster
def test_a_removed_worker_that_asks_for_results_is_ignored(running: Running) -> None:
    """Dask raises an error, and logs its traceback."""

    async def ask() -> None:
        handle = running.scheduler.stream_handlers["request-refresh-who-has"]
        handle(keys=["gone"], worker="tcp://removed:1", stimulus_id="test")

    running.cluster.sync(ask)

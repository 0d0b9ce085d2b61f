"""A late result of a task that was made elsewhere in the meantime harms nobody."""

from __future__ import annotations

from threading import Event
from typing import Any

from dask._task_spec import Task

from fcdcc.pipeline.anyk import AnyK
from fcdcc.pipeline.anyk.keys import task_key
from support.anyk_cluster import Running

HELD: dict[str, Event] = {}


def one() -> int:
    return 1


def only(there: dict[int, int]) -> int:
    return there[0]


def wait(name: str) -> None:
    assert HELD[name].wait(60)


def twice(value: int) -> int:
    return 2 * value


def test_an_input_that_was_fetched_stays_when_its_late_first_result_is_reported(
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

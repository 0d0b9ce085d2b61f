from __future__ import annotations

from pathlib import Path
from threading import Thread

import pytest
from dask.threaded import get
from distributed import Reschedule

from fcdcc.coding.errors import Abandoned
from fcdcc.pipeline.anyk import abandonable, wanted
from support.anyk_cluster import Running
from support.anyk_graphs import GraphOf, gathered


def is_wanted() -> bool:
    return wanted()()


def is_wanted_in_another_thread() -> list[bool]:
    still_wanted = wanted()
    answers: list[bool] = []
    thread = Thread(target=lambda: answers.append(still_wanted()))
    thread.start()
    thread.join()
    return answers


def placed(running: Running, graph: GraphOf) -> list[set[str] | None]:
    """Return the workers that each share of a graph is placed on; None if it is not known."""
    tasks = [running.scheduler.tasks.get(key) for key in graph.shares.values()]
    return [task and task.worker_restrictions for task in tasks]


def test_outside_a_worker_everything_is_wanted() -> None:
    assert wanted()()
    assert get({"x": (is_wanted,)}, "x")


def test_a_running_task_is_wanted(running: Running) -> None:
    assert running.client.submit(is_wanted, pure=False).result()
    assert running.client.submit(is_wanted_in_another_thread, pure=False).result() == [True]


def test_an_abandoned_share_is_rescheduled() -> None:
    with pytest.raises(Reschedule, match="share 3"), abandonable():
        raise Abandoned("share 3")
    with pytest.raises(ZeroDivisionError), abandonable():
        raise ZeroDivisionError


def test_a_share_that_never_checks_becomes_a_ghost_and_its_worker_is_avoided(
    running: Running, tmp_path: Path, later: object
) -> None:
    stuck, other = str(tmp_path / "stuck"), str(tmp_path / "other")
    graph = gathered(0, {0: other, 5: stuck}, blind=(5,), enough=5)
    [future] = running.client.get(graph.tasks, graph.results, sync=False)
    running.wait_until(Path(f"{stuck}.begun").exists, "the share runs")
    Path(other).touch()
    assert future.result(timeout=120) == (0.0, (0, 1, 2, 3, 4))
    [haunted] = [r["worker"] for r in running.report()["timeline"] if r["state"] == "erased"]
    workers = running.plugin.state.workers.by_address
    assert workers[haunted].avoid_rank
    assert [w for w, worker in workers.items() if worker.avoid_rank] == [haunted]
    # With five others to choose from, no share of a group of five is placed on it.
    futures = []
    for block in range(1, 6):
        five = gathered(block, n=5, enough=5)
        futures += running.client.get(five.tasks, five.results, sync=False)
        running.wait_until(lambda five=five: all(placed(running, five)), "all are placed")
        places = placed(running, five)
        used = {worker for place in places for worker in place or ()}
        assert used == workers.keys() - {haunted}
    # When the thread is free, a heartbeat says so.
    Path(stuck).touch()
    for item in futures:
        item.result(timeout=120)
    waiting = gathered(9, {0: str(tmp_path / "third")}, n=5, enough=5)
    futures += running.client.get(waiting.tasks, waiting.results, sync=False)
    running.wait_until(lambda: not workers[haunted].avoid_rank, "the ghost has gone")
    Path(tmp_path / "third").touch()
    futures[-1].result(timeout=120)

"""Single tasks that are late: started again elsewhere, once, and the first answer wins."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from dask._task_spec import Task, TaskRef

from fcdcc.pipeline.anyk import AnyK
from fcdcc.pipeline.anyk.keys import task_key
from fcdcc.pipeline.anyk.state_machine import events
from fcdcc.pipeline.anyk.state_machine.lateness import LateByHistory
from fcdcc.pipeline.anyk.state_machine.speculation import BackupTasks
from support.anyk_cluster import Running
from support.anyk_graphs import ENOUGH, N, append, decode, gathered, slow_once

KEY = ("glue-r", 3, 7, 0)


def test_the_twin_is_dropped_when_the_task_is_first() -> None:
    backups = BackupTasks()
    backup = backups.start(KEY, "b")
    backups.note(backup.backup, "started")
    assert list(backups.settle()) == []
    backups.note(KEY, "done")
    assert backups.unsettled
    assert list(backups.settle()) == [events.CancelBackup(backup.backup)]
    assert not backups.knows(KEY)


def test_the_task_adopts_the_result_of_a_twin_that_is_first() -> None:
    backups = BackupTasks()
    backup = backups.start(KEY, "b")
    backups.note(backup.backup, "done")
    assert list(backups.settle()) == [events.UseBackup(KEY, backup.backup)]
    assert backups.is_using_backup(KEY)
    for phase in ("released", "waiting", "started"):  # it is taken back and runs there
        backups.note(KEY, phase)
    assert list(backups.settle()) == []
    backups.note(KEY, "done")
    assert list(backups.settle()) == []
    assert not backups.knows(KEY)


def test_a_task_that_waits_for_a_lost_input_adopts_when_it_is_started() -> None:
    backups = BackupTasks()
    backup = backups.start(KEY, "b")
    backups.note(KEY, "waiting")
    backups.note(backup.backup, "done")
    assert list(backups.settle()) == []
    backups.note(KEY, "started")
    assert list(backups.settle()) == [events.UseBackup(KEY, backup.backup)]


@pytest.mark.parametrize("who", ["task", "backup"])
def test_a_pair_of_which_one_is_gone_ends(who: str) -> None:
    backups = BackupTasks()
    backup = backups.start(KEY, "b")
    backups.note(KEY if who == "task" else backup.backup, "released")
    assert list(backups.settle()) == [events.CancelBackup(backup.backup)]
    # It may be late again, and gets another twin.
    assert backups.start(KEY, "c").backup != backup.backup
    backups.forget(KEY)
    backups.forget(backup.backup)
    list(backups.settle())
    assert not backups.remembers(KEY)


def test_only_tasks_of_ours_are_doubled() -> None:
    assert BackupTasks.may_run_twice(("write-r", 3, 7, 0))
    assert not BackupTasks.may_run_twice(("images-1234", 7, 0, 0))
    assert not BackupTasks.may_run_twice("sum-1234")


# ------------------------------------------------------------------ on a cluster


def chain(
    block: int, folder: Path, slow: str = "", run: str = "r"
) -> tuple[dict[Any, Any], tuple[Any, ...]]:
    """Return a read, a group, glue and a write; the stage ``slow`` is slow where it runs first."""

    def once(stage: str) -> str | None:
        return str(folder / f"{stage}-{block}") if stage == slow else None

    graph = gathered(block, run=run, seconds=0.02)
    tasks = graph.tasks
    read = task_key("read", run, 0, block)
    tasks[read] = Task(read, slow_once, tasks[read].func, once("read"), block)
    node = graph.results[0]
    tasks[node] = AnyK(node, slow_once_decode, graph.shares, ENOUGH, once("decode"))
    glue = task_key("glue", run, 1, block)
    tasks[glue] = Task(glue, slow_once, first, once("glue"), TaskRef(node))
    write = task_key("write", run, 2, block)
    log = str(folder / f"written-{block}")
    tasks[write] = Task(write, slow_once, append, once("write"), TaskRef(glue), log)
    return tasks, write


def first(pair: tuple[float, object]) -> float:
    return pair[0]


def slow_once_decode(there: Any, once: str | None) -> Any:
    return slow_once(decode, once, there)


@pytest.mark.parametrize("slow", ["read", "decode", "glue", "write"])
def test_nobody_waits_for_a_single_task_on_a_slow_worker(
    running: Running, tmp_path: Path, slow: str
) -> None:
    for block in range(4):  # what is usual
        tasks, key = chain(block, tmp_path)
        assert running.client.get(tasks, key) == block
    tasks, key = chain(9, tmp_path, slow)
    [future] = running.client.get(tasks, [key], sync=False)
    # The first worker that has the task keeps it until the file is there.
    assert future.result(timeout=120) == 9.0
    counters = running.report()["counters"]
    assert counters["doubles_used"] >= 1
    assert [e["stage"] for e in running.report()["events"] if e["event"] == "doubled"].count(slow)
    # Nothing waits for it any more, and what it returns late changes nothing.
    Path(tmp_path / f"{slow}-9").touch()
    running.wait_until(
        lambda: (tmp_path / f"{slow}-9.ended").read_text() == "xx", "the slow one has ended, too"
    )
    assert future.result(timeout=120) == 9.0
    assert set((tmp_path / "written-9").read_text().split()) == {"9.0"}
    del future
    running.wait_until_empty()
    running.wait_until(
        lambda: all(not w.data for w in running.cluster.workers.values()), "workers are empty"
    )


def test_a_late_task_that_is_first_after_all_keeps_its_answer(
    running: Running, tmp_path: Path
) -> None:
    for block in range(4):
        tasks, key = chain(block, tmp_path)
        running.client.get(tasks, key)
    tasks, key = chain(9, tmp_path)
    gate = tmp_path / "gate"
    glue = task_key("glue", "r", 1, 9)
    tasks[glue] = Task(glue, both_wait, str(gate), TaskRef(task_key("decode", "r", 0, 9)))
    [future] = running.client.get(tasks, [key], sync=False)
    running.wait_until(lambda: running.report()["counters"]["tasks_doubled"], "it has a twin")
    gate.touch()
    assert future.result(timeout=120) == 9.0
    del future


def both_wait(gate: str, pair: tuple[float, object]) -> float:
    from time import sleep

    while not Path(gate).exists():
        sleep(0.01)
    return pair[0]


def test_the_twin_of_a_block_that_is_cancelled_goes_with_it(
    running: Running, tmp_path: Path
) -> None:
    for block in range(4):
        tasks, key = chain(block, tmp_path)
        running.client.get(tasks, key)
    tasks, key = chain(9, tmp_path)
    glue = task_key("glue", "r", 1, 9)
    gate = tmp_path / "gate"
    tasks[glue] = Task(glue, both_wait, str(gate), TaskRef(task_key("decode", "r", 0, 9)))
    [future] = running.client.get(tasks, [key], sync=False)
    running.wait_until(lambda: running.report()["counters"]["tasks_doubled"], "it has a twin")
    future.cancel()
    running.wait_until_empty()
    gate.touch()


def test_an_error_in_both_is_an_error_once(running: Running, tmp_path: Path) -> None:
    for block in range(4):
        tasks, key = chain(block, tmp_path)
        running.client.get(tasks, key)
    tasks, key = chain(9, tmp_path)
    glue = task_key("glue", "r", 1, 9)
    gate = tmp_path / "gate"
    tasks[glue] = Task(glue, both_fail, str(gate), TaskRef(task_key("decode", "r", 0, 9)))
    [future] = running.client.get(tasks, [key], sync=False)
    running.wait_until(lambda: running.report()["counters"]["tasks_doubled"], "it has a twin")
    gate.touch()
    with pytest.raises(ArithmeticError, match="both"):
        future.result(timeout=120)
    future.release()
    running.wait_until_empty()
    running.errors.messages = [t for t in running.errors.messages if "ArithmeticError" not in t]


def both_fail(gate: str, pair: tuple[float, object]) -> float:
    both_wait(gate, pair)
    raise ArithmeticError("both fail")


def test_a_healthy_run_doubles_nothing(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine may keep a worker waiting for longer than usual, and that is no fault.
    monkeypatch.setattr(running.plugin.state.lateness, "rule", LateByHistory(floor=20.0))
    for block in range(20):
        tasks, key = chain(block, tmp_path, run="healthy")
        assert running.client.get(tasks, key) == block
    assert Counter(running.report("healthy")["counters"])["doubles_used"] == 0
    written = [(tmp_path / f"written-{block}").read_text().split() for block in range(20)]
    assert written == [[str(float(block))] for block in range(20)]
    assert N > ENOUGH

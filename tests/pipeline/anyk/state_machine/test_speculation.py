"""What is started elsewhere when workers are late: parity on standby and backup tasks."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from dask._task_spec import Task, TaskRef

from fcdcc.pipeline.anyk import AnyK
from fcdcc.pipeline.anyk.keys import task_key
from fcdcc.pipeline.anyk.state_machine import events, workers
from fcdcc.pipeline.anyk.state_machine.events import Instruction, TaskStatus
from fcdcc.pipeline.anyk.state_machine.lateness import LateByHistory
from fcdcc.pipeline.anyk.state_machine.speculation import BackupTasks
from fcdcc.pipeline.anyk.state_machine.workers import STRAGGLER_PACE
from support.anyk_cluster import Running
from support.anyk_graphs import ENOUGH, N, append, decode, gathered, slow_once
from support.anyk_model import (
    EXACT,
    ModelDask,
    all_late,
    six_workers,
    started_group,
    tick,
    with_one_missing,
)

KEY = ("glue-r", 3, 7, 0)


def test_a_backup_is_cancelled_when_the_task_is_first() -> None:
    backups = BackupTasks()
    started = backups.start(KEY, "b")
    backups.note(started.backup, "started")
    assert list(backups.settle()) == []
    backups.note(KEY, "done")
    assert backups.unsettled
    assert list(backups.settle()) == [events.CancelBackup(started.backup)]
    assert not backups.knows(KEY)


def test_a_task_uses_the_result_of_a_backup_that_is_first() -> None:
    backups = BackupTasks()
    started = backups.start(KEY, "b")
    backups.note(started.backup, "done")
    assert list(backups.settle()) == [events.UseBackup(KEY, started.backup)]
    assert backups.is_using_backup(KEY)
    states: tuple[TaskStatus, ...] = ("released", "waiting", "started")
    for state in states:  # it is taken back and runs where the backup is
        backups.note(KEY, state)
    assert list(backups.settle()) == []
    backups.note(KEY, "done")
    assert list(backups.settle()) == []
    assert not backups.knows(KEY)


def test_a_task_that_waits_for_a_lost_input_uses_the_backup_when_it_is_started() -> None:
    backups = BackupTasks()
    started = backups.start(KEY, "b")
    backups.note(KEY, "waiting")
    backups.note(started.backup, "done")
    assert list(backups.settle()) == []
    backups.note(KEY, "started")
    assert list(backups.settle()) == [events.UseBackup(KEY, started.backup)]


@pytest.mark.parametrize("who", ["task", "backup"])
def test_a_backup_ends_when_it_or_its_task_is_gone(who: str) -> None:
    backups = BackupTasks()
    started = backups.start(KEY, "b")
    backups.note(KEY if who == "task" else started.backup, "released")
    assert list(backups.settle()) == [events.CancelBackup(started.backup)]
    # It may be late again, and gets another backup.
    assert backups.start(KEY, "c").backup != started.backup
    backups.forget(KEY)
    backups.forget(started.backup)
    list(backups.settle())
    assert not backups.remembers(KEY)


def test_only_tasks_of_ours_get_a_backup() -> None:
    assert BackupTasks.may_run_twice(("write-r", 3, 7, 0))
    assert not BackupTasks.may_run_twice(("images-1234", 7, 0, 0))
    assert not BackupTasks.may_run_twice("sum-1234")


def test_parity_on_standby_starts_when_a_share_is_lost_and_else_never() -> None:
    dask = ModelDask(f"w{i}" for i in range(6))
    dask.add(block=0, n=6, enough=4, parts=True, standby=(4, 5))
    dask.add(block=1, n=6, enough=4, parts=True, standby=(4, 5))
    for key in dask.startable():
        dask.start(key)
    assert not any(s.state == "running" for k, s in dask.shares.items() if k[0] == "parity-r")
    lost = dask.machine.registry.shares["share-r", 0, 0, 0].worker
    assert lost is not None
    seats = {k: share.worker for k, share in dask.machine.registry.shares.items()}
    dask.leave(lost)
    dask.settle()
    waiting = {k for k, s in dask.shares.items() if k[0] == "parity-r" and not s.held}
    blocks = {k[2] for k, worker in seats.items() if worker == lost}
    assert waiting == {("parity-r", 0, b, p) for b in blocks for p in (4, 5)}
    dask.run_to_the_end()
    dask.check_end()


def test_parity_on_standby_starts_when_a_worker_of_the_group_is_late() -> None:
    dask, shares = with_one_missing()
    late = dask.shares[shares[3]].worker
    assert late is not None
    # It has returned something else in the meantime: a worker with a queue is not late.
    assert tick(dask, 4.0, {late: 3.0}) == []
    assert {type(i) for i in tick(dask, 5.05, {late: 3.0})} == {events.StartShare}
    assert tick(dask, 5.3, {late: 3.0}) == []


def test_parity_that_was_not_needed_after_all_does_not_count_against_its_worker() -> None:
    dask, shares = with_one_missing()
    late = dask.shares[shares[3]].worker
    [parity] = tick(dask, 5.05, {late: 3.0})
    dask.carry_out([parity])
    dask.start(parity.share)
    dask.finish(shares[3])
    dask.settle()
    dask.run_to_the_end()
    run = dask.machine.history.run("r")
    states = {record.stage: record.state for record in run.shares.since(0)}
    assert states == {"share": "done", "parity": "superfluous"}
    assert run.counters.erasures == 0


def test_shares_of_a_block_that_is_cancelled_were_not_given_up() -> None:
    dask = ModelDask(f"w{i}" for i in range(4))
    nodes = dask.add(block=0, n=4, enough=4, parts=True)
    for key in dask.startable():
        dask.start(key)
    dask.finish(("share-r", 0, 0, 0))
    dask.settle()
    assert any(share.cut for share in dask.machine.registry.shares.values())
    for key in nodes:
        dask.forget(key)
    assert dask.machine.history.totals().erasures == 0
    dask.check_end()


@pytest.mark.parametrize("first", ["backup", "share", "others", "no worker is free"])
def test_a_share_that_parity_cannot_replace_gets_a_backup_and_the_first_result_is_used(
    first: str,
) -> None:
    dask, shares = all_late()
    assert tick(dask, 99.0) == []
    dask.finish(shares[0])
    dask.settle()
    started = tick(dask, 99.1, processing=first == "no worker is free")
    # Two parity shares for three late shares: the third gets a backup on a worker with room.
    assert [type(item) for item in started[:2]] == [events.StartShare, events.StartShare]
    dask.carry_out(started)
    if first == "no worker is free":
        assert started[2:] == []
        return
    (backup,) = (item for item in started if isinstance(item, events.StartBackup))
    slow = dask.shares[backup.task].worker
    assert backup.worker != slow
    assert [type(item) for item in tick(dask, 99.2)] == []  # one backup is enough
    for key in dask.startable():
        dask.start(key)
        if first != "others":
            dask.finish(key)
    if first == "backup":
        dask.finish_backup(backup.backup)
        dask.settle()
        assert dask.shares[backup.task].worker == backup.worker
    for key in [backup.task] if first != "others" else list(shares.values())[1:]:
        dask.finish(key)
    dask.settle()
    assert not dask.backups
    dask.run_to_the_end()
    dask.check_end()


@pytest.mark.parametrize("then", ["the backup is first", "the backup is late", "silence"])
def test_where_parity_is_expensive_a_late_share_gets_a_backup_in_its_place(then: str) -> None:
    dask = six_workers(EXACT)
    for block in range(3):  # shares take 3 s, and parity 9
        shares = started_group(dask, block, at=20.0 * block)
        dask.carry_out([events.StartShare(("parity-r", 0, block, 4), None)])
        dask.start(("parity-r", 0, block, 4))
        dask.now += 3.0
        for position in (0, 1, 2):
            dask.finish(shares[position])
        dask.now += 6.0
        dask.finish(("parity-r", 0, block, 4))
        dask.settle()
    shares = started_group(dask, 3, at=60.0)
    dask.now = 63.0
    for position in (0, 1, 2):
        dask.finish(shares[position])
    dask.settle()
    slow = dask.shares[shares[3]].worker
    assert slow is not None
    (backup,) = tick(dask, 66.1)
    assert isinstance(backup, events.StartBackup)
    assert (backup.task, backup.worker == slow) == (shares[3], False)
    dask.carry_out([backup])
    assert tick(dask, 66.3) == []
    if then == "the backup is first":
        dask.finish_backup(backup.backup)
        dask.settle()
        assert dask.shares[shares[3]].worker == backup.worker
        history = dask.machine.history.run("r")
        assert history.counters.doubles_used == 1
        given_up = [share for share in history.shares if share.state == "erased"]
        assert given_up[-1].worker == slow
        assert history.counters.erasures == len(given_up)
    elif then == "the backup is late":
        assert tick(dask, 69.0) == []
        assert [type(item) for item in tick(dask, 72.2)] == [events.StartShare]
    else:
        instructions: list[Instruction] = []
        for _ in range(8):
            dask.now += 0.25
            heard = {name: 66.3 if name == slow else dask.now for name in dask.workers}
            observed = tuple(
                events.WorkerObservation(name, at, 0.0, 0, True, 1) for name, at in heard.items()
            )
            instructions += dask.report(events.Tick(dask.now, 0.25, 0.5, observed))
        assert events.StartShare in {type(item) for item in instructions}
    dask.run_to_the_end()
    dask.check_end()


def test_parity_starts_earlier_if_a_worker_is_idle() -> None:
    dask = six_workers(EXACT)
    for block in range(2):
        shares = started_group(dask, block, at=10.0 * block)
        dask.now += 1.0
        for key in shares.values():
            dask.finish(key)
        dask.settle()
    shares = started_group(dask, 2, at=30.0)
    dask.now = 31.0
    for position in range(3):
        dask.finish(shares[position])
    dask.settle()
    assert tick(dask, 31.6, processing=1) == []  # no worker is idle
    assert {type(item) for item in tick(dask, 31.7, processing=0)} == {events.StartShare}


def test_parity_does_not_start_on_a_slow_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "FORGIVE_SECONDS", 1e9)
    dask = six_workers(EXACT)
    slow = {"w0", "w1"}
    known = dask.machine.workers.by_address
    for block in itertools.count():
        shares = started_group(dask, block, at=100.0 * block)
        for key in sorted(shares.values(), key=lambda key: dask.shares[key].worker in slow):
            dask.now = 100.0 * block + (20.0 if dask.shares[key].worker in slow else 2.0)
            dask.finish(key)
        dask.settle()
        if {address for address, worker in known.items() if worker.pace > STRAGGLER_PACE} == slow:
            break
    # From now on they get the parity, which is on standby, ...
    begun = dask.now
    shares = started_group(dask, 99, at=begun)
    assert not slow & {dask.shares[key].worker for key in shares.values()}
    # ... and when it is needed it runs elsewhere.
    dask.now = begun + 2.0
    for position in range(3):
        dask.finish(shares[position])
    dask.settle()
    started = [i for i in tick(dask, begun + 5.0) if isinstance(i, events.StartShare)]
    assert len(started) == 1
    assert not slow & {item.worker for item in started}


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
def test_a_single_task_on_a_slow_worker_is_not_waited_for(
    running: Running, tmp_path: Path, slow: str
) -> None:
    for block in range(4):  # to learn the usual times
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
        lambda: (tmp_path / f"{slow}-9.ended").read_text() == "xx", "the first run has ended, too"
    )
    assert future.result(timeout=120) == 9.0
    assert set((tmp_path / "written-9").read_text().split()) == {"9.0"}
    del future
    running.wait_until_empty()
    running.wait_until(
        lambda: all(not w.data for w in running.cluster.workers.values()), "workers are empty"
    )


def test_a_late_task_that_finishes_first_keeps_its_result(running: Running, tmp_path: Path) -> None:
    for block in range(4):
        tasks, key = chain(block, tmp_path)
        running.client.get(tasks, key)
    tasks, key = chain(9, tmp_path)
    gate = tmp_path / "gate"
    glue = task_key("glue", "r", 1, 9)
    tasks[glue] = Task(glue, both_wait, str(gate), TaskRef(task_key("decode", "r", 0, 9)))
    [future] = running.client.get(tasks, [key], sync=False)
    running.wait_until(lambda: running.report()["counters"]["tasks_doubled"], "it has a backup")
    gate.touch()
    assert future.result(timeout=120) == 9.0
    del future


def both_wait(gate: str, pair: tuple[float, object]) -> float:
    from time import sleep

    while not Path(gate).exists():
        sleep(0.01)
    return pair[0]


def test_the_backup_of_a_block_that_is_cancelled_is_cancelled_too(
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
    running.wait_until(lambda: running.report()["counters"]["tasks_doubled"], "it has a backup")
    future.cancel()
    running.wait_until_empty()
    gate.touch()


def test_an_error_in_a_task_and_its_backup_is_raised_once(running: Running, tmp_path: Path) -> None:
    for block in range(4):
        tasks, key = chain(block, tmp_path)
        running.client.get(tasks, key)
    tasks, key = chain(9, tmp_path)
    glue = task_key("glue", "r", 1, 9)
    gate = tmp_path / "gate"
    tasks[glue] = Task(glue, both_fail, str(gate), TaskRef(task_key("decode", "r", 0, 9)))
    [future] = running.client.get(tasks, [key], sync=False)
    running.wait_until(lambda: running.report()["counters"]["tasks_doubled"], "it has a backup")
    gate.touch()
    with pytest.raises(ArithmeticError, match="both"):
        future.result(timeout=120)
    future.release()
    running.wait_until_empty()
    running.errors.messages = [t for t in running.errors.messages if "ArithmeticError" not in t]


def both_fail(gate: str, pair: tuple[float, object]) -> float:
    both_wait(gate, pair)
    raise ArithmeticError("both fail")


def test_a_healthy_run_starts_no_backups(
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

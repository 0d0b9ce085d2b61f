"""Which workers answer, how fast they are, and which of them get seats."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from fcdcc.pipeline.anyk.state_machine import events
from fcdcc.pipeline.anyk.state_machine.invariants import check_state
from fcdcc.pipeline.anyk.state_machine.silence_rules import FixedSilence
from fcdcc.pipeline.anyk.state_machine.state import AnyKState
from fcdcc.pipeline.anyk.state_machine.workers import (
    IDLE_SILENT_SECONDS,
    PACE_SHARES,
    STRAGGLER_PACE,
    Outlook,
    WorkerRecord,
    median_pace,
)
from support.anyk_model import ModelDask


def silent(machine: AnyKState, now: float, seen: dict[str, float], needed: bool = True) -> set[str]:
    """Report a tick at which workers were last heard of at these times; return those removed."""
    observed = tuple(events.WorkerObservation(w, at, at, 0, needed) for w, at in seen.items())
    instructions = machine.handle(events.Tick(now, 0.25, 0.5, observed))
    return {item.worker for item in instructions if isinstance(item, events.RemoveWorker)}


def with_workers(*names: str, delivered: bool = True) -> AnyKState:
    machine = AnyKState(FixedSilence(silent_after=3.0, grace=15.0))
    for name in names:
        machine.handle(events.WorkerJoined(0.0, name, name, 1))
        if delivered:
            machine.handle(events.TaskChanged(0.0, "other", "share", "done", name, 0.0, 0.0))
    return machine


def ticks(machine: AnyKState, until: float, seen: dict[str, float], **kw: bool) -> set[str]:
    """Report ticks from 0 on; workers whose time is infinite are heard of at every tick."""
    gone: set[str] = set()
    for step in range(1, int(until / 0.25) + 1):
        now = step * 0.25
        gone |= silent(machine, now, {w: min(at, now) for w, at in seen.items()}, **kw)
    return gone


FOREVER = float("inf")


def test_a_needed_worker_that_stays_silent_is_removed() -> None:
    machine = with_workers("a", "b")
    assert ticks(machine, 3.0, {"a": 0.0, "b": FOREVER}) == set()
    assert silent(machine, 3.25, {"a": 0.0, "b": 3.25}) == {"a"}
    assert silent(machine, 3.5, {"a": 0.0, "b": 3.5}) == set()  # once


def test_a_worker_that_is_not_needed_may_be_silent() -> None:
    assert ticks(with_workers("a", "b"), 60.0, {"a": 0.0, "b": FOREVER}, needed=False) == set()


def test_a_worker_without_any_result_yet_has_longer() -> None:
    machine = with_workers("a", "b", delivered=False)
    assert ticks(machine, 15.0, {"a": 0.0, "b": FOREVER}) == set()
    assert silent(machine, 15.25, {"a": 0.0, "b": 15.25}) == {"a"}


def test_time_in_which_the_scheduler_was_blocked_is_no_silence() -> None:
    machine = with_workers("a", "b")
    assert ticks(machine, 2.0, {"a": FOREVER, "b": FOREVER}) == set()
    # The event loop was blocked for ten seconds; no heartbeat was read meanwhile.
    assert silent(machine, 12.0, {"a": 2.0, "b": 12.0}) == set()
    assert silent(machine, 12.25, {"a": 2.0, "b": 12.25}) == set()
    for step in range(1, 12):
        gone = silent(machine, 12.25 + step * 0.25, {"a": 2.0, "b": 12.25 + step * 0.25})
    assert gone == {"a"}


def test_if_no_worker_is_heard_of_none_is_removed() -> None:
    machine = with_workers("a", "b")
    assert ticks(machine, 60.0, {"a": 0.0, "b": 0.0}) == set()


def removals(machine: AnyKState, seen: Callable[[float], dict[str, float]]) -> dict[str, float]:
    """Report ticks for a minute; return when workers are removed. ``seen``: as in ``silent``."""
    times = [step * 0.25 for step in range(1, 260)]
    return {worker: now for now in times for worker in silent(machine, now, seen(now))}


def test_time_in_which_no_worker_was_heard_of_is_no_silence() -> None:
    def seen(now: float) -> dict[str, float]:
        """All are silent from 10 to 50, as on a suspended laptop, and "c" is from 9 on."""
        if now < 50.0:
            return {"a": min(now, 10.0), "b": min(now, 10.0), "c": min(now, 9.0)}
        return {"a": now, "b": now if now >= 52.0 else 10.0, "c": 9.0}

    # One second without "c" and with the others before it, two after it.
    assert removals(with_workers("a", "b", "c"), seen) == {"c": 52.25}


def test_a_worker_that_is_not_heard_of_again_with_the_others_is_removed() -> None:
    def seen(now: float) -> dict[str, float]:
        return {"a": now if now >= 50.0 else min(now, 10.0), "b": min(now, 10.0)}

    assert removals(with_workers("a", "b"), seen) == {"b": 53.25}


def test_a_worker_that_joins_while_all_are_silent_gives_them_time_to_answer() -> None:
    machine = with_workers("a", "b")
    assert ticks(machine, 40.0, {"a": 0.0, "b": 0.0}) == set()
    machine.handle(events.WorkerJoined(40.1, "c", "c", 1))
    removed = {
        worker: now
        for now in [40.0 + step * 0.25 for step in range(1, 40)]
        for worker in silent(machine, now, {"a": 0.0, "b": now if now > 42 else 0.0, "c": now})
    }
    assert removed == {"a": 43.5}


def bypassed(
    machine: AnyKState, now: float, seen: dict[str, float], shared: str, needed: bool = True
) -> list[str]:
    """Report a tick at which one worker has something of others; return the bypassed ones."""
    observed = tuple(
        events.WorkerObservation(w, at, at, 0, needed, shared=w == shared) for w, at in seen.items()
    )
    instructions = machine.handle(events.Tick(now, 0.25, 0.5, observed))
    assert not any(isinstance(item, events.RemoveWorker) for item in instructions)
    return [item.worker for item in instructions if isinstance(item, events.BypassWorker)]


def test_a_silent_worker_that_others_use_is_bypassed_and_stays() -> None:
    machine = with_workers("a", "b")
    found = [
        now
        for now in [step * 0.25 for step in range(1, 240)]
        if bypassed(
            machine,
            now,
            {"a": min(now, 20.0) if now > 19 else 0.0, "b": now},
            shared="a",
            needed=now < 3.5 or 20.0 < now < 23.5,  # what it had then is computed elsewhere
        )
    ]
    assert found == [3.25, 23.25]  # once for each time that it is silent
    # When the others have nothing there any more, it may be removed.
    assert silent(machine, 60.0, {"a": 20.0, "b": 60.0}) == {"a"}


def test_a_bypassed_worker_that_gets_work_again_is_bypassed_again() -> None:
    """Dask does not know that it is silent."""
    machine = with_workers("a", "b")
    found = [
        now
        for now in [step * 0.25 for step in range(1, 80)]
        if bypassed(machine, now, {"a": 0.0, "b": now}, "a", not 3.5 <= now <= 8.0)
    ]
    assert found[:2] == [3.25, 8.25]
    assert all(after - before > 3.0 for before, after in pairwise(found))


def test_the_only_worker_that_takes_tasks_is_not_bypassed() -> None:
    machine = with_workers("a", "b")
    machine.handle(events.WorkerStatus(0.0, "b", False))
    for now in [step * 0.25 for step in range(1, 100)]:
        assert bypassed(machine, now, {"a": 0.0, "b": now}, "a") == []


def test_what_is_said_to_become_of_a_silent_worker_is_what_happens() -> None:
    machine = with_workers("a", "b")
    ticks(machine, 2.0, {"a": 0.0, "b": FOREVER})
    assert machine.workers.outlook("b", 2.0) is None  # it answers
    assert machine.workers.outlook("c", 2.0) is None
    foretold = machine.workers.outlook("a", 2.0)
    assert foretold == Outlook("removed", 1.0)
    assert ticks(machine, 2.0 + foretold.seconds, {"a": 0.0, "b": FOREVER}) == set()
    assert silent(machine, 3.25, {"a": 0.0, "b": 3.25}) == {"a"}
    assert machine.workers.outlook("a", 3.25) == Outlook("removed")


def test_nothing_is_said_to_become_of_a_worker_that_is_not_needed_or_cannot_be_replaced() -> None:
    machine = with_workers("a", "b")
    ticks(machine, 5.0, {"a": 0.0, "b": FOREVER}, needed=False)
    assert machine.workers.outlook("a", 5.0) == Outlook("unneeded")
    alone = with_workers("a", "b")
    ticks(alone, 5.0, {"a": 0.0, "b": 0.0})
    assert alone.workers.outlook("a", 5.0) == Outlook("waits")  # no worker is heard of
    assert alone.workers.outlook("a", 60.0) is None  # ticks have stopped: nothing is waited for


def test_what_is_said_to_become_of_a_worker_that_others_use_is_what_happens() -> None:
    machine = with_workers("a", "b")
    for step in range(1, 13):
        now = step * 0.25
        assert bypassed(machine, now, {"a": 0.0, "b": now}, "a") == []
        foretold = machine.workers.outlook("a", now)
        assert foretold == (Outlook("bypassed", 3.0 - now) if now > 1.25 else None)
    assert bypassed(machine, 3.25, {"a": 0.0, "b": 3.25}, "a") == ["a"]
    assert machine.workers.outlook("a", 3.25) == Outlook("bypassed", 3.0)  # if it gets work again
    machine.handle(events.WorkerStatus(3.25, "b", False))
    assert machine.workers.outlook("a", 3.25) == Outlook("waits")


def test_with_rarer_heartbeats_workers_have_longer() -> None:
    machine = with_workers("a", "b")
    for step in range(1, 28):
        now = step * 0.25
        observed = (
            events.WorkerObservation("a", 0.0, 0.0, 0, True),
            events.WorkerObservation("b", now, now, 0, True),
        )
        assert machine.handle(events.Tick(now, 0.25, 2.0, observed)) == ()


def test_a_worker_that_is_not_running_yet_gets_no_seats() -> None:
    machine = AnyKState()
    for name in ("a", "b"):
        machine.handle(events.WorkerJoined(0.0, name, name, 1))
    machine.handle(events.WorkerJoined(0.0, "c", "c", 1, running=False))
    shares = tuple(events.ShareSpec(f"s{p}", p, p) for p in range(3))
    edges = tuple((p, f"s{p}") for p in range(3))
    group = events.GroupSpec("r", 0, 0, 0, shares, (events.NodeSpec("node", edges, 2),))
    placed = machine.handle(events.GroupsAdded(0.0, (group,)))
    assert {item.worker for item in placed if isinstance(item, events.PlaceShare)} == {"a", "b"}
    check_state(machine)
    # When it takes tasks, it gets a share that has not started.
    placed = machine.handle(events.WorkerStatus(9.0, "c", True))
    assert {item.worker for item in placed if isinstance(item, events.PlaceShare)} == {"c"}
    check_state(machine)


def test_a_worker_that_begins_to_take_tasks_is_heard_of() -> None:
    machine = with_workers("a", "b", delivered=False)
    assert ticks(machine, 14.0, {"a": 0.0, "b": FOREVER}) == set()
    machine.handle(events.WorkerStatus(14.0, "a", True))
    for step in range(1, 60):
        assert silent(machine, 14.0 + step * 0.25, {"a": 0.0, "b": 14.0 + step * 0.25}) == set()


def heard(machine: AnyKState, gap: float, until: float) -> float:
    """Report heartbeats of "a" and "b" every ``gap`` seconds; return the time of the last."""
    now = last = 0.0
    while now < until:
        now += 0.251  # clocks do not tick exactly
        last = now if now - last >= gap else last
        assert silent(machine, now, {"a": last, "b": last}) == set()
    return last


@pytest.mark.parametrize(("gap", "least", "most"), [(0.5, 3.0, 3.5), (1.5, 6.0, 6.5)])
def test_the_silence_that_is_allowed_is_learned_from_the_heartbeats_of_a_worker(
    gap: float, least: float, most: float
) -> None:
    machine = AnyKState()
    for name in ("a", "b"):
        machine.handle(events.WorkerJoined(0.0, name, name, 1))
        machine.handle(events.TaskChanged(0.0, "other", "task", "done", name))
    now = last = heard(machine, gap, 20.0)
    gone: set[str] = set()
    while not gone:
        now += 0.25
        gone = silent(machine, now, {"a": last, "b": now})
    assert gone == {"a"}
    assert least <= now - last <= most


def test_the_silence_that_is_allowed_is_learned_from_other_workers_too() -> None:
    machine = AnyKState()
    for name in ("a", "b"):
        machine.handle(events.WorkerJoined(0.0, name, name, 1))
        machine.handle(events.TaskChanged(0.0, "other", "task", "done", name))
    last = heard(machine, 0.5, 10.0)
    # All workers are busy now; "b" is heard of after two seconds.
    for step in range(1, 9):
        assert silent(machine, last + step * 0.25, {"a": last, "b": last}) == set()
    for step in range(9, 24):  # up to 5.75 seconds; otherwise 3 would be the limit
        assert silent(machine, last + step * 0.25, {"a": last, "b": last + step * 0.25}) == set()


def test_shares_of_a_group_are_on_different_workers_and_move_when_one_leaves() -> None:
    dask = ModelDask(f"w{i}" for i in range(8))
    for layer in range(3):
        dask.add(block=5, n=6, enough=4, layer=layer)
    places = {key: share.place for key, share in dask.shares.items()}
    by_layer = [{p: places["share-r", layer, 5, p] for p in range(6)} for layer in range(3)]
    assert by_layer[0] == by_layer[1] == by_layer[2]
    assert len(set(by_layer[0].values())) == 6
    lost = by_layer[0][3]
    assert lost is not None
    dask.leave(lost)
    moved = {key[3]: share.place for key, share in dask.shares.items()}
    assert {p for p in range(6) if moved[p] != by_layer[0][p]} == {3}
    assert len(set(moved.values())) == 6


def test_new_groups_avoid_workers_with_ghosts() -> None:
    dask = ModelDask(f"w{i}" for i in range(5))
    dask.add(block=0, n=4, enough=3)
    for key in dask.startable():
        dask.start(key)
    slow = dask.shares["share-r", 0, 0, 3].worker
    for position in range(3):
        dask.finish(("share-r", 0, 0, position))
    dask.settle()
    for block in range(1, 6):
        dask.add(block=block, n=4, enough=3)
        assert slow not in {s.place for k, s in dask.shares.items() if k[2] == block}
    assert slow is not None
    observed = tuple(events.WorkerObservation(w, 2.0, 2.0, 0, True) for w in dask.workers)
    dask.report(events.Tick(2.0, 0.25, 0.5, observed))
    places = set()
    for block in range(6, 11):
        dask.add(block=block, n=4, enough=3)
        places |= {s.place for k, s in dask.shares.items() if k[2] == block}
    assert slow in places


def record(*ratios: float) -> WorkerRecord:
    """Return a worker whose latest shares took these multiples of the usual time."""
    worker = WorkerRecord("w", "host", 1, seen=0.0, last_result=0.0)
    for ratio in ratios:
        worker.add_share_ratio(ratio)
    return worker


def test_one_slow_share_makes_no_straggler() -> None:
    assert record(9.0).known_pace is None
    assert not record(9.0).is_straggler
    assert not record(1.0, 9.0).is_straggler
    assert record(9.0, 9.0).is_straggler


@pytest.mark.parametrize("pace", [0.5, 1.0, STRAGGLER_PACE, STRAGGLER_PACE + 0.1])
def test_a_straggler_is_slower_than_the_limit_by_its_latest_shares(pace: float) -> None:
    worker = record(*[9.0] * 30, *[pace] * PACE_SHARES)
    assert worker.pace == worker.known_pace == median_pace([pace] * PACE_SHARES) == pace
    assert worker.is_straggler == (pace > STRAGGLER_PACE)


def test_a_straggler_without_results_is_forgiven() -> None:
    worker = record(*[9.0] * PACE_SHARES)
    for _ in range(PACE_SHARES):
        assert worker.is_straggler or worker.known_pace is None
        worker.forgive(now=30.0)
    assert worker.known_pace is None
    assert not worker.is_straggler


def idle(machine: AnyKState, now: float, seen: dict[str, float]) -> None:
    """Report that nothing is waited for, and when workers were last heard of."""
    observed = tuple(events.WorkerObservation(w, at, at, 0, False) for w, at in seen.items())
    assert machine.handle(events.Idle(now, 1.0, 0.5, observed)) == ()


def quiet(machine: AnyKState) -> set[str]:
    return {address for address, worker in machine.workers.by_address.items() if worker.quiet}


def test_a_worker_that_falls_silent_while_nothing_is_waited_for_is_quiet_from_the_start() -> None:
    machine = with_workers("a", "b")
    now = 100.0
    while now < 100.0 + IDLE_SILENT_SECONDS:
        idle(machine, now, {"a": now, "b": 99.9})
        assert quiet(machine) == set()
        now += 1.0
    idle(machine, now, {"a": now, "b": 99.9})
    assert quiet(machine) == {"b"}
    assert machine.workers.outlook("b", now) == Outlook("unneeded")
    gone = []
    for _ in range(12):  # work has come; the silence before is not held against it
        now += 0.25
        gone.append(silent(machine, now, {"a": now, "b": 99.9}))
        assert quiet(machine) == {"b"}
    assert gone[:6] == [set()] * 6
    assert {"b"} in gone


def test_a_worker_that_answers_again_while_nothing_is_waited_for_is_not_quiet() -> None:
    machine = with_workers("a", "b")
    ticks(machine, 2.5, {"a": FOREVER, "b": 0.5}, needed=False)
    assert quiet(machine) == {"b"}
    idle(machine, 3.0, {"a": 3.0, "b": 0.5})
    assert quiet(machine) == {"b"}, "it was not heard of yet"
    idle(machine, 4.0, {"a": 4.0, "b": 3.9})
    assert quiet(machine) == set()


def test_no_worker_is_quiet_because_the_scheduler_itself_was_suspended_while_idle() -> None:
    machine = with_workers("a", "b")
    idle(machine, 10.0, {"a": 10.0, "b": 9.8})
    for moment in (500.0, 501.0):  # the heartbeats of some workers come before those of others
        idle(machine, moment, {"a": moment, "b": 9.8})
        assert quiet(machine) == set()
    for moment in (502.0, 503.0):
        idle(machine, moment, {"a": moment, "b": 9.8})
    assert quiet(machine) == {"b"}


def test_a_worker_whose_result_has_just_arrived_is_not_quiet() -> None:
    machine = with_workers("a", "b")
    for moment in range(10, 20):
        observed = (
            events.WorkerObservation("a", moment, moment, 0, False),
            events.WorkerObservation("b", 9.0, moment, 0, False),
        )
        machine.handle(events.Idle(moment, 1.0, 0.5, observed))
    assert quiet(machine) == set()


def test_pauses_between_computations_do_not_hide_that_a_worker_is_silent() -> None:
    machine = with_workers("a", "b")
    ticks(machine, 2.0, {"a": FOREVER, "b": FOREVER})
    found = []
    for start in (2.0, 3.5):  # a second of work, and half a second without any
        for step in range(1, 5):
            now = start + 0.25 * step
            silent(machine, now, {"a": now, "b": 2.0})
            found.append(now if quiet(machine) == {"b"} else 0.0)
        idle(machine, start + 1.25, {"a": start + 1.25, "b": 2.0})
    assert min(filter(None, found)) < 4.0


def test_a_worker_holds_no_ghosts_once_it_has_ended_them_while_nothing_is_waited_for() -> None:
    machine = with_workers("a", "b")
    idle(machine, 10.0, {"a": 10.0, "b": 10.0})
    worker = machine.workers.by_address["a"]
    machine.workers.add_ghost("a", "share", 10.0)
    busy = events.WorkerObservation("a", 12.0, 12.0, 1, needed=False)
    machine.handle(events.Idle(12.0, 1.0, 0.5, (busy,)))
    assert worker.has_cancelled_tasks
    assert list(worker.ghosts) == ["share"]
    idle(machine, 13.0, {"a": 13.0, "b": 13.0})
    assert not worker.has_cancelled_tasks
    assert not worker.ghosts

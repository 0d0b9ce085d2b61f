"""What shares and groups add up to, and who is called slow."""

from __future__ import annotations

import gc
import re
import sys
from dataclasses import replace
from types import FunctionType, ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcdcc.pipeline.anyk.keys import ASSEMBLY_SUFFIX, INPUT_LAYER, task_key
from fcdcc.pipeline.anyk.state_machine.events import (
    Tick,
    WorkerJoined,
    WorkerLeft,
    WorkerObservation,
)
from fcdcc.pipeline.anyk.state_machine.history import GroupRecord, ShareRecord
from fcdcc.pipeline.anyk.state_machine.state import AnyKState
from fcdcc.pipeline.anyk.state_machine.workers import Outlook
from fcdcc.pipeline.monitoring.dashboard.collector import RECORDS, RunCollector
from fcdcc.pipeline.monitoring.dashboard.page import live, page
from fcdcc.pipeline.monitoring.dashboard.run_statistics import RunStatistics
from fcdcc.pipeline.monitoring.dashboard.service import snapshot
from fcdcc.pipeline.monitoring.stragglers import (
    WorkerView,
    behind,
    mark_replaced,
    ranked,
    slow_ones,
    verdict,
)  # fmt: skip
from simulation import SimulatedCluster, Steady, one_layer


def share(
    worker: str, start: float, stop: float, state: str = "done", block: int = 0, position: int = 0
) -> ShareRecord:
    return ShareRecord(0, block, position, "share", worker, start, stop, state)


def group(stop: float, block: int = 0, start: float = 0.0, solved: bool = False) -> GroupRecord:
    return GroupRecord(0, block, start, stop, solved)


def test_a_group_that_waits_for_nobody_saves_nothing() -> None:
    statistics = RunStatistics()
    for position in range(4):
        statistics.add_share(share(f"w{position}", 0.0, 1.0 + position / 10, position=position))
    statistics.add_group(group(1.4))
    (record,) = statistics.settled
    assert (record.seconds, record.slowest_seconds, record.erased) == (1.4, 1.4, 0)
    assert statistics.saved == statistics.saved_at_once == 0.0


def test_the_lateness_of_an_erased_share_ends_when_its_worker_leaves() -> None:
    statistics = RunStatistics()
    statistics.add_share(share("a", 0.0, 1.0))
    statistics.add_share(share("b", 0.0, 1.0, "erased", position=1))
    statistics.add_group(group(1.1, solved=True))
    assert not list(statistics.settled)  # how late it is is not known yet
    statistics.leave("b", "removed", 4.0)
    (record,) = statistics.settled
    assert (record.seconds, record.slowest_seconds, record.erased) == (1.1, 4.0, 1)
    assert statistics.saved_at_once == 3.0
    assert statistics.workers["b"].late == statistics.workers["b"].worst == 3.0
    (ghost,) = statistics.ghosts
    assert (ghost.worker, ghost.state, ghost.start, ghost.stop) == ("b", "ghost", 1.0, 4.0)


def test_what_nobody_saw_is_not_counted_as_late() -> None:
    confirmed: dict[str, float] = {}
    statistics = RunStatistics(confirmed)
    statistics.add_share(share("b", 0.0, 1.0, "erased"))
    statistics.add_group(group(1.1))
    statistics.add_share(share("b", 9.0, 9.5, block=1))  # it had nothing to do meanwhile
    assert statistics.workers["b"].late == 0.0
    statistics.add_share(share("b", 9.5, 10.0, "erased", block=2))
    confirmed["b"] = 12.0  # it said so, or did not answer
    statistics.add_share(share("b", 11.5, 13.0, block=3))
    assert statistics.workers["b"].late == 1.5


def test_only_shares_that_left_with_their_worker_are_lost_with_it() -> None:
    statistics = RunStatistics()
    for state in ("lost", "recalled", "erred"):
        statistics.add_share(share(state, 0.0, 1.0, state))
    assert {worker: facts.lost for worker, facts in statistics.workers.items()} == {
        "lost": 1, "recalled": 0, "erred": 0,
    }  # fmt: skip


def test_saved_waiting_that_was_shown_never_becomes_less() -> None:
    confirmed: dict[str, float] = {}
    statistics = RunStatistics(confirmed)
    shown = [statistics.saved_at_once]
    for block in range(2):
        statistics.add_share(share("b", 0.0, 1.0 + 2 * block, "erased", block=block))
        statistics.add_group(group(1.1 + 2 * block, block))
        confirmed["b"] = 2.8 + 2 * block  # it was thought to be busy still
        shown.append(statistics.saved_at_once)
        statistics.add_share(share("b", 2.3 + 2 * block, 2.9 + 2 * block, block=8 + block))
        shown.append(statistics.saved_at_once)
    assert shown == sorted(shown)
    assert shown[-1] > 0.0


def test_when_a_run_is_over_all_its_groups_are_settled() -> None:
    cluster, state = simulated({}, n=6, delta=4)
    collector = RunCollector(state)
    collector.refresh(cluster.now)
    statistics = collector.runs["simulated"].statistics
    statistics.add_share(share("w5", 0.0, 1.0, "erased", block=77))
    statistics.add_group(group(1.1, 77))
    before = statistics.settled.total
    collector.report_status("simulated", {"state": "running", "is_over": True}, cluster.now)
    assert statistics.settled.total > before
    assert statistics.settled.total == sum(layer.groups for layer in statistics.layers.values())
    collector.report_status("simulated", {"waiting_saved": 2.5}, cluster.now)
    assert snapshot(collector, cluster.now)["saved"]["seconds"] == 2.5  # as in the summary


def test_what_several_groups_did_not_wait_for_at_once_counts_once() -> None:
    statistics = RunStatistics()
    for block in range(3):
        statistics.add_share(share("b", 0.0, 1.0, "erased", block=block))
        statistics.add_group(group(1.0, block))
    statistics.add_share(share("c", 0.0, 2.9, "erased", block=9))
    statistics.free("c")  # and nobody saw it stuck
    statistics.leave("b", "lost", 3.0)
    assert statistics.saved_at_once == 2.0
    assert statistics.saved == 6.0


def test_a_worker_was_not_late_with_a_superfluous_share_and_nothing_was_saved() -> None:
    statistics = RunStatistics()
    statistics.add_share(share("b", 0.0, 1.0, "superfluous"))
    statistics.add_group(group(1.0, 0))
    statistics.leave("b", "lost", 3.0)
    facts = statistics.workers["b"]
    assert (facts.erased, facts.late, facts.worst, facts.overdue) == (0, 0.0, 0.0, 0)
    assert [record.erased for record in statistics.settled.since(0)] == [0]
    assert statistics.saved_at_once == 0.0


def simulated(speeds: dict[str, float], n: int, delta: int) -> tuple[SimulatedCluster, AnyKState]:
    """Return a cluster of six workers that has computed twenty groups."""
    state = AnyKState()
    cluster = SimulatedCluster(state, Steady(speeds))
    for number in range(6):
        cluster.join(f"w{number}")
    cluster.run((one_layer(block, n, delta) for block in range(20)), 3)
    return cluster, state


def test_a_worker_that_is_started_again_at_its_address_has_its_new_process() -> None:
    collector = RunCollector(AnyKState())
    for pid in (100, 200):
        collector.note_worker("tcp://h:9000", "a", pid, "h")
    assert collector.process("tcp://h:9000") == {"name": "a", "pid": 200, "host": "h"}


def test_a_bypassed_worker_is_silent_until_it_answers() -> None:
    cluster, state = simulated({}, n=6, delta=6)
    collector = RunCollector(state)
    collector.refresh(cluster.now)
    worker = state.workers.by_address["w0"]
    worker.quiet, worker.seen = True, cluster.now - 2.0
    assert collector.silent_workers(cluster.now) == []  # it may be busy
    worker.bypassed = cluster.now
    assert [loss.worker for loss in collector.silent_workers(cluster.now)] == ["w0"]
    worker.quiet, worker.bypassed = False, None
    assert collector.silent_workers(cluster.now) == []


def test_the_pace_is_the_one_by_which_shares_are_given_out() -> None:
    cluster, state = simulated({"w4": 0.5, "w5": 0.25}, n=6, delta=6)
    cluster.join("fresh")
    collector = RunCollector(state)
    collector.refresh(cluster.now)
    shown = snapshot(collector, cluster.now)
    rows = {worker["address"]: worker for worker in shown["workers"]}
    assert all(row["pace"] == row["learned_pace"] for row in rows.values())
    assert rows["w4"]["pace"] / rows["w0"]["pace"] == pytest.approx(2.0, rel=0.1)
    assert rows["fresh"]["pace"] is None
    assert {address for address, row in rows.items() if row["slow"]} == {"w5"}
    assert shown["sentence"].startswith("w5 is the slow one: its shares take 3.9 times as long")
    assert f"<td>{rows['w4']['pace']:.1f} ×</td>" in live(shown)
    facts = collector.runs["simulated"].statistics.workers
    state.handle(WorkerLeft(cluster.now, "w4"))
    collector.refresh(cluster.now)
    assert facts["w4"].pace == rows["w4"]["pace"]  # as it was when the worker left


def test_a_worker_whose_shares_are_all_given_up_is_called_slow() -> None:
    statistics = RunStatistics()
    for block in range(8):
        for position, worker in enumerate("abc"):
            statistics.add_share(share(worker, block, block + 0.1, block=block, position=position))
        statistics.add_share(share("d", block, block + 0.1, "erased", block=block, position=3))
        statistics.add_group(group(block + 0.1, block, start=block))
        statistics.leave("d", "", block + 0.9)  # it was busy until then
    facts = statistics.workers["d"]
    assert (facts.done, facts.erased, facts.overdue) == (0, 8, 8)
    views = [WorkerView("a", done=8, pace=1.0)]
    views += [WorkerView("d", erased=8, overdue=8, late=facts.late, worst=facts.worst)]
    assert verdict(views) == (
        "d is the slow one: 8 of 8 shares were not waited for (0.8 s late on average)."
    )
    assert slow_ones(views) == "d (0.8 s late)"
    even = [WorkerView(name, done=9, erased=6, overdue=5, pace=1.0) for name in "ab"]
    assert slow_ones(even) == ""


def test_a_worker_that_finishes_far_fewer_shares_than_the_others_is_named() -> None:
    # It ran for a seventh of the time. The shares that it finished it had when it ran.
    others = [WorkerView(f"tcp://{name}:1", done=done, pace=1.0) for name, done in
              (("a", 30), ("b", 32), ("d", 31))]  # fmt: skip
    late = WorkerView("tcp://c:1", done=2, erased=9, late=2.7, worst=0.4, pace=1.0)
    assert verdict([*others, late]) == (
        "tcp://c:1 finished 2 shares where others finish about 31 in that time; 9 of its shares "
        "were not waited for (0.3 s late on average)."
    )
    fresh = WorkerView("tcp://e:1", done=2, pace=1.0)  # nothing was given up on it
    assert behind([*others, fresh]) == []
    assert verdict([*others, fresh]).startswith("No worker is slow")
    assert behind([]) == behind([WorkerView("a", gone="lost"), WorkerView("b", erased=3)]) == []


def test_a_worker_that_has_just_come_is_not_called_slow() -> None:
    others = [
        WorkerView(f"tcp://{name}:1", done=60, pace=1.0, had_shares_for=30.0) for name in "abd"
    ]
    came = WorkerView("tcp://e:1", done=6, erased=1, late=0.2, pace=1.0, had_shares_for=4.0)
    assert behind([*others, came]) == []
    stays_behind = WorkerView("tcp://e:1", done=6, erased=1, late=0.2, had_shares_for=29.0)
    assert behind([*others, stays_behind]) == [stays_behind]


def test_workers_are_not_called_slow_because_a_run_was_interrupted() -> None:
    """All shares in flight are given up then, and workers are busy with them for a moment."""
    cluster, state = simulated({}, n=6, delta=4)
    collector = RunCollector(state)
    for worker in state.workers.by_address.values():
        worker.ghosts = {("share-simulated", 0, 99, 0): cluster.now - 2.0}
    for status, said in (("running", "are the slow ones"), ("interrupted", "No worker is slow")):
        collector.report_status("simulated", {"state": status}, cluster.now)
        collector.refresh(cluster.now)
        assert said in snapshot(collector, cluster.now)["sentence"]


def test_the_time_of_a_worker_counts_from_its_first_share() -> None:
    statistics = RunStatistics()
    for block, worker, start in ((0, "a", 5.0), (1, "b", 9.0), (2, "a", 10.0)):
        statistics.add_share(ShareRecord(0, block, 0, "share", worker, start, start + 1, "done"))
    assert {w: facts.since for w, facts in statistics.workers.items()} == {"a": 5.0, "b": 9.0}


def test_the_page_shows_the_planned_time_beside_the_time_left() -> None:
    cluster, state = simulated({}, n=6, delta=4)
    collector = RunCollector(state)
    collector.refresh(cluster.now)
    status = {"state": "running", "blocks_total": 8, "blocks_done": 2, "images_done": 32,
              "seconds": 30.0, "work_seconds": 5.0, "seconds_left": 15.0}  # fmt: skip
    told_first = "2.5 s a block, 6.4 images/s, about 15.0 s left; 5.0 s of work so far"
    for planned, rough, last in ((58.0, False, ", 58.0 s planned</p>"),
                                 (58.0, True, ", roughly 58.0 s planned</p>"),
                                 (None, False, "</p>")):  # fmt: skip
        told = told_first + last
        of_plan = {"seconds_planned": planned, "is_plan_rough": rough}
        collector.report_status("simulated", {**status, **of_plan}, cluster.now)
        shown = snapshot(collector, cluster.now)
        assert shown["run"]["seconds_planned"] == planned
        assert told in live(shown)


def test_the_page_tells_no_rate_before_a_block_has_ended() -> None:
    cluster, state = simulated({}, n=6, delta=4)
    collector = RunCollector(state)
    collector.refresh(cluster.now)
    status = {"state": "running", "blocks_total": 8, "seconds": 30.0, "work_seconds": 5.0}
    collector.report_status("simulated", status, cluster.now)
    assert '<p class="faint">time left not known yet; 5.0 s of work so far</p>' in live(
        snapshot(collector, cluster.now)
    )
    collector.report_status("simulated", {**status, "seconds_left": 0.0}, cluster.now)
    assert "time left not known yet" not in live(snapshot(collector, cluster.now))


def test_html_in_names_is_shown_as_it_is() -> None:
    cluster, state = simulated({}, n=6, delta=4)
    collector = RunCollector(state)
    hostile = "<script>alert('x')</script>"
    status = {"layers": {"0": hostile}, "output": hostile, "model": hostile, "redundancy": hostile}
    collector.report_status("simulated", status, cluster.now)
    state.handle(WorkerJoined(cluster.now, hostile, "h", 1))
    collector.refresh(cluster.now)
    shown = snapshot(collector, cluster.now)
    for drawn in (live(shown), page({"pages": ["fcdcc"], "plots": []}, shown)):
        assert hostile not in drawn
        assert drawn.count("&lt;script&gt;alert(&#39;x&#39;)") >= 5


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.sampled_from(["done", "erased", "lost"]),
            st.floats(0, 5),
            st.integers(0, 6),
        ),
        max_size=60,
    )
)
def test_sums_are_never_negative_and_groups_are_never_lost(
    history: list[tuple[str, str, float, int]],
) -> None:
    statistics, now, blocks = RunStatistics(), 0.0, set()
    for worker, state, seconds, block in history:
        now += 0.5
        statistics.add_share(share(worker, now, now + seconds, state, block))
        if block not in blocks:
            blocks.add(block)
            statistics.add_group(group(now + seconds, block, now))
    for worker in "abc":
        statistics.leave(worker, "lost", now + 10)
    assert statistics.layers == {} or statistics.layers[0].groups == len(blocks)
    assert statistics.settled.total == len(blocks)
    assert statistics.saved_at_once >= 0.0
    assert statistics.saved >= 0.0
    assert all(record.slowest_seconds >= record.seconds for record in statistics.settled)


def test_the_sentence_names_the_one_that_does_not_answer() -> None:
    workers = [
        WorkerView("tcp://a:1", done=9, pace=1.0),
        WorkerView("tcp://b:1", done=9, pace=4.0),
        WorkerView("tcp://c:1", done=9, pace=1.0, silent=2.0, ghosts=1, stuck=1.5),
    ]
    assert verdict(workers) == (
        "tcp://c:1 is the slow one: it has not answered for 2.0 s. 1 of its shares is not waited "
        "for."
    )
    assert [worker.address for worker in ranked(workers)] == ["tcp://c:1", "tcp://b:1", "tcp://a:1"]
    assert slow_ones(workers) == "tcp://c:1 (silent for 2.0 s)"


WAIT = "Blocks that need what only it has wait until it answers"
OR_REMOVED = f"{WAIT}, others compute that or it is removed"


@pytest.mark.parametrize(
    ("outlook", "said"),
    [
        (Outlook("removed", 1.2), f"{OR_REMOVED}, in about 1 s."),
        (Outlook("removed", 0.2), f"{OR_REMOVED}, within a second."),
        (Outlook("bypassed", 7.6), f"{WAIT} or others compute that, in about 8 s."),
        (Outlook("waits"), f"{WAIT}."),
        (Outlook("unneeded"), "No block needs anything of it."),
    ],
)
def test_the_sentence_says_what_happens_if_a_worker_stays_silent(
    outlook: Outlook, said: str
) -> None:
    silent = WorkerView("tcp://c:1", silent=3.2, ghosts=6, taken_over=4, outlook=outlook)
    told = "tcp://c:1 is the slow one: it has not answered for 3.2 s."
    done = "2 of its shares are not waited for, and others have done 4 of its tasks."
    assert verdict([silent]) == f"{told} {done} {said}"
    assert slow_ones([silent]) == "tcp://c:1 (silent for 3.2 s)"


def test_several_silent_workers_and_those_that_are_stuck_are_told_apart() -> None:
    one = WorkerView("a", silent=3.2, ghosts=1, taken_over=1, outlook=Outlook("removed", 2.0))
    other = WorkerView("b", silent=2.2, outlook=Outlook("removed", 3.0))
    stuck = WorkerView("c", stuck=2.0, ghosts=3, taken_over=1)
    begin = "a and b are the slow ones: they have not answered for 3.2 s."
    wait = "Blocks that need what only they have wait until they answer"
    assert verdict([one, other]) == (
        f"{begin} Others have done 1 of their tasks. {wait}, others compute "
        "that or they are removed, in about 3 s."
    )
    used = replace(other, outlook=Outlook("bypassed", 3.0))
    assert verdict([one, used]).endswith(f"{wait} or others compute that.")
    idle = replace(other, outlook=Outlook("unneeded"))
    assert verdict([one, idle]).endswith(
        "Blocks that need what only a has wait until it answers, others compute that or it is "
        "removed, in about 2 s."
    )
    held = "been stuck for 2.0 s with 2 shares that no task needs any more and a task that others"
    assert verdict([one, other, stuck]).endswith(f" in about 3 s. c has {held} have done.")
    assert verdict([stuck]) == f"c is the slow one: it has {held} have done."


def test_the_page_says_when_a_silent_worker_is_removed_and_what_others_did_for_it() -> None:
    cluster, state = simulated({}, n=6, delta=6)
    collector = RunCollector(state)
    now = cluster.now
    ghosts = state.workers.by_address["w2"].ghosts
    for chunk in range(4):
        ghosts[task_key("read", "simulated", INPUT_LAYER, chunk)] = now - 1.0
    ghosts[task_key("share", "simulated", 0, 99)] = now - 1.0
    for step in range(1, 9):
        at = now + step / 4
        heard = {w: now if w == "w2" else at for w in state.workers.by_address}
        observed = (WorkerObservation(w, seen, seen, 1, True) for w, seen in heard.items())
        state.handle(Tick(at, 0.25, 0.5, tuple(observed)))
    collector.refresh(at)
    assert snapshot(collector, at)["sentence"] == (
        "w2 is the slow one: it has not answered for 2.0 s. 1 of its shares is not waited for, and "
        f"others have done 4 of its tasks. {OR_REMOVED}, in about 1 s."
    )


def test_a_worker_that_stopped_while_nothing_ran_is_silent_since_then() -> None:
    cluster, state = simulated({}, n=6, delta=6)
    collector = RunCollector(state)
    now = cluster.now
    state.workers.by_address["w2"].ghosts[task_key("share", "earlier", 0, 3)] = now - 1.0
    for step in range(9):
        at = now + 30.0 + step / 4  # nobody looked at the workers before
        heard = {w: now if w == "w2" else at for w in state.workers.by_address}
        observed = (WorkerObservation(w, seen, seen, 1, True) for w, seen in heard.items())
        state.handle(Tick(at, 0.25, 0.5, tuple(observed)))
    collector.refresh(at)
    sentence = snapshot(collector, at)["sentence"]
    assert sentence.startswith("w2 is the slow one: it has not answered for 32.0 s. ")
    [loss] = collector.silent_workers(at)
    assert (loss.worker, at - loss.heard) == ("w2", 32.0)
    assert "not waited for" not in sentence


def test_a_worker_far_behind_the_others_stands_first_and_is_not_called_even() -> None:
    workers = [
        WorkerView("a", done=50, pace=1.2),
        WorkerView("b", done=5, erased=9, pace=1.0),
        WorkerView("c", done=45, pace=1.1),
    ]
    assert [worker.address for worker in ranked(workers)] == ["b", "a", "c"]
    assert verdict(workers).startswith("b finished 5 shares where others finish about 48")


def test_workers_that_all_became_slower_are_told_so() -> None:
    workers = [WorkerView("a", done=9, pace=1.9), WorkerView("b", done=9, pace=2.0)]
    assert verdict(workers) == (
        "No worker is slower than the others, but all take longer than before: at least 1.9 times "
        "as long for a share. Other programs may use their cores."
    )
    assert "the slowest, a, takes 1.9" in verdict(workers[:1])


def test_workers_stand_in_the_order_of_the_paces_that_are_shown() -> None:
    workers = [
        WorkerView("a", done=9, pace=0.9, late=9.0, worst=9.0),
        WorkerView("b", done=9, pace=1.04, name="10"),
        WorkerView("c", done=9, pace=0.96, name="2"),
        WorkerView("d", done=9, pace=0.98, late=2.0, worst=2.0),
        WorkerView("e", done=9, pace=7.0, gone="lost"),
        WorkerView("f", erased=9, overdue=9, worst=0.1),  # so slow that its pace is not known
        WorkerView("g", done=2),
    ]
    assert [worker.address for worker in ranked(workers)] == [*"fdcbage"]


def test_a_worker_that_was_late_repeatedly_is_named() -> None:
    even = [WorkerView(f"tcp://{name}:1", done=30, pace=1.0) for name in "abc"]
    late = WorkerView("tcp://d:1", done=25, erased=5, overdue=5, late=4.0, worst=1.0, pace=0.9)
    gone = WorkerView("tcp://e:1", gone="removed", gone_for=7.0)
    named = "tcp://d:1 was late 5 times, the longest time by 1.0 s."
    assert verdict([*even, late]) == named
    assert verdict([*even, late, gone]).startswith(f"{named} tcp://e:1 was removed")
    assert verdict([*even, replace(late, overdue=1)]) == "No worker is slow."


def test_a_worker_and_the_one_in_its_place_have_different_names() -> None:
    old = WorkerView("tcp://a:1", name="2", gone="lost", pid=71)
    new = WorkerView("tcp://b:1", name="2", pid=72)
    assert [worker.details for worker in mark_replaced([old, new])] == [
        "worker 2, replaced, pid 71", "worker 2, pid 72",
    ]  # fmt: skip


def test_the_sentence_says_so_when_nobody_is_slow_and_when_somebody_left() -> None:
    even = [WorkerView("tcp://a:1", done=9, pace=1.1), WorkerView("tcp://b:1", done=9, pace=1.0)]
    assert verdict(even) == (
        "No worker is slow: the slowest, tcp://a:1, takes 1.1 times as long for a share as is "
        "usual among all workers; above 3 times counts as slow."
    )
    gone = WorkerView("tcp://c:1", done=3, gone="removed", gone_for=7.0)
    assert verdict([*even, gone]) == "tcp://c:1 was removed for not answering, 7 s ago."
    assert slow_ones(even) == ""


def test_of_a_run_that_is_over_silence_is_told_in_the_past() -> None:
    silent = WorkerView("tcp://a:1", done=9, pace=1.1, silent=24.1)
    assert verdict([silent]).startswith(
        "tcp://a:1 is the slow one: it has not answered for 24.1 s."
    )
    told = "tcp://a:1 had not answered for 24.1 s when the run ended."
    assert verdict([silent], "when the run ended") == told


def test_a_worker_of_few_shares_is_not_called_well_although_it_was_slow_with_them() -> None:
    few, other = WorkerView("a", done=3, pace=3.6), WorkerView("b", done=9, pace=1.0)
    assert verdict([few, other]) == (
        "a may be slow: the few shares that it has finished took 3.6 times as long as is usual "
        "among all workers."
    )


def busy_collector(workers: int, groups: int, shares: int = 6) -> RunCollector:
    """Return a collector of a run with so many groups, as the plugin's history tells it."""
    state = AnyKState()
    for number in range(workers):
        state.handle(WorkerJoined(0.0, f"tcp://10.0.0.1:{number}", "h", 1))
    collector = RunCollector(state)
    addresses = list(state.workers.by_address)
    for number in range(groups):
        layer, block, now = number % 10, number // 10, number / 100
        history = state.history.run("r")
        for position in range(shares):
            worker = addresses[(number + position) % workers]
            what = "erased" if position == shares - 1 else "done"
            place = (layer, block, position, "share", worker)
            history.shares.append(ShareRecord(*place, now, now + 0.5, what))
            history.counters.erasures += what == "erased"
        history.groups.append(GroupRecord(layer, block, now, now + 0.6, True))
        history.counters.groups += 1
        if number % 1000 == 0:
            collector.refresh(now)
    collector.refresh(groups / 100)
    return collector


def test_counts_equal_those_of_the_history() -> None:
    collector = busy_collector(workers=8, groups=3000)
    shown = snapshot(collector, 30.0)
    assert shown["counters"]["groups"] == shown["totals"]["groups"] == 3000
    assert sum(layer["groups"] for layer in shown["layers"]) == 3000
    assert sum(layer["erasures"] for layer in shown["layers"]) == 3000
    assert sum(collector.erasures.values()) == 3000
    assert sum(worker["erased"] for worker in shown["workers"]) == 3000


def test_bands_that_are_put_together_are_not_shown_as_a_run_of_their_own() -> None:
    collector = busy_collector(workers=3, groups=30)
    groups = collector.state.history.run(f"r{ASSEMBLY_SUFFIX}").groups
    groups.append(GroupRecord(0, 0, 1.0, 2.0, False))
    collector.refresh(3.0)
    shown = snapshot(collector, 3.0)
    assert shown["run"]["id"] == "r"
    assert sum(layer["groups"] for layer in shown["layers"]) == 30


def test_the_page_names_a_worker_and_its_process_also_when_it_is_gone() -> None:
    collector = busy_collector(workers=3, groups=30)
    for number in range(3):
        collector.note_worker(f"tcp://10.0.0.1:{number}", number, 70 + number, "10.0.0.1")
    collector.state.handle(WorkerLeft(0.5, "tcp://10.0.0.1:1", expected=False))
    history = collector.state.history.run("r")
    history.events.append({"time": 0.5, "event": "lost", "worker": "tcp://10.0.0.1:1"})
    history.corrupt.append((0, 0, 0, "tcp://10.0.0.1:2"))
    collector.refresh(1.0)
    shown = snapshot(collector, 1.0)
    assert [(row["name"], row["pid"]) for row in shown["workers"]] == [
        ("0", 70), ("2", 72), ("1", 71),
    ]  # fmt: skip
    page = live(shown)
    for number in range(3):
        assert f"worker {number}, pid {70 + number}" in page
    assert "tcp://10.0.0.1:1 (worker 1, pid 71) was lost" in page
    assert 'title="tcp://10.0.0.1:0 (worker 0, pid 70): ' in page  # its square on the map
    assert re.search(r"Wrong results:\s+tcp://10.0.0.1:2 \(worker 2, pid 72\): 1\s*</p>", page)


def bytes_held(root: object) -> int:
    """Return the bytes of an object and of all that it refers to; classes and modules aside."""
    seen: set[int] = set()
    total, found = 0, [root]
    while found:
        one = found.pop()
        if id(one) in seen or isinstance(one, (type, ModuleType, FunctionType)):
            continue
        seen.add(id(one))
        total += sys.getsizeof(one)
        found += gc.get_referents(one)
    return total


@pytest.mark.long
def test_a_hundred_thousand_groups_of_a_thousand_workers_take_less_than_20_megabytes() -> None:
    collector = busy_collector(workers=1000, groups=100_000, shares=2)
    drawn = live(snapshot(collector, 1e3))
    assert collector.state.history.totals().groups == 100_000
    assert bytes_held(collector) < 20e6
    assert len(drawn) < 400_000


def test_a_scheduler_without_any_run_can_be_shown() -> None:
    collector = RunCollector(AnyKState())
    collector.refresh(1.0)
    shown = snapshot(collector, 1.0)
    assert shown["sentence"] == "No worker has computed a share yet."
    assert "No coded run so far" in live(shown)


def test_records_come_in_bounded_parts_and_once() -> None:
    collector = busy_collector(workers=4, groups=1500)
    seen = dict.fromkeys(RECORDS, 0)
    parts, more = [], True
    while more:
        answer = collector.records_since("r", seen)
        parts.append(answer["shares"])
        seen, more = answer["seen"], answer["more"]
    assert max(map(len, parts)) <= 5000
    found = [record for part in parts for record in part]
    assert len(found) == len(set(found)) == 9_000


def test_the_page_says_how_many_of_a_runs_workers_may_be_lost() -> None:
    cluster, state = simulated({}, n=6, delta=4)
    collector = RunCollector(state)
    collector.refresh(cluster.now)
    known = {"n": 6, "delta": 4, "workers": 6, "may_be_lost": 2}

    def shown(**more: object) -> str:
        collector.report_status("simulated", {**known, **more}, cluster.now)
        return live(snapshot(collector, cluster.now))

    assert "of the 6 workers 2 may be lost at a time" in shown(state="running")
    state.workers.by_address["w2"].quiet = True
    cluster.now += 1.0
    state.handle(WorkerLeft(cluster.now, "w3", expected=False))
    assert "of the 4 workers that answer now 1 may be lost at a time" in shown(state="starting")
    for name in ("w0", "w1", "w4"):
        state.handle(WorkerLeft(cluster.now, name, expected=False))
    assert "of the 1 worker that answers now none may be lost" in shown(state="running")
    for over in ({"state": "complete"}, {"state": "running", "may_be_lost": None}):
        assert "may be lost at a time" not in shown(**over)

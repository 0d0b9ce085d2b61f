"""What shares and groups add up to, and who is called slow."""

from __future__ import annotations

import gc
import sys
from types import FunctionType, ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcdcc.pipeline.anyk.state_machine.events import WorkerJoined
from fcdcc.pipeline.anyk.state_machine.history import GroupRecord, ShareRecord
from fcdcc.pipeline.anyk.state_machine.state import AnyKState
from fcdcc.pipeline.monitoring.dashboard.collector import RunCollector
from fcdcc.pipeline.monitoring.dashboard.page import live
from fcdcc.pipeline.monitoring.dashboard.run_statistics import RunStatistics
from fcdcc.pipeline.monitoring.dashboard.snapshot import snapshot
from fcdcc.pipeline.monitoring.stragglers import WorkerView, ranked, slow_ones, verdict
from simulation import SimulatedCluster, Steady, one_layer


def share(
    worker: str, start: float, stop: float, state: str = "done", block: int = 0, position: int = 0
) -> ShareRecord:
    return ShareRecord(0, block, position, "share", worker, start, stop, state)


def group(stop: float, block: int = 0, start: float = 0.0, solved: bool = False) -> GroupRecord:
    return GroupRecord(0, block, start, stop, solved)


def test_a_group_that_waits_for_nobody_saves_nothing() -> None:
    account = RunStatistics()
    for position in range(4):
        account.add_share(share(f"w{position}", 0.0, 1.0 + position / 10, position=position))
    account.add_group(group(1.4))
    (facts,) = account.recent
    assert (facts.seconds, facts.slowest, facts.erased) == (1.4, 1.4, 0)
    assert account.saved == account.saved_at_once == 0.0


def test_the_lateness_of_an_erased_share_ends_when_its_worker_leaves() -> None:
    account = RunStatistics()
    account.add_share(share("a", 0.0, 1.0))
    account.add_share(share("b", 0.0, 1.0, "erased", position=1))
    account.add_group(group(1.1, solved=True))
    assert not list(account.recent)  # how late it is is not known yet
    account.leave("b", "removed", 4.0)
    (facts,) = account.recent
    assert (facts.seconds, facts.slowest, facts.erased) == (1.1, 4.0, 1)
    assert account.saved_at_once == 3.0
    assert account.workers["b"].late == account.workers["b"].worst == 3.0
    assert [(e.worker, e.lateness) for e in account.freed] == [("b", 3.0)]


def test_what_nobody_saw_is_not_counted_as_late() -> None:
    confirmed: dict[str, float] = {}
    account = RunStatistics(confirmed)
    account.add_share(share("b", 0.0, 1.0, "erased"))
    account.add_group(group(1.1))
    account.add_share(share("b", 9.0, 9.5, block=1))  # it had nothing to do meanwhile
    assert account.workers["b"].late == 0.0
    account.add_share(share("b", 9.5, 10.0, "erased", block=2))
    confirmed["b"] = 12.0  # it said so, or did not answer
    account.add_share(share("b", 11.5, 13.0, block=3))
    assert account.workers["b"].late == 1.5


def test_what_several_groups_did_not_wait_for_at_once_counts_once() -> None:
    account = RunStatistics()
    for block in range(3):
        account.add_share(share("b", 0.0, 1.0, "erased", block=block))
        account.add_group(group(1.0, block))
    account.add_share(share("c", 0.0, 2.9, "erased", block=9))
    account.free("c")  # and nobody saw it stuck
    account.leave("b", "lost", 3.0)
    assert account.saved_at_once == 2.0
    assert account.saved == 6.0


def test_the_pace_is_that_of_the_latest_shares() -> None:
    account = RunStatistics()
    for block in range(40):
        for worker, seconds in (("a", 1.0), ("b", 1.0), ("c", 1.0), ("d", 3.0)):
            account.add_share(share(worker, block, block + seconds, block=block))
    paces = {name: facts.pace for name, facts in account.workers.items()}
    assert paces == {"a": 1.0, "b": 1.0, "c": 1.0, "d": 3.0}


def test_the_pace_that_shares_are_given_out_by_is_shown() -> None:
    state = AnyKState()
    cluster = SimulatedCluster(state, Steady({"w4": 0.5, "w5": 0.5}))
    for number in range(6):
        cluster.join(f"w{number}")
    cluster.run((one_layer(block, 6, 6) for block in range(20)), 3)
    cluster.join("fresh")
    board = RunCollector(state)
    board.refresh(cluster.now)
    shown = snapshot(board, cluster.now)
    learned = {worker["address"]: worker["learned_pace"] for worker in shown["workers"]}
    assert learned["w4"] / learned["w0"] == pytest.approx(2.0, rel=0.1)
    assert learned["fresh"] is None
    assert f"<td>{learned['w4']:.1f} ×</td>" in live(shown)


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
    account, now, blocks = RunStatistics(), 0.0, set()
    for worker, state, seconds, block in history:
        now += 0.5
        account.add_share(share(worker, now, now + seconds, state, block))
        if block not in blocks:
            blocks.add(block)
            account.add_group(group(now + seconds, block, now))
    for worker in "abc":
        account.leave(worker, "lost", now + 10)
    assert account.layers == {} or account.layers[0].groups == len(blocks)
    assert account.recent.total == len(blocks)
    assert account.saved_at_once >= 0.0
    assert account.saved >= 0.0
    assert all(facts.slowest >= facts.seconds for facts in account.recent)


def test_the_sentence_names_the_one_that_does_not_answer() -> None:
    workers = [
        WorkerView("tcp://a:1", done=9, pace=1.0),
        WorkerView("tcp://b:1", done=9, pace=4.0),
        WorkerView("tcp://c:1", done=9, pace=1.0, silent=2.0, ghosts=1, stuck=1.5),
    ]
    assert verdict(workers) == (
        "tcp://c:1 is the slow one: it has not answered for 2.0 s and holds a share that nobody "
        "waits for any more."
    )
    assert [worker.address for worker in ranked(workers)] == ["tcp://c:1", "tcp://b:1", "tcp://a:1"]
    assert slow_ones(workers) == "tcp://c:1 (silent for 2.0 s)"


def test_the_sentence_says_so_when_nobody_is_slow_and_when_somebody_left() -> None:
    even = [WorkerView("tcp://a:1", done=9, pace=1.1), WorkerView("tcp://b:1", done=9, pace=1.0)]
    assert verdict(even).startswith("Nobody is slow: the slowest, tcp://a:1, takes 1.1 times")
    gone = WorkerView("tcp://c:1", done=3, gone="removed", gone_for=7.0)
    assert verdict([*even, gone]) == "tcp://c:1 was removed for not answering, 7 s ago."
    assert slow_ones(even) == ""


def busy_board(workers: int, groups: int, shares: int = 6) -> RunCollector:
    """Return a board of a run with so many groups, as the plugin's history tells it."""
    state = AnyKState()
    for number in range(workers):
        state.handle(WorkerJoined(0.0, f"tcp://10.0.0.1:{number}", "h", 1))
    board = RunCollector(state)
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
            board.refresh(now)
    board.refresh(groups / 100)
    return board


def test_counts_equal_those_of_the_history() -> None:
    board = busy_board(workers=8, groups=3000)
    shown = snapshot(board, 30.0)
    assert shown["counters"]["groups"] == shown["totals"]["groups"] == 3000
    assert sum(layer["groups"] for layer in shown["layers"]) == 3000
    assert sum(layer["erasures"] for layer in shown["layers"]) == 3000
    assert sum(board.erasures.values()) == 3000
    assert sum(worker["erased"] for worker in shown["workers"]) == 3000


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


def test_a_hundred_thousand_groups_of_a_thousand_workers_take_less_than_20_megabytes() -> None:
    board = busy_board(workers=1000, groups=100_000, shares=2)
    page = live(snapshot(board, 1e3))
    assert board.state.history.totals().groups == 100_000
    assert bytes_held(board) < 20e6
    assert len(page) < 400_000


def test_a_board_without_any_run_can_be_shown() -> None:
    board = RunCollector(AnyKState())
    board.refresh(1.0)
    shown = snapshot(board, 1.0)
    assert shown["sentence"] == "No worker has computed a share yet."
    assert "No coded run so far" in live(shown)


def test_news_come_in_bounded_parts_and_once() -> None:
    board = busy_board(workers=4, groups=1500)
    seen = dict.fromkeys(("shares", "groups", "settled", "events", "freed"), 0)
    parts, more = [], True
    while more:
        answer = board.news("r", **seen)
        parts.append(answer["shares"])
        seen, more = answer["seen"], answer["more"]
    assert max(map(len, parts)) <= 5000
    found = [record for part in parts for record in part]
    assert len(found) == len(set(found)) == 9_000

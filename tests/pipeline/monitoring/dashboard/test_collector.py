"""What a scheduler that has seen many runs counts, remembers and shows."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

from fcdcc.pipeline.anyk.state_machine.events import RunDropped
from fcdcc.pipeline.anyk.state_machine.history import MAX_RUNS as MAX_HISTORIES
from fcdcc.pipeline.anyk.state_machine.history import GroupRecord, ShareRecord
from fcdcc.pipeline.anyk.state_machine.state import AnyKState
from fcdcc.pipeline.monitoring.dashboard.collector import MAX_RUNS, RunCollector
from fcdcc.pipeline.monitoring.dashboard.metrics import families
from fcdcc.pipeline.monitoring.dashboard.service import snapshot

MANY_RUNS = 2 * (MAX_RUNS + MAX_HISTORIES)
"""More runs than anything on the scheduler remembers."""

LAYERS = 2


class Place:
    """A scheduler's collector, and runs that work there."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.state = AnyKState()
        self.logged: list[dict[str, Any]] = []
        self.collector = RunCollector(self.state, self.logged.append)
        self.blocks = 0
        self.seen = [self.counters()]

    def block(self, run: str, block: int = 0) -> None:
        """Compute a block, whose last share is given up in every layer."""
        self.now += 1.0
        self.blocks += 1
        for layer in range(LAYERS):
            history = self.state.history.run(run)
            for position, what in enumerate(("done", "done", "erased")):
                place = (layer, block, position, "share", f"tcp://w{position}:1")
                history.shares.append(ShareRecord(*place, self.now, self.now + 0.5, what))
            history.counters.erasures += 1
            history.groups.append(GroupRecord(layer, block, self.now, self.now + 0.6, True))
            history.counters.groups += 1
            history.counters.decodes += 1

    def report(self, run: str, blocks_done: int, state: str = "running") -> None:
        """Report how far a run is, as the run does itself twice a second."""
        self.now += 0.5
        self.collector.refresh(self.now)
        status = {"state": state, "blocks_done": blocks_done, "blocks_total": 2, "output": run}
        self.collector.report_status(run, status, self.now)

    def counters(self) -> dict[tuple[str, str], float]:
        """Return the counters at ``/metrics`` by name and label."""
        self.now += 1.0
        self.collector.refresh(self.now)
        return {
            (sample.name, "".join(value for name, value in sample.labels.items())): sample.value
            for family in families(self.collector)
            if isinstance(family, CounterMetricFamily | HistogramMetricFamily)
            for sample in family.samples
        }

    def shown(self) -> dict[str, Any]:
        """Return what the page shows."""
        self.collector.refresh(self.now)
        return snapshot(self.collector, self.now)

    def check(self) -> None:
        """Check that the counters say what was done, and have not fallen since the last check."""
        idle = [self.counters() for _ in range(3)]
        assert idle[0] == idle[1] == idle[2]  # nothing has been done meanwhile
        self.seen.append(idle[0])
        for before, after in pairwise(self.seen[-2:]):
            for name, value in after.items():
                assert value >= before.get(name, 0.0) >= 0.0, name
        sums: dict[str, float] = {}
        for (counter, _), value in idle[0].items():
            sums[counter] = sums.get(counter, 0.0) + value
        assert sums["fcdcc_groups_total"] == LAYERS * self.blocks
        assert sums["fcdcc_decodes_total"] == LAYERS * self.blocks
        assert sums["fcdcc_erasures_total"] == LAYERS * self.blocks
        assert sums["fcdcc_group_seconds_count"] == LAYERS * self.blocks
        assert sums["fcdcc_blocks_done_total"] == self.blocks
        totals = self.shown()
        assert totals["totals"]["groups"] == LAYERS * self.blocks
        assert totals["blocks_done_total"] == self.blocks
        assert len(self.logged) == LAYERS * self.blocks  # each erasure once


def test_runs_one_after_another_are_counted_once_and_the_newest_is_shown() -> None:
    place = Place()
    for number in range(MANY_RUNS):
        run = f"run{number}"
        place.report(run, 0)
        assert place.shown()["run"]["id"] == run
        for block in range(2):
            place.block(run, block)
            place.report(run, block + 1)
            shown = place.shown()
            assert (shown["run"]["id"], shown["run"]["state"]) == (run, "running")
            assert (shown["run"]["blocks_done"], shown["run"]["blocks_total"]) == (block + 1, 2)
        place.report(run, 2, "complete")
        place.check()
        shown = place.shown()
        assert (shown["run"]["id"], shown["run"]["state"]) == (run, "complete")
        assert shown["run"]["output"] == run
        assert shown["counters"]["groups"] == 2 * LAYERS
        assert sum(layer["groups"] for layer in shown["layers"]) == 2 * LAYERS
    # The layers have labels of their own; nothing is counted without one.
    assert {label for name, label in place.seen[-1] if name == "fcdcc_groups_total"} == {"0", "1"}


def test_what_is_remembered_is_bounded() -> None:
    place = Place()
    for number in range(10 * MANY_RUNS):
        place.block(f"run{number}")
        place.report(f"run{number}", 1, "complete")
        place.report(f"uncoded{number}", 0, "complete")
    place.collector.refresh(place.now)
    assert len(place.collector.runs) <= MAX_RUNS + MAX_HISTORIES
    assert len(place.collector.tasks) <= MAX_RUNS


def test_a_run_that_goes_on_while_many_others_come_and_go_is_counted_once() -> None:
    place = Place()
    for number in range(MANY_RUNS):
        place.block("long", number)
        place.report("long", number + 1)
        place.block(f"run{number}")
        place.report(f"run{number}", 1, "complete")
        place.report("long", number + 1)
        place.check()
    assert sum(layer.groups for layer in place.collector.runs["long"].statistics.layers.values()) \
        == LAYERS * MANY_RUNS  # fmt: skip


def test_more_runs_at_a_time_than_are_remembered_are_counted_once() -> None:
    """Each is forgotten again and again while it goes on."""
    place = Place()
    for block in range(3):
        for number in range(MANY_RUNS):
            place.block(f"run{number}", block)
            place.report(f"run{number}", block + 1)
        place.check()


def test_a_run_without_coded_layers_is_shown_on_a_scheduler_that_has_seen_many_runs() -> None:
    place = Place()
    for number in range(MANY_RUNS):
        place.block(f"run{number}")
        place.report(f"run{number}", 1, "complete")
    for blocks_done in range(3):
        place.report("uncoded", blocks_done)
        shown = place.shown()
        assert (shown["run"]["id"], shown["run"]["state"]) == ("uncoded", "running")
        assert shown["run"]["blocks_done"] == blocks_done


def test_a_run_that_a_client_has_dropped_is_not_counted_anew_when_it_goes_on() -> None:
    place = Place()
    for block in range(3):
        place.block("run", block)
        place.report("run", block + 1)
        place.state.handle(RunDropped(place.now, "run"))
        place.check()


def test_a_count_that_a_run_corrects_is_not_counted_twice() -> None:
    place = Place()
    for corrupt_shares in (3, 2, 3):
        status = {"state": "running", "corrupt_shares": corrupt_shares}
        place.collector.report_status("run", status, place.now)
    assert place.counters()["fcdcc_corrupt_shares_total", ""] == 3


@pytest.mark.parametrize(
    "name",
    ["groups", "decodes", "erasures", "parity_started", "corrupt_shares", "blocks_done",
     "blocks_failed", "shares_lost", "workers_lost"],
)  # fmt: skip
def test_counters_are_zero_before_the_first_run(name: str) -> None:
    assert Place().counters()[f"fcdcc_{name}_total", ""] == 0

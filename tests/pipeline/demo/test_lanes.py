from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcdcc.pipeline.demo.files import DemoError
from fcdcc.pipeline.demo.lanes import Label, fault_marks, label_rows, stack_bars
from fcdcc.pipeline.demo.timeline import Fault, ShareSpan, Timeline

moments = st.integers(0, 40).map(lambda i: i / 4)
spans = st.builds(
    lambda worker, start, length, state: ShareSpan(
        f"worker {worker}", 0, 0, 0, 100 + start, 100 + start + length, state
    ),
    st.integers(0, 3),
    moments,
    moments,
    st.sampled_from(["done", "erased", "lost"]),
)


@given(st.lists(spans, max_size=30))
def test_no_bar_lies_over_another_and_each_is_in_its_lane(shares):
    timeline = Timeline(tuple(shares), (), 100, 130)
    rows = {worker: i for i, worker in enumerate(timeline.workers)}
    bars = stack_bars(timeline, rows, height=0.8)
    assert sorted(map(id, (bar.share for bar in bars))) == sorted(map(id, shares))
    for bar in bars:
        row = rows[bar.share.worker]
        assert row - 0.4 - 1e-9 <= bar.top
        assert bar.top + bar.height <= row + 0.4 + 1e-9
    for i, a in enumerate(bars):
        for b in bars[:i]:
            beside = a.right <= b.left or b.right <= a.left
            above = a.top + a.height <= b.top + 1e-9 or b.top + b.height <= a.top + 1e-9
            assert beside or above


def test_a_share_that_runs_alone_has_the_whole_lane_and_one_without_an_end_lasts():
    shares = (
        ShareSpan("worker 0", 0, 0, 0, 1, 2, "done"),
        ShareSpan("worker 0", 0, 1, 0, 3, None, "erased"),
    )
    first, second = stack_bars(Timeline(shares, (), 0, 9), {"worker 0": 0}, height=0.8)
    assert (first.left, first.right, first.height) == (1, 2, 0.8)
    assert (second.left, second.right) == (3, 9)


def test_workers_are_in_the_order_of_their_numbers_and_those_who_join_come_last():
    shares = tuple(ShareSpan(f"worker {i}", 0, 0, 0, 0, 1, "done") for i in (10, 2, 3))
    faults = (Fault("worker 1", 5.0, "joined"), Fault("worker 0", 4.0, "joined"))
    assert Timeline(shares, faults, 0, 9).workers == (
        "worker 2",
        "worker 3",
        "worker 10",
        "worker 0",
        "worker 1",
    )


def test_faults_at_about_one_moment_are_told_together():
    faults = (
        Fault("worker 4", 12.01, "stopped"),
        Fault("worker 1", 12.0, "stopped"),
        Fault("worker 1", 14.0, "removed"),
        Fault("tcp://a", 18.0, "joined"),
    )
    marks = fault_marks(Timeline((), faults, 10, 20), within=0.5)
    assert [(mark.moment, mark.text) for mark in marks] == [
        (2.0, "workers 1 and 4 stopped"),
        (4.0, "worker 1 given up"),
        (8.0, "tcp://a joined"),
    ]


def test_many_faults_at_once_are_not_all_named():
    faults = tuple(Fault(f"worker {i}", 1.0, "killed") for i in range(9))
    (mark,) = fault_marks(Timeline((), faults, 0, 2), within=0.5)
    assert mark.text == "workers 0, 1, 2 and 6 more killed"


labels = st.builds(
    lambda left, length, flipped: Label(left, left + length, left + length * flipped),
    st.integers(0, 50),
    st.integers(1, 20),
    st.booleans(),
)


@given(st.lists(labels, max_size=12))
def test_labels_do_not_touch_and_no_line_crosses_one(labels):
    rows = label_rows(labels, gap=1, rows=3)
    placed = [(row, label) for row, label in zip(rows, labels, strict=True) if row is not None]
    for i, (row, a) in enumerate(placed):
        for j, (other, b) in enumerate(placed):
            if i != j and row == other:
                assert a.right < b.left or b.right < a.left
            if other > row:
                assert not a.left <= b.line <= a.right
    assert not labels or rows[0] == 0


def test_what_ends_before_it_begins_is_refused():
    with pytest.raises(DemoError, match="start"):
        Timeline((), (), 2, 1)
    with pytest.raises(DemoError, match="start"):
        ShareSpan("worker 0", 0, 0, 0, 2, 1, "done")

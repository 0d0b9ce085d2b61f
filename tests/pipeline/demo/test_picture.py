from __future__ import annotations

import random
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from fcdcc.pipeline.anyk.state_machine.history import ShareRecord
from fcdcc.pipeline.demo.picture import Fault, Timeline, listed, stacked, timeline_figure

START = 1_700_000_000.0

LAYERS = {0: "conv1", 1: "conv2", 2: "conv3"}


def share(worker: int, start: float, stop: float, state: str = "done", layer: int = 0):
    return ShareRecord(layer, 0, 0, "share", f"worker {worker}", start, stop, state)


def sampled(shares: int, workers: int = 6) -> Timeline:
    """A run in which workers 1 and 4 are stopped after 2 of 6 seconds."""
    chance = random.Random(3)
    records = []
    for i in range(shares):
        worker, begun = i % workers, START + chance.uniform(0, 5.5)
        halted = worker in (1, 4) and begun > START + 2
        state = "erased" if halted else "lost" if i % 60 == 3 else "done"
        stop = begun + (0.5 if halted else 0.01)
        records.append(share(worker, begun, stop, state, chance.randrange(3)))
    faults = (
        Fault("worker 1", START + 2, "stopped"),
        Fault("worker 4", START + 2.01, "stopped"),
        Fault("worker 1", START + 3.0, "removed"),
        Fault("worker 4", START + 3.2, "removed"),
        Fault("worker 6", START + 5.5, "joined"),
    )
    blocks = tuple(START + 6 * i / 20 for i in range(1, 20))
    return Timeline(tuple(records), faults, START, START + 6, blocks)


def bars(figure: Figure) -> dict[str, list]:
    """The bars in the lanes by their text in the legend."""
    return {c.get_label(): c.patches for c in figure.axes[0].containers}


def labels(figure: Figure) -> list[Text]:
    return [text for text in figure.axes[0].texts if text.get_gid() == "label"]


def test_every_share_is_drawn_and_those_without_a_result_are_hatched():
    timeline = sampled(200)
    drawn = bars(timeline_figure(timeline, layers=LAYERS))
    states = [record.state for record in timeline.shares]
    assert len(drawn["not waited for"]) == states.count("erased") > 0
    assert len(drawn["lost: computed again"]) == states.count("lost") > 0
    assert sum(len(drawn[name]) for name in LAYERS.values()) == states.count("done")
    assert all(bar.get_hatch() for bar in drawn["not waited for"])
    assert not any(bar.get_hatch() for bar in drawn["conv1"])


def test_a_share_that_failed_is_drawn_as_lost():
    timeline = Timeline((share(0, START, START + 1, "erred"),), (), START, START + 2)
    (bar,) = bars(timeline_figure(timeline, layers=LAYERS))["lost: computed again"]
    assert bar.get_width() == pytest.approx(1)


def test_shares_that_a_healthy_worker_had_to_give_back_do_not_look_like_work_or_a_loss():
    given_back = share(0, START, START + 4, "recalled")
    computed = share(0, START + 1, START + 2)
    figure = timeline_figure(Timeline((given_back, computed), (), START, START + 5), layers=LAYERS)
    drawn = bars(figure)
    assert "lost: computed again" not in drawn
    (line,) = drawn["waited for input that\nwas lost elsewhere"]
    (bar,) = drawn["conv1"]
    assert (line.get_x(), line.get_width()) == (0, 4)
    assert not line.get_hatch()
    assert line.get_height() < bar.get_height() / 4
    assert bar.get_height() == bars(timeline_figure(
        Timeline((computed,), (), START, START + 5), layers=LAYERS
    ))["conv1"][0].get_height()  # fmt: skip


def test_layers_have_colours_and_names():
    figure = timeline_figure(sampled(60), layers=LAYERS)
    drawn = bars(figure)
    assert len({drawn[name][0].get_facecolor() for name in LAYERS.values()}) == 3
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert legend[:3] == ["conv1", "conv2", "conv3"]


def test_faults_have_lines_and_labels_and_lanes_are_shaded_from_then_on():
    figure = timeline_figure(sampled(60), layers=LAYERS)
    lanes = figure.axes[0]
    for axes in figure.axes:
        lines = [line for line in axes.lines if line.get_gid() == "fault"]
        assert sorted({round(line.get_xdata()[0], 2) for line in lines}) == [2, 2.01, 3, 3.2, 5.5]
    assert {text.get_text().strip() for text in labels(figure)} == {
        "workers 1 and 4 stopped",
        "workers 1 and 4 removed",
        "worker 6 joined",
    }
    names = [label.get_text() for label in lanes.get_yticklabels()]
    assert names == [f"worker {i}" for i in range(7)]

    def background(name: str) -> dict[int, tuple[float, float]]:
        return {
            round(bar.get_y() + bar.get_height() / 2): (bar.get_x(), bar.get_x() + bar.get_width())
            for bar in bars(figure)[name]
        }

    stopped, removed = background("worker stopped"), background("worker removed")
    assert stopped == {1: pytest.approx((2, 3)), 4: pytest.approx((2.01, 3.2))}
    assert removed == {1: pytest.approx((3, 6)), 4: pytest.approx((3.2, 6))}
    joined = [bar for c in lanes.containers for bar in c.patches if bar.get_y() > 5.5]
    assert [bar.get_x() for bar in joined] == pytest.approx([5.5])


def test_workers_are_in_the_order_of_their_numbers():
    shares = tuple(share(i, 0, 1) for i in (10, 2, 3))
    timeline = Timeline(shares, (Fault("worker 11", 5.0, "joined"),), 0, 9)
    assert timeline.workers == ["worker 2", "worker 3", "worker 10", "worker 11"]


def test_of_many_workers_a_label_names_three():
    assert listed([f"worker {i}" for i in range(9)]) == "workers 0, 1, 2 and 6 more"
    assert listed(["worker 5"]) == "worker 5"


@pytest.mark.parametrize("seed", range(8))
def test_labels_never_overlap_and_stay_inside_and_no_line_crosses_one(seed: int):
    chance = random.Random(seed)
    kinds = ("stopped", "lost", "removed", "joined")
    faults = tuple(Fault(f"worker {i}", chance.uniform(0, 10), kinds[i % 4]) for i in range(12))
    facts = [f"a fact of some length: {i} of 99" for i in range(8)]
    figure = timeline_figure(Timeline((), faults, 0, 10), facts=facts, layers={})
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(label) for label in labels(figure)]
    stems = [label.arrow_patch.get_window_extent() for label in labels(figure)]
    assert len(boxes) > 3
    boxes.append(figure.texts[-1].get_window_extent())
    stems.append(boxes[-1])
    for i, box in enumerate(boxes):
        assert 0 <= box.x0 < box.x1 <= 1200
        assert 0 <= box.y0 < box.y1 <= 700
        for j, other in enumerate(boxes):
            assert i == j or not box.overlaps(other)
            assert i == j or not box.overlaps(stems[j])


def test_the_run_without_faults_is_drawn_beside_this_one():
    baseline = Timeline((), (), 5.0, 13.0, (6.0, 12.0))
    figure = timeline_figure(sampled(60), baseline=baseline, layers=LAYERS)
    staircases = {line.get_label(): line for line in figure.axes[1].lines}
    assert list(staircases["without faults"].get_xdata()) == [0, 1, 7]
    assert list(staircases["this run"].get_ydata()) == list(range(20))
    assert figure.axes[0].get_xlim()[1] > 8


def test_plain_dask_is_drawn_until_it_was_given_up():
    plain = Timeline((), (), 5.0, 25.0, (6.0, 12.0))
    figure = timeline_figure(sampled(60), plain=plain, layers=LAYERS)
    [line] = [line for line in figure.axes[1].lines if "plain Dask" in line.get_label()]
    assert list(line.get_xdata()) == [0, 1, 7, 20]
    assert list(line.get_ydata()) == [0, 1, 2, 2]
    assert 6 < figure.axes[0].get_xlim()[1] < 10, "the run itself can be seen"


def test_the_moment_at_which_the_workers_of_plain_dask_stopped_is_marked_on_its_line():
    faults = (Fault("worker 1", 6.5, "stopped"), Fault("worker 4", 6.51, "stopped"))
    plain = Timeline((), faults, 5.0, 25.0, (6.0, 6.2, 12.0))
    figure = timeline_figure(sampled(60), plain=plain, layers=LAYERS)
    axes = figure.axes[1]
    [mark] = [line for line in axes.lines if line.get_label() == "its workers stopped"]
    assert (list(mark.get_xdata()), list(mark.get_ydata())) == ([1.5], [2])
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend[-2:] == ["plain Dask, the same\nworkers stopped", "its workers stopped"]


def test_labels_stay_below_three_lines_of_facts():
    facts = [f"a fact of some length: {i} of 99" for i in range(12)]
    figure = timeline_figure(sampled(60), facts=facts, layers=LAYERS)
    figure.draw_without_rendering()
    assert figure.texts[-1].get_text().count("\n") == 2
    lowest = figure.texts[-1].get_window_extent().y0
    assert all(Text.get_window_extent(label).y1 <= lowest for label in labels(figure))


moments = st.integers(0, 40).map(lambda i: i / 4)


@given(st.lists(st.tuples(moments, moments), max_size=30))
def test_bars_of_a_lane_never_overlap(spans):
    shares = [share(0, start, start + length) for start, length in spans]
    drawn = list(stacked(shares))
    assert sorted(id(record) for record, _, _ in drawn) == sorted(map(id, shares))
    for i, (a, level, levels) in enumerate(drawn):
        assert 0 <= level < levels
        for b, other, others in drawn[:i]:
            beside = a.stop <= b.start or b.stop <= a.start
            assert beside or (level != other and levels == others)


def test_a_share_that_runs_alone_has_the_whole_lane():
    shares = [share(0, 3, 4), share(0, 1, 2), share(0, 3.5, 5), share(0, 6, 7)]
    assert [(s.start, level, levels) for s, level, levels in stacked(shares)] == [
        (1, 0, 1),
        (3, 0, 2),
        (3.5, 1, 2),
        (6, 0, 1),
    ]


def test_key_figures_break_between_phrases_only():
    facts = [f"a fact of some length: {i} of 99" for i in range(8)]
    figure = timeline_figure(Timeline((), (), 0, 1), facts=facts, layers={})
    text = figure.texts[-1]
    lines = text.get_text().replace("\N{NO-BREAK SPACE}", " ").split("\n")
    assert len(lines) > 1
    assert [fact.strip() for line in lines for fact in line.split("·")] == facts
    assert text.get_window_extent().x1 < 1200


@pytest.mark.parametrize(
    "timeline",
    [
        Timeline((), (), 0, 0),
        Timeline((share(3, 0, 1, "erased"),), (), 0, 2),
        sampled(300),
        sampled(4000, workers=40),
    ],
    ids=["empty", "one", "typical", "large"],
)
def test_the_picture_is_a_png_of_its_size(timeline: Timeline, tmp_path: Path):
    path = tmp_path / "picture.png"
    timeline_figure(timeline, title="A run", facts=["one", "two"], layers=LAYERS).savefig(path)
    assert path.read_bytes().startswith(b"\x89PNG")
    pixels = imread(path)
    assert pixels.shape[:2] == (700, 1200)
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 10


def test_drawing_touches_nothing_that_others_use():
    import sys

    before = dict(mpl.rcParams)
    had_pyplot = "matplotlib.pyplot" in sys.modules
    timeline_figure(sampled(20), layers=LAYERS)
    assert dict(mpl.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == had_pyplot


def test_a_worker_in_the_place_of_another_has_a_lane_beside_it() -> None:
    faults = [Fault(f"worker {name}", 0.0, "joined") for name in ("10", "1 (new)", "2", "1")]
    timeline = Timeline((), tuple(faults), 0, 9)
    assert timeline.workers == ["worker 1", "worker 1 (new)", "worker 2", "worker 10"]
    figure = timeline_figure(timeline, layers=LAYERS)
    figure.canvas.draw()
    labels = figure.axes[0].get_yticklabels()
    assert len(labels) == 4
    assert all(label.get_window_extent().x0 > 0 for label in labels)

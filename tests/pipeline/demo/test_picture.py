from __future__ import annotations

import random
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.image import imread

from fcdcc.pipeline.demo.picture import draw_timeline, timeline_figure
from fcdcc.pipeline.demo.timeline import Fault, ShareSpan, Timeline

START = 1_700_000_000.0


def sampled(shares: int, workers: int = 6, layers: int = 3) -> Timeline:
    """A run in which workers 1 and 4 are stopped after 2 of 6 seconds."""
    chance = random.Random(3)
    spans = []
    for i in range(shares):
        worker, begun = i % workers, chance.uniform(0, 5.5)
        halted = worker in (1, 4) and begun > 2
        spans.append(
            ShareSpan(
                f"worker {worker}",
                chance.randrange(layers),
                i // 6,
                i % 6,
                START + begun,
                START + begun + (0.5 if halted else 0.01),
                "erased" if halted else "lost" if i % 60 == 3 else "done",
            )
        )
    faults = (
        Fault("worker 1", START + 2, "stopped"),
        Fault("worker 4", START + 2.01, "stopped"),
        Fault("worker 1", START + 3.0, "removed"),
        Fault("worker 4", START + 3.2, "removed"),
        Fault("worker 6", START + 5.5, "joined"),
    )
    blocks = tuple(START + 6 * i / 20 for i in range(1, 20))
    return Timeline(tuple(spans), faults, START, START + 6, blocks)


def bars(figure, name: str) -> list[PolyCollection]:
    lanes = figure.axes[0]
    return [c for c in lanes.collections if (c.get_gid() or "").startswith(name)]


def test_every_share_is_drawn_and_erased_ones_are_hatched():
    timeline = sampled(200)
    figure = timeline_figure(timeline)
    by_state = {
        state: sum(share.state == state for share in timeline.shares)
        for state in ("done", "erased", "lost")
    }
    for state, count in by_state.items():
        assert sum(len(c.get_paths()) for c in bars(figure, state)) == count > 0
    (erased,) = bars(figure, "erased")
    assert erased.get_hatch()
    assert not any(c.get_hatch() for c in bars(figure, "done"))
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "erased: not needed" in legend


def test_layers_have_colours_and_names():
    figure = timeline_figure(sampled(60), layers={0: "conv1", 2: "a.very.long.module.name"})
    faces = [tuple(c.get_facecolor()[0]) for c in bars(figure, "done")]
    assert len(set(faces)) == len(faces) == 3
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[:2] == ["conv1", "layer 1"]
    assert legend[2].endswith("module.name")


def test_faults_have_lines_and_labels_and_lanes_are_shaded_from_then_on():
    figure = timeline_figure(sampled(60))
    lanes = figure.axes[0]
    lines = [line for line in lanes.lines if (line.get_gid() or "").startswith("fault")]
    assert sorted({round(line.get_xdata()[0], 2) for line in lines}) == [2, 2.01, 3, 3.2, 5.5]
    labels = {text.get_text() for text in figure.texts if text.get_gid() == "mark"}
    assert labels == {"workers 1 and 4 stopped", "workers 1 and 4 given up", "worker 6 joined"}
    shades = {patch.get_gid(): patch for patch in lanes.patches}
    assert shades["removed: worker 4"].get_x() == pytest.approx(3.2)
    assert shades["at work: worker 6"].get_x() == pytest.approx(5.5)
    names = [label.get_text() for label in lanes.get_yticklabels()]
    assert names == [f"worker {i}" for i in range(7)]


@pytest.mark.parametrize("seed", range(8))
def test_labels_never_overlap_and_stay_inside(seed: int):
    chance = random.Random(seed)
    kinds = ("stopped", "killed", "removed", "joined")
    faults = tuple(Fault(f"worker {i}", chance.uniform(0, 10), kinds[i % 4]) for i in range(12))
    figure = timeline_figure(Timeline((), faults, 0, 10))
    boxes = [t.get_window_extent() for t in figure.texts if t.get_gid() == "mark"]
    assert boxes
    for i, box in enumerate(boxes):
        assert 0 <= box.x0 < box.x1 <= 1200
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_the_run_without_faults_is_drawn_beside_this_one():
    timeline = sampled(60)
    baseline = Timeline((), (), 5.0, 13.0, (6.0, 12.0))
    figure = timeline_figure(timeline, baseline=baseline)
    staircases = {line.get_label(): line for line in figure.axes[1].lines}
    assert list(staircases["without faults"].get_xdata()) == [0, 1, 7]
    assert list(staircases["this run"].get_ydata()) == list(range(20))
    assert figure.axes[0].get_xlim()[1] > 8


@pytest.mark.parametrize(
    "timeline",
    [
        Timeline((), (), 0, 0),
        Timeline((ShareSpan("tcp://127.0.0.1:1", 4, 0, 0, 1, None, "erased"),), (), 0, 2),
        sampled(300),
        sampled(4000, workers=40, layers=30),
    ],
    ids=["empty", "one", "typical", "large"],
)
def test_the_picture_is_a_png_of_its_size(timeline: Timeline, tmp_path: Path):
    path = tmp_path / "picture.png"
    draw_timeline(timeline, path, title="A run", facts=["one", "two"])
    assert path.read_bytes().startswith(b"\x89PNG")
    pixels = imread(path)
    assert pixels.shape[:2] == (700, 1200)
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 10


def test_drawing_touches_nothing_that_others_use():
    import sys

    before = dict(mpl.rcParams)
    had_pyplot = "matplotlib.pyplot" in sys.modules
    timeline_figure(sampled(20))
    assert dict(mpl.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == had_pyplot

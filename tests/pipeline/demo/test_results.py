from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from fcdcc.pipeline.demo.digits import Digits
from fcdcc.pipeline.demo.faults import Names, share_spans
from fcdcc.pipeline.demo.files import DemoError, DemoFiles
from fcdcc.pipeline.demo.results import Comparison, DemoResult, RunResult, compare, read_predictions
from fcdcc.pipeline.demo.screen import Screen
from fcdcc.pipeline.demo.show import draw, tell
from fcdcc.pipeline.demo.timeline import Fault, Timeline
from fcdcc.pipeline.monitoring.summary import Summary

RIGHT = Comparison(images=100, accuracy=0.99, agreeing=100, largest_difference=1e-5)
DEFAULTS = {"status": "complete", "workers_lost": (), "corrupt_shares": (), "version": "1"}
SUMMARY = Summary(**{f.name: DEFAULTS.get(f.name, 0) for f in dataclasses.fields(Summary)})


def result(stalled: Comparison = RIGHT, summary: Summary = SUMMARY) -> DemoResult:
    faults = (Fault("worker 1", 2, "stopped"), Fault("worker 4", 2, "stopped"))
    return DemoResult(
        Path("demo"),
        RunResult(SUMMARY, RIGHT, Timeline((), (), 0, 5, (2, 5))),
        RunResult(summary, stalled, Timeline((), faults, 0, 6, (3, 6))),
    )


def test_all_is_well_when_every_answer_agrees():
    assert result().passed
    assert result().problems == ()


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (dataclasses.replace(RIGHT, accuracy=0.96), "96.0%"),
        (dataclasses.replace(RIGHT, agreeing=99), "1 of 100 images"),
        (dataclasses.replace(RIGHT, largest_difference=float("nan")), "another class"),
    ],
)
def test_answers_that_are_not_right_are_told(answers: Comparison, words: str):
    failed = result(answers)
    assert not failed.passed
    (problem,) = failed.problems
    assert words in problem
    assert problem.startswith("2 workers stopped")


def test_failed_blocks_are_told():
    failed = result(summary=dataclasses.replace(SUMMARY, blocks_failed=2, blocks_total=9))
    assert failed.problems == ("2 workers stopped: 2 of 9 blocks failed",)


def test_answers_are_compared_image_by_image():
    plain = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 2.0]])
    labels = np.array([1, 0, 0])
    same = compare(plain + 1e-6, plain, labels)
    assert (same.images, same.agreeing, same.accuracy) == (3, 3, 2 / 3)
    assert same.agrees
    assert same.largest_difference == pytest.approx(1e-6)
    other = compare(plain[[0, 0, 2]], plain, labels)
    assert (other.agreeing, other.agrees, other.largest_difference) == (2, False, 1)


def test_an_image_without_a_prediction_does_not_agree():
    plain = np.array([[0.0, 1.0], [1.0, 0.0]])
    missing = np.array([[0.0, 1.0], [np.nan, np.nan]])
    assert not compare(missing, plain, np.array([1, 0])).agrees


def test_predictions_of_other_images_are_refused(tmp_path: Path):
    from fcdcc.pipeline.demo.digits import write_digits

    def digits(ids: list[int]) -> Digits:
        return Digits(np.zeros((2, 1, 32, 32), np.uint8), np.array([1, 2]), np.array(ids))

    write_digits(digits([4, 5]), tmp_path / "a.zarr")
    with pytest.raises(DemoError, match="other images"):
        read_predictions(tmp_path / "a.zarr", digits([5, 4]))
    with xr.open_zarr(tmp_path / "a.zarr") as group:
        assert "prediction" not in group


def test_what_is_said_at_the_end(tmp_path: Path):
    files = DemoFiles(tmp_path / "with a blank")
    files.folder.mkdir()
    files.model.touch()
    said = io.StringIO()
    shown = dataclasses.replace(
        result(dataclasses.replace(RIGHT, agreeing=98)), folder=files.folder
    )
    tell(shown, files, Screen(Console(file=said, width=80)))
    text = said.getvalue()
    assert "98 of 100" in text
    assert "lenet5.pt2" in text
    assert "timeline.png" not in text, "a file that is not there"
    (command,) = (line for line in text.splitlines() if "mine.zarr" in line)
    assert f"'{files.model}' '{files.images}'" in command
    assert "✗" in text


def test_the_picture_is_of_the_run_with_workers_stopped(tmp_path: Path):
    draw(result(), tmp_path / "a.png", {0: "conv1"})
    draw(DemoResult(tmp_path, result().healthy, None), tmp_path / "b.png", {})
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


def test_records_of_shares_become_spans_of_named_workers():
    record = {"layer": 2, "block": 7, "position": 5, "stage": "share", "start": 3.0, "stop": 2.9}
    names = Names(["tcp://a", "tcp://b"])
    spans = share_spans(
        [
            {**record, "worker": "tcp://b", "state": "erased"},
            {**record, "worker": "tcp://new", "state": "erred"},
        ],
        names,
    )
    assert [(span.worker, span.state) for span in spans] == [
        ("worker 1", "erased"),
        ("worker 2", "lost"),
    ]
    assert (spans[0].start, spans[0].stop) == (3.0, 3.0)
    assert "tcp://new" in names
    assert "tcp://c" not in names

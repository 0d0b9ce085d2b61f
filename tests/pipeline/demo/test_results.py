from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from fcdcc.pipeline.demo.digits import Digits
from fcdcc.pipeline.demo.files import MODEL, DemoError
from fcdcc.pipeline.demo.picture import Fault, Timeline
from fcdcc.pipeline.demo.results import DemoResult, RunResult, read_predictions
from fcdcc.pipeline.demo.screen import print_result, show_step
from fcdcc.pipeline.demo.show import draw_result
from fcdcc.pipeline.monitoring.summary import Summary

LABELS = np.arange(100) % 10
RIGHT = np.eye(10)[LABELS]
DEFAULTS = {"status": "complete", "workers_lost": (), "corrupt_shares": (), "version": "1",
            "worker_loss": None}  # fmt: skip
SUMMARY = Summary(**{f.name: DEFAULTS.get(f.name, 0) for f in dataclasses.fields(Summary)})


def wrong(images: int, added: float = 0.0) -> np.ndarray:
    """The right logits, but those of the next class in the first images."""
    logits = RIGHT.copy()
    logits[:images] = np.roll(RIGHT[:images], 1, axis=1) + added
    return logits


def demo_result(
    stalled: np.ndarray = RIGHT, plain: np.ndarray = RIGHT, summary: Summary = SUMMARY
) -> DemoResult:
    faults = (Fault("worker 1", 2, "stopped"), Fault("worker 4", 2, "stopped"))
    return DemoResult(
        Path("demo"),
        RunResult(SUMMARY, Timeline((), (), 0, 5, (2, 5)), RIGHT, RIGHT, LABELS),
        RunResult(summary, Timeline((), faults, 0, 6, (3, 6)), stalled, plain, LABELS),
    )


def test_the_demo_passes_when_every_image_gets_the_same_class():
    assert demo_result().passed
    assert demo_result(stalled=RIGHT + 1e-6).problems == []


@pytest.mark.parametrize(
    ("stalled", "plain", "words"),
    [
        (wrong(4), wrong(4), "96.0% of the images correct; expected 97%"),
        (wrong(1), RIGHT, "1 of 100 images not in the same class"),
        (wrong(1, np.nan), RIGHT, "1 of 100 images not in the same class"),
    ],
    ids=["few correct", "another class", "no prediction"],
)
def test_wrong_predictions_are_a_problem(stalled, plain, words: str):
    failed = demo_result(stalled, plain)
    assert not failed.passed
    (problem,) = failed.problems
    assert problem.startswith(f"2 workers stopped: {words}")


def test_failed_blocks_are_a_problem():
    failed = demo_result(summary=dataclasses.replace(SUMMARY, blocks_failed=2, blocks_total=9))
    assert failed.problems == ["2 workers stopped: 2 of 9 blocks failed"]


def test_predictions_are_compared_image_by_image():
    plain = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 2.0]])
    run = RunResult(SUMMARY, Timeline((), (), 0, 1), plain + 1e-6, plain, np.array([1, 0, 0]))
    assert (run.agreeing, run.accuracy) == (3, 2 / 3)
    assert run.facts["largest difference of scores"] == "1.0e-06"
    other = dataclasses.replace(run, predicted=plain[[0, 0, 2]])
    assert other.facts["same class as plain PyTorch"] == "2 of 3"
    assert other.facts["largest difference of scores"] == "1.0e+00"


def test_predictions_of_other_images_are_refused(tmp_path: Path):
    from fcdcc.pipeline.demo.digits import write_digits

    def digits(ids: list[int]) -> Digits:
        return Digits(np.zeros((2, 1, 32, 32), np.uint8), np.array([1, 2]), np.array(ids))

    write_digits(digits([4, 5]), tmp_path / "a.zarr")
    with pytest.raises(DemoError, match="other images"):
        read_predictions(tmp_path / "a.zarr", digits([5, 4]))
    with xr.open_zarr(tmp_path / "a.zarr") as group:
        assert "prediction" not in group


def test_the_result_is_printed_with_a_command_to_copy(tmp_path: Path):
    folder = tmp_path / "with a blank"
    folder.mkdir()
    (folder / MODEL).touch()
    printed = io.StringIO()
    shown = dataclasses.replace(demo_result(wrong(2)), folder=folder)
    print_result(shown, Console(file=printed, width=80))
    text = printed.getvalue()
    assert "98 of 100" in text
    for fact in shown.healthy.facts:
        assert sum(line.strip().startswith(fact) for line in text.splitlines()) == 1
    assert "lenet5.pt2" in text
    assert "timeline.png" not in text, "a file that does not exist"
    (command,) = (line for line in text.splitlines() if "mine.zarr" in line)
    assert f"'{folder / MODEL}' '{folder / 'digits.zarr'}'" in command
    assert "✗" in text


def test_the_longest_time_without_a_block_is_printed_for_both_runs(tmp_path: Path):
    printed = io.StringIO()
    result = dataclasses.replace(demo_result(), folder=tmp_path)
    assert result.stalled is not None
    timeline = dataclasses.replace(result.stalled.timeline, blocks=(1, 1.5, 5.9, 6))
    stalled = dataclasses.replace(result.stalled, timeline=timeline)
    print_result(dataclasses.replace(result, stalled=stalled), Console(file=printed, width=200))
    lines = printed.getvalue().splitlines()
    (row,) = (line for line in lines if "longest time without a block" in line)
    assert row.split()[-4:] == ["3.0", "s", "4.4", "s"]
    assert any(f"report {tmp_path / 'predictions-stalled.zarr'}" in line for line in lines)


def test_a_run_without_blocks_has_no_time_between_them():
    assert Timeline((), (), 0, 5).longest_gap == 0.0


@pytest.mark.parametrize(
    ("removed", "row", "words"),
    [
        (("worker 1", "worker 4"), "2", ""),
        (
            ("worker 1",),
            "1 of 2 stopped",
            "worker 4 was not removed: nothing was needed that only it",
        ),
        (
            (),
            "0 of 2 stopped",
            "workers 1 and 4 were not removed: nothing was needed that only they",
        ),
    ],
)
def test_a_stopped_worker_that_was_not_removed_is_explained(
    removed: tuple[str, ...], row: str, words: str
):
    shown = demo_result(summary=dataclasses.replace(SUMMARY, workers_lost=removed))
    assert shown.stalled is not None
    faults = (*shown.stalled.timeline.faults, *(Fault(name, 4, "removed") for name in removed))
    timeline = dataclasses.replace(shown.stalled.timeline, faults=faults)
    shown = dataclasses.replace(
        shown, stalled=dataclasses.replace(shown.stalled, timeline=timeline)
    )
    printed = io.StringIO()
    print_result(shown, Console(file=printed, width=200))
    (line,) = (x for x in printed.getvalue().splitlines() if "silent workers removed" in x)
    assert line.strip().endswith(f" {row}")
    assert words in printed.getvalue()
    assert ("not removed" in printed.getvalue()) is bool(words)


def test_a_step_says_what_is_in_its_time():
    printed = io.StringIO()
    with show_step(Console(file=printed, width=200), "running") as step:
        step.included = "with planning"
    assert " s with planning)" in printed.getvalue()
    assert "seconds, first to last block" in demo_result().healthy.facts


@pytest.mark.parametrize(
    ("moments", "stop", "words"),
    [
        ((1.0, 2.5), 2.5, "2 of 2 blocks in 2.5 s"),
        ((1.0,), 13.0, "1 of 2 blocks, then none for 12 s"),
        ((), 12.0, "0 of 2 blocks, then none for 12 s"),
    ],
)
def test_what_became_of_plain_dask_is_said(moments: tuple[float, ...], stop: float, words: str):
    plain = Timeline((), (), 0.0, stop, moments)
    healthy = dataclasses.replace(
        demo_result().healthy, summary=dataclasses.replace(SUMMARY, blocks_total=2)
    )
    shown = dataclasses.replace(demo_result(), healthy=healthy, plain=plain)
    printed = io.StringIO()
    print_result(shown, Console(file=printed, width=80))
    assert f"Plain Dask with the same workers stopped: {words}" in printed.getvalue()


def test_the_picture_is_of_the_run_with_workers_stopped(tmp_path: Path):
    draw_result(demo_result(), tmp_path / "a.png", {0: "conv1"})
    draw_result(DemoResult(tmp_path, demo_result().healthy, None), tmp_path / "b.png", {})
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()

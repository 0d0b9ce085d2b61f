"""What is shown of a run while it goes on, on terminals, in logs and in notebooks."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.text import Text

from fcdcc.pipeline.formatting import time_left
from fcdcc.pipeline.monitoring.progress import BlockPace, RunProgress, watch

HALF = RunProgress(
    blocks_total=10,
    blocks_done=4,
    blocks_skipped=1,
    blocks_failed=0,
    images_done=40,
    seconds=45.0,
    work_seconds=20.0,
    block_seconds=5.0,
    erasures=3,
    workers_lost=1,
    blocks_in_flight=2,
    extra_work=0.051,
    slow="tcp://a:1 (silent for 2.0 s)",
)


def test_a_line_says_everything() -> None:
    assert HALF.images_per_second == 2.0
    assert HALF.seconds_left == 25.0
    assert str(HALF) == (
        "2 images/s, 3 shares not waited for, 5 % extra work, 1 worker lost, "
        "slow: tcp://a:1 (silent for 2.0 s)"
    )


def test_no_time_left_is_told_before_two_rounds_of_blocks_have_ended() -> None:
    """The first blocks take longer than later ones, and end together."""
    pace = BlockPace(in_flight=2)
    told = []
    for seconds in (30.0, 31.0, 36.0, 37.0, 42.0):
        pace.end(seconds)
        progress = replace(HALF, block_seconds=pace.seconds_per_block(seconds))
        told.append(time_left(progress.seconds_left))
    assert told == ["", "", "", "about 15.0 s left", "about 18.3 s left"]  # 6 s and 11 s a round


def test_slow_blocks_and_images_have_the_time_of_each() -> None:
    slow = replace(HALF, images_done=10, work_seconds=20.0)
    assert str(slow).startswith("2.0 s an image, 3 shares not waited for")
    begun = replace(HALF, images_done=0)
    assert str(begun).startswith("3 shares not waited for")


def test_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with watch(True) as watcher:
        watcher.step("planning")
        watcher.advance(HALF)
        watcher.advance(HALF)  # so soon it is not said again
    said = capsys.readouterr().err.splitlines()
    assert said == ["planning", f"5 of 10 blocks, {HALF}, about 25.0 s left"]


def test_a_bar_on_a_narrow_terminal_has_its_facts_below(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=60)
    monkeypatch.setattr("fcdcc.pipeline.monitoring.progress._console", lambda progress: console)
    with watch(None) as watcher:
        watcher.step("planning")
        watcher.advance(HALF)
    lines = [line.rstrip() for line in Text.from_ansi(written.getvalue()).plain.splitlines()]
    bar = next(number for number, line in enumerate(lines) if "5/10" in line)
    assert lines[bar + 1].startswith("2 images/s, 3 shares not waited for, 5 % extra work")
    assert "about 25.0 s left" in lines[bar]
    assert max(map(len, lines)) <= 60


def test_nothing_is_shown_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    for progress in (None, False):
        with watch(progress) as watcher:
            watcher.step("planning")
            watcher.advance(HALF)
    assert capsys.readouterr() == ("", "")


def test_a_bar_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    class ZMQInteractiveShell:
        pass

    display = SimpleNamespace(
        HTML=str, display=lambda first, display_id: SimpleNamespace(update=drawn.append)
    )
    notebook = SimpleNamespace(get_ipython=ZMQInteractiveShell, display=display)
    monkeypatch.setitem(sys.modules, "IPython", notebook)  # type: ignore[arg-type] # stands for it
    with watch(None) as watcher:
        watcher.step("planning")
        watcher.advance(HALF)
        watcher.advance(RunProgress(10, 9, 1, 0, 90, 40.0, 0, 0))
    assert "planning" in drawn[0]
    assert "10 / 10" in drawn[-1]
    assert "width: 100.0%" in drawn[-1]

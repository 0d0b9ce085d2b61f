"""Stories that others may have written: a report shows what it can, and says what it leaves out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fcdcc.storage.checksummed_json import seal
from support.jobs import fcdcc
from support.stored import fill, make_output

STORY = Path(__file__).parents[3] / "fuzz" / "story.json"


def write_story(output: Path, name: str, **changes: Any) -> None:
    members = json.loads(STORY.read_text("utf-8")) | changes
    file = output / ".fcdcc" / "runs" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(seal(members) + b"\n")


@pytest.mark.parametrize(
    "changes",
    [{"facts": []}, {"begin": "now"}, {"workers": []}, {"groups": [[1]]}, {"layers": [{}]}],
    ids=str,
)
def test_runs_whose_stories_do_not_fit_are_left_out_of_reports(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    output, page = tmp_path / "out.zarr", tmp_path / "report.html"
    fill(make_output(str(output)))
    write_story(output, "a", run="right")
    write_story(output, "b", run="forged", **changes)
    for how in ([], ["--html", page]):
        told = fcdcc("report", output, *how)
        assert told.exit_code == 0, told.output
        shown = page.read_text("utf-8") if how else told.output
        assert "Run right" in shown
        assert "forged" not in shown
    assert fcdcc("status", output).exit_code == 0

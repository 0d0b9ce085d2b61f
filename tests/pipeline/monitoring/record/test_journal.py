"""Journals: the report reads back the scheduler's own records, also from older versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fcdcc.pipeline.anyk.state_machine.history import GroupRecord, ShareRecord
from fcdcc.pipeline.monitoring.record.journal import RunJournal, recorded_groups, recorded_shares
from fcdcc.pipeline.monitoring.report.recorded_run import RecordedRun
from support.jobs import fcdcc
from support.stored import fill, make_output, write_journal

OLD = Path(__file__).parent / "data" / "journal-schema-1.json"
"""Left by a run of version 0.1 in which two of six workers were stopped and removed."""

WRITTEN_BY_OTHERS = Path(__file__).parents[3] / "fuzz" / "journal.json"


def test_the_report_reads_the_records_that_the_scheduler_made() -> None:
    begin = 1_790_000_000.0
    shares = [
        ShareRecord(2, 0, 1, "share", "tcp://a:1", begin + 0.5, begin + 1.25, "done"),
        ShareRecord(2, 0, 4, "parity", "tcp://b:1", begin + 0.75, begin + 1.5, "erased"),
        ShareRecord(2, 1, 0, "share", "tcp://b:1", begin + 2.0, begin + 3.5, "lost"),
    ]
    groups = [
        GroupRecord(2, 0, begin + 0.5, begin + 1.5, True, erased=1, slowest=begin + 2.5),
        GroupRecord(2, 1, begin + 2.0, begin + 3.0, False, slowest=begin + 3.0),
    ]
    ghost = ShareRecord(2, 0, 4, "", "tcp://b:1", begin + 1.5, begin + 2.25, "ghost")
    journal = RunJournal("r", begin, about={}, layers=[])
    journal.add_shares(shares)
    journal.add_groups(groups)
    journal.add_ghosts([ghost])
    read = ShareRecord(0, 0, 2, "read", "tcp://c:1", begin + 0.25, begin + 0.5, "done")
    journal.add_tasks([read])
    run = RecordedRun(json.loads(json.dumps(journal.members())))
    assert run.shares == shares
    assert run.groups == groups
    assert run.ghosts == [ghost]
    assert run.tasks == [read]


def test_a_journal_of_an_older_version_is_read(tmp_path: Path) -> None:
    members = json.loads(OLD.read_text("utf-8"))
    begin = members["begin"]
    lost = recorded_shares(members, "odd_shares")[0]
    assert (lost.worker, lost.stage, lost.state) == (members["workers"][2], "parity", "lost")
    assert lost.stop - begin == pytest.approx(7.9243)
    ghost = recorded_shares(members, "ghosts")[0]
    assert (ghost.block, ghost.position, ghost.state) == (5, 5, "ghost")
    group = recorded_groups(members)[0]
    assert group.seconds == group.slowest_seconds == pytest.approx(1.1225)

    output, page = tmp_path / "out.zarr", tmp_path / "report.html"
    fill(make_output(str(output)))
    write_journal(output, "a", members)
    told = fcdcc("report", output)
    assert told.exit_code == 0, told.output
    assert "160 images in 43.2 s, 3.7 a second, with 6 workers." in told.output
    assert "were removed for not answering." in told.output
    assert fcdcc("report", output, "--html", page).exit_code == 0
    html = page.read_text("utf-8")
    assert "<h3>The beginning</h3>" in html
    assert "<h3>The end</h3>" in html
    assert html.count('class="ghost"') >= 2


def test_html_in_a_journal_is_shown_as_it_is(tmp_path: Path) -> None:
    hostile = '<img src=x onerror="alert(1)">'
    members = json.loads(WRITTEN_BY_OTHERS.read_text("utf-8"))
    layers = [{**layer, "name": hostile, "reason": hostile} for layer in members["layers"]]
    events = [*members["events"], {"time": members["begin"], "event": hostile, "worker": hostile}]
    workers = [hostile, *members["workers"][1:]]
    about = {**members["about"], "model": hostile, "versions": {hostile: hostile}}
    output, page = tmp_path / "out.zarr", tmp_path / "report.html"
    fill(make_output(str(output)))
    changes = {"layers": layers, "events": events, "workers": workers, "about": about}
    write_journal(output, "a", members, run=hostile, error=hostile, **changes)
    assert fcdcc("report", output, "--html", page).exit_code == 0
    html = page.read_text("utf-8")
    assert "<img" not in html
    assert html.count("&lt;img src=x onerror=&#34;alert(1)&#34;&gt;") >= 10


@pytest.mark.parametrize(
    "changes",
    [{"facts": []}, {"begin": "now"}, {"workers": []}, {"groups": [[1]]}, {"layers": [{}]}],
    ids=str,
)
def test_a_report_leaves_out_journals_that_do_not_hold_what_a_run_writes(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    members = json.loads(WRITTEN_BY_OTHERS.read_text("utf-8"))
    output, page = tmp_path / "out.zarr", tmp_path / "report.html"
    fill(make_output(str(output)))
    write_journal(output, "a", members, run="right")
    write_journal(output, "b", members, run="forged", **changes)
    for how in ([], ["--html", page]):
        told = fcdcc("report", output, *how)
        assert told.exit_code == 0, told.output
        shown = page.read_text("utf-8") if how else told.output
        assert "Run right" in shown
        assert "forged" not in shown
    assert fcdcc("status", output).exit_code == 0

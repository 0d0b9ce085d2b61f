"""The report as a page: axes with round marks, tables whose rows fit their heads."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fcdcc.pipeline.monitoring.report.html_report import (
    MAX_AXIS_MARKS,
    _latency,
    round_times,
    round_values,
)
from fcdcc.pipeline.monitoring.report.recorded_run import RecordedRun
from fcdcc.pipeline.words import WAITED_FOR_LOST_INPUT, WORKER_ORDER
from support.browser import browser, chromium
from support.jobs import fcdcc
from support.stored import fill, make_output, write_journal

JOURNAL = Path(__file__).parents[3] / "fuzz" / "journal.json"
"""Of a run in which two workers were stopped."""


class Tables(HTMLParser):
    """Collects for each row of each table which of its cells are drawings."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[list[bool]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.rows.append([])
        elif tag == "tr":
            self.rows[-1].append([])
        elif tag in ("td", "th"):
            self.rows[-1][-1].append(("class", "drawn") in attrs)


@given(st.floats(0, 1e5), st.floats(1e-3, 1e6))
def test_times_along_an_axis_are_few_and_within_it(begin: float, length: float) -> None:
    marks = list(round_times(begin, begin + length))
    assert len(marks) <= MAX_AXIS_MARKS
    places = [mark.place for mark in marks]
    assert all(-1e-6 <= place <= 1 + 1e-6 for place in places)
    assert places == sorted(set(places))


@given(st.floats(1e-6, 1e3), st.floats(1.01, 1e4))
def test_values_along_a_logarithmic_axis_are_round(start: float, ratio: float) -> None:
    found = round_values(start, start * ratio)
    assert all(start <= value <= start * ratio for value in found)
    if len(found) > 2:
        assert all(f"{value:e}"[0] in "125" for value in found)


@given(st.floats(1e-3, 1e3), st.floats(2, 1e4))
def test_an_axis_of_groups_has_at_least_two_marks(shortest: float, ratio: float) -> None:
    journal = json.loads(JOURNAL.read_text("utf-8"))
    group = [2, 0, 0.0, shortest, shortest * ratio, True, 1]
    latency = _latency(RecordedRun(journal | {"groups": [group, group]}))
    assert latency is not None
    assert 2 <= len(latency.marks) <= MAX_AXIS_MARKS
    assert all(0 <= mark.place <= 1 for mark in latency.marks)


def test_a_telephone_shows_the_plan_and_its_measurement_whole(tmp_path: Path) -> None:
    chromium()
    journal = json.loads(JOURNAL.read_text("utf-8"))
    journal["summary"] |= {
        "planned": {"seconds": 64.0, "bytes_sent": 20e9, "extra_work": 0.039,
                    "peak_memory": 436e6, "parity_memory": 91e6},
        "phases": {"work": 64.0}, "bytes_sent": 21e9, "extra_work": 0.041, "peak_memory": 450e6,
    }  # fmt: skip
    fill(make_output(str(output := tmp_path / "out.zarr")))
    write_journal(output, "a", journal)
    file = tmp_path / "report.html"
    assert fcdcc("report", output, "--html", file).exit_code == 0
    with browser() as page:
        page.open(file.as_uri())
        page.picture(390, 844, tmp_path / "390.png")
        assert page.overflow() <= 0
        column = (
            "[...document.querySelectorAll('th')].find(cell => cell.innerText === 'measured')"
            ".getBoundingClientRect().right"
        )
        assert page.value(column) <= 390
        broken = (
            "[...document.querySelectorAll('.tile b')].filter(text => "
            "text.getClientRects().length !== 1 || text.offsetHeight > 40 || "
            "text.scrollWidth > text.parentElement.clientWidth).map(text => text.innerText)"
        )
        assert page.value("[...document.querySelectorAll('.tile b')].map(b => b.innerText)")
        assert page.value(broken) == []


def test_every_row_of_a_table_has_the_cells_of_its_head(tmp_path: Path) -> None:
    fill(make_output(str(output := tmp_path / "out.zarr")))
    members = json.loads(JOURNAL.read_text("utf-8"))
    write_journal(output, "a", members)
    shown = fcdcc("report", output, "--html", "-").output
    tables = Tables()
    tables.feed(shown)
    assert len(tables.rows) >= 5
    for head, *rows in tables.rows:
        assert rows
        assert all(row == head for row in rows)
    assert "not waited for</th>" in shown
    for word in ("group", "ghost", "parity share"):
        assert f"<dt>{word}</dt>" in shown


def test_columns_for_late_shares_are_not_shown_where_none_was_late(tmp_path: Path) -> None:
    fill(make_output(str(output := tmp_path / "out.zarr")))
    members = json.loads(JOURNAL.read_text("utf-8"))
    for worker in members["facts"]["workers"]:
        worker.update(erased=0, lost=0)
    write_journal(output, "a", members, odd_shares=[], odd_shares_total=0)
    shown = fcdcc("report", output, "--html", "-").output
    assert f"Workers: {WORKER_ORDER}" in shown
    assert "not waited for</th>" not in shown


def test_events_beside_the_layers_are_told_in_words(tmp_path: Path) -> None:
    fill(make_output(str(output := tmp_path / "out.zarr")))
    members = json.loads(JOURNAL.read_text("utf-8"))
    begun = {"time": members["begin"] + 1, "event": "doubled", "worker": "tcp://10.0.0.4:4000"}
    places = (("read", -1), ("glue", 2), ("glue", 3), ("write", 3))
    events = [{**begun, "stage": stage, "layer": layer} for stage, layer in places]
    write_journal(output, "a", members, events=events)
    shown = fcdcc("report", output, "--html", "-").output
    for where in ("reading the images", "layer 2", "after the last convolution",
                  "writing predictions"):  # fmt: skip
        assert f"{where} tcp://10.0.0.4:4000" in shown
    assert "layer -1" not in shown
    assert "layer 3" not in shown


def test_events_and_timelines_call_a_worker_as_the_sentences_do(tmp_path: Path) -> None:
    fill(make_output(str(output := tmp_path / "out.zarr")))
    members = json.loads(JOURNAL.read_text("utf-8"))
    known, *others = [worker["address"] for worker in members["facts"]["workers"]]
    members["facts"]["workers"][0].update(name="3", pid=5125)
    events = [
        {"time": members["begin"] + 1, "event": "removed", "worker": worker}
        for worker in (known, others[0], "tcp://10.0.0.9:1")
    ]
    write_journal(output, "a", members, events=events)
    shown = fcdcc("report", output, "--html", "-").output
    called = f"{known} (worker 3, pid 5125)"
    assert f'<td class="why">{called}; {others[0]}; tcp://10.0.0.9:1</td>' in shown
    assert f'<span title="{called}">{called}</span>' in shown


def test_the_timeline_says_what_happened_to_each_share(tmp_path: Path) -> None:
    fill(make_output(str(output := tmp_path / "out.zarr")))
    members = json.loads(JOURNAL.read_text("utf-8"))
    erred = [
        [0, 2, 1, 2, 0.01, 0.02, "erred", "share"],
        [0, -1, 5, 0, 0.03, 0.04, "erased", "read"],
    ]
    write_journal(output, "a", members, odd_shares=erred, odd_shares_total=2)
    shown = fcdcc("report", output, "--html", "-").output
    assert "block 1, layer 2, share 2: failed" in shown
    assert "chunk 5 of the images, read: given up" in shown
    assert "layer -1," not in shown
    assert "lost: the worker left or did not answer" not in shown
    erred[0][6] = "lost"
    write_journal(output, "a", members, odd_shares=erred, odd_shares_total=2)
    shown = fcdcc("report", output, "--html", "-").output
    assert "block 1, layer 2, share 2: lost, because the worker left or did not answer" in shown
    assert "lost: the worker left or did not answer" in shown


def key_of(shown: str) -> list[str]:
    """Return the texts of the legend of a report's timeline."""
    [key] = re.findall(r'<p class="key">(.*?f-.*?)</p>', shown)
    return re.findall(r"</i>(.*?)</span>", key)


def test_a_worker_that_waited_for_lost_input_does_not_look_like_one_that_did_not_answer(
    tmp_path: Path,
) -> None:
    fill(make_output(str(output := tmp_path / "out.zarr")))
    members = json.loads(JOURNAL.read_text("utf-8"))
    waited = [[0, 2, 1, 2, 0.01, 0.02, "recalled", "share"]]
    write_journal(output, "a", members, odd_shares=waited, odd_shares_total=1)
    shown = fcdcc("report", output, "--html", "-").output
    [span] = re.findall(r'<rect class="recalled"[^>]*><title>([^<]*)', shown)
    assert span == (f"block 1, layer 2, share 2: {WAITED_FOR_LOST_INPUT}, and was computed again")
    assert '<rect class="waited"' not in shown
    assert WAITED_FOR_LOST_INPUT in key_of(shown)
    assert "given to the worker, not finished there" not in key_of(shown)
    both = [*waited, [1, 2, 1, 3, 0.01, 0.02, "lost", "share"]]
    write_journal(output, "a", members, odd_shares=both, odd_shares_total=2)
    shown = fcdcc("report", output, "--html", "-").output
    assert {WAITED_FOR_LOST_INPUT, "given to the worker, not finished there"} <= {*key_of(shown)}


def test_the_legend_of_a_timeline_names_only_what_is_drawn(tmp_path: Path) -> None:
    fill(make_output(str(output := tmp_path / "out.zarr")))
    members = json.loads(JOURNAL.read_text("utf-8"))
    rest = [
        [0, 2, 1, 5, 0.01, 0.02, "erased", "parity"],  # parity that was not computed
        [0, 3, 1, 0, 0.01, 0.02, "erased", "share"],
    ]
    gone = {"time": members["begin"] + 0.01, "event": "removed", "worker": "tcp://10.9.9.9:1"}
    done = [share for share in members["shares"] if share[1] < 3 and share[-1] == "share"]
    drawn = {"shares": done, "shares_total": len(done), "tasks": [], "ghosts": []}
    write_journal(output, "a", members, odd_shares=rest, odd_shares_total=2, events=[gone], **drawn)
    key = key_of(fcdcc("report", output, "--html", "-").output)
    assert key[-1] == "given to the worker, not finished there"
    layers = {f"layer {share[1]}" for share in done}
    assert {" ".join(text.split()[:2]) for text in key[:-1]} == layers
    parity = [0, 2, 1, 5, 0.01, 0.02, "done", "parity"]
    gone["worker"] = members["workers"][0]
    write_journal(
        output, "a", members, odd_shares=rest, odd_shares_total=2, events=[gone],
        **drawn | {"shares": [*done, parity]},
    )  # fmt: skip
    key = key_of(fcdcc("report", output, "--html", "-").output)
    assert {"parity", "worker not there any more"} <= {*key}


def test_a_report_says_that_the_run_stood_still_as_text_and_as_a_page(tmp_path: Path) -> None:
    fill(make_output(str(output := tmp_path / "out.zarr")))
    members = json.loads(JOURNAL.read_text("utf-8"))
    loss = {"workers": 1, "silent": 0, "seconds": 9.2, "blocks": 4, "usual_seconds": 4.1,
            "cost_seconds": 5.1, "standstill_seconds": 2.4,
            "standstill_after_seconds": 0.4}  # fmt: skip
    said = "For 2.4 s no block was done: 2.0 s until the lost worker was given up, which had what"
    for told in (loss, {**loss, "standstill_seconds": 0.0}):
        members["summary"]["worker_loss"] = told
        write_journal(output, "a", members)
        for report in ("", "--html -"):
            shown = " ".join(fcdcc("report", output, *report.split()).output.split())
            assert (said in shown) == (told is loss)

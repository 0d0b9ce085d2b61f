"""What the report says in sentences of a run: its time, what happened, who was slow and why."""

from __future__ import annotations

import json
import subprocess
import sys
from io import StringIO
from pathlib import Path
from time import time
from typing import Any

import pytest
from rich.console import Console

from fcdcc.pipeline.monitoring.report.html_report import render_report
from fcdcc.pipeline.monitoring.report.recorded_run import RecordedRun, read_report
from fcdcc.pipeline.monitoring.report.text_report import conclusion, print_report
from fcdcc.pipeline.words import PLAN_WORDS, WORDS
from fcdcc.storage import hold
from support.jobs import fcdcc
from support.stored import fill, make_output, write_journal

JOURNAL = Path(__file__).parents[3] / "fuzz" / "journal.json"

NOTHING = {"erasures": 0, "decodes": 0, "parity_started": 0, "groups": 40, "extra_work": 0.0}
"""Of a summary in which nothing was late."""


def members(workers: list[dict[str, Any]] | None = None, **summary: Any) -> dict[str, Any]:
    """Return a journal whose summary has these members, with workers that are all well."""
    found: dict[str, Any] = json.loads(JOURNAL.read_text("utf-8"))
    found["summary"] |= NOTHING | {"planned": None} | summary
    one = {"done": 30, "erased": 0, "lost": 0, "late": 0.0, "worst": 0.0, "pace": 1.0, "gone": ""}
    named = workers or [{"address": f"tcp://{name}:1"} for name in "abc"]
    found["facts"] |= {"workers": [one | worker for worker in named], "saved_at_once": 0.0}
    return found | {"groups": []}


def sentences(workers: list[dict[str, Any]] | None = None, **summary: Any) -> str:
    return " ".join(conclusion(RecordedRun(members(workers, **summary))))


def test_a_run_in_which_nothing_happened_says_so() -> None:
    assert sentences() == (
        "50 images in 128 ms, 390.6 a second, with 3 workers. No worker was lost, and every share "
        "of 40 groups was waited for. No worker is slow."
    )


def test_a_pace_of_few_shares_is_left_out_and_explained(tmp_path: Path) -> None:
    few = {"address": "tcp://few:1", "done": 4, "pace": 0.2}
    enough = {"address": "tcp://enough:1", "done": 5, "pace": 0.9}
    fill(make_output(str(output := tmp_path / "out.zarr")))
    write_journal(output, "a", members([few, enough]))
    printed = fcdcc("report", output).output
    page = render_report(read_report(str(output)))
    for told in (printed, page):
        assert "0.2 ×" not in told
        assert "0.9 ×" in told
        assert "the worker finished fewer than 5 shares in this run" in " ".join(told.split())
    write_journal(output, "a", members([enough]))
    assert "finished fewer than" not in fcdcc("report", output).output


def test_failed_blocks_are_said_with_what_to_do() -> None:
    assert "with 3 workers. 2 blocks failed; the same command tries them again." in sentences(
        blocks_failed=2
    )


def test_a_lost_worker_and_what_made_up_for_it_are_said() -> None:
    gone = {"address": "tcp://c:1", "gone": "removed", "lost": 1}
    told = sentences(
        [{"address": "tcp://a:1"}, {"address": "tcp://b:1"}, gone],
        workers_lost=["tcp://c:1"], decodes=1, parity_started=1, shares_lost=2, tasks_doubled=8,
        blocks_repeated=0,
    )  # fmt: skip
    assert (
        "1 worker was lost; 1 of 40 results was made up from other shares; 1 parity share was "
        "started; 2 shares were computed again; 8 late tasks were started again on another worker. "
        "tcp://c:1 was removed for not answering."
    ) in told


LOSS = {"workers": 1, "silent": 0, "seconds": 9.2, "blocks": 4, "usual_seconds": 4.1,
        "cost_seconds": 5.1}  # fmt: skip


def test_what_a_lost_worker_cost_is_said_in_seconds_everywhere(tmp_path: Path) -> None:
    said = (
        "The lost worker cost about 5.1 s (an estimate): from its last sign of life until the last "
        "block that it could hold up was done, 4 blocks took 9.2 s instead of the usual 4.1 s."
    )
    fill(make_output(str(output := tmp_path / "out.zarr")))
    write_journal(output, "a", members(worker_loss=LOSS, workers_lost=["tcp://a:1"]))
    assert said in " ".join(fcdcc("report", output).output.split())
    assert said in render_report(read_report(str(output)))
    assert json.loads(fcdcc("report", output, "--json").output)["runs"][0]["worker_loss"] == LOSS
    interrupted = members() | {"summary": {}, "worker_loss": LOSS}
    assert said in [*conclusion(RecordedRun(interrupted))]
    assert "cost about" not in sentences()


def test_a_worker_that_stopped_answering_but_was_not_removed_is_said() -> None:
    told = sentences(
        [{"address": "tcp://a:1"}, {"address": "tcp://b:1", "silent": 14.0}],
        worker_loss={**LOSS, "silent": 1}, decodes=1,
    )  # fmt: skip
    assert "The worker that did not answer at the end cost about 5.1 s" in told
    assert "1 worker did not answer at the end; 1 of 40 results was made up" in told
    assert "tcp://b:1 had not answered for 14.0 s when the run ended." in told


def test_a_worker_that_answered_again_is_not_called_lost(tmp_path: Path) -> None:
    loss = {**LOSS, "returned": 1}
    told = sentences(
        seconds=54.0, planned={"seconds": 28.0}, worker_loss=loss, workers_lost=[], decodes=1
    )
    assert "The worker that did not answer for a while cost about 5.1 s (an estimate)" in told
    assert "The worker that did not answer for a while explains about 5.1 s of that" in told
    assert "lost" not in told
    fill(make_output(str(output := tmp_path / "out.zarr")))
    write_journal(output, "a", members(worker_loss=loss, workers_lost=[]))
    assert json.loads(fcdcc("report", output, "--json").output)["runs"][0]["worker_loss"] == loss


@pytest.mark.parametrize(
    ("happened", "why"),
    [
        (
            {"tasks_doubled": 7, "parity_started": 1},
            (
                "likely because 7 late tasks were started again on another worker, which needs "
                "their inputs, too; 1 parity share was started, and parity needs the inputs of "
                "several shares"
            ),
        ),
        (
            {"workers_lost": ["tcp://a:1"], "blocks_repeated": 2},
            (
                "likely because what lost workers had was computed and sent again; 2 blocks were "
                "done twice. What lost workers sent is not counted"
            ),
        ),
        ({}, "nothing that the run recorded says why"),
    ],
)
def test_more_bytes_than_planned_are_said_with_the_likely_reason(
    happened: dict[str, Any], why: str
) -> None:
    told = sentences(bytes_sent=54_000_000, planned={"bytes_sent": 20e6}, **happened)
    assert f"Workers sent 54 MB to each other, and 20 MB were planned: {why}." in told
    for few in ({"bytes_sent": 25_000_000}, {"bytes_sent": 300}):
        assert "Workers sent" not in sentences(planned={"bytes_sent": 20e6}, **happened, **few)
    assert "Workers sent" not in sentences(bytes_sent=900, planned={"bytes_sent": 0}, **happened)


def test_what_was_damaged_and_made_again_is_said() -> None:
    told = sentences(blocks_repaired=3, files_repaired=["image_id/c.0"])
    assert (
        "3 blocks were made again (damaged). 1 file beside the predictions was made again (damaged "
        "or missing): image_id/c.0."
    ) in told
    assert "made again" not in sentences()


def test_time_and_rate_are_those_of_the_work() -> None:
    phases = {"start": 18.1, "plan": 0.5, "work": 50.0, "end": 0.1}
    told = sentences(images_done=4000, seconds=62.0, phases=phases)
    assert told.startswith("4,000 images in 50.0 s of work, 80.0 a second, with 3 workers.")


@pytest.mark.parametrize(
    ("redundancy", "split", "happened", "said"),
    [
        (
            "standby",
            "rows",
            {},
            (
                "5.5 % more arithmetic was done than the network needs: rows at the edges of "
                "parts, which two shares both compute. No parity was computed. "
            ),
        ),
        (
            "standby",
            "images",
            {"parity_started": 2, "shares_lost": 1},
            "than the network needs: parity and shares that were computed again. ",
        ),
        ("eager", "images", {}, "5.5 % more arithmetic was done than the network needs: parity. "),
        ("off", "rows", {}, "than the network needs: rows at the edges of parts, which two "),
    ],
)
def test_what_redundancy_cost_is_said_in_arithmetic_and_in_time(
    redundancy: str, split: str, happened: dict[str, Any], said: str
) -> None:
    planned = {"seconds": 58.0, "plain_seconds": 41.2}
    run = members(extra_work=0.055, planned=planned, **happened)
    run["about"] |= {"redundancy": redundancy, "split": split}
    told = " ".join(conclusion(RecordedRun(run)))
    assert said in told
    assert ("No parity" in told) == ("No parity" in said)
    assert (
        "The plan expected 58.0 s of work with redundancy, and 41.2 s for plain inference without "
        "it." in told
    ) == (redundancy != "off")


def test_what_the_plan_expected_of_few_blocks_is_called_rough() -> None:
    planned = {"seconds": 2.1, "plain_seconds": 1.9, "is_rough": True}
    run = RecordedRun(members(planned=planned, seconds=5.0))
    told = " ".join(conclusion(run))
    assert (
        "The plan expected roughly 2.1 s of work: the run had too few blocks for that to be known "
        "well." in told
    )
    assert "plain inference" not in told
    assert "not measured: the run had too few blocks for the plan to know its time well" in told
    assert ("time of the work", "roughly 2.1 s", "5.0 s") in run.expected


def test_quantiles_of_a_few_groups_are_not_said() -> None:
    run = members()
    run["groups"] = [[0, block, 0.1, 1.0, 9.0, 0, 0] for block in range(99)]
    assert "99 of 100 groups" not in " ".join(conclusion(RecordedRun(run)))
    run["groups"] *= 2
    assert "99 of 100 groups were completed within 1.0 s" in " ".join(conclusion(RecordedRun(run)))


def test_the_memory_of_plan_and_measurement_is_in_the_words_of_the_plan() -> None:
    planned = {"peak_memory": 436e6, "parity_memory": 91e6}
    rows = RecordedRun(members(peak_memory=532_000_000, planned=planned)).expected
    memory = ("436 MB, 527 MB where it computes parity", "532 MB")
    assert [row[1:] for row in rows if "memory" in row[0]] == [memory]


@pytest.mark.parametrize(
    ("speeds", "lost", "verify", "why"),
    [
        (
            "default", [], "off",
            "the plan took default speeds (--calibrate measures them); ",
        ),
        ("measured", ["tcp://a:1"], "off", "1 worker was lost; "),
        (
            "measured", [], "checksum",
            "the plan leaves out the work of checksums (--verify checksum); ",
        ),
        ("measured", [], "off", ""),
    ],
)  # fmt: skip
def test_a_run_that_took_longer_than_planned_says_what_is_known_of_why(
    speeds: str, lost: list[str], verify: str, why: str
) -> None:
    slow = members(seconds=5.0, workers_lost=lost, planned={"seconds": 2.0})
    slow["about"] |= {"speeds": speeds, "verify": verify}
    they = "Likely reasons" if why else "A likely reason"
    assert (
        f"It took 2.5 × the planned time, 3.0 s more. {they}, not measured: {why}other programs "
        "may have used the machines of its workers."
    ) in [*conclusion(RecordedRun(slow))]
    slow["facts"]["workers"][2] |= {"done": 2, "erased": 3}
    assert "1 worker was slow" in " ".join(conclusion(RecordedRun(slow)))
    slow["summary"]["planned"]["seconds"] = 4.0
    assert "planned time" not in " ".join(conclusion(RecordedRun(slow)))


@pytest.mark.parametrize(("speeds", "says"), [("default", True), ("measured", False)])
def test_a_run_that_was_much_faster_than_planned_with_default_speeds_says_so(
    speeds: str, says: bool
) -> None:
    fast = members(seconds=5.0, planned={"seconds": 20.0})
    fast["about"] |= {"speeds": speeds}
    told = " ".join(conclusion(RecordedRun(fast)))
    said = "the planned time: the plan took default speeds (--calibrate measures them)."
    assert (said in told) == says


def test_a_loss_that_cost_nothing_is_no_reason_for_a_longer_run() -> None:
    told = sentences(
        seconds=5.0, planned={"seconds": 2.0}, workers_lost=["tcp://a:1"],
        worker_loss={**LOSS, "cost_seconds": 0.0},
    )  # fmt: skip
    assert "The lost worker cost no time that can be told from chance" in told
    assert "not measured: other programs" in told


def test_a_loss_explains_no_more_of_a_longer_run_than_its_seconds() -> None:
    slow: dict[str, Any] = {"seconds": 54.0, "planned": {"seconds": 28.0}}
    lost: dict[str, Any] = {"workers_lost": ["tcp://a:1"]}
    lost["worker_loss"] = {**LOSS, "cost_seconds": 6.0}
    assert (
        "It took 1.9 × the planned time, 26.0 s more. The lost worker explains about 6.0 s of that "
        "(an estimate). A likely reason for the other 20.0 s, not measured: other programs may "
        "have used the machines of its workers."
    ) in sentences(**slow, **lost)
    lost["worker_loss"] |= {"from_start": True}
    assert "explains at most about 6.0 s of that" in sentences(**slow, **lost)
    lost["worker_loss"] = {**LOSS, "workers": 2, "cost_seconds": 25.0}
    told = sentences(**slow, **lost)
    assert "The 2 lost workers explain about 25.0 s of that (an estimate)." in told
    assert "not measured" not in told


def test_the_work_of_a_share_is_in_the_row_of_its_last_layer() -> None:
    first, last = RecordedRun(members()).layers
    assert (first["part_of_share"], last["part_of_share"]) == (None, pytest.approx(1.0))
    assert last["part"] < 1.0


def test_the_page_counts_one_thing_as_one_and_leaves_out_what_did_not_happen(
    tmp_path: Path,
) -> None:
    fill(make_output(str(output := tmp_path / "out.zarr")))
    workers = [
        {"address": "tcp://a:1"},
        {"address": "tcp://b:1"},
        {"address": "tcp://c:1", "done": 2, "erased": 1},
    ]
    write_journal(output, "a", members(workers, workers_lost=["x"], parity_started=1, erasures=1))
    shown = render_report(read_report(str(output)))
    for what in ("worker lost", "parity share started", "share not waited for"):
        assert f"<b>1</b><span>{what}</span>" in shown
    assert "finished 2 shares where others finish about 30 in that time" in shown
    assert shown.count('<tr class="slow">') == 1
    for what in ("waiting saved", "groups decoded", "blocks failed"):
        assert f"{what}</span>" not in shown
        assert f"{what}, at least</span>" not in shown
    told = fcdcc("report", output).output
    assert "1 share was not waited for" in " ".join(told.split())


GONE_WORKERS = [
    {"address": "tcp://a:1", "name": "0", "pid": 71, "host": "a"},
    {"address": "tcp://b:1", "pace": 9.0, "gone": "removed", "name": "gpu", "pid": 72, "host": "m"},
    {"address": "tcp://c:1", "pace": 4.0, "erased": 1},
    {"address": "tcp://d:1", "pace": 0.8},
    {"address": "tcp://e:1", "pace": 0.9},
]
"""The slowest is gone; names and processes are known of two workers."""


def test_workers_that_are_gone_come_last_in_every_form_of_the_report(tmp_path: Path) -> None:
    fill(make_output(str(output := tmp_path / "out.zarr")))
    write_journal(output, "a", members(GONE_WORKERS))
    order = [f"tcp://{name}:1" for name in "caedb"]
    found = json.loads(fcdcc("report", output, "--json").output)["runs"][0]["workers"]
    assert [worker["address"] for worker in found] == order
    for page in (fcdcc("report", output).output, render_report(read_report(str(output)))):
        table = page[page.index("Workers: those that do not answer, those far behind") :]
        assert sorted(order, key=table.index) == order


def test_a_worker_is_shown_with_its_name_and_its_process(tmp_path: Path) -> None:
    fill(make_output(str(output := tmp_path / "out.zarr")))
    write_journal(output, "a", members(GONE_WORKERS))
    workers = json.loads(fcdcc("report", output, "--json").output)["runs"][0]["workers"]
    first, second, third = workers[0], workers[1], workers[-1]
    assert (first["name"], first["pid"]) == (None, None)
    assert (second["name"], second["pid"], second["host"]) == ("0", 71, "a")
    assert (third["name"], third["pid"], third["host"]) == ("gpu", 72, "m")
    for page in (fcdcc("report", output).output, render_report(read_report(str(output)))):
        assert "worker 0, pid 71" in page
        assert "gpu, pid 72 on m" in page
        assert "tcp://b:1 (gpu, pid 72) was removed for not answering" in " ".join(page.split())


@pytest.mark.parametrize("width", [80, 110])
def test_no_number_is_cut_off_and_each_column_is_explained(tmp_path: Path, width: int) -> None:
    fill(make_output(str(output := tmp_path / "out.zarr")))
    workers = [{**worker, "erased": 3, "late": 41.5, "lost": 1} for worker in GONE_WORKERS]
    write_journal(output, "a", members(workers, erasures=1234, groups=5678))
    stream = StringIO()
    print_report(
        read_report(str(output)),
        Console(file=stream, width=width, force_terminal=True, color_system=None),
    )
    told = stream.getvalue()
    assert "…" not in told
    assert "1,234" in told
    for word in ("shares needed", "not waited for", "pace", "late on average", "longest late",
                 "lost with it", "removed", "k_a × k_b", "group", "time to output",
                 "time to slowest share", "work of a share", "measured time"):  # fmt: skip
        assert f"\n  {word}: {WORDS[word].split()[0]}" in told


def test_the_glossary_has_the_words_of_the_report_and_of_the_plan() -> None:
    glossary = (Path(__file__).parents[4] / "docs" / "glossary.md").read_text("utf-8")
    entries = " ".join(glossary.split())
    for word, meaning in [*WORDS.items(), *PLAN_WORDS.items()]:
        assert f"- **{word}**: {meaning}." in entries


def test_status_says_when_a_run_is_silent_or_was_killed(tmp_path: Path) -> None:
    fill(make_output(str(output := tmp_path / "out.zarr")))
    silent = {"address": "tcp://c:1", "name": "5", "pid": 7, "silent": 6.0}
    running = members([silent]) | {"state": "running", "summary": {}, "every": 5.0}
    named = "tcp://c:1 (worker 5, pid 7) does not answer"
    for ago, said in ((0, "is going on since"), (14, "no sign of life for 14"), (300, "for 5 min")):
        write_journal(output, "a", running | {"updated": time() - ago})
        told = fcdcc("status", output).output
        assert said in told
        assert (named in told) == (ago == 0)
        found = json.loads(fcdcc("status", output, "--json").output)
        assert (found["running"] is None, found["stopped"] is None) == (ago > 0, ago == 0)
    write_journal(output, "a", running | {"updated": time()})
    with hold(output):  # its process is there
        write_journal(output, "a", running | {"updated": time() - 14})
        told = fcdcc("status", output).output
        assert "is going on since" in told
        assert "what it last said, 14" in told
    killed = (
        "import os, sys; from fcdcc.storage import hold\nwith hold(sys.argv[1]):\n    os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", killed, str(output)], check=True)
    assert "has ended without finishing" in fcdcc("status", output).output
    assert json.loads(fcdcc("status", output, "--json").output)["stopped"]["state"] == "ended"


def test_status_names_the_workers_that_a_run_goes_on_without(tmp_path: Path) -> None:
    fill(make_output(str(output := tmp_path / "out.zarr")))
    removed = {"address": "tcp://c:1", "name": "w2", "pid": 7, "gone": "removed", "silent": 9.0}
    lost = [{"address": f"tcp://{name}:1", "gone": "lost"} for name in "defgh"]
    here = {"address": "tcp://a:1"}
    going_on = {"state": "running", "summary": {}, "every": 5.0, "updated": time()}
    write_journal(output, "a", members([here, removed, *lost]) | going_on)
    told = fcdcc("status", output).output.splitlines()
    assert "tcp://c:1 (w2, pid 7) was removed for not answering" in told
    assert "tcp://d:1, tcp://e:1, tcp://f:1 and 2 more were lost" in told
    assert not [line for line in told if "does not answer" in line or "tcp://a:1" in line]
    found = json.loads(fcdcc("status", output, "--json").output)["running"]
    assert found["removed_workers"] == ["tcp://c:1 (w2, pid 7)"]
    assert len(found["lost_workers"]) == 5
    write_journal(output, "a", members([here, removed]) | going_on)
    report = " ".join(fcdcc("report", output).output.split())
    assert "tcp://c:1 (w2, pid 7) was removed for not answering." in report


def test_layers_with_fewer_groups_than_blocks_say_why(tmp_path: Path) -> None:
    fill(make_output(str(output := tmp_path / "out.zarr")))
    cut = members() | {"state": "interrupted", "summary": {}}
    cut["told"] |= {"blocks_done": 10_000}
    write_journal(output, "a", cut)
    note = "Groups are counted up to when the run last wrote what happened"
    for page in (fcdcc("report", output).output, render_report(read_report(str(output)))):
        assert note in page


def test_late_tasks_are_counted_and_explained(tmp_path: Path) -> None:
    fill(make_output(str(output := tmp_path / "out.zarr")))
    write_journal(output, "a", members(tasks_doubled=40))
    assert "late task: a task that takes unusually long" in fcdcc("report", output).output
    page = render_report(read_report(str(output)))
    assert "<b>40</b><span>late tasks started again on another worker</span>" in page


@pytest.mark.parametrize("state", ["complete", "interrupted"])
def test_workers_that_were_late_with_single_tasks_are_named(tmp_path: Path, state: str) -> None:
    """By the summary; of a run that did not end and of older versions, by the events."""
    late = [{"worker": "tcp://a:1", "tasks": 3, "bypassed": False, "name": "7", "pid": 71}]
    workers = [{"address": "tcp://a:1", "name": "7", "pid": 71}, {"address": "tcp://b:1"}]
    fill(make_output(str(output := tmp_path / "out.zarr")))
    found = members(workers, tasks_doubled=3, late_workers=late)
    if state == "interrupted":
        found["summary"], found["facts"]["counters"] = {}, {"groups": 40, "tasks_doubled": 3}
        found["told"]["groups"] = 40
        found["events"] = 3 * [{"event": "doubled", "time": found["begin"], "worker": "tcp://a:1"}]
    write_journal(output, "a", found | {"state": state})
    said = (
        "3 late tasks were started again on another worker: tcp://a:1 (worker 7, pid 71) was late "
        "with them"
    )
    assert said in " ".join(fcdcc("report", output).output.split())
    assert said in render_report(read_report(str(output)))


def test_a_worker_that_did_not_answer_for_a_while_is_named() -> None:
    found = members([{"address": "tcp://a:1"}, {"address": "tcp://b:1", "name": "gpu"}])
    found["events"] = [{"event": "bypassed", "time": found["begin"], "worker": "tcp://b:1"}]
    said = [*conclusion(RecordedRun(found))]
    assert "tcp://b:1 (gpu) did not answer, and others did its work." in said


def test_events_say_how_often_each_place_had_them(tmp_path: Path) -> None:
    fill(make_output(str(output := tmp_path / "out.zarr")))
    found = members()
    where = ["a", "a", "b", "a", "c", "c"]
    found["events"] = [
        {"event": "doubled", "time": found["begin"] + 1.0, "worker": f"tcp://{name}:1"}
        for name in where
    ]
    write_journal(output, "a", found)
    page = render_report(read_report(str(output)))
    assert "started again elsewhere (6 times)" in page
    assert "tcp://a:1 (3 times); tcp://b:1; tcp://c:1 (2 times)" in page


def test_the_table_of_runs_names_lost_and_silent_workers_of_earlier_runs(tmp_path: Path) -> None:
    fill(make_output(str(output := tmp_path / "out.zarr")))
    write_journal(output, "a", members(worker_loss=LOSS, workers_lost=["tcp://a:1"]))
    write_journal(output, "b", members(worker_loss={**LOSS, "silent": 1}))
    write_journal(output, "c", members() | {"begin": members()["begin"] + 60})
    page = render_report(read_report(str(output)))
    for cell in ("<td>3, 1 lost</td>", "<td>3, 1 silent</td>", "<td>3</td>"):
        assert cell in page
    for columns in (80, 100):
        screen = StringIO()
        console = Console(file=screen, width=columns, force_terminal=True, no_color=True)
        print_report(read_report(str(output)), console)
        printed = screen.getvalue()
        assert "1 lost" in printed
        assert "1 silent" in printed
        assert printed.count("128 ms") >= 3  # no cell is cut short

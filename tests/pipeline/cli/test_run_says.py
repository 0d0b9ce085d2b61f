"""What a run says on standard error, in its JSON and in its logs."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from fcdcc.pipeline import Summary, open_model
from fcdcc.pipeline.monitoring.late_workers import LateWorker
from fcdcc.pipeline.monitoring.progress import Quiet
from fcdcc.pipeline.monitoring.summary import files_repaired_line, summary_lines
from fcdcc.pipeline.runtime import job
from support.jobs import fcdcc
from support.small import Files

pytestmark = pytest.mark.cluster

OPTIONS = ("--threads", "--workers", 2, "--dashboard-address", ":0", "--batch", 10, "--n", 3,
           "--tolerate", 1, "--log-level", "info")  # fmt: skip


class Opened(Quiet):
    """Opens the dashboard at the address that the run says, before the first block."""

    def __init__(self) -> None:
        self.pages: dict[str, int] = {}

    def say(self, text: str) -> None:
        for address in re.findall(r"http://\S+", text):
            with urllib.request.urlopen(address, timeout=60) as answer:
                self.pages[address] = answer.status


@pytest.fixture(scope="module")
def done(files: Files, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    output = tmp_path_factory.mktemp("says") / "out of it.zarr"
    result = fcdcc("run", files.model, files.images, output, *OPTIONS, "--json", "-")
    assert result.exit_code == 0, result.output
    return output, result


def test_the_end_names_time_redundancy_output_and_what_to_type_next(
    done: tuple[Path, Result],
) -> None:
    output, result = done
    said = [line for line in result.stderr.splitlines() if not line.startswith("fcdcc: INFO")]
    text = "\n".join(said)
    assert re.search(r"^fcdcc: the dashboard is at http://127\.0\.0\.1:\d+/fcdcc$", text, re.M)
    before = text.partition("fcdcc: the dashboard is at")[0]
    for start in ("images: ", "prediction: "):  # said before the work begins, and only then
        assert f"fcdcc: {start}" in before
        assert text.count(f"fcdcc: {start}") == 1
    assert re.search(r"^fcdcc: time: .* \(start .*, plan .*, work .*, end .*\)$", text, re.M)
    assert "fcdcc: redundancy: any 2 of 3 shares suffice for all 2 convolutions; no worker" in text
    assert "no block was done twice" in text
    reading = f'xarray.open_zarr("{output}")'
    assert f"fcdcc: the predictions are in {output}, and {reading} reads them" in text
    for command in re.findall(r"fcdcc (?:report|verify) [^(]*", said[-1]):
        again = fcdcc(*shlex.split(command)[1:])
        assert again.exit_code == 0, again.output


def test_the_json_has_the_run_the_output_the_phases_and_the_redundancy(
    done: tuple[Path, Result],
) -> None:
    output, result = done
    found = json.loads(result.stdout)
    assert found["output"] == str(output)
    assert found["prediction"].startswith("logits of 10 classes")
    assert f"prediction: {found['prediction']}" in result.stderr
    assert list(found["phases"]) == ["start", "plan", "work", "end"]
    assert found["phases"]["work"] > 0
    assert sum(found["phases"].values()) >= found["seconds"]
    assert found["insured"]["protected"] == found["insured"]["convolutions"] == 2
    assert found["dashboard"].endswith("/fcdcc")
    (run,) = json.loads(fcdcc("report", output, "--json").stdout)["runs"]
    assert run["run"] == found["run"]
    assert run["state"] == "complete"
    same = {name: value for name, value in found.items() if name != "phases"}
    assert {name: run["summary"][name] for name in same} == same


def test_the_log_speaks_from_the_first_second(done: tuple[Path, Result]) -> None:
    _, result = done
    first, *others = result.stderr.splitlines()
    assert first == "fcdcc: INFO: loading PyTorch and Dask"
    for step in ("reading the model", "planning", "starting the cluster", "is done", "run ends"):
        assert any(step in line for line in others), step


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_running_cluster_is_connected_to_once_and_nothing_is_started(
    files: Files, scheduler: str, tmp_path: Path, command: str
) -> None:
    where = [tmp_path / "out.zarr"] if command == "run" else []
    result = fcdcc(command, files.model, files.images, *where, "--scheduler", scheduler,
                   "--batch", 10, "--progress")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines().count("connecting to the cluster") == 1
    assert "starting the cluster" not in result.stderr


def test_a_local_cluster_is_started_once(done: tuple[Path, Result]) -> None:
    _, result = done
    assert result.stderr.count("starting the cluster") == 1


def test_a_run_that_finds_nothing_to_do_says_where_everything_is(
    done: tuple[Path, Result], files: Files
) -> None:
    output, _ = done
    again = fcdcc("run", files.model, files.images, output, *OPTIONS, "--json", "-")
    assert again.exit_code == 0, again.output
    assert "complete: 5 blocks, of them 5 done before; nothing was left to compute" in again.stderr
    assert f"the predictions are in {output}" in again.stderr
    assert "redundancy" not in again.stderr
    found = json.loads(again.stdout)
    assert found["run"] is None
    assert found["output"] == str(output)
    assert found["phases"]["work"] == 0


def test_the_dashboard_is_there_when_its_address_is_said(files: Files, tmp_path: Path) -> None:
    opened = Opened()
    config = job.JobConfig(
        model=files.model, input=files.images, output=tmp_path / "out.zarr",
        processes=False, workers=2, dashboard_address=":0",
    )  # fmt: skip
    with job.finished_run(config, opened, say=opened.say) as summary:
        assert opened.pages == {summary.dashboard: 200}


def test_a_summary_and_a_model_are_short_in_a_notebook(files: Files) -> None:
    said = summary(
        output="<b>out.zarr", phases={"start": 1.0, "plan": 0.5, "work": 10.0, "end": 0.1}
    )
    assert repr(said) == "<Summary complete: 10 of 10 blocks, 100 images in 10.0 s>"
    shown = said._repr_html_()
    assert "complete: 10 blocks; 100 images in 10.0 s of work<br>" in shown
    assert "time: 11.6 s (start 1.0 s, plan 500 ms, work 10.0 s, end 100 ms)<br>" in shown
    assert "&lt;b&gt;out.zarr" in shown
    model = open_model(files.model)
    assert repr(model) == (
        "<Model small.pt2: (n, 3, 16, 16) to (n, 10), 2 convolutions, 5,938 parameters>"
    )
    assert "<li>2 convolutions</li>" in model._repr_html_()


def summary(**members: Any) -> Summary:
    nothing: dict[str, Any] = {
        "status": "complete", "blocks_total": 10, "blocks_done": 10, "blocks_skipped": 0,
        "blocks_failed": 0, "images_done": 100, "seconds": 10.0, "images_per_second": 10.0,
        "groups": 40, "erasures": 0, "decodes": 0, "parity_started": 0, "extra_work": 0.0,
        "max_condition_number": None, "corrupt_shares": (), "workers_lost": (), "bytes_sent": 0,
        "fingerprint": "", "version": "1",
    }  # fmt: skip
    insured = {"n": 6, "delta": 4, "redundancy": "standby", "convolutions": 20, "protected": 20,
               "points": 2}  # fmt: skip
    return Summary(**{**nothing, "insured": insured, **members})


def test_lost_workers_and_what_made_up_for_them_are_said() -> None:
    said = summary(
        workers_lost=("tcp://a:1",), decodes=1, shares_lost=3, tasks_doubled=8, blocks_repeated=1,
        waiting_saved=12.0, extra_work=0.031,
    )  # fmt: skip
    assert (
        "redundancy: any 4 of 6 shares suffice for all 20 convolutions; 1 worker was lost, 1 of 40 "
        "results was made up from other shares, 3 shares were computed again, 8 late tasks were "
        "started again on another worker, 1 block was done twice, at least 12.0 s of waiting "
        "saved, 3.1 % more arithmetic than the network needs"
    ) in list(summary_lines(said))


def test_parity_that_was_started_in_vain_is_said() -> None:
    told = " ".join(summary_lines(summary(parity_started=5, decodes=1)))
    assert "1 of 40 results was made up from other shares, 5 parity shares were started" in told
    needed = " ".join(summary_lines(summary(parity_started=5, decodes=5)))
    assert "parity shares were started" not in needed


def test_workers_that_were_late_or_silent_for_a_while_are_named() -> None:
    late = (LateWorker("tcp://a:1", 6, name="1", pid=71), LateWorker("tcp://b:1", 2, bypassed=True))
    assert (
        "no worker was lost, tcp://b:1 did not answer, and others did its work, no result had to "
        "be made up from other shares, 8 late tasks were started again on another worker: "
        "tcp://a:1 (worker 1, pid 71) was late with 6 of them and tcp://b:1 with 2, no block"
    ) in " ".join(summary_lines(summary(tasks_doubled=8, late_workers=late)))


def test_without_redundancy_no_line_speaks_of_shares() -> None:
    insured = {"n": 1, "delta": 1, "redundancy": "standby", "convolutions": 1, "protected": 0,
               "points": 0}  # fmt: skip
    lines = summary_lines(summary(insured=insured, groups=0))
    (line,) = (text for text in lines if text.startswith("redundancy"))
    assert line == (
        "redundancy: none, lost work is computed again; no worker was lost, no block was done twice"
    )


@pytest.mark.parametrize(
    ("members", "line"),
    [
        (
            {"blocks_total": 17, "blocks_done": 6, "blocks_skipped": 11, "blocks_redone": 1,
             "redone": {"images": 1}},
            ("17 blocks, of them 11 done before, 1 made again (1 for changed images), 5 new; "
             "100 images in 10.0 s"),
        ),
        (
            {"blocks_total": 31, "blocks_done": 6, "blocks_skipped": 25, "blocks_repaired": 3,
             "blocks_retried": 2},
            ("31 blocks, of them 25 done before, 3 made again (3 damaged), 2 that had failed, "
             "1 new; 100 images in 10.0 s"),
        ),
        (
            {"blocks_total": 33, "blocks_done": 1, "blocks_skipped": 32, "blocks_not_full": 1,
             "images_done": 28, "images_again": 8},
            ("33 blocks, of them 32 done before, 1 made again (it was not full); 28 images "
             "(20 new, 8 made again) in 10.0 s"),
        ),
    ],
    ids=["changed images", "damaged and failed before", "not full before"],
)  # fmt: skip
def test_blocks_of_a_continued_run_are_all_counted(members: dict[str, Any], line: str) -> None:
    assert f"complete: {line}" in list(summary_lines(summary(**members)))


def test_blocks_and_images_of_a_run_that_adds_images_add_up() -> None:
    said = summary(
        blocks_total=34, blocks_done=29, blocks_skipped=5, blocks_not_full=1, images_done=1520,
        images_again=20,
    )  # fmt: skip
    assert (
        "complete: 34 blocks, of them 5 done before, 1 made again (it was not full), 28 new; "
        "1,520 images (1,500 new, 20 made again) in 10.0 s"
    ) in list(summary_lines(said))
    both = replace(said, blocks_redone=2, redone={"images": 2}, images_again=120)
    assert (
        "of them 5 done before, 3 made again (2 for changed images, 1 not full before), 26 new; "
        "1,520 images (1,400 new, 120 made again)"
    ) in " ".join(summary_lines(both))


def test_what_a_lost_worker_cost_is_one_of_the_last_lines() -> None:
    loss = {"workers": 2, "silent": 1, "seconds": 9.2, "blocks": 4, "usual_seconds": 4.1,
            "cost_seconds": 5.1}  # fmt: skip
    lines = list(summary_lines(summary(worker_loss=loss, workers_lost=("tcp://a:1",))))
    cost = (
        "the 2 workers that were lost or did not answer at the end cost about 5.1 s (an estimate): "
    )
    assert any(line.startswith(cost) for line in lines)
    assert any("1 worker did not answer at the end, 1 worker was lost" in line for line in lines)


def test_files_beside_the_predictions_that_were_damaged_are_named() -> None:
    names = ("image_id/c.0", "zarr.json")
    said = summary(blocks_total=4, blocks_done=0, blocks_skipped=4, files_repaired=names)
    blocks, files, *_ = summary_lines(said)
    assert blocks == "complete: 4 blocks, of them 4 done before; nothing was left to compute"
    assert files == (
        "2 files beside the predictions were made again (damaged or missing): image_id/c.0, "
        "zarr.json"
    )
    many = [f"image_id/c.{number}" for number in range(9)]
    assert files_repaired_line(many).endswith("image_id/c.5 and 3 more")


def test_damaged_journals_are_not_called_made_again() -> None:
    journals = [".fcdcc/runs/a.json", ".fcdcc/runs/b.json"]
    assert files_repaired_line(journals[:1]) == (
        "1 damaged journal was removed: .fcdcc/runs/a.json"
    )
    assert files_repaired_line(["zarr.json", *journals]) == (
        "1 file beside the predictions was made again (damaged or missing): zarr.json; "
        "2 damaged journals were removed: .fcdcc/runs/a.json, .fcdcc/runs/b.json"
    )


@pytest.mark.parametrize("progress", ["--progress", "--no-progress"])
def test_with_json_logs_every_line_on_standard_error_is_one_object(
    files: Files, tmp_path: Path, progress: str
) -> None:
    output = tmp_path / "out.zarr"
    flags = ("--log-format", "json", "--limit", 20, progress)
    done = fcdcc("run", files.model, files.images, output, *OPTIONS, *flags)
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert all({"time", "level", "message"} <= line.keys() for line in lines)
    said = [line["message"] for line in lines]
    for start in ("images: uint8", "the dashboard is at ", "complete: 2 blocks", "next: "):
        assert [text for text in said if text.startswith(start)]
    refused = fcdcc("run", files.model, tmp_path / "none.zarr", output, "--log-format", "json")
    assert refused.exit_code == 2
    [line] = [json.loads(line) for line in refused.stderr.splitlines()]
    assert line["level"] == "error"
    assert "it does not exist" in line["message"]
    wrong = fcdcc("run", files.model, "--log-format", "json", "--config", tmp_path / "none.toml")
    assert json.loads(wrong.stderr)["level"] == "error"
    unknown = fcdcc("run", files.model, "--log-format=json", "--nonsense")
    assert unknown.exit_code == 2
    assert "--nonsense" in json.loads(unknown.stderr)["message"]


def test_an_unexpected_error_is_an_object_with_its_traceback(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise LookupError("a mistake of ours")

    monkeypatch.setattr(job, "finished_run", broken)
    command = ("run", files.model, files.images, tmp_path / "out.zarr")
    broken_off = fcdcc(*command, "--log-format", "json")
    assert broken_off.exit_code == 1
    line = json.loads(broken_off.stderr)
    assert (line["level"], line["message"]) == ("error", "LookupError: a mistake of ours")
    assert "Traceback" in line["exception"]
    assert isinstance(fcdcc(*command).exception, LookupError)  # as text Python prints it


def test_with_json_logs_warnings_and_other_packages_are_objects_too() -> None:
    program = (
        "import logging, sys, warnings, click\n"
        "from fcdcc.pipeline.cli.command_output import log_to_stderr, others_as_json\n"
        "import distributed\n"
        "log_to_stderr('warning', 'json')\n"
        "with others_as_json():\n"
        "    warnings.warn('an old name')\n"
        "    logging.getLogger('distributed.client').warning('a lost\\nconnection')\n"
        "    logging.getLogger('fcdcc.x').warning('ours')\n"
        "    logging.getLogger('urllib3').warning('a retry')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["level"] for line in lines] == ["warning"] * 4
    assert "an old name" in lines[0]["message"]
    assert [line["message"] for line in lines[1:]] == ["a lost\nconnection", "ours", "a retry"]


def test_predictions_are_said_to_be_there_only_if_a_block_is() -> None:
    failed = {"status": "incomplete", "blocks_total": 4, "blocks_done": 0, "blocks_failed": 4}
    nothing = "\n".join(summary_lines(summary(output="o.zarr", **failed)))
    assert "open_zarr" not in nothing
    assert nothing.endswith("next: fcdcc report o.zarr (what happened)")
    some = summary(output="o.zarr", **(failed | {"blocks_done": 1, "blocks_failed": 3}))
    assert 'xarray.open_zarr("o.zarr") reads them' in "\n".join(summary_lines(some))


def test_an_output_in_memory_is_refused_for_workers_that_are_processes(files: Files) -> None:
    url = "memory://says/out.zarr"
    refused = fcdcc("run", files.model, files.images, url, "--workers", 2)
    assert refused.exit_code == 2
    assert f"the output {url} would be in the memory of one process" in refused.stderr
    done = fcdcc("run", files.model, files.images, url, *OPTIONS)
    assert done.exit_code == 0, done.output

"""Jobs that are continued with other workers, n, codes and plans than they were begun with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fcdcc.pipeline import JobConfig, Summary, run
from fcdcc.pipeline.errors import OptionError
from fcdcc.pipeline.monitoring.progress import Quiet, RunProgress
from fcdcc.pipeline.runtime import checked_job, job_plan
from fcdcc.storage import verify
from fcdcc.storage.objects import open_folder
from fcdcc.storage.records import BlockRecord, read_records
from support.jobs import fcdcc, predictions, recorded_chunks
from support.small import IMAGES, Files

BATCH = 4
BLOCKS = -(-IMAGES // BATCH)

pytestmark = pytest.mark.cluster


def config(files: Files, output: Path, **options: Any) -> JobConfig:
    """Return a job on worker threads of this process."""
    return JobConfig(
        model=str(files.model), input=str(files.images), output=str(output), processes=False,
        dashboard_address=":0", progress=False, **options,
    )  # fmt: skip


def made(output: Path) -> dict[int, dict[str, Any]]:
    """Return how each recorded block was made."""
    records = (record for _, record in read_records(open_folder(str(output))))
    found = {r.block: r.details["made"] for r in records if isinstance(r, BlockRecord)}
    assert all(isinstance(how, dict) for how in found.values())
    return found  # type: ignore[return-value] # checked above


def how(n: int, tolerate: int, form: str = "images", code: str = "systematic") -> dict[str, Any]:
    split = "images" if form == "images" else "rows"
    return {"n": n, "tolerate": tolerate, "code": code, "split": split, "form": form}


def assert_right(files: Files, output: Path, summary: Summary) -> None:
    assert summary.status == "complete"
    np.testing.assert_allclose(predictions(output), files.expected, atol=1e-5)
    assert verify(output) == []


def test_a_job_goes_on_with_other_workers_n_code_and_split(files: Files, tmp_path: Path) -> None:
    output = tmp_path / "out.zarr"
    run(config(files, output, workers=2, limit=12, batch=BATCH))
    before = recorded_chunks(output)
    run(config(files, output, workers=3, limit=24))
    run(config(files, output, workers=2, limit=36, n=6, tolerate=2, code="crme"))
    summary = run(config(files, output, workers=4, split="rows"))
    assert summary.blocks_skipped == 9
    assert_right(files, output, summary)
    assert made(output) == {
        **dict.fromkeys(range(3), how(2, 1)),
        **dict.fromkeys(range(3, 6), how(3, 1)),
        **dict.fromkeys(range(6, 9), how(6, 2, "gathered", "crme")),
        **dict.fromkeys(range(9, BLOCKS), how(4, 2, "rows")),
    }
    after = recorded_chunks(output)
    assert {block: after[block] for block in before} == before


def test_runs_with_different_plans_are_reported_and_verified(files: Files, tmp_path: Path) -> None:
    output = tmp_path / "out.zarr"
    run(config(files, output, workers=2, limit=24, batch=BATCH))
    run(config(files, output, workers=3))
    status = fcdcc("status", output, "--json")
    assert (status.exit_code, json.loads(status.stdout)["blocks_done"]) == (0, BLOCKS)
    assert fcdcc("verify", output).exit_code == 0
    text = fcdcc("report", output).output
    assert "with 3 workers" in text
    for counts in ("1 of 2", "2 of 3"):  # δ of n shares suffice
        assert counts in text
    page = fcdcc("report", output, "--html", "-").output
    assert page.count("<h2") >= 2
    journals = [json.loads(p.read_text()) for p in sorted(output.glob(".fcdcc/runs/*.json"))]
    assert {(j["about"]["n"], j["about"]["tolerate"]) for j in journals} == {(2, 1), (3, 1)}


class Interrupt(Quiet):
    """Interrupts a run once some blocks are done."""

    def advance(self, advance: RunProgress) -> None:
        if advance.blocks_done >= 3:
            raise KeyboardInterrupt


def test_an_interrupted_job_goes_on_on_another_cluster(
    files: Files, scheduler: str, tmp_path: Path
) -> None:
    output = tmp_path / "out.zarr"
    with pytest.raises(KeyboardInterrupt):
        run(config(files, output, workers=2, batch=BATCH, in_flight=1), Interrupt())
    begun = made(output)
    assert {tuple(sorted(found.items())) for found in begun.values()} == {
        tuple(sorted(how(2, 1).items()))
    }
    summary = run(config(files, output, scheduler=scheduler))  # of six workers
    assert summary.blocks_skipped == len(begun)
    assert_right(files, output, summary)
    counts = {(found["n"], found["tolerate"]) for found in made(output).values()}
    assert counts == {(2, 1), (6, 2)}


def test_the_same_workers_use_the_stored_plan_again(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.zarr"
    run(config(files, output, workers=2, limit=24, batch=BATCH))

    def search(*_: object, **__: object) -> None:
        raise AssertionError("it plans again")

    monkeypatch.setattr(job_plan, "choose_plan", search)
    assert_right(files, output, run(config(files, output, workers=2, in_flight=2)))
    sorted(output.glob(".fcdcc/blocks/*.json"))[0].unlink()
    for other in ({"workers": 3}, {"workers": 2, "n": 6}, {"workers": 2, "split": "rows"}):
        with pytest.raises(AssertionError, match="plans again"):
            run(config(files, output, **other))


def test_where_nothing_is_left_nothing_is_planned_or_started(
    files: Files, scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.zarr"
    run(config(files, output, scheduler=scheduler))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("there is nothing to do")

    for name in ("open_cluster", "job_plan"):
        monkeypatch.setattr(checked_job, name, refuse)
    again = run(config(files, output, n=4, code="crme", scheduler="tcp://nowhere:1"))
    assert (again.status, again.blocks_done) == ("complete", 0)


@pytest.mark.parametrize("options", [{"batch": 5}, {"band": 3}], ids=str)
def test_blocks_stay_as_they_are(files: Files, tmp_path: Path, options: dict[str, int]) -> None:
    output = tmp_path / "out.zarr"
    run(config(files, output, workers=1, limit=24, batch=BATCH))
    with pytest.raises(OptionError, match="for an output that was created with blocks of"):
        run(config(files, output, workers=1, **options))


def test_a_saved_plan_must_have_the_blocks_of_the_output(files: Files, tmp_path: Path) -> None:
    output, plans = tmp_path / "out.zarr", {}
    for batch in (BATCH, 5):
        plans[batch] = tmp_path / f"plan-{batch}.json"
        command = ["plan", files.model, files.images, "--batch", batch, "--n", 6, "--tolerate", 1]
        assert fcdcc(*command, "--json", plans[batch]).exit_code == 0
    run(config(files, output, workers=2, limit=24, batch=BATCH))
    with pytest.raises(OptionError, match="batch=5"):
        run(config(files, output, workers=2, plan=str(plans[5])))
    summary = run(config(files, output, workers=2, plan=str(plans[BATCH])))
    assert_right(files, output, summary)
    assert made(output)[BLOCKS - 1]["n"] == 6

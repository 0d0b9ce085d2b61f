"""What a plan says before it runs, saved and loaded, and refused in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from fcdcc.pipeline import Plan, open_model
from fcdcc.pipeline.cli.main import main
from fcdcc.pipeline.errors import PlanError
from fcdcc.pipeline.options import PlanOptions
from fcdcc.pipeline.planner import make_plan
from small import SHAPE, Files


def test_a_saved_plan_is_the_plan(files: Files) -> None:
    network = open_model(files.model).network
    plan = make_plan(network, SHAPE, PlanOptions.of(split="rows"), 50)
    assert plan.forecast is not None
    assert Plan.from_json(plan.to_json()) == plan


def test_a_plan_of_an_older_version_is_read(files: Files) -> None:
    plan = make_plan(open_model(files.model).network, SHAPE, PlanOptions.of())
    saved = json.loads(plan.to_json())
    for name in ("forecast", "objective"):
        del saved[name]
    old = Plan.from_json(json.dumps(saved))
    assert old.forecast is None
    assert old.fingerprint == plan.fingerprint
    assert "any 4 suffice" in str(old)
    assert "16 × 1" in old._repr_html_()


def test_memory_that_is_not_enough_is_refused_in_words(files: Files) -> None:
    network = open_model(files.model).network
    with pytest.raises(PlanError, match="a worker has"):
        make_plan(network, SHAPE, PlanOptions.of(memory="1 MB"))


def test_the_command_says_what_would_run(files: Files, tmp_path: Path) -> None:
    saved = tmp_path / "plan.json"
    said = CliRunner().invoke(
        main, ["plan", str(files.model), str(files.images), "--json", str(saved)]
    )
    assert said.exit_code == 0, said.output
    for words in ("first", "second", "k_a × k_b", "2 may be lost", "Plain data-parallel"):
        assert words in said.output
    assert Plan.from_json(saved.read_text()).image_shape == SHAPE

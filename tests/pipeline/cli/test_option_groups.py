"""Options are shown in groups, and a template of a job file can be printed."""

from __future__ import annotations

import itertools
import re
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from fcdcc.pipeline.cli import main
from fcdcc.pipeline.cli.job_file import read_job_file
from fcdcc.pipeline.cli.option_groups import OPTION_GROUPS, OTHER_OPTIONS
from fcdcc.pipeline.options import ARGUMENTS, CommandOptions, JobConfig


def test_every_option_of_a_job_is_in_one_group() -> None:
    grouped = list(itertools.chain(*OPTION_GROUPS.values()))
    assert len(grouped) == len(set(grouped))
    fields = {*JobConfig.option_names(), *CommandOptions.option_names()}
    assert fields - set(grouped) == set(ARGUMENTS)


def test_help_shows_the_common_options_first() -> None:
    for command in ("run", "plan"):
        shown = CliRunner().invoke(main, [command, "--help"]).output
        titles = [title for title in (*OPTION_GROUPS, OTHER_OPTIONS) if f"\n{title}:\n" in shown]
        assert titles == [*OPTION_GROUPS, OTHER_OPTIONS]
        assert re.search(r"Common options:\n +--config", shown)
        assert re.search(r"Other options:\n +-h, --help", shown)


@pytest.mark.parametrize("command", ["ingest", "export"])
def test_help_of_other_commands_has_groups_with_every_option(command: str) -> None:
    found = main.get_command(click.Context(main), command)
    assert found is not None
    shown = CliRunner().invoke(main, [command, "--help"]).output
    before, _, rest = shown.partition(f"{OTHER_OPTIONS}:")
    assert before.count(":\n  --") >= 4
    assert "--" not in rest.replace("-h, --help", "")
    for param in found.params:
        assert param.param_type_name == "argument" or param.opts[0] in before


def test_help_says_what_happens_without_an_option() -> None:
    shown = " ".join(CliRunner().invoke(main, ["run", "--help"]).output.split())
    for option, default in (
        ("--batch", "planned"), ("--limit", "all"), ("--in-flight", "planned"),
        ("--memory", "from the workers"), ("--progress / --no-progress", "on a terminal"),
        ("--processes / --threads", "processes"), ("--dtype", "float32"), ("--n", "auto"),
    ):  # fmt: skip
        assert re.search(rf"{option} .*?\[default: {default}\]", shown), option


def test_the_template_is_a_job_file_with_every_option(tmp_path: Path) -> None:
    printed = CliRunner().invoke(main, ["run", "--print-config"])
    assert printed.exit_code == 0
    file = tmp_path / "job.toml"
    file.write_text(printed.stdout)
    assert read_job_file(file).job.keys() == {"model", "input", "output"}
    # With every option as it stands in its comment, the file is still one that can be read.
    lines = [re.sub(r"^# ([a-z-]+ = )", r"\1", line) for line in printed.stdout.splitlines()]
    file.write_text("\n".join(lines))
    read = read_job_file(file)
    assert {*read.job, *read.command} == {
        *JobConfig.option_names(), *CommandOptions.option_names(),
    }  # fmt: skip
    assert tomllib.loads(file.read_text())["scheduler"].startswith("tcp://")
    defaults = {
        name: field.default
        for name, field in JobConfig.model_fields.items()
        if field.default is not None and not field.is_required()
    }
    assert {name: read.job[name] for name in defaults} == defaults


def test_the_template_has_the_options_that_are_given(tmp_path: Path) -> None:
    given = {
        "workers": (3, 3), "channels": ("0,1", ["0", "1"]), "tile": ("64,96", [64, 96]),
        "scale": ("max", "max"), "mean": ("0.5", [0.5]), "tolerate": ("auto", "auto"),
        "log-level": ("info", "info"), "json": ("sömmary 😀.json", "sömmary 😀.json"),
    }  # fmt: skip
    flags = [text for name, (value, _) in given.items() for text in (f"--{name}", str(value))]
    paths = {"model": "small.pt2", "input": "s3://b/photos.zarr", "output": "out.zarr"}
    arguments = ["run", *paths.values(), "--threads", *flags, "--print-config"]
    printed = CliRunner().invoke(main, arguments)
    assert printed.exit_code == 0, printed.output
    expected = paths | {name: value for name, (_, value) in given.items()} | {"processes": False}
    assert tomllib.loads(printed.stdout) == expected
    file = tmp_path / "job.toml"
    file.write_text(printed.stdout)
    again = CliRunner().invoke(main, ["run", "--config", str(file), "--print-config"])
    assert again.exit_code == 0, again.output
    local = {name: str(tmp_path / expected[name]) for name in ("model", "output", "json")}
    assert tomllib.loads(again.stdout) == expected | local
    wrong = CliRunner().invoke(main, ["run", "--workers", "0", "--print-config"])
    assert wrong.exit_code == 2

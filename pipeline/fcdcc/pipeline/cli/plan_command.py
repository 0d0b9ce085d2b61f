"""``fcdcc plan``."""

from __future__ import annotations

from typing import Any

import click

from fcdcc.storage.locations import shown

from ..formatting import printable
from ..options import CommandOptions, JobConfig
from ..runtime.fork_server import single_threaded_libraries
from .click_adapter import options_of
from .command_output import STDOUT, check_can_write, log_to_stderr, write_result
from .early_checks import check_files
from .job_file import read_options
from .option_groups import GroupedCommand

RUN_ONLY_OPTIONS = ("plan", "store", "threshold", "classes", "restart")
"""Options that do not affect a plan."""


@click.command(cls=GroupedCommand)
@click.argument("model", required=False)
@click.argument("input", required=False)
@click.option(
    "--config", metavar="JOB.toml", help="read options from a job file; flags override it"
)
@click.option("--html", "html_file", metavar="FILE", help="write the plan as HTML to this file")
@options_of(JobConfig, leave_out=("model", "input", "output", *RUN_ONLY_OPTIONS))
@options_of(CommandOptions)
def plan(*, config: str | None, html_file: str | None, **flags: Any) -> None:
    """Show what would run for MODEL (.pt2) over the images in INPUT (Zarr); nothing runs.

    For every convolution the plan shows how it is coded and what that costs; then the totals,
    how many shares and workers may be lost and what that costs, and when plain data-parallel
    inference would be faster. With --json FILE the plan is saved, and fcdcc run --plan FILE uses
    it.
    """
    options = read_options(config, flags)
    command = CommandOptions.of(**options.command)
    log_to_stderr(command.log_level, command.log_format)
    job = {name: value for name, value in options.job.items() if name not in RUN_ONLY_OPTIONS}
    checked = JobConfig.of(**{"output": "-", **job})
    check_files(checked)
    for path in (command.json_file, html_file):
        if path is not None:
            check_can_write(path)
    with single_threaded_libraries():  # threads of PyTorch would only wait for each other here
        from ..planner.cost.known_workers import (
            SPEEDS_SAVED,
            calibration_file,
            start_and_end_seconds,
        )
        from ..plans.display import plan_page, print_plan
        from ..runtime.job_plan import preview_job

    preview = preview_job(checked)
    if checked.calibrate and calibration_file().exists():
        click.echo(f"fcdcc: {printable(SPEEDS_SAVED % calibration_file())}", err=True)
    made, beside = preview.plan, start_and_end_seconds(checked)
    known = [] if preview.sample is None else [str(preview.sample)]
    known += [text for text in (preview.tiles, preview.absence, preview.compared) if text]
    images = "; ".join(known) or None
    if STDOUT not in (command.json_file, html_file):
        print_plan(made, images=images, start_and_end_seconds=beside)
    if command.json_file is not None:
        write_result(command.json_file, made.to_json())
    if html_file is not None:
        model, source = shown(checked.model), shown(checked.input)
        write_result(html_file, plan_page(made, model, source, images, beside))
        if html_file != STDOUT:
            click.echo(f"fcdcc: the plan is in {html_file}", err=True)

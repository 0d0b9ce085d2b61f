"""``fcdcc plan``."""

from __future__ import annotations

from typing import Any

import click

from ..options import CommandOptions, JobConfig
from .click_options import options_of
from .job_file import JobFile, read_job_file
from .logs import log_to_stderr
from .results import check_can_write, write_result

ONLY_RUN = ("plan", "store", "classes", "restart")
"""Options that say nothing of a plan."""


@click.command()
@click.argument("model", required=False)
@click.argument("input", required=False)
@click.option("--config", metavar="JOB.toml", help="options from a file; flags win over it")
@click.option("--html", "html_file", metavar="FILE", help="write the plan as HTML")
@options_of(JobConfig, leave_out=("model", "input", "output", *ONLY_RUN))
@options_of(CommandOptions)
def plan(*, config: str | None, html_file: str | None, **options: Any) -> None:
    """Say what would run for MODEL (.pt2) over the images in INPUT (Zarr); nothing runs.

    For every convolution how it is coded and what that costs; then the totals, what may be lost,
    and when plain data-parallel inference would be the better choice. With --json FILE it is
    saved, and fcdcc run --plan FILE uses it.
    """
    given = {name: value for name, value in options.items() if value is not None}
    file = read_job_file(config) if config else JobFile({}, {})
    names = CommandOptions.option_names()
    command = CommandOptions.of(
        **{**file.command, **{name: given.pop(name) for name in names if name in given}}
    )
    log_to_stderr(command.log_level, command.log_format)
    job = {name: value for name, value in file.job.items() if name not in ONLY_RUN}
    checked = JobConfig.of(**{"output": "-", **job, **given})
    for path in (command.json_file, html_file):
        if path is not None:
            check_can_write(path)
    from ..plans.display import plan_html, print_plan
    from ..runtime.job_plan import preview_job_plan

    made = preview_job_plan(checked)
    if "-" not in (command.json_file, html_file):
        print_plan(made)
    if command.json_file is not None:
        write_result(command.json_file, made.to_json())
    if html_file is not None:
        write_result(html_file, plan_html(made))

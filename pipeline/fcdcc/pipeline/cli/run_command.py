"""``fcdcc run``."""

from __future__ import annotations

from typing import Any

import click

from ..monitoring.summary import Summary
from ..options import CommandOptions, JobConfig
from .click_options import options_of
from .exit_codes import ExitCode
from .job_file import JobFile, read_job_file
from .logs import log_to_stderr
from .results import check_can_write, write_result

NAMED = 20
"""Failed blocks that the last line names."""


@click.command()
@click.argument("model", required=False)
@click.argument("input", required=False)
@click.argument("output", required=False)
@click.option("--config", metavar="JOB.toml", help="options from a file; flags win over it")
@options_of(JobConfig, leave_out=("model", "input", "output"))
@options_of(CommandOptions)
@click.pass_context
def run(ctx: click.Context, /, config: str | None, **options: Any) -> None:
    """Run MODEL (.pt2) over the images in INPUT (Zarr) and write predictions to OUTPUT (Zarr).

    Started again it continues where it stopped, and new images at the end of INPUT are added.
    """
    given = {name: value for name, value in options.items() if value is not None}
    ctx.exit(run_job_file(read_job_file(config) if config else JobFile({}, {}), given))


def run_job_file(file: JobFile, given: dict[str, Any]) -> ExitCode:
    """Run the job that a file and the options of the command line describe.

    Raises
    ------
    FcdccError
        As :func:`fcdcc.pipeline.run`.
    OptionError
        If an option is wrong or missing.
    """
    names = CommandOptions.option_names()
    command = CommandOptions.of(
        **{**file.command, **{name: given[name] for name in names if name in given}}
    )
    log_to_stderr(command.log_level, command.log_format)
    job = {name: value for name, value in given.items() if name not in names}
    config = JobConfig.of(**{**file.job, **job})
    if command.json_file is not None:
        check_can_write(command.json_file)
    # Importing torch takes seconds; --help and mistakes in options should not wait for it.
    from ..runtime.job import run as run_job

    summary = run_job(config)
    if command.json_file is not None:
        write_result(command.json_file, summary.to_json())
    if summary.blocks_failed:
        click.echo(f"fcdcc: {_failures(summary)}", err=True)
        return ExitCode.BLOCKS_FAILED
    click.echo(f"fcdcc: {_success(summary)}", err=True)
    return ExitCode.DONE


def _success(summary: Summary) -> str:
    """Return a line that says what a run did."""
    before = f", {summary.blocks_skipped} of them before" if summary.blocks_skipped else ""
    return (
        f"{summary.status}: {summary.blocks_total} blocks{before}; {summary.images_done} images in "
        f"{summary.seconds:.1f} s"
    )


def _failures(summary: Summary) -> str:
    """Return a line that names the blocks that failed."""
    named = [str(failure.block) for failure in summary.failures[:NAMED]]
    more = ", …" if summary.blocks_failed > NAMED else ""
    return (
        f"{summary.blocks_failed} of {summary.blocks_total} blocks failed "
        f"({', '.join(named)}{more}): run the same command again to retry them"
    )

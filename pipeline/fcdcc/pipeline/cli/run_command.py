"""``fcdcc run``."""

from __future__ import annotations

from typing import Any

import click

from ..formatting import counted
from ..monitoring.summary import REASONS, Summary
from ..options import CommandOptions, JobConfig
from ..runtime.fork_server import fork_this_process, single_threaded_libraries, uses_fork_server
from .click_adapter import options_of
from .command_output import check_can_write, log_to_stderr, write_result
from .job_file import read_options
from .option_groups import GroupedCommand, job_file_template
from .process_exit import ExitCode

MAX_NAMED_BLOCKS = 20
"""Most failed blocks that the last line of the command names."""


@click.command(cls=GroupedCommand)
@click.argument("model", required=False)
@click.argument("input", required=False)
@click.argument("output", required=False)
@click.option(
    "--config", metavar="JOB.toml", help="read options from a job file; flags override it"
)
@click.option(
    "--print-config", is_flag=True, help="print a job file with all options and their meaning"
)
@options_of(JobConfig, leave_out=("model", "input", "output"))
@options_of(CommandOptions)
@click.pass_context
def run(ctx: click.Context, /, config: str | None, print_config: bool, **flags: Any) -> None:
    """Run MODEL (.pt2) over the images in INPUT (Zarr) and write predictions to OUTPUT (Zarr).

    Run the same command again to continue where it stopped, to retry blocks that failed, and to
    add images that were appended to INPUT.
    """
    if print_config:
        click.echo(job_file_template(), nl=False)
        ctx.exit(ExitCode.DONE)
    options = read_options(config, flags)
    command = CommandOptions.of(**options.command)
    log_to_stderr(command.log_level, command.log_format)
    job = JobConfig.of(**options.job)
    if command.json_file is not None:
        check_can_write(command.json_file)
    # Importing torch takes seconds; --help and mistakes in options should not wait for it.
    if uses_fork_server(job):
        with single_threaded_libraries():
            from ..runtime.job import finished_run
        fork_this_process()  # it has no thread yet; otherwise a server is started later
    else:
        from ..runtime.job import finished_run

    code: ExitCode | None = None
    try:
        with finished_run(job) as summary:
            code = _print_summary(summary, command.json_file)
    except KeyboardInterrupt:
        if code is None:
            raise
        # The run was complete and said so: only the closing of its cluster was interrupted.
    ctx.exit(code)


def _print_summary(summary: Summary, json_file: str | None) -> ExitCode:
    """Write the summary where it is wanted and print its line; return the exit code."""
    if json_file is not None:
        write_result(json_file, summary.to_json())
    if summary.sample is not None:
        click.echo(f"fcdcc: images: {summary.sample['text']}", err=True)
    if summary.blocks_provisional:
        click.echo(f"fcdcc: {_absence_line(summary)}", err=True)
    line = _failure_line(summary) if summary.blocks_failed else _success_line(summary)
    click.echo(f"fcdcc: {line}", err=True)
    return ExitCode.BLOCKS_FAILED if summary.blocks_failed else ExitCode.DONE


def _success_line(summary: Summary) -> str:
    """Return a line that says what a run did."""
    before = f", {summary.blocks_skipped} of them before" if summary.blocks_skipped else ""
    again = ""
    if summary.blocks_redone:
        reasons = (
            f"{summary.redone[r]} for {t}" for r, t in REASONS.items() if r in summary.redone
        )
        again = f", {summary.blocks_redone} made again ({', '.join(reasons)})"
    return (
        f"{summary.status}: {counted(summary.blocks_total, 'block')}{before}{again}; "
        f"{counted(summary.images_done, 'image')} in {summary.seconds:.1f} s"
    )


def _absence_line(summary: Summary) -> str:
    """Return a line about chunks of the images that are not stored."""
    chunks = counted(
        summary.chunks_absent,
        "chunk of the images is not stored and was",
        "chunks of the images are not stored and were",
    )
    blocks = counted(summary.blocks_provisional, "block")
    return (
        f"{chunks} read as the fill value by {blocks}; a run that finds what is missing makes "
        + ("it again" if summary.blocks_provisional == 1 else "them again")
    )


def _failure_line(summary: Summary) -> str:
    """Return a line that names the blocks that failed."""
    named = [str(failure.block) for failure in summary.failures[:MAX_NAMED_BLOCKS]]
    more = ", …" if summary.blocks_failed > MAX_NAMED_BLOCKS else ""
    return (
        f"{summary.blocks_failed} of {counted(summary.blocks_total, 'block')} failed "
        f"({', '.join(named)}{more}): run the same command again to retry "
        + ("it" if summary.blocks_failed == 1 else "them")
    )

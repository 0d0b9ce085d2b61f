"""``fcdcc run``."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import nullcontext
from typing import Any

import click

from ..monitoring.summary import Summary, result_lines
from ..options import CommandOptions, JobConfig
from ..runtime.fork_server import fork_this_process, single_threaded_libraries, uses_fork_server
from .click_adapter import options_of
from .command_output import (
    check_can_write,
    log_to_stderr,
    others_as_json,
    prints_json,
    say,
    write_result,
)
from .early_checks import check_files
from .job_file import checked_options, read_options
from .option_groups import GroupedCommand, job_file_template
from .process_exit import ExitCode

logger = logging.getLogger(__name__)


@click.command(cls=GroupedCommand)
@click.argument("model", required=False)
@click.argument("input", required=False)
@click.argument("output", required=False)
@click.option(
    "--config", metavar="JOB.toml", help="read options from a job file; flags override it"
)
@click.option(
    "--print-config",
    is_flag=True,
    help="print a job file with the options that are given, and all "
    "others and their meaning as comments",
)
@options_of(JobConfig, leave_out=("model", "input", "output"))
@options_of(CommandOptions)
@click.pass_context
def run(ctx: click.Context, /, config: str | None, print_config: bool, **flags: Any) -> None:
    """Run MODEL (.pt2) over the images in INPUT (Zarr) and write predictions to OUTPUT (Zarr).

    Run the same command again to continue where it stopped, to retry blocks that failed, and to
    add images that were appended to INPUT.
    """
    began = time.monotonic()
    options = read_options(config, flags)
    if print_config:
        click.echo(job_file_template(checked_options(options)), nl=False)
        ctx.exit(ExitCode.DONE)
    command = CommandOptions.of(**options.command)
    log_to_stderr(command.log_level, command.log_format)
    job = JobConfig.of(**options.job)
    check_files(job)
    if command.json_file is not None:
        check_can_write(command.json_file)
    loading = "loading PyTorch and Dask"  # takes seconds
    if sys.stderr.isatty() and not prints_json():
        say(loading)
    else:
        logger.info(loading)
    # Importing torch takes seconds; --help and mistakes in options should not wait for it.
    if uses_fork_server(job):
        with single_threaded_libraries():
            from ..runtime.job import finished_run
        fork_this_process()  # it has no thread yet; otherwise a server is started later
    else:
        from ..runtime.job import finished_run

    code: ExitCode | None = None
    lines = say if prints_json() else None
    try:
        with (
            others_as_json() if prints_json() else nullcontext(),
            finished_run(job, began=began, say=say, show=lines) as summary,
        ):
            code = _print_summary(summary, command.json_file)
    except KeyboardInterrupt:
        if code is None:
            raise
        # The run was complete and said so: only the closing of its cluster was interrupted.
    ctx.exit(code)


def _print_summary(summary: Summary, json_file: str | None) -> ExitCode:
    """Write the summary where it is wanted and print its lines; return the exit code."""
    if json_file is not None:
        write_result(json_file, summary.to_json())
    for line in result_lines(summary):
        say(line)
    is_whole = summary.status == "complete" and not summary.blocks_failed
    return ExitCode.DONE if is_whole else ExitCode.BLOCKS_FAILED

"""``fcdcc run``."""

from __future__ import annotations

from typing import Any, TextIO, get_args

import click

from ..options import JobConfig
from ..summary import Summary
from .exit_codes import ExitCode
from .logs import LogFormat, log_to_stderr
from .options import options_of

__all__ = ["run"]

NAMED = 20
"""Failed blocks that the last line names."""


@click.command()
@click.argument("model")
@click.argument("input")
@click.argument("output")
@options_of(JobConfig, leave_out=("model", "input", "output"))
@click.option(
    "--json",
    "summary_file",
    type=click.File("w", lazy=False),
    metavar="FILE",
    help="write the summary as JSON; - for standard output",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="warning",
    show_default=True,
    help="what is logged, on standard error",
)
@click.option(
    "--log-format",
    type=click.Choice(get_args(LogFormat)),
    default="text",
    show_default=True,
    help="lines for people, or one JSON object per line",
)
@click.pass_context
def run(
    ctx: click.Context,
    /,
    summary_file: TextIO | None,
    log_level: str,
    log_format: LogFormat,
    **options: Any,
) -> None:
    """Run MODEL (.pt2) over the images in INPUT (Zarr) and write predictions to OUTPUT (Zarr).

    Started again it continues where it stopped, and new images at the end of INPUT are added.
    """
    log_to_stderr(log_level, log_format)
    config = JobConfig.of(**options)
    # Importing torch takes seconds; --help and mistakes in options should not wait for it.
    from ..job import run as run_job

    summary = run_job(config)
    if summary_file is not None:
        summary_file.write(summary.to_json() + "\n")
    if summary.blocks_failed:
        click.echo(f"fcdcc: {_failures(summary)}", err=True)
        ctx.exit(ExitCode.BLOCKS_FAILED)


def _failures(summary: Summary) -> str:
    """Return a line that names the blocks that failed."""
    named = [str(failure.block) for failure in summary.failures[:NAMED]]
    more = ", …" if summary.blocks_failed > NAMED else ""
    return (
        f"{summary.blocks_failed} of {summary.blocks_total} blocks failed "
        f"({', '.join(named)}{more}): run the same command again to retry them"
    )

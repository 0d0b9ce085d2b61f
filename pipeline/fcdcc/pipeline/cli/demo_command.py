"""The command ``fcdcc demo``."""

from __future__ import annotations

from pathlib import Path

import click

from .process_exit import ExitCode


@click.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option(
    "--stall",
    type=click.IntRange(0, 2),
    default=2,
    show_default=True,
    help="how many of the six worker processes to stop in the middle of the run",
)
@click.pass_context
def demo(ctx: click.Context, folder: Path | None, stall: int) -> None:
    """Classify real images while worker processes are stopped, and show what happened.

    The files go to FOLDER, which must be new or empty; by default to the first of demo,
    demo-2, … that does not exist.
    """
    from ..demo.show import run_demo

    if not run_demo(folder, stall=stall).passed:
        ctx.exit(ExitCode.UNEXPECTED)

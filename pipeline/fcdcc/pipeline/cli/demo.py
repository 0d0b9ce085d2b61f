"""``fcdcc demo``."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["demo"]


@click.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option(
    "--stall",
    type=click.IntRange(0, 2),
    default=2,
    show_default=True,
    help="how many of the six worker processes are stopped in the middle",
)
def demo(folder: Path | None, stall: int) -> None:
    """Classify real images while worker processes are stopped, and show what happened."""
    from ..demo import run_demo

    run_demo(folder, stall=stall)

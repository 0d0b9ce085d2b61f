"""``fcdcc status`` and ``fcdcc verify``."""

from __future__ import annotations

import json
from typing import Any

import click

from ..formatting import printable
from .process_exit import ExitCode

_json_flag = click.option(
    "--json", "as_json", is_flag=True, help="print one JSON object instead of text"
)


@click.command()
@click.argument("output")
@_json_flag
@click.pass_context
def status(ctx: click.Context, output: str, as_json: bool) -> None:
    """Show which blocks of OUTPUT are done, missing or failed, and why they failed.

    The exit code is 0 if all blocks are done, else 4.
    """
    from ..monitoring.output_status import read_status
    from ..monitoring.report.recorded_run import read_running

    found, running = read_status(output), read_running(output)
    if as_json:
        click.echo(json.dumps({**found.to_dict(), "running": running}, indent=2))
    else:
        click.echo(
            f"{found.status}: {found.blocks_done} of {found.blocks_total} blocks done "
            f"({found.images_done} of {found.images} images), {found.blocks_missing} missing, "
            f"{found.blocks_failed} failed"
        )
        if found.blocks_provisional:
            click.echo(
                f"{found.blocks_provisional} blocks were made while chunks of their images were "
                "not stored; a run makes them again once these are there"
            )
        if running is not None:
            click.echo(printable(_current_run_line(running)))
        for failure in found.failures:
            click.echo(printable(f"block {failure.block} failed: {failure.reason}"))
        for name, reason in found.unreadable_records.items():
            click.echo(printable(f"{name}: {reason}"))
    if found.status != "complete":
        ctx.exit(ExitCode.BLOCKS_FAILED)


def _current_run_line(running: dict[str, Any]) -> str:
    """Return a line about the run that is writing the output now."""
    from ..formatting import duration, percent

    left = running["seconds_left"]
    parts = [
        f"{running['blocks_in_flight']} blocks in flight",
        f"{running['images_per_second']:.0f} images/s",
        *([f"about {duration(left)} left"] if left is not None else []),
        f"{running['erasures']:.0f} shares not waited for",
        f"{percent(running['extra_work'])} extra work",
    ]
    return f"run {running['run']} is going on since {running['since']}: {', '.join(parts)}"


@click.command()
@click.argument("output")
@_json_flag
@click.pass_context
def verify(ctx: click.Context, output: str, as_json: bool) -> None:
    """Read every chunk of OUTPUT again and compare it with its record.

    The exit code is 5 if anything is damaged. Damaged blocks are marked in their records, and
    the next run of the job computes exactly these again. Nothing is deleted.
    """
    from ..monitoring.output_status import verify_output

    found = verify_output(output)
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2))
    else:
        for damage in found.damage:
            click.echo(printable(str(damage)))
        for name in found.foreign:
            click.echo(printable(f"{name}: not a file of this output, and no damage"))
        click.echo(_conclusion_line(len(found.damage), len(found.blocks), found.marked))
    if found.damage:
        ctx.exit(ExitCode.DAMAGED)


def _conclusion_line(damages: int, blocks: int, marked: bool) -> str:
    if not damages:
        return "nothing is damaged"
    what = f"{damages} damaged"
    if not blocks:
        return f"{what}, no block among them: run the job again to repair it"
    if not marked:
        return f"{what}, in {blocks} blocks; the output cannot be written, so nothing is marked"
    return f"{what}, in {blocks} blocks: run the job again to compute these blocks again"

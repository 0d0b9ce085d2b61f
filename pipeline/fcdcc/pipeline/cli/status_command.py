"""``fcdcc status`` and ``fcdcc verify``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ..formatting import blocks_in_words, counted, printable
from .process_exit import ExitCode

if TYPE_CHECKING:
    from ..monitoring.output_status import Compared, Verification

_json_flag = click.option(
    "--json", "as_json", is_flag=True, help="print one JSON object instead of text"
)


@click.command()
@click.argument("output")
@_json_flag
@click.pass_context
def status(ctx: click.Context, output: str, as_json: bool) -> None:
    """Show which blocks of OUTPUT are done, missing, failed or damaged, and why.

    The exit code is 0 if all blocks are done, else 4.
    """
    from ..monitoring.output_status import failure_line, read_status
    from ..monitoring.report.recorded_run import read_running
    from ..monitoring.stragglers import departure

    found, running = read_status(output), read_running(output)
    if as_json:
        is_running = running is not None and running["state"] == "running"
        runs = {"running": running if is_running else None}
        runs |= {"stopped": None if is_running else running}
        click.echo(json.dumps({**found.to_dict(), **runs}, indent=2))
    else:
        click.echo(f"{found.status}: {found.in_words}")
        if found.status == "complete":
            click.echo(
                "these are the images that the last run saw: fcdcc verify compares them with the "
                "input, and fcdcc run computes what is new there"
            )
        if found.blocks_provisional:
            made = counted(found.blocks_provisional, "block was made", "blocks were made")
            click.echo(
                f"{made} while chunks of the images were not stored; a run that finds these makes "
                "what needs them again"
            )
        if found.tiles is not None:
            total = counted(found.tiles.blocks_total, "block of tiles", "blocks of tiles")
            click.echo(
                f"{found.tiles.blocks_done:,} of {total} done, {found.tiles.blocks_failed:,} "
                "failed; the blocks above are bands of the images, put together from tiles"
            )
        if running is not None:
            click.echo(printable(_current_run_line(running)))
            for worker in running["silent_workers"] if running["state"] == "running" else ():
                click.echo(printable(f"{worker} does not answer"))
            for how in ("removed", "lost"):
                if names := running[f"{how}_workers"]:
                    click.echo(printable(departure(names, removed=how == "removed")))
        for failure in found.failures:
            click.echo(printable(failure_line(failure.block, failure.reason)))
        for failure in () if found.tiles is None else found.tiles.failures:
            click.echo(printable(f"block {failure.block} of tiles failed: {failure.reason}"))
        for name, reason in found.unreadable_records.items():
            click.echo(printable(f"{name}: {reason}"))
    if found.status != "complete":
        ctx.exit(ExitCode.BLOCKS_FAILED)


def _current_run_line(running: dict[str, Any]) -> str:
    """Return a line about the run that is writing the output, or was when it was killed."""
    from ..formatting import duration, percent, rate, time_left

    if running["state"] == "ended":
        return (
            f"run {running['run']}, begun {running['since']}, has ended without finishing: its "
            "process is not there any more; the same command continues it"
        )
    if running["state"] == "silent":
        return (
            f"run {running['run']}, begun {running['since']}, has given no sign of life for "
            f"{duration(running['silent_seconds'])}: it may have been killed"
        )
    told = rate(running["images_per_second"], "image"), time_left(running["seconds_left"])
    parts = [
        f"{counted(running['blocks_in_flight'], 'block')} in flight",
        *filter(None, told),
        counted(int(running["erasures"]), "share") + " not waited for",
        f"{percent(running['extra_work'])} extra work",
    ]
    ago = f", {duration(running['silent_seconds'])} ago" if running["silent_seconds"] >= 1 else ""
    since = f"run {running['run']} is going on since {running['since']}"
    return f"{since}; what it last said{ago}: {', '.join(parts)}"


@click.command()
@click.argument("output")
@_json_flag
@click.option(
    "--compare",
    type=click.Choice(["listing", "contents", "off"]),
    default="listing",
    show_default=True,
    help="how blocks are found that no longer belong to the input. listing: by the sizes, times "
    "and ETags that its store lists; contents: its images are read, and compared where the run had "
    "read them for this; off: not at all",
)
@click.pass_context
def verify(ctx: click.Context, output: str, as_json: bool, compare: Compared) -> None:
    """Read every chunk of OUTPUT again, and compare it with its record and with the input.

    The exit code is 5 if anything is damaged, or no longer belongs to the input. Damaged blocks are
    marked in their records, and the next run of the job computes exactly these again, and those of
    which the input has changed. Nothing is deleted.
    """
    from ..monitoring.output_status import verify_output

    found = verify_output(output, compare)
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2))
    else:
        for damage in found.damage:
            click.echo(printable(str(damage)))
        for name in found.foreign:
            click.echo(printable(f"{name}: not a file of this output, and no damage"))
        for reason, blocks in found.outdated.items():
            click.echo(_outdated_line(reason, blocks))
        if found.unknown:
            click.echo(printable(found.unknown))
        missing = found.images_total - found.images_read
        if missing and not found.damage:
            have = counted(missing, "image has", "images have")
            click.echo(f"{have} no prediction yet; run the job again to compute them")
        if found.images_new:
            what = counted(found.images_new, "image has", "images have")
            click.echo(
                f"{what} no place in the output: new at the end of the input, or left out by "
                "--limit; run the job again, without --limit, to compute them"
            )
        click.echo(_conclusion_line(found))
    if found.status != "whole":
        ctx.exit(ExitCode.DAMAGED)


def _outdated_line(reason: str, blocks: Sequence[int]) -> str:
    """Return a line about blocks that no longer belong to the input."""
    one = len(blocks) == 1
    its = "its" if one else "their"
    what = {
        "image_ids": f"{its} images have other ids there now",
        "images": f"{its} images were changed, or written anew, since",
        "removed": f"the input no longer has {its} images",
    }[reason]
    belong = "no longer belongs" if one else "no longer belong"
    return f"{blocks_in_words(blocks)} {belong} to the input: {what}; run the job again"


def _conclusion_line(found: Verification) -> str:
    damages, blocks = len(found.damage), len(found.blocks)
    outdated = sum(map(len, found.outdated.values()))
    if not damages and outdated:
        belong = "block no longer belongs", "blocks no longer belong"
        return (
            f"no file is damaged, but {counted(outdated, *belong)} to the input: run the job again"
        )
    if not damages:
        return f"{_read_in_words(found)}: none of it is damaged"
    what = f"{damages} damaged"
    if not blocks:
        return f"{what}, no block among them: run the job again to repair it"
    where = counted(blocks, "block")
    if not found.marked:
        return f"{what}, in {where}; the output cannot be written, so nothing is marked"
    these = "this block" if blocks == 1 else "these blocks"
    return f"{what}, in {where}: run the job again to compute {these} again"


def _read_in_words(found: Verification) -> str:
    """Return how much was read, such as ``447 of 894 predictions read, 6 of 12 blocks``."""
    predictions = counted(found.images_total, "prediction")
    blocks = counted(found.blocks_total, "block")
    if found.blocks_read < found.blocks_total:
        blocks = f"{found.blocks_read:,} of {blocks}"
    return f"{found.images_read:,} of {predictions} read, {blocks}"

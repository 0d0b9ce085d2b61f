"""``fcdcc ingest``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, get_args

import click

from fcdcc.storage.ingestion import Labels, Progress
from fcdcc.storage.ingestion import ingest as ingest_folder
from fcdcc.storage.pictures import Colour, Fit

from ..monitoring.progress import show_count

_SIZE = re.compile(r"(\d{1,6})(?:\s*[xX×]\s*(\d{1,6}))?")
MAX_NAMED_FILES = 20
"""Files left out that the command lists; ``--json`` lists all."""


class _SizeType(click.ParamType[tuple[int, int]]):
    """A size: ``224``, or ``HEIGHTxWIDTH`` such as ``224x320``."""

    name = "HEIGHTxWIDTH"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        found = _SIZE.fullmatch(str(value).strip())
        size = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if 0 in size:
            self.fail(f"{value!r}: expected a size such as 224 or 224x320", param, ctx)
        return size


@click.command()
@click.argument("folder")
@click.argument("output", metavar="OUT.zarr")
@click.option(
    "--size", type=_SizeType(), help="size of the images; by default that of the first picture"
)
@click.option(
    "--fit",
    type=click.Choice(get_args(Fit)),
    default="crop",
    show_default=True,
    help="how a picture of another size is fitted. crop: scale it to cover the size and cut out "
    "the middle; stretch: scale height and width separately; pad: scale it to fit and fill the "
    "rest with black; exact: treat it as a bad file",
)
@click.option(
    "--resize",
    type=click.IntRange(min=1),
    help="with --fit crop: length of the shorter side before the cut",
)
@click.option(
    "--colour",
    type=click.Choice(get_args(Colour)),
    default="rgb",
    show_default=True,
    help="colour channels of the images",
)
@click.option(
    "--labels",
    type=click.Choice(get_args(Labels)),
    default="auto",
    show_default=True,
    help="class labels. folders: the first folder in a picture's path is its class; auto: "
    "folders, if every picture is in a folder; none: no labels",
)
@click.option(
    "--bad",
    type=click.Choice(["skip", "fail"]),
    default="skip",
    show_default=True,
    help="what to do with a bad file. skip: leave it out and list it; fail: end the command",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    default=100_000_000,
    show_default=True,
    help="pictures with more pixels are bad files; checked before they are decoded",
)
@click.option(
    "--threads", type=click.IntRange(min=1), help="pictures read at a time; by default one per core"
)
@click.option("--progress/--no-progress", default=None, help="show a progress bar")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object instead of text")
def ingest(folder: str, output: str, progress: bool | None, as_json: bool, **options: Any) -> None:
    """Write the JPEG, PNG and TIFF files in FOLDER to a Zarr image array.

    Run the same command again to continue where it stopped, and to add new pictures.
    """
    with _progress_bar(progress) as report:
        made = ingest_folder(folder, output, progress=report, **options)
    for picture in made.bad[: None if as_json else MAX_NAMED_FILES]:
        click.echo(f"fcdcc: left out {picture.name}: {picture.reason}", err=True)
    if as_json:
        click.echo(json.dumps(asdict(made), indent=2))
        return
    if len(made.bad) > MAX_NAMED_FILES:
        click.echo(
            f"fcdcc: left out {len(made.bad) - MAX_NAMED_FILES} more; --json lists all", err=True
        )
    height, width, channels = made.shape
    click.echo(
        f"{made.images} images of {height} × {width} × {channels} in {output}, {made.added} new"
        + (f", {len(made.classes)} classes" if made.classes else "")
        + (f", {len(made.bad)} files left out" if made.bad else "")
    )


@contextmanager
def _progress_bar(progress: bool | None) -> Iterator[Progress]:
    """Show a progress bar; yield the function that updates it."""
    with show_count("pictures", progress) as update:
        yield lambda done, total, bad: update(done, total, f"{bad} left out" if bad else "")

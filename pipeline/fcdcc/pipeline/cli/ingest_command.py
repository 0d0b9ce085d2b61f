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

from ..monitoring.progress import count

SIZE = re.compile(r"(\d{1,6})(?:\s*[xX×]\s*(\d{1,6}))?")
NAMED = 20


class _SizeType(click.ParamType[tuple[int, int]]):
    """``224`` or ``HEIGHTxWIDTH``."""

    name = "HEIGHTxWIDTH"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        found = SIZE.fullmatch(str(value).strip())
        size = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if 0 in size:
            self.fail(f"{value!r}: expected a size such as 224 or 224x320", param, ctx)
        return size


@click.command()
@click.argument("folder")
@click.argument("output", metavar="OUT.zarr")
@click.option("--size", type=_SizeType(), help="of the images; else that of the first picture")
@click.option(
    "--fit",
    type=click.Choice(get_args(Fit)),
    default="crop",
    show_default=True,
    help="crop: scaled until it covers the size, cut in the middle; stretch: scaled to it; pad: "
    "scaled until it fits, the rest black; exact: other sizes are bad",
)
@click.option("--resize", type=click.IntRange(min=1), help="crop: the shorter side before the cut")
@click.option(
    "--colour",
    type=click.Choice(get_args(Colour)),
    default="rgb",
    show_default=True,
    help="kept",
)
@click.option(
    "--labels",
    type=click.Choice(get_args(Labels)),
    default="auto",
    show_default=True,
    help="folders: the first folder is the class; auto: so where every picture lies in one",
)
@click.option(
    "--bad",
    type=click.Choice(["skip", "fail"]),
    default="skip",
    show_default=True,
    help="files that cannot be used are left out and listed, or end the command",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    default=100_000_000,
    show_default=True,
    help="larger pictures are bad, before they are decoded",
)
@click.option("--threads", type=click.IntRange(min=1), help="pictures at a time; else all cores")
@click.option("--progress/--no-progress", default=None, help="show a progress bar")
@click.option("--json", "as_json", is_flag=True, help="one JSON object instead of text")
def ingest(folder: str, output: str, progress: bool | None, as_json: bool, **options: Any) -> None:
    """Write the JPEG, PNG and TIFF files in FOLDER to a Zarr image array.

    Started again it continues where it stopped, and adds pictures that have come since.
    """
    with _shown(progress) as told:
        made = ingest_folder(folder, output, progress=told, **options)
    for picture in made.bad[: None if as_json else NAMED]:
        click.echo(f"fcdcc: left out {picture.name}: {picture.reason}", err=True)
    if as_json:
        click.echo(json.dumps(asdict(made), indent=2))
        return
    if len(made.bad) > NAMED:
        click.echo(f"fcdcc: left out {len(made.bad) - NAMED} more; --json lists all", err=True)
    height, width, channels = made.shape
    click.echo(
        f"{made.images} images of {height} × {width} × {channels} in {output}, {made.added} new"
        + (f", {len(made.classes)} classes" if made.classes else "")
        + (f", {len(made.bad)} files left out" if made.bad else "")
    )


@contextmanager
def _shown(progress: bool | None) -> Iterator[Progress]:
    """Yield what shows how far it is."""
    with count("pictures", progress) as told:
        yield lambda done, total, bad: told(done, total, f"{bad} left out" if bad else "")

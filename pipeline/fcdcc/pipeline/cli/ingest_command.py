"""``fcdcc ingest``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, get_args

import click

from fcdcc.storage.ingestion import Ingested, Labels, NothingIngestedError, Progress, SkippedFile
from fcdcc.storage.ingestion import ingest as ingest_folder
from fcdcc.storage.pictures import ALWAYS_SCALING, Colour, Fit, Interpolation

from ..errors import OptionError
from ..formatting import counted, printable
from ..monitoring.progress import show_count
from ..options import MAX_THREADS, shown_value
from .option_groups import GroupedCommand

if TYPE_CHECKING:
    from ..model.description import ModelPreparation

_SIZE = re.compile(r"(\d{1,6})(?:\s*[xX×]\s*(\d{1,6}))?")
MAX_PIXELS = 2**30
"""Most pixels of a picture, and of an image that is made of it."""

MAX_NAMED_FILES = 20
"""Files left out, or images without a file, that the command lists; ``--json`` lists all."""

FITTED: dict[Fit, str] = {
    "crop": "scaled and cropped",
    "torchvision": "scaled and cropped",
    "transformers": "scaled and cropped",
    "stretch": "stretched",
    "pad": "scaled and padded",
}
"""How pictures were fitted; with ``exact`` all have the size of the images."""


class SizeType(click.ParamType[tuple[int, int]]):
    """A size: ``224``, or ``HEIGHTxWIDTH`` such as ``224x320``."""

    name = "HEIGHTxWIDTH"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Return (height, width); text that is no size ends the command."""
        found = _SIZE.fullmatch(str(value).strip())
        size = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not 0 < size[0] * size[1] <= MAX_PIXELS:
            self.fail(
                f"{shown_value(value)}: expected a size such as 224 or 224x320, of at most "
                f"{MAX_PIXELS} pixels",
                param,
                ctx,
            )
        return size


INGEST_GROUPS = {
    "Common options": ("model", "size", "fit", "labels", "progress", "as_json"),
    "How pictures become images": ("resize", "interpolation", "colour", "depth", "pages"),
    "Which files come in": ("bad", "remove_missing", "follow_links", "max_pixels"),
    "Computation": ("threads",),
}
"""The options of each group, the most common first."""


@click.command(cls=GroupedCommand, groups=INGEST_GROUPS)
@click.argument("folder")
@click.argument("output", metavar="OUT.zarr")
@click.option(
    "--for",
    "model",
    metavar="MODEL.pt2",
    help="make images as this model file says: its size, fit, resize, filter and colour; options "
    "that are given win",
)
@click.option(
    "--size", type=SizeType(), help="size of the images; by default that of the first picture"
)
@click.option(
    "--fit",
    type=click.Choice(get_args(Fit)),
    help="how a picture of another size is fitted; by default crop, without --size exact. crop: "
    "scale it to cover the size and cut out the middle; stretch: scale height and width "
    "separately; pad: scale it to fit and fill the rest with black; exact: treat it as a bad file; "
    "torchvision, transformers: as their transforms do, which round otherwise than crop",
)
@click.option(
    "--resize",
    type=click.IntRange(1, MAX_PIXELS),
    help="with a cut: length of the shorter side before the cut",
)
@click.option(
    "--interpolation",
    type=click.Choice(get_args(Interpolation)),
    help="filter by which pictures are scaled; by default bilinear",
)
@click.option(
    "--colour", type=click.Choice(get_args(Colour)), help="colour channels; by default rgb"
)
@click.option(
    "--depth",
    type=click.Choice(["8", "16"]),
    callback=lambda _context, _option, value: None if value is None else int(value),
    help="bits per channel; by default those of the first picture. 16: keep all bits, with white "
    "at 65535; 8: scale pictures of 16 bits, with white at 255",
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
    "--pages",
    is_flag=True,
    default=None,
    help="make an image of each page of a TIFF; otherwise a file with several pages is a bad file",
)
@click.option(
    "--follow-links",
    is_flag=True,
    help="read links that leave FOLDER and links to folders; only if you trust who made the links",
)
@click.option(
    "--remove-missing",
    is_flag=True,
    help="take out images whose files are no longer in FOLDER; otherwise they are named and stay",
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
    type=click.IntRange(1, MAX_PIXELS),
    default=100_000_000,
    show_default=True,
    help="pictures with more pixels are bad files; checked before they are decoded",
)
@click.option(
    "--threads",
    type=click.IntRange(1, MAX_THREADS),
    help="pictures read at a time; by default one per core",
)
@click.option("--progress/--no-progress", default=None, help="show a progress bar")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object instead of text")
def ingest(
    folder: str,
    output: str,
    model: str | None,
    progress: bool | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Write the pictures in FOLDER to a Zarr image array.

    All formats that Pillow reads by itself are taken, such as JPEG, PNG, TIFF, WebP, BMP and GIF.
    Run the same command again to continue where it stopped: new pictures are added, and changed
    ones are read again. Options that are not given stay as they were.
    """
    if model is not None:
        options = _options_for(model, options)
    try:
        with _progress_bar(progress) as report:
            made = ingest_folder(folder, output, progress=report, **options)
    except NothingIngestedError as error:
        if as_json:
            click.echo(
                json.dumps({"images": 0, "added": 0} | _skipped_json(error.skipped), indent=2)
            )
        else:
            _show_skipped(error.skipped)
        raise
    if as_json:
        click.echo(json.dumps(_as_json(made), indent=2))
    else:
        _show_skipped(made.skipped)
        _show("kept without a file (--remove-missing takes it out):", made.missing)
        _show("took out", made.removed)
        click.echo(_summary(made, output))


def _options_for(model: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return options with those of a model file where they are not given, and say what differs.

    Raises
    ------
    OptionError
        If no size is given, the file names none, and its network takes images of any size.
    """
    from ..model.description import ModelDescription
    from ..model.opening import open_description  # it imports torch, which takes seconds

    preparation = (open_description(model) or ModelDescription()).preparation
    if preparation.size is None:
        preparation = _with_fixed_size(preparation, model)
        if preparation.size is not None and options["size"] is None:
            click.echo(
                f"fcdcc: the network in {printable(model)} takes images of "
                f"{_size_in_words(preparation.size)} only: this is used as --size",
                err=True,
            )
    size = preparation.size or options["size"]
    if size is None:
        raise OptionError(
            f"--for {model}: the file does not say what size its images have, and its network "
            "takes any: give --size, or export the model again with fcdcc export --size"
        )
    form = preparation.model_copy(update={"size": size}).picture_form()
    stored: dict[str, Any] = {
        "size": size,
        "fit": form.fit,
        "resize": form.resize,
        "interpolation": form.interpolation,
        "colour": form.colour,
    }
    given = {name for name in stored if options.get(name) is not None}
    if "size" in given or "fit" in given:  # which the resize belongs to
        stored["resize"] = None
    for name in sorted(given):
        if stored[name] not in (None, options[name]):
            value, theirs = (
                _size_in_words(one) if isinstance(one, tuple) else one
                for one in (options[name], stored[name])
            )
            click.echo(
                f"fcdcc: warning: --{name} {value} is used, and {printable(model)} was exported "
                f"for {theirs}",
                err=True,
            )
    return options | {name: value for name, value in stored.items() if name not in given}


def _with_fixed_size(preparation: ModelPreparation, model: str) -> ModelPreparation:
    """Return a preparation with the only size that the network of a model file takes.

    The channels of the network say whether images are grey. A network that takes images of any
    size, or no pictures, changes nothing.
    """
    from ..model.opening import open_model

    _, channels, *space = open_model(model).network.input_shape
    if len(space) != 2 or None in space:
        return preparation
    grey = {"channel_order": "grey"} if channels == 1 else {}
    return preparation.model_copy(update={"size": tuple(space), **grey})


def _size_in_words(size: tuple[int, ...]) -> str:
    """Return a size such as 224 × 320."""
    return " × ".join(map(str, size))


def _as_json(made: Ingested) -> dict[str, Any]:
    """Return the result as JSON: numbers, and lists of names."""
    lists = {name: getattr(made, name) for name in ("changed", "unchecked", "missing", "removed")}
    return (
        {"images": made.images, "added": made.added, "unchanged": made.unchanged}
        | {name: len(images) for name, images in lists.items()}
        | {"shape": made.shape, "dtype": made.dtype, "fit": made.fit, "classes": made.classes}
        | {"formats": made.formats, "compared": made.compared}
        | {f"{name}_images": images for name, images in lists.items()}
        | _skipped_json(made.skipped)
    )


def _skipped_json(skipped: Sequence[SkippedFile]) -> dict[str, Any]:
    bad = [{"name": file.name, "reason": file.reason} for file in skipped if file.bad]
    return {"skipped": len(skipped), "skipped_files": [*map(asdict, skipped)], "bad": bad}


def _show_skipped(skipped: Sequence[SkippedFile]) -> None:
    """List the files that were left out, pictures first."""
    ordered = sorted(skipped, key=lambda file: not file.bad)
    _show("left out", [f"{file.name}: {file.reason}" for file in ordered])


def _show(what: str, lines: Sequence[str]) -> None:
    """Write one line for each file to standard error, up to a number."""
    for line in lines[:MAX_NAMED_FILES]:
        click.echo(f"fcdcc: {what} {printable(line)}", err=True)
    if len(lines) > MAX_NAMED_FILES:
        click.echo(f"fcdcc: {what} {len(lines) - MAX_NAMED_FILES} more; --json lists all", err=True)


def _summary(made: Ingested, output: str) -> str:
    """Return the line that says what is stored now, and what changed."""
    height, width, channels = made.shape
    formats = ", ".join(f"{count:,} {name}" for name, count in made.formats.items())
    parts = [
        f"{counted(made.images, 'image')} of {height} × {width} × {channels} in {output}",
        f"{made.added:,} new" + (f" ({formats})" if formats else ""),
    ]
    parts += [f"{len(made.changed):,} changed"] if made.changed else []
    parts += [f"{len(made.removed):,} taken out"] if made.removed else []
    parts += [f"{len(made.missing):,} without a file"] if made.missing else []
    parts += [f"{len(made.unchecked):,} whose file cannot be read"] if made.unchecked else []
    parts += [counted(len(made.classes), "class", "classes")] if made.classes else []
    parts += [counted(len(made.skipped), "file left out", "files left out")] if made.skipped else []
    if made.fit in FITTED:
        scales_all = made.resize is not None or made.fit in ALWAYS_SCALING
        which = "pictures" if scales_all else "pictures of other sizes"
        parts.append(f"{which} {FITTED[made.fit]} (--fit {made.fit})")
    if made.dtype == "uint16":
        parts.append("16 bits per channel, white is 65535")
    if made.compared:
        parts.append(f"{made.compared} read again, since an older version recorded no file times")
    return ", ".join(parts)


@contextmanager
def _progress_bar(progress: bool | None) -> Iterator[Progress]:
    """Show a progress bar; yield the function that updates it."""
    with show_count("pictures", progress) as update:
        yield lambda done, total, bad: update(done, total, f"{bad} left out" if bad else "")

"""``fcdcc export``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, get_args

import click

from fcdcc.storage.pictures import Fit, Interpolation

from ..errors import ModelError, OptionError
from ..formatting import counted, printable
from ..model.description import (
    OUTPUT_KINDS,
    ChannelOrder,
    ModelDescription,
    ModelPreparation,
)
from ..options import flag_of, shown_value
from ..stored_forms import read_class_names
from .click_adapter import NumbersType
from .command_output import check_can_write
from .ingest_command import MAX_PIXELS, SizeType
from .option_groups import GroupedCommand

MAX_NAMES_SHOWN = 3


class _ShapeType(click.ParamType[tuple[int, ...]]):
    """The shape of an image: ``C,H,W``, with one to three spatial sizes."""

    name = "C,H,W"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        parts = [part.strip() for part in str(value).split(",")]
        sizes = [int(part) if part.isdecimal() and len(part) < 8 else 0 for part in parts]
        if not 2 <= len(sizes) <= 4 or not all(sizes):
            self.fail(
                f"{shown_value(value)}: expected the channels and sizes of an image, such as "
                "3,224,224",
                param,
                ctx,
            )
        return tuple(sizes)


EXPORT_GROUPS = {
    "The network": ("weights", "random_weights", "chosen"),
    "The images that it takes": ("input_shape", "free_size"),
    "Stored in the file": (
        *("size", "fit", "resize", "interpolation", "channel_order", "white", "mean", "std"),
        *("classes", "head"),
    ),
    "Result": ("as_json",),
}
"""The options of each group."""


@click.command(cls=GroupedCommand, groups=EXPORT_GROUPS)
@click.argument("name")
@click.argument("output", metavar="MODEL.pt2")
@click.option(
    "--random-weights",
    is_flag=True,
    help="make the network of a library without its trained weights, and load nothing",
)
@click.option("--weights", help="which trained weights of the library, by name; by default its own")
@click.option(
    "--free-size", is_flag=True, help="export for images of any size; otherwise for one size"
)
@click.option(
    "--input-shape",
    type=_ShapeType(),
    help="channels and sizes of the images of the export; by default those that the library names",
)
@click.option(
    "--output",
    "chosen",
    metavar="OUTPUT",
    multiple=True,
    help="name or number of an output to export, of a network with several; may be given several "
    "times  [default: all that have an entry for each image]",
)
@click.option("--size", type=SizeType(), help="stored: size of the images, for fcdcc ingest --for")
@click.option(
    "--fit", type=click.Choice(get_args(Fit)), help="stored: how pictures are fitted to the size"
)
@click.option(
    "--resize",
    type=click.IntRange(1, MAX_PIXELS),
    help="stored: length of the shorter side before the cut",
)
@click.option(
    "--interpolation",
    type=click.Choice(get_args(Interpolation)),
    help="stored: filter by which pictures are scaled",
)
@click.option(
    "--channel-order",
    type=click.Choice(get_args(ChannelOrder)),
    help="stored: the channels that the network takes",
)
@click.option(
    "--white",
    type=float,
    help="stored: what white becomes before the mean is subtracted, usually 1 or 255",
)
@click.option("--mean", type=NumbersType(), help="stored: one number, or one per channel")
@click.option("--std", type=NumbersType(), help="stored: one number, or one per channel")
@click.option("--classes", metavar="FILE", help="stored: text file with class names, one per line")
@click.option(
    "--head", type=click.Choice(OUTPUT_KINDS), help="stored: what the output of the network is"
)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object instead of text")
def export(
    name: str,
    output: str,
    random_weights: bool,
    weights: str | None,
    free_size: bool,
    input_shape: tuple[int, ...] | None,
    chosen: tuple[str, ...],
    classes: str | None,
    head: Any,
    as_json: bool,
    **preparation: Any,
) -> None:
    """Export the network NAME to MODEL.pt2, with what belongs to it inside.

    NAME is torchvision:NAME, timm:NAME or transformers:FOLDER, if that library is installed, or
    package.module:function, a function without arguments that returns a network, in this folder
    or in your environment. The network is put in evaluation mode and exported for any number of
    images. The file is read again and compared with the network before it gets its name.

    The file says how images are prepared, the names of the classes and what the output is.
    fcdcc run, plan and infer use that unless options say otherwise, and fcdcc ingest --for makes
    images of that form.
    """
    names = None if classes is None else tuple(read_class_names(classes))
    given = {key: value for key, value in preparation.items() if value is not None}
    if "white" in given:
        given["value_range"] = (0.0, given.pop("white"))
    check_can_write(output)
    _say(f"loading {name}")
    from ..model.export.model_file import write_model_file
    from ..model.export.network_names import live_network

    live = live_network(name, random_weights=random_weights, weights=weights)
    live = live.with_options(
        preparation=_prepared(live.preparation.model_dump(exclude_none=True), given),
        class_names=names,
        output=head,
    )
    made = write_model_file(
        live, output, input_shape=input_shape, free_size=free_size, outputs=chosen, say=_say
    )
    description = made.model.description or ModelDescription()
    if as_json:
        click.echo(
            json.dumps(
                {
                    "network": name,
                    "file": output,
                    "bytes": made.bytes,
                    "input_shape": made.input_shape,
                    "output_shape": made.output_shape,
                    "output_shapes": made.output_shapes,
                    "steps": made.steps,
                    "compared": asdict(made.comparison),
                    "notes": made.notes,
                    "description": json.loads(description.to_json()),
                },
                indent=2,
            )
        )
        return
    for note in made.notes:
        _say(note)
    free = f", sizes in steps of {made.steps}" if free_size and made.steps > 1 else ""
    batch = made.input_shape[0]
    shapes = {n: _shape((batch, *sizes)) for n, sizes in made.output_shapes.items()}
    made_of = f"prediction {_shape((batch, *made.output_shape))}"
    if len(shapes) > 1:
        made_of = f"outputs {', '.join(f'{n} {shape}' for n, shape in shapes.items())}"
    click.echo(
        f"{output}: {name}, images {_shape(made.input_shape)}{free}, {made_of}, "
        f"{made.bytes / 1e6:.1f} MB"
    )
    click.echo(f"stored: {description.summary()}")
    same = {None: "", True: ", same top class", False: ", another top class"}
    compared = made.comparison
    click.echo(
        f"compared with the live network on {counted(compared.images, 'image')}: largest "
        f"difference {compared.error:.1e} of the largest value{same[compared.same_top]}"
    )


def _say(text: str) -> None:
    """Write one line to standard error."""
    click.echo(f"fcdcc: {printable(' '.join(text.split()))}", err=True)


def _prepared(known: dict[str, Any], given: dict[str, Any]) -> ModelPreparation:
    """Return a preparation with what was given in place of what is known.

    Raises
    ------
    OptionError
        If the values do not go together.
    """
    if given.get("size") not in (None, known.get("size")):  # another size has no known resize
        known = {key: value for key, value in known.items() if key != "resize"}
    if "fit" in given and given["fit"] in ("stretch", "pad", "exact"):
        known = {key: value for key, value in known.items() if key != "resize"}
    try:
        return ModelPreparation.of(**(known | given))
    except ModelError as error:
        options = ", ".join(map(flag_of, given))
        raise OptionError(f"{options}: {error}") from error


def _shape(sizes: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("any" if size is None else str(size) for size in sizes) + ")"

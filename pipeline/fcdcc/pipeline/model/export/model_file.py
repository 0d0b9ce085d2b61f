"""The model file of a live network: exported, described, read again and compared."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from fcdcc.storage.errors import OutputError

from ...errors import ModelError, OptionError, full_line
from ..description import DESCRIPTION_FILE, FORMAT_VERSION, ModelDescription, ModelPreparation
from ..head_analysis import find_head
from ..interpreter import run_outputs
from ..opening import Model, open_model
from ..output_bundle import SINGLE_OUTPUT
from ..outputs import main_output
from ..pt2.output_names import name_of_output
from .live_network import MAX_REASON, LiveNetwork

EXAMPLE_IMAGES = 2
"""Images of the export; ``torch.export`` takes a size of 1 for a constant."""

COMPARED_IMAGES = 3
"""Images that are compared: another number than was exported, so that the batch is seen to move."""

TOLERANCE = 1e-4
"""Largest difference from the live network, relative to the largest value, in float32."""

USUAL_TOLERANCE = 1e-5
"""Differences above this are said."""

STEPS = (1, 2, 4, 8, 16, 32, 64)
"""Numbers of which free sizes may have to be multiples, in the order in which they are tried."""

MIN_STEPS = 2
"""Free sizes are at least so many steps: at 1 convolutions and poolings need rules of their own."""

SEED = 20241109


@dataclass(frozen=True)
class Comparison:
    """How a model file agrees with the live network.

    Parameters
    ----------
    images
        How many images were compared.
    error
        The largest difference, relative to the largest value.
    same_top
        Whether the largest value of every image is at the same place; None for outputs that have
        no classes.
    """

    images: int
    error: float
    same_top: bool | None


@dataclass(frozen=True)
class Exported:
    """A model file that was written.

    Parameters
    ----------
    model
        As the file was read again.
    input_shape
        (batch, C, *space), None where a size is free.
    output_shapes
        Of the outputs for one image, by their names.
    steps
        Numbers of which free spatial sizes must be multiples.
    comparison
        With the live network.
    bytes
        Size of the file.
    notes
        What the user should know, each in one line.
    """

    model: Model
    input_shape: tuple[int | None, ...]
    output_shapes: Mapping[str, tuple[int, ...]]
    steps: int
    comparison: Comparison
    bytes: int
    notes: tuple[str, ...]

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of the main output for one image."""
        return self.output_shapes[main_output(self.output_shapes)]


Keys: TypeAlias = "tuple[str | int, ...]"
"""Keys and numbers that lead to a tensor in what a network returns."""


class _ChosenOutputs(nn.Module):
    """A network that gives some of its outputs: one as a tensor, several by their names."""

    def __init__(self, network: nn.Module, chosen: Mapping[str, Keys]) -> None:
        super().__init__()
        self.network = network
        self.chosen = dict(chosen)

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        returned = self.network(images)
        found = {name: _member(returned, keys) for name, keys in self.chosen.items()}
        return found if len(found) > 1 else next(iter(found.values()))


def _member(returned: Any, keys: Keys) -> Tensor:
    for key in keys:
        returned = returned[key]
    tensor: Tensor = returned
    return tensor


def _tensors(returned: Any, keys: Keys = ()) -> Iterator[tuple[Keys, Tensor]]:
    """Yield the tensors in what a network returns, with the keys that lead to them."""
    if isinstance(returned, Tensor):
        yield keys, returned
    elif isinstance(returned, Mapping):
        for key, value in returned.items():
            yield from _tensors(value, (*keys, key))
    elif isinstance(returned, tuple | list):
        for number, value in enumerate(returned):
            yield from _tensors(value, (*keys, number))


def write_model_file(
    live: LiveNetwork,
    path: str | os.PathLike[str],
    *,
    input_shape: Sequence[int] | None = None,
    free_size: bool = False,
    outputs: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
) -> Exported:
    """Export a live network to a ``.pt2`` file that says what belongs to it.

    The network is put in evaluation mode and float32, and exported with a free batch. The file is
    read again and compared with the live network before it gets its name; an earlier file of that
    name is replaced.

    Parameters
    ----------
    live
        The network.
    path
        Where to write.
    input_shape
        (C, *space) of the images; by default what the network's preparation or library says.
    free_size
        Whether the spatial sizes are free, too.
    outputs
        The names or numbers of outputs, for networks with several; by default all that have an
        entry for each image.
    say
        Called before each step, some of which take a minute, with what is done.

    Raises
    ------
    OptionError
        If the shape of the images is not known, the network cannot be run or exported, or its
        output cannot be what it is said to be.
    ModelError
        If the exported network cannot be run by fcdcc, or computes something else.
    OutputError
        If the file cannot be written.
    """
    place = Path(path)
    if place.is_dir() or not place.parent.is_dir():
        raise OutputError(f"{place} cannot be written: expected a file in an existing folder")
    say = say or _say_nothing
    notes = list(live.notes)
    module = _ready(live, notes)
    shape = _input_shape(live, module, input_shape)
    say(f"running {live.name} on {EXAMPLE_IMAGES} images of {_sides(shape)}, and exporting it")
    examples = _example_images(EXAMPLE_IMAGES, shape, live.preparation)
    module, made = _with_outputs(live, module, examples, outputs, notes)
    names, main = live.class_names, made[main_output(made)]
    if names is not None and (main.ndim < 2 or main.shape[1] != len(names)):
        raise OptionError(
            f"{len(names)} names of classes for {live.name}, which predicts "
            f"{tuple(main.shape[1:])} of an image: expected one name for each class"
        )
    preparation = live.preparation
    if preparation.size is not None and preparation.size != tuple(shape[1:]):
        notes.append(
            f"the images of its preparation are {_sides(preparation.size)} and those of the export "
            f"{_sides(shape[1:])}: --input-shape and --size set them"
        )
    program, steps, free_batch = _program(live.name, module, examples, free_size)
    if not free_batch:
        notes.append(
            f"its batch is fixed at {EXAMPLE_IMAGES}, because it cannot be exported for any number "
            "of images"
        )
    description = ModelDescription.of(
        {
            "version": FORMAT_VERSION,
            "network": live.name,
            "preparation": preparation.model_dump(mode="json", exclude_none=True),
            "class_names": names,
            "output": live.output,
            "versions": dict(live.versions),
        },
        str(place),
    )
    with _temporary(place) as temporary:
        _save(program, temporary, description)
        say("reading the file again, as fcdcc run does")
        model = _read_again(temporary, place)
        if live.output is not None:
            find_head(model.network, shape).named(live.output)
        shapes = [(COMPARED_IMAGES if free_batch else EXAMPLE_IMAGES, *shape)]
        if free_size:
            shapes.append((shapes[0][0], shape[0], *(side + steps for side in shape[1:])))
        say("comparing it with the live network")
        compared = [_compare(live, module, model, shape) for shape in shapes]
        worst = max(compared, key=lambda one: one.error)
        total = sum(one.images for one in compared)
        same = None if worst.same_top is None else all(one.same_top for one in compared)
        if worst.error > USUAL_TOLERANCE:
            notes.append(f"it differs from the live network by {worst.error:.1e}, more than usual")
        size = temporary.stat().st_size
        _replace(temporary, place)
    notes.extend(f"its output {n} is left out: {r}" for n, r in model.network.left_out.items())
    free = tuple(None if free_size else side for side in shape[1:])
    batch = None if free_batch else EXAMPLE_IMAGES
    return Exported(
        model,
        (batch, shape[0], *free),
        {name: tuple(made[name].shape[1:]) for name in made if name in model.network.outputs},
        steps,
        Comparison(total, worst.error, same),
        size,
        tuple(notes),
    )


def _say_nothing(what: str) -> None:
    """Take the place of a function that shows the steps."""


def _sides(sides: Sequence[int]) -> str:
    return " × ".join(map(str, sides))


def _ready(live: LiveNetwork, notes: list[str]) -> nn.Module:
    """Return the network in evaluation mode, in float32, on the CPU, without gradients."""
    module = live.module.eval().requires_grad_(requires_grad=False).cpu()
    dtypes = {tensor.dtype for tensor in module.parameters() if tensor.is_floating_point()}
    if dtypes - {torch.float32, torch.float64}:
        listed = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        notes.append(f"its weights are {listed} and are exported as float32")
        module = module.float()
    return module


def _input_shape(
    live: LiveNetwork, module: nn.Module, given: Sequence[int] | None
) -> tuple[int, ...]:
    """Return (C, *space) of the images."""
    shape = tuple(given) if given is not None else live.input_shape
    if shape is None and live.preparation.size is not None:
        channels = live.preparation.channels or _first_channels(module)
        if channels is not None:
            shape = (channels, *live.preparation.size)
    if shape is None:
        raise OptionError(
            f"the shape of the images of {live.name} is not known: give --input-shape C,H,W, such "
            "as --input-shape 3,224,224"
        )
    return shape


def _first_channels(module: nn.Module) -> int | None:
    """Return the channels of the images by the first convolution, if there is one."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            return int(layer.in_channels)
    return None


def _example_images(images: int, shape: Sequence[int], preparation: ModelPreparation) -> Tensor:
    """Return random images, prepared as the network expects; the same in every call."""
    dice = torch.Generator().manual_seed(SEED + images)
    made = torch.rand((images, *shape), generator=dice)
    per_channel = (1, -1, *(1 for _ in shape[1:]))
    if preparation.value_range is not None:
        made *= preparation.value_range[1]
    if preparation.mean is not None:
        made -= torch.tensor(preparation.mean).reshape(per_channel)
    if preparation.std is not None:
        made /= torch.tensor(preparation.std).reshape(per_channel)
    return made


def _run_live(live: LiveNetwork, module: nn.Module, images: Tensor) -> Any:
    try:
        with torch.no_grad(), _quiet():
            dtype = next((one.dtype for one in module.parameters()), torch.float32)
            return module(images.to(dtype))
    except Exception as error:
        raise OptionError(
            f"{live.name} cannot be run on images {tuple(images.shape)}: "
            f"{full_line(error):.{MAX_REASON}}; --input-shape sets another shape"
        ) from error


def _with_outputs(
    live: LiveNetwork,
    module: nn.Module,
    images: Tensor,
    wanted: Sequence[str],
    notes: list[str],
) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return the network with the outputs to export, and these outputs for some images."""
    returned = _run_live(live, module, images)
    if isinstance(returned, Tensor):
        if wanted:
            raise OptionError(
                f"--output {wanted[0]!r:.80}: {live.name} has one output: leave it out"
            )
        return module, {SINGLE_OUTPUT: returned}
    found = {name_of_output(keys): (keys, tensor) for keys, tensor in _tensors(returned)}
    if not found:
        raise OptionError(
            f"{live.name} gives {type(returned).__name__}; expected a tensor, or tuples, lists and "
            "dictionaries of tensors"
        )
    texts = {str(keys[0]): name for name, (keys, _) in found.items() if len(keys) == 1}
    for name in wanted:
        if name not in found and name not in texts:
            raise OptionError(
                f"--output {name!r:.80} of {live.name}; expected one of {', '.join(found)}"
            )
    names = {name if name in found else texts[name] for name in wanted}
    chosen = {name: pair for name, pair in found.items() if name in names}
    if not wanted:
        chosen = {n: (k, t) for n, (k, t) in found.items() if t.shape[:1] == images.shape[:1]}
        if not chosen:
            raise OptionError(
                f"no output of {live.name} has an entry for each image along its first axis: "
                f"{', '.join(f'{n} {tuple(t.shape)}' for n, (_, t) in found.items())}"
            )
    others = [name for name in found if name not in chosen]
    if others:
        notes.append(
            f"of its outputs {', '.join(chosen)} {'are' if len(chosen) > 1 else 'is'} exported, "
            f"without {', '.join(others)} (--output)"
        )
    network = _ChosenOutputs(module, {name: keys for name, (keys, _) in chosen.items()})
    if len(chosen) == 1:  # it is a tensor in the file, which has no name
        ((_, tensor),) = chosen.values()
        return network.eval(), {SINGLE_OUTPUT: tensor}
    return network.eval(), {name: tensor for name, (_, tensor) in chosen.items()}


def _program(
    name: str, module: nn.Module, images: Tensor, free_size: bool
) -> tuple[ExportedProgram, int, bool]:
    """Export a network; return it, the steps of its free sizes, and whether its batch is free.

    Raises
    ------
    OptionError
        If it cannot be exported.
    """
    dtype = next((one.dtype for one in module.parameters()), torch.float32)
    images = images.to(dtype)
    reason: Exception | None = None
    for step in STEPS if free_size else (1,):
        free: dict[int, Any] = {0: Dim.DYNAMIC}
        for axis in range(2, images.ndim if free_size else 0):
            free[axis] = Dim.DYNAMIC if step == 1 else step * Dim(f"side{axis}", min=MIN_STEPS)
        if any(images.shape[axis] % step for axis in free if axis):
            continue
        try:
            if free_size:  # a network that only adds what is equally large shows it in no graph
                sides = [side + step for side in images.shape[2:]]
                module(torch.zeros((*images.shape[:2], *sides), dtype=dtype))
            return _export(module, images, free), step, True
        except Exception as error:  # noqa: BLE001 - torch.export raises almost anything
            reason = reason or error
    if free_size:
        raise OptionError(
            f"{name} cannot be exported for images of any size: {_reason(reason)}; leave "
            "--free-size out"
        ) from reason
    try:
        return _export(module, images, None), 1, False
    except Exception as error:
        raise OptionError(f"{name} cannot be exported: {_reason(error)}") from error


def _reason(error: BaseException | None) -> str:
    """Return the first sentence of an error of ``torch.export``, which prints whole graphs."""
    text = "" if error is None else full_line(error)
    return re.split(r"(?<=[.!]) |The following call|Traceback", text)[0][:MAX_REASON]


def _export(
    module: nn.Module, images: Tensor, dynamic: Mapping[int, Any] | None
) -> ExportedProgram:
    shapes = None if dynamic is None else (dict(dynamic),)
    with torch.no_grad(), _quiet():
        # A copy, since the export notes on its examples which of their sizes are dynamic.
        return torch.export.export(module, (images.clone(),), dynamic_shapes=shapes)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the warnings of other people's code off the terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _temporary(place: Path) -> Iterator[Path]:
    """Yield a file beside the one to write, which is removed if it is still there at the end."""
    temporary = place.with_name(f".{place.name}.{os.getpid()}.pt2")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _save(program: ExportedProgram, path: Path, description: ModelDescription) -> None:
    try:
        with _quiet():
            torch.export.save(program, path, extra_files={DESCRIPTION_FILE: description.to_json()})
    except (OSError, RuntimeError) as error:
        raise OutputError(f"{path.parent} cannot be written to: {full_line(error):.300}") from error


def _read_again(temporary: Path, place: Path) -> Model:
    """Return the model in a file, by the name that it will have."""
    try:
        return replace(open_model(temporary), source=str(place))
    except ModelError as error:
        message = str(error).replace(str(temporary), str(place))
        raise type(error)(f"{message} (it was not written)") from error


def _replace(temporary: Path, place: Path) -> None:
    try:
        temporary.replace(place)
    except OSError as error:
        raise OutputError(f"{place} cannot be written: {error.strerror or error}") from error


def _compare(
    live: LiveNetwork, module: nn.Module, model: Model, shape: Sequence[int]
) -> Comparison:
    """Return how a model agrees with the live network on random images.

    Raises
    ------
    ModelError
        If they do not agree.
    """
    images = _example_images(shape[0], shape[1:], live.preparation)
    returned = _run_live(live, module, images)
    found = run_outputs(model.network, images.to(model.network.input_dtype))
    if isinstance(returned, Tensor):
        returned = dict.fromkeys(found, returned)
    compared = [
        _compare_output(live, model, name, returned[name], output) for name, output in found.items()
    ]
    tops = [one.same_top for one in compared if one.same_top is not None]
    return Comparison(shape[0], max(one.error for one in compared), all(tops) if tops else None)


def _compare_output(
    live: LiveNetwork, model: Model, name: str, expected: Tensor, found: Tensor
) -> Comparison:
    """Return how one output of a model agrees with that of the live network."""
    what = "" if len(model.network.outputs) == 1 else f" for the output {name}"
    if found.shape != expected.shape:
        raise ModelError(
            f"{model.source} gives {tuple(found.shape)} and the live network of {live.name} "
            f"{tuple(expected.shape)}{what}: it cannot be used"
        )
    images = len(found)
    if not expected.is_floating_point():
        error = 0.0 if torch.equal(found, expected) else 1.0
        return _checked(live, model, Comparison(images, error, None), what)
    if not bool(torch.isfinite(expected).all()):
        raise ModelError(f"{live.name} gives values that are not finite for random images{what}")
    scale = max(float(expected.abs().max()), torch.finfo(torch.float32).tiny)
    difference = (found.double() - expected.double()).abs().max()
    error = float(difference) / scale
    same = None
    if expected.ndim > 1 and expected.shape[1] > 1:
        at_most = expected.amax(1)
        chosen = expected.gather(1, found.argmax(1, keepdim=True)).squeeze(1)
        same = bool((chosen >= at_most - 2 * TOLERANCE * scale).all())
    return _checked(live, model, Comparison(images, error, same), what)


def _checked(live: LiveNetwork, model: Model, comparison: Comparison, what: str) -> Comparison:
    if (
        comparison.error > TOLERANCE
        or comparison.same_top is False
        or comparison.error != (comparison.error)
    ):
        raise ModelError(
            f"{model.source} would differ from the live network of {live.name} by "
            f"{comparison.error:.1e} of its largest value{what}, expected at most "
            f"{TOLERANCE:g}: it was not written; is the network random in evaluation mode?"
        )
    return comparison

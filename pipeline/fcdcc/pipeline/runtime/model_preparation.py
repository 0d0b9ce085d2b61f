"""What a model file says of its images and classes, as options of a job.

Options that are given win, and where they contradict the file that is a warning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import torch

from fcdcc.storage import PreparationError
from fcdcc.storage.preparation import Preparation

from ..errors import ModelError, OptionError
from ..model import Model
from ..model.description import ModelDescription, numbers_in_words
from ..options import PlanOptions
from ..stored_forms import class_coordinate
from .output import PredictionSpec

Options = TypeVar("Options", bound=PlanOptions)

SWAPPED = ("2", "1", "0")
"""The channels of red, green and blue images for a network that takes blue, green and red."""

RGB_CHANNELS = 3


@dataclass(frozen=True)
class PreparedByModel(Generic[Options]):
    """Options that are completed by what a model file says.

    Parameters
    ----------
    options
        With the scale, mean and standard deviation of the file where they are not given.
    origin
        Which of these are those of the file, in words; empty if none are.
    warnings
        What was given and contradicts the file, each in one line.
    """

    options: Options
    origin: str
    warnings: tuple[str, ...]


def with_model_channels(options: Options, model: Model) -> Options:
    """Return options with the order of channels that a model file asks for, unless it is given.

    Images of three channels are taken for red, green and blue, as ``fcdcc ingest`` writes them.
    """
    described = model.description
    if described is None or described.preparation.channel_order != "bgr":
        return options
    if "channels" in options.model_fields_set or model.network.input_shape[1] != RGB_CHANNELS:
        return options
    return options.model_copy(update={"channels": SWAPPED})


def with_model_dtype(options: Options, model: Model) -> Options:
    """Return options with a data type of the computation that is not ``auto``."""
    if options.dtype != "auto":
        return options
    own = str(model.network.exported.precision).removeprefix("torch.")
    return options.model_copy(update={"dtype": "float32" if own == "float16" else own})


def prepared_dtype(dtype: str) -> Literal["float32", "float64"]:
    """Return the type of prepared images for a data type of the computation."""
    return "float64" if dtype == "float64" else "float32"


def _bytes_for_the_network(options: Options, model: Model, dtype: str) -> PreparedByModel[Options]:
    """Return options for a network that takes bytes and scales them itself.

    Raises
    ------
    OptionError
        If the images are no bytes, or are to be prepared.
    """
    described = model.description
    preparation = None if described is None else described.preparation
    if preparation is not None and (
        preparation.mean or preparation.std or (preparation.value_range or (0, 255))[1] != 255
    ):
        raise ModelError(
            f"{model.source} takes bytes and scales them itself, and its description scales them "
            "as well: export the model again with fcdcc export"
        )
    refused = [name for name in ("mean", "std") if getattr(options, name) is not None]
    if options.scale not in ("auto", "none"):
        refused.insert(0, "scale")
    if refused:
        raise OptionError(
            f"--{refused[0]} for {model.source}, which takes bytes and scales them itself: leave "
            f"{' and '.join(f'--{name}' for name in refused)} out"
        )
    if np.dtype(dtype) != np.uint8:
        raise OptionError(
            f"{model.source} takes bytes (uint8) and scales them itself, and the images are "
            f"{dtype}: store them as uint8, or export the model without its scaling"
        )
    return PreparedByModel(
        options.model_copy(update={"scale": "none"}), "bytes, which the network scales itself", ()
    )


def _converted(options: PlanOptions, model: Model) -> Iterator[str]:
    """Yield what is computed in another precision than the one that a model was exported in."""
    own = str(model.network.exported.precision).removeprefix("torch.")
    if own not in ("float16", "bfloat16") or options.dtype == own:
        return
    advice = "; --dtype bfloat16 computes as exported, uncoded" if own == "bfloat16" else ""
    yield (
        f"{model.source} was exported in {own} and is computed in {options.dtype}, its weights "
        f"converted{advice}"
    )


def with_model_preparation(options: Options, model: Model, dtype: str) -> PreparedByModel[Options]:
    """Return options with the scale, mean and standard deviation that a model file asks for.

    Parameters
    ----------
    options
        Those that are given.
    model
        The model.
    dtype
        Type of the images, decoded. Integers have white at the largest number of their type;
        floats are taken to be in the range of the network already.
    """
    converted = tuple(_converted(options, model))
    if model.network.exported.dtype == torch.uint8:
        return replace(_bytes_for_the_network(options, model, dtype), warnings=converted)
    described = model.description
    if described is None:
        return PreparedByModel(options, "", converted)
    stored = described.preparation
    found: dict[str, Any] = {"mean": stored.mean, "std": stored.std}
    if stored.value_range is not None:
        found["scale"] = _scale(stored.value_range[1], np.dtype(dtype))
    found = {name: value for name, value in found.items() if value is not None}
    given = {name for name in found if name in options.model_fields_set}
    taken = {name: value for name, value in found.items() if name not in given}
    words: list[str] = [name for name in ("scale", "mean", "std") if name in taken]
    if stored.channel_order == "bgr" and options.channels == SWAPPED:
        words.append("order of channels")
    origin = f"{', '.join(words)} as {model.source} says" if words else ""
    warnings = _contradictions(options, found, given, model.source, np.dtype(dtype))
    taken_over = options.model_copy(update=taken)
    return PreparedByModel(taken_over, origin, (*converted, *warnings))


def _scale(white: float, dtype: np.dtype[Any]) -> str | float | None:
    """Return the scale by which the white of a type becomes a number; None for other types."""
    if dtype.kind != "u":
        return None
    largest = float(np.iinfo(dtype).max)
    if largest == white:
        return "none"
    if white == 1:
        return "auto" if dtype == np.uint8 else "max"
    return largest / white


def _contradictions(
    options: PlanOptions,
    found: dict[str, Any],
    given: set[str],
    source: str,
    dtype: np.dtype[Any],
) -> Iterator[str]:
    """Yield what is given and differs from what a file says."""
    for name in ("mean", "std"):
        value = getattr(options, name)
        if name in given and not _equal(value, found[name]):
            yield (
                f"--{name} {numbers_in_words(value)} is used, and {source} was exported with the "
                f"{name} {numbers_in_words(found[name])}: leave --{name} out to use that"
            )
    if "scale" in given:
        try:
            ours = Preparation(scale=options.scale).divisor(dtype)
            theirs = Preparation(scale=found["scale"]).divisor(dtype)
        except PreparationError:  # refused where the images are prepared
            return
        if ours != theirs:
            yield (
                f"--scale {options.scale} is used, and {source} was exported for --scale "
                f"{found['scale']} of {dtype} images: leave --scale out to use that"
            )


def _equal(ours: tuple[float, ...], theirs: tuple[float, ...]) -> bool:
    length = max(len(ours), len(theirs))
    pairs = [values * length if len(values) == 1 else values for values in (ours, theirs)]
    return len(pairs[0]) == len(pairs[1]) and bool(np.allclose(pairs[0], pairs[1], rtol=1e-6))


def picture_advice(description: ModelDescription | None, model: str) -> str:
    """Return what to do about images of another size; empty if the file does not say its size."""
    if description is None or description.preparation.size is None:
        return ""
    height, width = description.preparation.size
    return (
        f"; the model is for images of {height} × {width}, which fcdcc ingest FOLDER OUT.zarr "
        f"--for {model} makes of pictures"
    )


def with_model_classes(spec: PredictionSpec, model: Model) -> PredictionSpec:
    """Return what a job stores, with the class names of the model file unless others are given.

    Raises
    ------
    ModelError
        If the file names another number of classes than the network predicts.
    """
    names = None if model.description is None else model.description.class_names
    head = spec.stored.head_of_classes
    if names is None or spec.names is not None or not head.has_classes:
        return spec
    if head.classes not in (None, len(names)):
        raise ModelError(
            f"{model.source} names {len(names)} classes and predicts {head.classes}: export the "
            "model again with fcdcc export"
        )
    return replace(spec, names=class_coordinate(names))

"""A look at a few images before a run: what they become, and whether that is plausible.

Pictures of the wrong range give predictions without any error. So a small part of the input is
read and prepared as the run will prepare it, and what is implausible is said with the option that
would change it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcdcc.storage import ImageSource, InputError, Preparation
from fcdcc.storage.chunk_listing import ChunkListing

from ..formatting import counted, rounded
from ..model.network import GlueStage, Network, Ref

logger = logging.getLogger(__name__)

MAX_IMAGES = 8
"""Most images of a sample."""

MAX_CHUNKS_LOOKED_AT = 1000
"""Chunks among which the first one that is stored is looked for."""

MAX_SAMPLE_BYTES = 2**25
"""Most bytes of a sample, unless one chunk of one image is larger."""

LARGE = 16.0
"""Prepared values beyond this are implausible where they should be near 1."""

FEW = 1 / 8
"""Part of the range of a type below which values seem to use fewer bits."""

USUAL_LIMITS = (255, 1023, 4095, 16383, 65535)
"""Largest numbers of 8, 10, 12, 14 and 16 bits."""

MIN_LEADING_DIVISOR = 64.0
"""A network that begins by dividing by this or more expects images that are not scaled."""

_SCALING = {
    "aten.div.Tensor": True,
    "aten.div.Scalar": True,
    "aten.mul.Tensor": False,
    "aten.mul.Scalar": False,
}
"""Operators that scale their first argument, and whether they divide."""


@dataclass(frozen=True)
class ValueRange:
    """Finite values of a sample; None where there are none."""

    smallest: float | None
    largest: float | None
    mean: float | None


@dataclass(frozen=True)
class ImageSample:
    """What a few images are, and what they become.

    Parameters
    ----------
    images
        Number of images in the sample.
    stored_dtype
        Of the stored numbers.
    decoding
        How they are decoded, in words; None if they are used as they are.
    divisor
        What they are divided by; None if their scale is unchanged.
    dtype
        Of the prepared images.
    values
        The values of all channels together.
    channels
        The values of each channel.
    missing
        Part of the values that are NaN, from 0 to 1.
    warnings
        What is implausible, each in one line with what to do.
    origin
        What of that the model file asked for, in words; empty if nothing.
    """

    images: int
    stored_dtype: str
    decoding: str | None
    divisor: float | None
    dtype: str
    values: ValueRange
    channels: tuple[ValueRange, ...]
    missing: float
    warnings: tuple[str, ...]
    origin: str = ""

    def __str__(self) -> str:
        source = self.decoding or self.stored_dtype
        scaled = "" if self.divisor is None else f", divided by {self.divisor:g}"
        missing = ""
        if self.missing:
            missing = (
                f"; {100 * self.missing:.2g} % of the values are NaN, and so is most of what is "
                "predicted from an image with NaN in it"
            )
        origin = f" ({self.origin})" if self.origin else ""
        values = f"values of {counted(self.images, 'image')} {_range(self.values)}"
        return f"{source}{scaled}, as {self.dtype}{origin}; {values}{missing}"

    def to_dict(self) -> dict[str, Any]:
        """Return the sample as plain values; ``text`` has them in words."""
        return {"text": str(self), **asdict(self)}


def look_at_images(
    source: ImageSource,
    preparation: Preparation,
    network: Network,
    listing: ChunkListing | None = None,
    origin: str = "",
) -> ImageSample | None:
    """Log what is implausible about a small part of the input, and return what it becomes.

    None if it cannot be read; then the blocks that need it will fail, and others may not. With
    ``listing`` it is a part that is stored, if there is one near the beginning. ``origin`` says
    what of the preparation the model file asked for.
    """
    try:
        first = first_stored(source, listing)
        sample = sample_images(source, preparation, network, first, origin)
    except InputError as error:
        logger.warning("a sample of the images cannot be read: %s", error)
        return None
    for warning in sample.warnings:
        logger.warning("%s", warning)
    return sample


def first_stored(source: ImageSource, listing: ChunkListing | None) -> int:
    """Return the first image of a chunk that is stored; 0 if none is near the beginning."""
    last = min(source.images, MAX_CHUNKS_LOOKED_AT * source.image_chunk)
    for first in range(0, last if listing is not None else 0, source.image_chunk):
        if listing is not None and not listing.absent([(first, first + 1, None)]).count:
            return first
    return 0


def sample_images(
    source: ImageSource,
    preparation: Preparation,
    network: Network,
    first: int = 0,
    origin: str = "",
) -> ImageSample:
    """Return what a small part of the input becomes, and what is implausible about it.

    One chunk is read of each array: of the images from ``first`` on, in the middle of them.

    Raises
    ------
    InputError
        If it cannot be read.
    PreparationError
        If the images cannot be prepared in this way.
    """
    raw = source.read_sample(first, MAX_IMAGES, MAX_SAMPLE_BYTES)
    decodings = [str(part.decoding) for part in source.parts if part.decoding is not None]
    stored_dtype = source.stored_dtype or source.dtype
    decoding = decodings[0] if decodings else None
    return sample_of(raw, preparation, network, stored_dtype, decoding, origin)


def sample_of(
    raw: NDArray[Any],
    preparation: Preparation,
    network: Network,
    stored_dtype: str | None = None,
    decoding: str | None = None,
    origin: str = "",
) -> ImageSample:
    """Return what some images become, and what is implausible about them.

    Parameters
    ----------
    raw
        (n, c, *space), decoded.
    preparation, network
        How they are prepared, and what they are for.
    stored_dtype, decoding
        Type of the stored numbers, by default that of ``raw``; how they were decoded, in words.
    origin
        What of the preparation the model file asked for, in words.

    Raises
    ------
    PreparationError
        If the images cannot be prepared in this way.
    """
    prepared = preparation.apply(raw)
    dtype = raw.dtype
    sample = ImageSample(
        images=len(raw),
        stored_dtype=stored_dtype or dtype.name,
        decoding=decoding,
        divisor=preparation.divisor(dtype),
        dtype=prepared.dtype.name,
        values=_values(prepared),
        channels=tuple(_values(prepared[:, channel]) for channel in range(prepared.shape[1])),
        missing=float(np.count_nonzero(np.isnan(prepared)) / prepared.size),
        warnings=(),
        origin=origin,
    )
    warnings = tuple(_warnings(sample, _values(raw), dtype, preparation, network))
    return ImageSample(**{**vars(sample), "warnings": warnings})


def _values(numbers: NDArray[Any]) -> ValueRange:
    finite = numbers[np.isfinite(numbers)]
    if not finite.size:
        return ValueRange(None, None, None)
    mean = float(finite.mean(dtype=np.float64))
    return ValueRange(float(finite.min()), float(finite.max()), mean)


def _range(found: ValueRange) -> str:
    if found.smallest is None:
        return "are all NaN or infinite"
    smallest, largest, mean = map(rounded, (found.smallest, found.largest, found.mean))
    return f"from {smallest} to {largest}, on average {mean}"


def _warnings(
    sample: ImageSample,
    raw: ValueRange,
    dtype: np.dtype[Any],
    preparation: Preparation,
    network: Network,
) -> Iterator[str]:
    """Yield what is implausible about a sample, each with what to do."""
    if raw.smallest is None or raw.largest is None:
        return
    largest = max(abs(raw.smallest), abs(raw.largest))
    prepared = max(
        max(abs(found.smallest or 0.0), abs(found.largest or 0.0)) for found in sample.channels
    )
    divisor, leading = sample.divisor, leading_divisor(network)
    mean, std = _largest(preparation.mean), _largest(preparation.std)
    if divisor is not None and max(mean, std) > 1 and largest <= divisor:
        yield (
            f"the mean or standard deviation ({max(mean, std):g}) is above 1, and the images are "
            f"divided by {divisor:g} first, to [0, 1]: give --scale none, or divide --mean and "
            f"--std by {divisor:g}"
        )
    elif divisor is None and dtype.kind in "iu" and dtype.itemsize > 1 and prepared > LARGE:
        if leading is None:
            yield (
                f"the images are {dtype} and are not scaled: values up to {prepared:.4g} go into "
                f"the network. If it expects [0, 1], give --scale max (divides by "
                f"{np.iinfo(dtype).max}), or what a pixel can have at most: {_limits(raw)}"
            )
    elif divisor is None and dtype.kind == "f" and 0 < mean <= 1 and largest > LARGE:
        yield (
            f"the images have values up to {largest:.4g} and the mean is {mean:g}: they seem to be "
            f"in different units. If the mean is for images in [0, 1], give {_limits(raw)}"
        )
    if sample.origin and dtype.kind == "f" and mean > 0 and -LARGE < raw.smallest < -FEW:
        yield (
            f"the images have values from {raw.smallest:.4g} to {raw.largest:.4g}, and the model "
            "file asks for a mean to be subtracted from values in [0, 1]: if they are prepared "
            "already, give --mean 0 --std 1"
        )
    if divisor is not None and divisor < 1 and prepared > LARGE:
        yield (
            f"--scale {divisor:g} divides, and values up to {prepared:.4g} go into the network: "
            f"give --scale {1 / divisor:.6g} to multiply by {divisor:g}"
        )
    if preparation.scale == "max" and divisor is not None and 0 < largest < FEW * divisor:
        yield (
            f"--scale max divides by {divisor:g}, and the largest value of the sample is "
            f"{largest:.4g}: if the images use fewer bits, give {_limits(raw)}"
        )
    if leading is not None and divisor is not None and divisor > 1:
        yield (
            f"the network begins by dividing by {leading:g}, and the images are divided by "
            f"{divisor:g} before: give --scale none"
        )
    elif leading is not None and divisor is None and 0 < largest <= 1 and dtype.kind == "f":
        yield (
            f"the network begins by dividing by {leading:g}, and the images have no values above "
            f"{largest:.4g}: they seem to be scaled already; give --scale {1 / leading:.6g} to "
            f"multiply them by {leading:g}"
        )


def _limits(raw: ValueRange) -> str:
    """Return the options that divide by a usual largest value that is not below the sample's."""
    largest = raw.largest or 0.0
    found = [limit for limit in USUAL_LIMITS if limit >= largest][:2]
    return " or ".join(f"--scale {limit}" for limit in found) or f"--scale {largest:g}"


def _largest(values: tuple[float, ...] | float | None) -> float:
    if values is None:
        return 0.0
    return max(abs(value) for value in (values if isinstance(values, tuple) else (values,)))


def leading_divisor(network: Network) -> float | None:
    """Return what a network divides its input by before anything else; None if that is little."""
    value, factor = network.input, 1.0
    first = next(iter(network.stages), None)
    for step in first.steps if isinstance(first, GlueStage) else ():
        divides = _SCALING.get(step.op)
        if divides is None or len(step.args) < 2 or step.args[0] != Ref(value):
            break
        number = _number(step.args[1], network)
        if number is None or number == 0:
            break
        factor = factor * number if divides else factor / number
        value = step.name
    return factor if math.isfinite(factor) and factor >= MIN_LEADING_DIVISOR else None


def _number(argument: object, network: Network) -> float | None:
    """Return the number that an argument is: a literal, or a tensor of equal numbers."""
    if isinstance(argument, int | float):
        return float(argument)
    tensor = network.tensors.get(argument.name) if isinstance(argument, Ref) else None
    if tensor is None or not tensor.numel() or bool((tensor != tensor.flatten()[0]).any()):
        return None
    return float(tensor.flatten()[0])

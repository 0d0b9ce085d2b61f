"""The meaning of the axes of a stored array: images, channels, space.

The axes become (n, c, *space), with one to three spatial axes. The names of the axes decide if
they can, else the model's input shape if exactly one of the orders (n, c, *space) and
(n, *space, c) fits it. Otherwise it is an error: a wrong guess would give wrong predictions
without a message.

An array may have more or fewer axes than the model's input: axes of length 1 are left out, an
axis of one channel is added where the model takes one channel, and an array without an axis of
images is a batch of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import InputError

__all__ = ["MAX_RANK", "Axes", "find_axes", "is_image_rank"]

Role = Literal["image", "channel", "space", "dropped"]

_IMAGES = frozenset({
    "b", "batch", "chip", "chips", "ensemble", "example", "examples", "field", "file",
    "filename", "files", "fov", "id", "idx", "image", "image_id", "images", "index", "item",
    "items", "member", "n", "num", "obs", "observation", "patch", "patches", "realization",
    "record", "sample", "samples", "scene", "scenes", "series", "site", "tile", "tiles", "well",
})  # fmt: skip
_CHANNELS = frozenset({
    "band", "bands", "c", "ch", "chan", "channel", "channels", "color", "colors", "colour",
    "colours", "component", "components", "features", "pol", "polarisation", "polarization",
    "rgb", "rgba", "spectral", "stain", "var", "variable", "wavelength",
})  # fmt: skip
_SPACE = frozenset({
    "col", "cols", "column", "columns", "easting", "h", "height", "j", "l", "lat", "latitude",
    "length", "line", "lines", "lon", "longitude", "northing", "nx", "ny", "pixel", "pixels",
    "rlat", "rlon", "row", "rows", "w", "width", "x", "xc", "y", "yc",
})  # fmt: skip
_IMAGES_OR_SPACE = frozenset({
    "d", "date", "datetime", "day", "depth", "frame", "frames", "height_above_ground", "hour",
    "i", "level", "levels", "m", "month", "p", "plane", "planes", "pos", "position",
    "positions", "slice", "slices", "step", "t", "time", "timestamp", "valid_time", "year", "z",
})  # fmt: skip
"""Names of axes along which there are images for one model, and space for another."""

MAX_RANK = 6
"""Most axes of an array that is read."""

Expected = tuple["int | None", ...]


@dataclass(frozen=True)
class Axes:
    """How the axes of a stored array become (n, c, *space).

    Parameters
    ----------
    order
        For each of (n, c, *space) the axis of the stored array; None for an axis of length 1
        that the stored array does not have.
    names
        Names of the axes in the order (n, c, *space).
    dropped
        Axes of the stored array that are left out; all have length 1.
    """

    order: tuple[int | None, ...]
    names: tuple[str, ...]
    dropped: tuple[int, ...] = ()

    @property
    def channels_last(self) -> bool:
        """False for (n, c, *space), true for (n, *space, c)."""
        channel, space = self.order[1], self.order[2]
        return channel is not None and space is not None and channel > space

    def shape_of(self, stored: Sequence[int]) -> tuple[int, ...]:
        """Return the shape (n, c, *space) of an array that is stored in this shape."""
        return tuple(1 if axis is None else int(stored[axis]) for axis in self.order)

    def arrange(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Return a stored array, or a part of it that has all its axes, as (n, c, *space).

        It is a view where NumPy can make one.
        """
        kept = [axis for axis in self.order if axis is not None]
        behind = tuple(range(len(kept), stored.ndim))
        arranged = stored.transpose(*kept, *self.dropped).squeeze(behind)
        added = tuple(place for place, axis in enumerate(self.order) if axis is None)
        return np.expand_dims(arranged, added)


class _Meaning(NamedTuple):
    """What the name of an axis says: the roles that it may have, and whether it is vague."""

    roles: tuple[Role, ...]
    vague: bool = False


_UNKNOWN = _Meaning(("image", "channel", "space"))


class _Reading(NamedTuple):
    """One way to read the axes of an array."""

    changes: int
    """Axes that are left out or added."""
    image_place: int
    """The axis of images; the rank if it is added."""
    order: tuple[int | None, ...]
    dropped: tuple[int, ...]


def is_image_rank(rank: int) -> bool:
    """Return whether an array of so many axes can hold images with 1 to 3 spatial axes."""
    return 3 <= rank <= 5


def find_axes(
    shape: tuple[int, ...],
    names: Sequence[str | None] | None,
    expect: Expected | None,
    what: str = "the array",
    kinds: Sequence[str | None] | None = None,
) -> Axes:
    """Return the order of the axes of an array.

    Parameters
    ----------
    shape
        Of the stored array.
    names
        Its dimension names; None if it has none, and None for an axis without a name.
    expect
        The model's input shape (batch, C, *space), None for an axis of any size.
    what
        The array, as messages name it.
    kinds
        What OME-Zarr metadata says of its axes: ``time``, ``channel``, ``space``.

    Raises
    ------
    InputError
        If the rank is wrong, the names are in an order that is not read, the sizes do not fit
        ``expect``, or neither names nor sizes decide.

    Examples
    --------
    >>> find_axes((1, 3, 1, 64, 64), ("t", "c", "z", "y", "x"), (None, 3, 64, 64)).order
    (0, 1, 3, 4)
    >>> find_axes((20, 64, 64), ("time", "y", "x"), (None, 1, 64, 64)).order
    (0, None, 1, 2)
    """
    known = [None] * len(shape) if names is None else list(names)
    said = [None] * len(shape) if kinds is None else list(kinds)
    meanings = [_meaning(name, kind) for name, kind in zip(known, said, strict=True)]
    spaces = (1, 2, 3) if expect is None else (len(expect) - 2,)
    adds_channel = expect is None or expect[1] in (None, 1)
    readings = (
        sorted(_readings(shape, meanings, spaces, adds_channel), key=lambda found: found[:2])
        if len(shape) <= MAX_RANK
        else []
    )
    fitting = [reading for reading in readings if _fits(shape, reading.order, expect)]
    best = [r for r in fitting if _rank(r) == _rank(fitting[0])]
    if len(best) != 1:
        raise InputError(_problem(shape, names, meanings, expect, what, readings, bool(best)))
    order = best[0].order
    return Axes(order, _final_names(known, order), best[0].dropped)


def _readings(
    shape: tuple[int, ...],
    meanings: Sequence[_Meaning],
    spaces: Sequence[int],
    adds_channel: bool,
    *,
    any_order: bool = False,
) -> Iterator[_Reading]:
    """Yield every way to read axes of these meanings that has one of these numbers of space."""
    choices = [
        (*meaning.roles, "dropped") if size == 1 else meaning.roles
        for size, meaning in zip(shape, meanings, strict=True)
    ]
    for roles in product(*choices):
        axes = {
            role: [axis for axis, own in enumerate(roles) if own == role]
            for role in ("image", "channel", "space", "dropped")
        }
        images, channels, space = axes["image"], axes["channel"], axes["space"]
        if len(images) > 1 or len(channels) > 1 or len(space) not in spaces:
            continue
        if not channels and not adds_channel:
            continue
        if not (any_order or _is_read(images, channels, space, meanings)):
            continue
        image = images[0] if images else None
        channel = channels[0] if channels else None
        yield _Reading(
            len(axes["dropped"]) + (image is None) + (channel is None),
            len(shape) if image is None else image,
            (image, channel, *space),
            tuple(axes["dropped"]),
        )


def _rank(reading: _Reading) -> tuple[Any, ...]:
    """Return what readings of equal rank share; of these none is better than another."""
    return reading.changes, reading.image_place, reading.dropped


def _is_read(
    images: list[int], channels: list[int], space: list[int], meanings: Sequence[_Meaning]
) -> bool:
    """Return whether axes in this order are read: images first, channels before or behind space.

    Slices and times may stand behind the channels: (c, z, y, x) are images along z.
    """
    others = [*channels, *space]
    if images and not meanings[images[0]].vague and images[0] > min(others):
        return False
    return not channels or channels[0] < space[0] or channels[0] > space[-1]


def _meaning(name: str | None, kind: str | None = None) -> _Meaning:
    lower = (name or "").strip().lower()
    if kind == "space" and lower not in _IMAGES_OR_SPACE:
        return _Meaning(("space",))
    if kind == "time":
        return _Meaning(("image", "space"), vague=True)
    if kind == "channel" or lower in _CHANNELS:
        return _Meaning(("channel",))
    if lower in _SPACE:
        return _Meaning(("space",))
    if lower in _IMAGES:
        return _Meaning(("image",))
    return _Meaning(("image", "space"), vague=True) if lower in _IMAGES_OR_SPACE else _UNKNOWN


def _fits(shape: tuple[int, ...], order: tuple[int | None, ...], expect: Expected | None) -> bool:
    if expect is None:
        return True
    sizes = [1 if axis is None else shape[axis] for axis in order]
    # The model's batch size does not limit the number of images, the first axis.
    return all(e is None or e == s for s, e in zip(sizes[1:], expect[1:], strict=True))


def _final_names(names: Sequence[str | None], order: tuple[int | None, ...]) -> tuple[str, ...]:
    space = {3: ("x",), 4: ("y", "x"), 5: ("z", "y", "x")}[len(order)]
    defaults = ("n", "c", *space)
    given = [None if axis is None else names[axis] for axis in order]
    chosen = tuple(name or default for name, default in zip(given, defaults, strict=True))
    return chosen if len(set(chosen)) == len(chosen) else defaults


def _problem(
    shape: tuple[int, ...],
    names: Sequence[str | None] | None,
    meanings: Sequence[_Meaning],
    expect: Expected | None,
    what: str,
    readings: Sequence[_Reading],
    ambiguous: bool,
) -> str:
    """Return what is wrong with the axes of an array, in words."""
    found = f"{what} has shape {shape}{_named(names)}"
    either = "as (n, c, *space) {} as (n, *space, c)" + _model(expect)
    if ambiguous:
        return (
            f"{found} and may be {either.format('or')}: name its dimensions (dimension_names, or "
            "_ARRAY_DIMENSIONS in Zarr v2)"
        )
    plain = [reading for reading in readings if reading.changes == 0]
    if len(plain) == 1:
        return _misfit(shape, plain[0].order, names, expect, what)
    if plain:
        return (
            f"{found} and fits it neither {either.format('nor')}: resize the images, select "
            "channels (--channels) or use another model"
        )
    spaces = (1, 2, 3) if expect is None else (len(expect) - 2,)
    if (
        names is not None
        and len(shape) <= MAX_RANK
        and any(_readings(shape, meanings, spaces, adds_channel=False, any_order=True))
    ):
        return (
            f"{what} has the axes ({_joined(names or ())}); expected (n, c, *space) or (n, *space, "
            "c): store it with the axes in one of these orders"
        )
    if len(readings) == 1:
        return _misfit(shape, readings[0].order, names, expect, what)
    wanted = "3 to 5 axes" if expect is None else f"{len(expect)} axes"
    hint = ""
    if names is not None and expect is not None:
        if len(shape) > len(expect):
            hint = "; only axes of length 1 can be left out: select a part of the array first"
        elif not any("channel" in meaning.roles for meaning in meanings):
            hint = "; several arrays are stacked as channels: give --input-array for each"
    return f"{found}; expected {wanted}: (n, c, *space) or (n, *space, c){_model(expect)}{hint}"


def _misfit(
    shape: tuple[int, ...],
    order: tuple[int | None, ...],
    names: Sequence[str | None] | None,
    expect: Expected | None,
    what: str,
) -> str:
    sizes = tuple(1 if axis is None else shape[axis] for axis in order)
    wanted = None if expect is None else expect[1]
    if wanted in (None, sizes[1]):
        part = f"images of size {' × '.join(map(str, sizes[2:]))}"
        advice = "resize the images"
        if expect is not None:
            advice += ", export the model for their size or for any (fcdcc export --free-size)"
    else:
        part = "1 channel" if sizes[1] == 1 else f"{sizes[1]} channels"
        advice = "select the channels"
        if wanted is not None and wanted < sizes[1]:
            numbers = ",".join(map(str, range(wanted)))
            advice += f" (--channels {numbers}, or others of them)"
        else:
            advice += " (--channels), stack several arrays as channels (--input-array)"
    return (
        f"{what} has shape {shape}{_named(names)}, that is {part}{_model(expect)}: {advice} or "
        "use another model"
    )


def _joined(names: Sequence[str | None]) -> str:
    return ", ".join(name or "?" for name in names)


def _named(names: Sequence[str | None] | None) -> str:
    return "" if names is None or not any(names) else f" with the axes ({_joined(names)})"


def _model(expect: Expected | None) -> str:
    if expect is None:
        return ""
    text = ", ".join("any" if size is None else str(size) for size in expect)
    return f"; the model takes ({text}), that is (batch, channels, *space)"

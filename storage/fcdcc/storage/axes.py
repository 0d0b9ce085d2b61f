"""The meaning of the axes of a stored array: images, channels, space.

Two orders are read: (n, c, *space) and (n, *space, c), with one to three spatial axes. The names
of the axes decide if they can, else the model's input shape if exactly one of the two orders fits
it. Otherwise it is an error: a wrong guess would give wrong predictions without a message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .errors import InputError

__all__ = ["Axes", "find_axes", "is_image_rank"]

_IMAGES = frozenset(
    (
        "b",
        "batch",
        "example",
        "examples",
        "frame",
        "frames",
        "i",
        "id",
        "idx",
        "image",
        "image_id",
        "images",
        "index",
        "item",
        "n",
        "num",
        "obs",
        "observation",
        "record",
        "sample",
        "samples",
        "scene",
        "t",
        "time",
    )
)
_CHANNELS = frozenset(
    (
        "band",
        "bands",
        "c",
        "ch",
        "chan",
        "channel",
        "channels",
        "color",
        "colors",
        "colour",
        "colours",
        "component",
        "features",
        "rgb",
        "rgba",
        "spectral",
        "wavelength",
    )
)
_SPACE = frozenset(
    (
        "col",
        "cols",
        "column",
        "columns",
        "d",
        "depth",
        "easting",
        "h",
        "height",
        "l",
        "lat",
        "latitude",
        "length",
        "lon",
        "longitude",
        "northing",
        "position",
        "row",
        "rows",
        "w",
        "width",
        "x",
        "y",
        "z",
    )
)

Expected = tuple["int | None", ...]


@dataclass(frozen=True)
class Axes:
    """The order of the axes of a stored array.

    Parameters
    ----------
    channels_last
        False for (n, c, *space), true for (n, *space, c).
    names
        Names of the axes in the order (n, c, *space).
    """

    channels_last: bool
    names: tuple[str, ...]

    @property
    def order(self) -> tuple[int, ...]:
        """Axes of the stored array in the order (n, c, *space), for ``transpose``."""
        return _order(self.channels_last, len(self.names))


def is_image_rank(rank: int) -> bool:
    """Return whether an array of so many axes can hold images with 1 to 3 spatial axes."""
    return 3 <= rank <= 5


def find_axes(
    shape: tuple[int, ...],
    names: Sequence[str | None] | None,
    expect: Expected | None,
    what: str = "the array",
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

    Raises
    ------
    InputError
        If the rank is wrong, the names are in another order than these two, the sizes do not
        fit ``expect``, or neither names nor sizes decide.
    """
    rank = len(shape)
    if not is_image_rank(rank) or (expect is not None and rank != len(expect)):
        wanted = "3 to 5 axes" if expect is None else f"{len(expect)} axes"
        raise InputError(
            f"{what} has shape {shape}{_named(names)}; expected {wanted}: (n, c, *space) or "
            f"(n, *space, c){_model(expect)}"
        )
    said = _by_names(names, rank, what)
    fits = [last for last in (False, True) if expect is None or _fits(shape, last, expect)]
    if said is not None:
        if said not in fits:
            raise InputError(_misfit(shape, said, names, expect, what))
        chosen = said
    elif expect is not None and len(fits) == 1:
        chosen = fits[0]
    else:
        problem = "fits it neither as" if not fits else "may be"
        raise InputError(
            f"{what} has shape {shape}{_named(names)} and {problem} (n, c, *space) "
            f"{'nor' if not fits else 'or'} as (n, *space, c){_model(expect)}: "
            + (
                "resize the images or use another model"
                if not fits
                else "name its dimensions (dimension_names, or _ARRAY_DIMENSIONS in Zarr v2)"
            )
        )
    return Axes(chosen, _final_names(names, _order(chosen, rank)))


def _order(channels_last: bool, rank: int) -> tuple[int, ...]:
    return (0, rank - 1, *range(1, rank - 1)) if channels_last else tuple(range(rank))


def _by_names(names: Sequence[str | None] | None, rank: int, what: str) -> bool | None:
    """Return whether channels are last according to the names; None if these do not decide."""
    if names is None:
        return None
    kinds = [_kind(name) for name in names]
    if kinds[0] in ("channel", "space") or "image" in _certain(names[1:]):
        raise InputError(_wrong_order(names, what))
    channels = [axis for axis in range(1, rank) if kinds[axis] == "channel"]
    if not channels:
        unknown = [axis for axis in range(1, rank) if kinds[axis] != "space"]
        channels = unknown if len(unknown) == 1 else []
    if len(channels) != 1:
        return None
    if channels[0] not in (1, rank - 1):
        raise InputError(_wrong_order(names, what))
    return channels[0] == rank - 1


def _kind(name: str | None) -> str | None:
    lower = (name or "").strip().lower()
    if lower in _CHANNELS:
        return "channel"
    if lower in _SPACE:
        return "space"
    return "image" if lower in _IMAGES else None


def _certain(names: Sequence[str | None]) -> list[str | None]:
    """Return the kinds of names that have one meaning; t, time and i may also be space."""
    return [_kind(name) for name in names if (name or "").lower() not in ("t", "time", "i")]


def _fits(shape: tuple[int, ...], channels_last: bool, expect: Expected) -> bool:
    sizes = [shape[axis] for axis in _order(channels_last, len(shape))]
    # The model's batch size does not limit the number of images, the first axis.
    return all(e is None or e == s for s, e in zip(sizes[1:], expect[1:], strict=True))


def _final_names(names: Sequence[str | None] | None, order: tuple[int, ...]) -> tuple[str, ...]:
    space = {3: ("x",), 4: ("y", "x"), 5: ("z", "y", "x")}[len(order)]
    defaults = ("n", "c", *space)
    given = [names[axis] if names is not None else None for axis in order]
    chosen = tuple(name or default for name, default in zip(given, defaults, strict=True))
    return chosen if len(set(chosen)) == len(chosen) else defaults


def _misfit(
    shape: tuple[int, ...],
    channels_last: bool,
    names: Sequence[str | None] | None,
    expect: Expected | None,
    what: str,
) -> str:
    sizes = tuple(shape[axis] for axis in _order(channels_last, len(shape)))
    wrong = expect is not None and expect[1] not in (None, sizes[1])
    part = f"{sizes[1]} channels" if wrong else f"images of size {' × '.join(map(str, sizes[2:]))}"
    return (
        f"{what} has shape {shape}{_named(names)}, that is {part}{_model(expect)}: "
        + ("select the channels" if wrong else "resize the images")
        + " or use another model"
    )


def _wrong_order(names: Sequence[str | None], what: str) -> str:
    return (
        f"{what} has the axes ({_joined(names)}); expected (n, c, *space) or (n, *space, c): "
        "store it with the axes in one of these orders"
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

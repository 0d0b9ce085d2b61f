"""What is known about a value before a network runs: its shape, its type and its image axis.

The size of a batch is not known when a model is opened. A value that depends on the images has
an *image axis*, whose size is a multiple of the number of images; the sizes of all other axes
are numbers. Along the image axis every entry belongs to one image. With ``outer`` groups of
images and ``inner`` entries of each image in a group the order is

    group 0: image 0 (inner entries), image 1, …;  group 1: image 0, image 1, …

so images of shape (N, T, C) that are flattened to (N T, C) have ``outer`` 1 and ``inner`` T.
A value without an image axis is the same for every batch.

A rule computes the facts of an operator's results from those of its arguments. It raises
:class:`NotPerImageError` unless every entry of its result depends on the entries of one image
only, and on that image only. So a network whose steps all have facts gives each image the same
prediction however a batch is shuffled, split or padded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

MAX_ELEMENTS = 1 << 40
"""Elements of a value for one image; larger sizes are refused before anything is allocated."""

TO_THE_END = 1 << 62
"""A stop of a slice of at least this is the end of the axis, whatever its size."""


class NotPerImageError(Exception):
    """A step that combines images, or depends on their number; the message is the reason."""


class ArgumentsError(Exception):
    """Arguments that an operator does not take; the message is the reason."""


@dataclass(frozen=True, slots=True)
class BatchSize:
    """A number that depends on the number of images N: ``factor`` N, or unknown if None."""

    factor: int | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known about a tensor.

    Parameters
    ----------
    sizes
        Of all axes; along the image axis the number of entries of one image.
    dtype
        The type of its elements.
    axis
        The image axis; None for a value that is the same for every batch.
    outer
        Groups of images along the image axis; see the module.
    constant
        The tensor itself, if it is one of the model's.
    """

    sizes: tuple[int, ...]
    dtype: torch.dtype
    axis: int | None = None
    outer: int = 1
    constant: torch.Tensor | None = field(default=None, repr=False, compare=False)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.sizes)

    @property
    def inner(self) -> int:
        """Entries of one image in one group, along the image axis."""
        return 1 if self.axis is None else self.sizes[self.axis] // self.outer

    @property
    def elements(self) -> int:
        """Elements for one image."""
        return math.prod(self.sizes)


Number: TypeAlias = "int | float | bool | complex | BatchSize"
Result: TypeAlias = "Facts | Number | list[Facts]"
Arguments: TypeAlias = Mapping[str, Any]


class OperatorCall:
    """One operator with what is known about its arguments.

    Parameters
    ----------
    packet, overload
        The operator's name without its namespace.
    arguments
        By their names in the schema, defaults included. Tensors are :class:`Facts`.
    batch
        The number of images, if the model takes no other; else None.
    """

    __slots__ = ("arguments", "batch", "overload", "packet", "work")

    def __init__(
        self, packet: str, overload: str, arguments: Arguments, batch: int | None = None
    ) -> None:
        self.packet = packet
        self.overload = overload
        self.arguments = arguments
        self.batch = batch
        self.work = 0

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def tensor(self, name: str = "self") -> Facts:
        """Return an argument that must be a tensor."""
        found = self.arguments[name]
        if not isinstance(found, Facts):
            raise ArgumentsError(f"its argument {name!r} is {found!r:.60}; expected a tensor")
        return found

    def tensors(self, name: str) -> list[Facts]:
        """Return an argument that must be a list of tensors, one or more."""
        found = self.arguments[name]
        if not isinstance(found, (list, tuple)) or not found:
            raise ArgumentsError(f"its argument {name!r} is {found!r:.60}; expected tensors")
        if not all(isinstance(item, Facts) for item in found):
            raise ArgumentsError(f"its argument {name!r} is {found!r:.60}; expected tensors")
        return list(found)

    def optional(self, name: str) -> Facts | None:
        """Return an argument that is a tensor or None."""
        return None if self.arguments.get(name) is None else self.tensor(name)

    def integer(self, name: str, least: int | None = None) -> int:
        """Return an argument that must be an integer, the same for every batch."""
        return as_integer(self.arguments[name], name, least)

    def integers(self, name: str, count: int | None = None, least: int | None = None) -> list[int]:
        """Return integers; a single one is repeated to ``count``, as PyTorch does."""
        found = self.arguments[name]
        numbers = list(found) if isinstance(found, (list, tuple)) else [found]
        if count is not None and len(numbers) == 1:
            numbers *= count
        if count is not None and len(numbers) != count:
            raise ArgumentsError(f"its argument {name!r} has {len(numbers)} numbers, not {count}")
        return [as_integer(number, name, least) for number in numbers]

    def exactly(self, name: str, count: int, least: int | None = None) -> list[int]:
        """Return an argument that must be a list of so many integers."""
        found = self.arguments[name]
        if not isinstance(found, (list, tuple)) or len(found) != count:
            raise ArgumentsError(f"its argument {name!r} is {found!r:.60}, not {count} numbers")
        return self.integers(name, count, least)

    def flag(self, name: str) -> bool:
        """Return an argument that must be true or false."""
        found = self.arguments[name]
        if not isinstance(found, bool):
            raise ArgumentsError(f"its argument {name!r} is {found!r:.60}; expected true or false")
        return found

    def dtype(self, default: torch.dtype) -> torch.dtype:
        """Return the argument ``dtype``, or a default where there is none."""
        found = self.arguments.get("dtype")
        return found if isinstance(found, torch.dtype) else default

    def axis_of(self, name: str, ndim: int) -> int:
        """Return an argument that names an axis, counted from 0."""
        return as_axis(self.arguments[name], ndim)

    def axes_of(self, name: str, ndim: int) -> list[int]:
        """Return an argument that names axes, counted from 0; none of them twice."""
        found = self.arguments[name]
        axes = [
            as_axis(dim, ndim) for dim in (found if isinstance(found, (list, tuple)) else [found])
        ]
        if len(set(axes)) != len(axes):
            raise ArgumentsError(f"its argument {name!r} names an axis twice: {found}")
        return axes

    def each(self) -> Iterator[Facts]:
        """Yield all tensors among the arguments, in order."""
        yield from _each(self.arguments.values())


Rule: TypeAlias = Callable[[OperatorCall], Result]


def _each(values: Any) -> Iterator[Facts]:
    for value in values:
        if isinstance(value, Facts):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _each(value)


def as_integer(value: Any, name: str, least: int | None = None) -> int:
    """Return a number that must be an integer and the same for every batch."""
    if isinstance(value, BatchSize):
        raise NotPerImageError(f"its argument {name!r} depends on the number of images")
    if not isinstance(value, int) or isinstance(value, bool):
        raise ArgumentsError(f"its argument {name!r} is {value!r:.60}; expected an integer")
    if abs(value) >= 1 << 63 or (least is not None and value < least):
        expected = "a 64-bit integer" if least is None else f"at least {least}"
        raise ArgumentsError(f"its argument {name!r} is {value}; expected {expected}")
    return value


def as_axis(dim: Any, ndim: int) -> int:
    """Return an axis counted from 0."""
    found = as_integer(dim, "dim")
    reach = max(ndim, 1)
    if not -reach <= found < reach:
        raise ArgumentsError(f"it works along axis {found} of a tensor with {ndim} axes")
    return found % reach


def size_of(x: Facts, axis: int, batch: int | None) -> int | BatchSize:
    """Return the size of an axis, a multiple of the number of images along the image axis."""
    size = x.sizes[axis]
    if axis != x.axis:
        return size
    return BatchSize(size) if batch is None else size * batch


def check_elements(sizes: Sequence[int]) -> None:
    """Refuse sizes that are negative, or of which no machine has the memory."""
    if any(size < 0 for size in sizes):
        raise ArgumentsError(f"its result would have the shape {tuple(sizes)}")
    if math.prod(sizes) > MAX_ELEMENTS:
        raise ArgumentsError(
            f"its result would have the shape {tuple(sizes)} for one image, more than "
            f"{MAX_ELEMENTS} elements"
        )


def made(
    sizes: Sequence[int], dtype: torch.dtype, axis: int | None = None, outer: int = 1
) -> Facts:
    """Return the facts of a result, after a check of its size."""
    check_elements(sizes)
    return Facts(tuple(sizes), dtype, axis, outer)


def like(x: Facts, sizes: Sequence[int], axis: int | None = None) -> Facts:
    """Return the facts of a result with other sizes, its image axis where x has it or moved."""
    check_elements(sizes)
    moved = x.axis if axis is None else axis
    return Facts(tuple(sizes), x.dtype, None if x.axis is None else moved, x.outer)


def check_fits(value: Any, dtype: torch.dtype) -> None:
    """Refuse a number that a type of integers cannot hold."""
    if kind(dtype) == 1 and isinstance(value, (int, float)):
        limits = torch.iinfo(dtype)
        if not limits.min <= value <= limits.max:
            raise ArgumentsError(f"it writes {value} into values of {dtype}")
    elif isinstance(value, complex) and not dtype.is_complex:
        raise ArgumentsError(f"it writes {value} into values of {dtype}")


def is_uniform(x: Facts, axis: int) -> bool:
    """Return whether a constant is the same at all positions of an axis."""
    if x.constant is None or x.constant.is_meta:
        return False
    first = x.constant.narrow(axis, 0, 1)
    return bool((x.constant == first).all())


def keeps_image_axis(x: Facts, axes: Sequence[int], what: str) -> None:
    """Refuse a step that works along the image axis.

    Parameters
    ----------
    what
        What it does, as a phrase: ``takes a mean``.
    """
    if x.axis is not None and x.axis in axes:
        raise NotPerImageError(f"it {what} over the images of a batch")


def align_images(
    operands: Sequence[Facts], axes: Sequence[int | None]
) -> tuple[int | None, int, int]:
    """Return the image axis, groups and entries per image that operands have in common.

    Parameters
    ----------
    operands
        The tensors that meet in a result.
    axes
        For each operand the position in the result of its image axis; for an operand without
        one it is ignored.

    Returns
    -------
    (axis, outer, entries); the axis is None if no operand depends on the images.
    """
    found: tuple[int, int, int] | None = None
    for operand, axis in zip(operands, axes, strict=True):
        if operand.axis is None:
            continue
        if axis is None:
            raise NotPerImageError("it loses the image axis of an operand")
        own = (axis, operand.outer, operand.sizes[operand.axis])
        if found is None:
            found = own
        elif own != found:
            raise NotPerImageError("the images of one operand meet other images of another")
    return found or (None, 1, 1)


def broadcast(
    operands: Sequence[Facts], batch: int | None
) -> tuple[tuple[int, ...], int | None, int]:
    """Return (sizes, image axis, outer) of operands that are broadcast as in PyTorch."""
    first = operands[0]
    for operand in operands:
        if (
            operand.sizes != first.sizes
            or operand.axis != first.axis
            or operand.outer != first.outer
        ):
            break
    else:
        return first.sizes, first.axis, first.outer
    ndim = max(operand.ndim for operand in operands)
    moved = [None if o.axis is None else o.axis + ndim - o.ndim for o in operands]
    axis, outer, entries = align_images(operands, moved)
    sizes = [1] * ndim
    for operand in operands:
        shift = ndim - operand.ndim
        for place, size in enumerate(operand.sizes, shift):
            if place == axis and operand.axis is None:
                if size != 1 and not (
                    batch is not None
                    and size == batch * entries
                    and is_uniform(operand, place - shift)
                ):
                    raise NotPerImageError("a constant has values of its own for some images")
                continue
            if sizes[place] == 1 or place == axis:
                sizes[place] = size
            elif size not in (1, sizes[place]):
                shapes = ", ".join(str(o.sizes) for o in operands)
                raise ArgumentsError(f"its operands have the shapes {shapes} for one image")
    return tuple(sizes), axis, outer


def kind(dtype: torch.dtype) -> int:
    """Return the category of a type in PyTorch's promotion: bool, integer, real, complex."""
    if dtype.is_complex:
        return 3
    if dtype.is_floating_point:
        return 2
    return 0 if dtype == torch.bool else 1


_OF_KIND = (torch.bool, torch.int64, torch.float32, torch.complex64)


def promoted(values: Iterable[Any]) -> torch.dtype:
    """Return the type that tensors and numbers have together, by PyTorch's rules.

    Tensors with axes decide; tensors without axes, and then numbers, only where they are of a
    higher category.
    """
    levels: list[torch.dtype | None] = [None, None, None]
    for value in values:
        if isinstance(value, Facts):
            place, dtype = (0 if value.sizes else 1), value.dtype
        elif isinstance(value, bool):
            place, dtype = 2, torch.bool
        elif isinstance(value, int):
            place, dtype = 2, torch.int64
        elif isinstance(value, float):
            place, dtype = 2, torch.float32
        elif isinstance(value, complex):
            place, dtype = 2, torch.complex64
        else:
            continue
        before = levels[place]
        if before is None:
            levels[place] = dtype
        elif before != dtype:
            levels[place] = torch.promote_types(before, dtype)
    found: torch.dtype | None = None
    for dtype_here in levels:
        if dtype_here is None:
            continue
        if found is None:
            found = dtype_here
        elif kind(dtype_here) > kind(found):
            found = found.to_complex() if kind(found) == 2 else dtype_here
    return found or torch.float32


def in_floating_point(dtype: torch.dtype) -> torch.dtype:
    """Return the type that real functions of numbers of a type have."""
    return dtype if kind(dtype) >= 2 else torch.float32


def constant_facts(tensor: torch.Tensor) -> Facts:
    """Return the facts of one of the model's tensors."""
    return Facts(tuple(tensor.shape), tensor.dtype, constant=tensor)


def names(text: str) -> tuple[str, ...]:
    """Return the words of a text; tables of rules are written this way."""
    return tuple(text.split())

"""Weighted sums over the positions of a value, and those that a convolution makes of them.

The positions of a value have fixed weights for its size: the product of one weight for each axis.
Along the first axis these are a cosine and a sine of a turning angle. :class:`ValueSums` adds a
value up along that axis first, which reads it once, and everything else follows from the two rows
that are left: the sums of every channel over all positions (:meth:`ValueSums.positions`), and what
the sums of a convolution's output must be (:class:`InputSums`). Moving a cosine and a sine by one
element of the kernel turns them, so the same two rows serve every element of the kernel, except for
the positions at the edges.

So a value that several layers read, or that one makes and another reads, is read once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch

from .checksum_costs import TURNS
from .sum_weights import (
    KEPT_SIZES,
    QUARTER,
    START,
    axis_weights,
    position_weights,
    turns_of,
)

__all__ = [
    "InputSums",
    "ValueSums",
    "channels_last_view",
    "summable",
    "sums_around",
]

SUMMED_TOGETHER = 1024
"""Numbers that are added up in the dtype of the value, at most where that is possible; further
ones are added in float64."""

SUMMED_ROWS = 256
"""Positions of the first axis that are added up in the dtype of the value, at most. A value may
have the same sign as the weights for long: then its sums grow with the number of positions, and
their rounding errors faster than those of random signs."""

PIECE_BYTES = 2**20
"""Bytes of the pieces of a value that are summed, changed and summed again: they fit into a cache
of one core."""

LEAST_ROWS = 8
"""Positions of the first axis that a piece has, if the value has as many."""

_SMALL_INPUT = 2**17
"""Elements of an image up to which an input may be multiplied by weights of all its elements, which
take as much memory for each sum."""

_COST_OF_ROWS = 4
"""Cost of a number that is left of the first axis, in those of reading an element. It decides only
which way is taken; both are right."""


class ValueSums:
    """The sums of one value, each added up when it is wanted first.

    Parameters
    ----------
    value
        (images, C, *space), of any floating-point dtype. It must not change before its sums are
        wanted, unless ``along_first`` is given.
    along_first
        Its sums along the first axis, if they are known.
    """

    def __init__(self, value: torch.Tensor, along_first: torch.Tensor | None = None) -> None:
        self._value = value
        self._shape = tuple(value.shape)
        self._along_first = along_first
        self._positions: dict[int, torch.Tensor] = {}

    def along_first(self) -> torch.Tensor | None:
        """Return the sums along the first axis, (images, 2, other positions · C).

        None unless channels are last in memory: elsewhere these sums are slow.
        """
        if self._along_first is None:
            last = channels_last_view(summable(self._value))
            if last is not None:
                flat = last.reshape(*last.shape[:2], -1)
                weights = _turning_weights(flat.shape[1], flat.dtype)
                self._along_first = _summed_along(weights, flat)
        return self._along_first

    def positions(self, sums: int) -> torch.Tensor:
        """Return weighted sums over the positions of every channel, (images, sums, C) in float64.

        Parameters
        ----------
        sums
            Number of sums with different weights.
        """
        found = self._positions.get(sums)
        if found is None:
            found = self._positions[sums] = self._position_sums(sums)
        return found

    def _position_sums(self, sums: int) -> torch.Tensor:
        images, channels, *space = self._shape
        if math.prod(space) == 1:
            value = self._value.reshape(images, 1, channels).to(torch.float64)
            return value * _single_position(len(space), sums)
        rows = self.along_first()
        if rows is None:
            value = summable(self._value)
            weights = _by_chunks(tuple(space), sums, value.dtype)
            # A few rows times many columns: the other way round takes several times as long.
            flat = value.reshape(images * channels, len(weights), -1)
            if len(weights) == 1:
                whole = (weights[0] @ flat[:, 0].T).to(torch.float64)
            else:
                made = [of_chunk @ flat[:, c].T for c, of_chunk in enumerate(weights)]
                whole = torch.stack(made).sum(dim=0, dtype=torch.float64)
            return whole.reshape(sums, images, channels).transpose(0, 1)
        pairs = -(-sums // TURNS)
        weights = _weights_of_others(tuple(space[1:]), pairs, rows.dtype)
        found = torch.matmul(weights, rows.reshape(images, TURNS, -1, channels))
        found = found.to(torch.float64).transpose(1, 2)
        return found.reshape(images, pairs * TURNS, channels)[:, :sums]


def sums_around(
    value: torch.Tensor, change: Callable[[torch.Tensor], object], sums: int, *, after: bool
) -> tuple[ValueSums, ValueSums | None]:
    """Return the sums of a value before and after it is changed in place.

    This is done piece by piece, so that a large value is read once from memory.

    Parameters
    ----------
    value
        (images, C, *space), float32 or float64.
    change
        Changes a contiguous tensor in place, every element by itself.
    sums
        Number of sums over all positions that will be wanted.
    after
        Whether the sums after the change are wanted, too; otherwise they are None.
    """
    last = channels_last_view(value)
    if last is None:
        before = ValueSums(value)
        before.positions(sums)
        change(value)
        return before, ValueSums(value) if after else None
    flat = last.reshape(*last.shape[:2], -1)
    images, size, row = flat.shape
    weights = _turning_weights(size, value.dtype)
    dtype = value.dtype if size <= SUMMED_ROWS else torch.float64
    found = [flat.new_zeros(images, TURNS, row, dtype=dtype) for _ in range(1 + after)]
    length = max(LEAST_ROWS, PIECE_BYTES // max(1, row * value.itemsize))
    if length >= size <= SUMMED_ROWS:
        run = max(1, length // max(1, size))
        for start in range(0, images, run):
            piece = flat[start : start + run]
            of_each = weights.expand(len(piece), -1, -1)
            torch.bmm(of_each, piece, out=found[0][start : start + run])
            change(piece)
            if after:
                torch.bmm(of_each, piece, out=found[1][start : start + run])
    else:
        for image in range(images):
            for start in range(0, size, length):
                piece = flat[image : image + 1, start : start + length]
                of_piece = weights[:, start : start + length]
                found[0][image] += _summed_along(of_piece, piece)[0]
                change(piece)
                if after:
                    found[1][image] += _summed_along(of_piece, piece)[0]
    found = [rows.to(value.dtype) for rows in found]
    return ValueSums(value, found[0]), ValueSums(value, found[1]) if after else None


def _summed_along(weights: torch.Tensor, flat: torch.Tensor) -> torch.Tensor:
    """Return weighted sums of the rows of values, (values, sums, row).

    Long ones are added up in float64 after every :data:`SUMMED_ROWS` rows.

    Parameters
    ----------
    weights
        (sums, size), in the dtype of the values.
    flat
        (values, size, row).
    """
    values, size, row = flat.shape
    if size <= SUMMED_ROWS:
        return torch.bmm(weights.expand(values, -1, -1), flat)
    runs = size // SUMMED_ROWS
    whole = runs * SUMMED_ROWS
    of_runs = weights[:, :whole].reshape(len(weights), runs, SUMMED_ROWS).transpose(0, 1)
    found = torch.matmul(of_runs, flat[:, :whole].reshape(values, runs, SUMMED_ROWS, row))
    total = found.sum(dim=1, dtype=torch.float64)
    if whole < size:
        total += torch.bmm(weights[:, whole:].expand(values, -1, -1), flat[:, whole:])
    return total.to(flat.dtype)


def summable(value: torch.Tensor) -> torch.Tensor:
    """Return a value in a dtype whose sums are accurate: float32 or float64.

    Channels are last in memory if they are so in the value.
    """
    if value.dtype in (torch.float32, torch.float64):
        return value
    is_last = channels_last_view(value) is not None
    layout = torch.preserve_format if is_last else torch.contiguous_format
    return value.to(torch.float32, memory_format=layout)


def channels_last_view(value: torch.Tensor) -> torch.Tensor | None:
    """Return (images, *space, channels) without a copy, or None if channels are not last."""
    if value.ndim == 4:  # the usual case, which PyTorch knows
        is_last = not value.is_contiguous() and value.is_contiguous(
            memory_format=torch.channels_last
        )
        return value.permute(0, 2, 3, 1) if is_last else None
    if value.ndim < 3 or value.is_contiguous():
        return None
    moved = value.movedim(1, -1)
    return moved if moved.is_contiguous() else None


@lru_cache(maxsize=KEPT_SIZES)
def _turning_weights(size: int, dtype: torch.dtype) -> torch.Tensor:
    """Return the weights of the first axis, (2, size)."""
    with torch.inference_mode(mode=False):  # kept, and used in other modes, too
        return axis_weights(0, size, TURNS).to(dtype)


@lru_cache(maxsize=KEPT_SIZES)
def _single_position(axes: int, sums: int) -> torch.Tensor:
    """Return the weights of the only position of a value, (sums, 1)."""
    with torch.inference_mode(mode=False):  # kept, and used in other modes, too
        return position_weights((1,) * axes, sums)


@lru_cache(maxsize=KEPT_SIZES)
def _weights_of_others(space: tuple[int, ...], pairs: int, dtype: torch.dtype) -> torch.Tensor:
    """Return the weights of all positions but those of the first axis, (pairs, positions)."""
    with torch.inference_mode(mode=False):  # kept, and used in other modes, too
        whole = torch.ones((pairs, 1), dtype=torch.float64)
        for axis, size in enumerate(space, 1):
            of_axis = axis_weights(axis, size, pairs * TURNS)[::TURNS]
            whole = (whole[:, :, None] * of_axis[:, None]).flatten(1)
        return whole.to(dtype)


@lru_cache(maxsize=KEPT_SIZES)
def _by_chunks(space: tuple[int, ...], sums: int, dtype: torch.dtype) -> torch.Tensor:
    """Return the weights of all positions, (chunks, sums, positions of a chunk).

    Chunks are whole slices of the first axis.
    """
    with torch.inference_mode(mode=False):  # kept, and used in other modes, too
        first_size = space[0] if space else 1
        weights = position_weights(space, sums)
        per_slice = weights.shape[1] // max(first_size, 1)
        most = max(1, SUMMED_TOGETHER // max(per_slice, 1))
        sizes = range(1, min(first_size, most) + 1)
        slices = max((d for d in sizes if first_size % d == 0), default=1)
        chunks = max(1, first_size // slices)
        return weights.reshape(sums, chunks, -1).transpose(0, 1).to(dtype).contiguous()


class InputSums(NamedTuple):
    """How the sums of a convolution's output follow from its input, for one size of the input.

    Small inputs are multiplied by the weights of all their elements: then the numbers are those of
    the input, and there is nothing to add up before.

    Parameters
    ----------
    first
        (rows, size): weights along the first axis; None for small inputs.
    turning
        What the rows consist of, where they are few: else None.
    others
        For every further axis (pairs of sums · kernel, size), or None where adding it up would
        leave no fewer numbers.
    combine
        (2, kernel, rows): what elements of the kernel along the first axis make of the rows.
    spread
        For every further axis (pairs of sums, kernel, size): the weight of the output in which an
        element of the kernel meets a position.
    is_plain
        Whether the sums are those of :meth:`ValueSums.positions`.
    """

    first: torch.Tensor | None
    turning: TurningRows | None
    others: tuple[torch.Tensor | None, ...]
    combine: torch.Tensor
    spread: tuple[torch.Tensor, ...]
    is_plain: bool

    @property
    def uses_known(self) -> bool:
        """Whether they follow from the :class:`ValueSums` of the input."""
        return self.is_plain or (self.turning is not None and self.turning.is_known)

    @classmethod
    def of(
        cls,
        channels: int,
        space: tuple[int, ...],
        out: tuple[int, ...],
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        dilation: tuple[int, ...],
        before: tuple[int, ...],
        sums: int,
        dtype: torch.dtype,
    ) -> InputSums:
        """Return the sums for an input of size ``space`` and an output of size ``out``."""
        maps = [_AxisMap(*sizes) for sizes in zip(space, out, kernel, stride, dilation, before,
                                                 strict=True)]  # fmt: skip
        first, turning, combine = _first_axis(maps[0])
        is_plain = (
            math.prod(kernel) == 1 and space == out and not any(before) and set(stride) == {1}
        )
        pairs = -(-sums // TURNS)
        spread, others, numbers = [], [], [len(first)]
        for axis, of_axis in enumerate(maps[1:], 1):
            weights = axis_weights(axis, of_axis.out, pairs * TURNS)[::TURNS]
            spread.append(of_axis.spread(weights))
            is_shorter = pairs * of_axis.kernel < of_axis.size
            others.append(spread[-1].flatten(0, 1).to(dtype) if is_shorter else None)
            numbers.append(min(pairs * of_axis.kernel, of_axis.size))
        of_rows = len(first) * math.prod(space[1:]) + math.prod(numbers)
        uses_known = turning is not None and turning.is_known
        is_cheap = uses_known and math.prod(space) > _COST_OF_ROWS * of_rows
        if not is_plain and not is_cheap and channels * math.prod(space) <= _SMALL_INPUT:
            combine = maps[0].spread(axis_weights(0, out[0], TURNS))
            return cls(None, None, (None,) * len(others), combine, tuple(spread), is_plain)
        return cls(first.to(dtype), turning, tuple(others), combine, tuple(spread), is_plain)

    def coefficients(
        self, filters: torch.Tensor, dtype: torch.dtype, *, channels_last: bool
    ) -> torch.Tensor:
        """Return (runs, sums, numbers of a run): what the numbers of :meth:`apply` count for.

        The numbers of a run are added up in the dtype of the input, and all runs in float64.

        Parameters
        ----------
        filters
            Sums of the filters, (sums, C, *kernel) in float64.
        dtype
            Of the input.
        channels_last
            The order of the numbers.
        """
        channels, columns = filters.shape[1], []
        for number, of_sum in enumerate(filters):
            pair = number // TURNS
            # (rows, C, kernel of the further axes)
            value = torch.einsum("kr,ck...->rc...", self.combine[number % TURNS], of_sum)
            for axis, (matrix, spread) in enumerate(zip(self.others, self.spread, strict=True), 2):
                if matrix is None:
                    value = torch.matmul(value.movedim(axis, -1), spread[pair]).movedim(-1, axis)
                else:
                    shape = (*value.shape[:axis], len(matrix), *value.shape[axis + 1 :])
                    apart, kernel = value.new_zeros(shape), value.shape[axis]
                    apart.narrow(axis, pair * kernel, kernel).copy_(value)
                    value = apart
            columns.append(value.movedim(1, -1 if channels_last else 0).flatten())
        found = torch.stack(columns)
        run = _length_of_runs(found.shape[1], channels)
        return found.reshape(len(columns), -1, run).transpose(0, 1).to(dtype).contiguous()

    def sums_of(
        self, x: torch.Tensor, coefficients: torch.Tensor, known: ValueSums
    ) -> torch.Tensor:
        """Return (images, sums) in float64: what the output's sums must be, without bias.

        Parameters
        ----------
        x
            The unpadded input.
        coefficients
            Of :meth:`coefficients`, for the memory layout of ``x``.
        known
            The sums of ``x``.
        """
        numbers, (runs, _, length) = self.apply(x, known), coefficients.shape
        # A few rows times many columns: the other way round takes several times as long.
        split = numbers.reshape(len(numbers), runs, length).permute(1, 2, 0)
        return torch.bmm(coefficients, split).sum(dim=0, dtype=torch.float64).T

    def norms(self, x: torch.Tensor) -> torch.Tensor:
        """Return the norms of what the elements of the kernel meet in sums over all positions.

        It is about the norm of the input times the root of how many patches an element is in,
        unless the input has the pattern of the weights: then it is larger, and so may be the
        rounding errors of a sum.

        Parameters
        ----------
        x
            The unpadded input, (images, C, *space), float32 or float64.

        Returns
        -------
        torch.Tensor
            (images,) in float64, the largest of all sums.
        """
        images, channels, *space = x.shape
        combine = self.combine
        if self.first is not None:
            combine = combine @ self.first.to(torch.float64)
        last = channels_last_view(x)
        value = x.reshape(images * channels, space[0], -1)
        if last is not None:
            value = last.reshape(images, space[0], -1)
        rows = _summed_along(combine.flatten(0, 1).to(x.dtype), value).to(torch.float64)
        pairs, found = len(self.spread[0]) if self.spread else 1, []
        for pair in range(pairs):
            value = rows
            for spread, size in zip(self.spread, space[1:], strict=True):
                value = torch.matmul(spread[pair], value.reshape(*value.shape[:-1], size, -1))
            # Channels are before all or behind all of (2 · kernel, further kernels).
            of_sums = value.reshape(images, -1, TURNS, combine.shape[1] * value[0, 0].numel())
            found.append(of_sums.square().sum(dim=(1, 3)).amax(dim=1))
        return torch.stack(found).amax(dim=0).sqrt()

    def apply(self, x: torch.Tensor, known: ValueSums) -> torch.Tensor:
        """Return the numbers for every image, (images, numbers)."""
        images, channels, *space = x.shape
        last = channels_last_view(x)
        if self.first is None:
            return (x if last is None else last).reshape(images, -1)
        if last is None:
            value = x.reshape(images * channels, space[0], -1)
            value = _summed_along(self.first, value)
            for of_axis, size in zip(self.others, space[1:], strict=True):
                value = value.reshape(*value.shape[:-1], size, -1)
                if of_axis is None:
                    continue
                if value.shape[-1] == 1:
                    value = torch.matmul(value[..., 0], of_axis.T)[..., None]
                else:
                    value = torch.matmul(of_axis, value)
            return value.reshape(images, -1)
        flat = last.reshape(images, space[0], -1)
        if self.turning is None:
            value = _summed_along(self.first, flat)
        else:
            value = self._turned(flat, self.first, self.turning, known)
        for of_axis, size in zip(self.others, space[1:], strict=True):
            value = value.reshape(*value.shape[:-1], size, -1)
            if of_axis is not None:
                value = torch.matmul(of_axis, value)
        return value.reshape(images, -1)

    def _turned(
        self, flat: torch.Tensor, first: torch.Tensor, turning: TurningRows, known: ValueSums
    ) -> torch.Tensor:
        """Return the rows (images, rows, …) of a value (images, size, …)."""
        rows: list[torch.Tensor] = []
        if self.uses_known and (along_first := known.along_first()) is not None:
            rows.append(along_first)
        else:
            for number, remainder in enumerate(turning.remainders):
                weights = first[number * TURNS :][:TURNS, remainder :: turning.step]
                part = flat[:, remainder :: turning.step]
                rows.append(_summed_along(weights, part))
        if len(turning.edges):
            rows.append(torch.index_select(flat, 1, turning.edges))
        return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)


def _length_of_runs(numbers: int, channels: int) -> int:
    """Return how many numbers are added up at a time: those of some elements of the kernel."""
    elements = numbers // channels
    most = max(1, SUMMED_TOGETHER // channels)
    return channels * max(d for d in range(1, min(elements, most) + 1) if elements % d == 0)


class _AxisMap(NamedTuple):
    """Which element of the input meets which element of the kernel in which output, on one axis."""

    size: int
    out: int
    kernel: int
    stride: int
    dilation: int
    before: int

    def spread(self, weights: torch.Tensor) -> torch.Tensor:
        """Return (sums, kernel, size): the weight of the output in which the two meet, or 0."""
        spread = torch.zeros((len(weights), self.kernel, self.size), dtype=torch.float64)
        position = torch.arange(self.out)
        for column in range(self.kernel):
            place = position * self.stride + column * self.dilation - self.before
            inside = (place >= 0) & (place < self.size)
            spread[:, column, place[inside]] = weights[:, inside]
        return spread


class TurningRows(NamedTuple):
    """Rows that are a cosine and a sine for some remainders of a stride, and single positions.

    Parameters
    ----------
    step
        The stride.
    remainders
        The positions q of each cosine and sine have this remainder of q / step.
    edges
        The position of each further row.
    is_known
        Whether the cosine and the sine are those of :class:`ValueSums`: with a stride of 1 and as
        many positions in the output as in the input.
    """

    step: int
    remainders: tuple[int, ...]
    edges: torch.Tensor
    is_known: bool


def _first_axis(axis: _AxisMap) -> tuple[torch.Tensor, TurningRows | None, torch.Tensor]:
    """Return few sums along the first axis, and how those for every element of the kernel follow.

    The weights are a cosine and a sine of the position: moving them by one turns them, so sums for
    the next element of the kernel are combinations of the same two, except at the edges, whose
    elements are taken by themselves. Where that is more, the sums are those for every element.

    Returns
    -------
    basis, turning, combine
        (rows, size); what the rows consist of, or None; (2, kernel, rows).
    """
    spread = axis.spread(axis_weights(0, axis.out, TURNS))
    direct = spread.flatten(0, 1)
    as_it_is = torch.eye(len(direct), dtype=torch.float64).reshape(TURNS, axis.kernel, -1)
    place = torch.arange(axis.size)
    turns = turns_of(place, axis.out, axis.stride)
    met_by = [column * axis.dilation - axis.before for column in range(axis.kernel)]
    remainders = tuple(sorted({first % axis.stride for first in met_by}))
    rows = [
        torch.where(place % axis.stride == remainder, torch.cos(turns - start * QUARTER), 0.0)
        for remainder in remainders
        for start in range(TURNS)
    ]
    outside_of = {}
    for first in met_by:
        places = place - first
        is_outside = (places < 0) | (places // axis.stride >= axis.out)
        outside_of[first] = (places % axis.stride == 0) & is_outside
    edges = torch.nonzero(torch.stack([*outside_of.values()]).any(dim=0)).flatten()
    if len(rows) + len(edges) > len(direct):
        return direct, None, as_it_is
    alone = torch.zeros((len(edges), axis.size), dtype=torch.float64)
    alone[torch.arange(len(edges)), edges] = 1.0
    basis = torch.cat([torch.stack(rows), alone])
    combine = torch.zeros((TURNS, axis.kernel, len(basis)), dtype=torch.float64)
    for column, first in enumerate(met_by):
        start = TURNS * remainders.index(first % axis.stride)
        back = float(turns_of(torch.tensor(first), axis.out, axis.stride)) - START
        turn = [[math.cos(back), math.sin(back)], [-math.sin(back), math.cos(back)]]
        combine[:, column, start : start + TURNS] = torch.tensor(turn, dtype=torch.float64)
        # What the turned rows give at the edges, where the output has no position, is taken away.
        at_edges = combine[:, column, : len(rows)] @ basis[: len(rows), edges]
        combine[:, column, len(rows) :] = torch.where(outside_of[first][edges], -at_edges, 0.0)
    is_known = axis.stride == 1 and axis.size == axis.out
    return basis, TurningRows(axis.stride, remainders, edges, is_known), combine

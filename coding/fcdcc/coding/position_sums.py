"""Weighted sums over the positions of a value, and those that a convolution makes of them.

The positions of a value have fixed weights for its size: the product of one weight for each axis.
:func:`position_sums` returns the sums of every channel. What the sums of a convolution's output
must be is a linear function of its input: :class:`InputSums` reads the input once, as few short
matrix products, and leaves a few numbers for each channel and element of the kernel.

Where the kernel has one element, these are again sums over positions, with the same weights if the
convolution has neither stride nor padding. So a value that several layers read, or that one makes
and another reads, is summed once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch

__all__ = ["InputSums", "position_sums", "random_weights"]

SUMMED_TOGETHER = 1024
"""Positions that are added up in the dtype of the value, at most where that is possible; further
ones are added in float64."""

PIECE_BYTES = 2**20
"""Bytes of the pieces of a value that are summed, changed and summed again: they fit into a cache
of one core."""

_ANGLE = 2.399963
"""Radians between the weights of neighbours along the first axis, a golden section of the circle:
no two of a thousand neighbours have the same weight."""

_START = 0.7
"""Radians at the first position, where cosine and sine must both be large: it may be the only one,
as in linear layers."""

_QUARTER = math.pi / 2

_KEPT_SIZES = 256
"""Sizes for which weights are kept."""


def position_sums(value: torch.Tensor, sums: int) -> torch.Tensor:
    """Return weighted sums over the positions of every channel, (images, sums, C) in float64.

    Parameters
    ----------
    value
        (images, C, *space), of any floating-point dtype.
    sums
        Number of sums with independent weights.
    """
    value = summable(value)
    space = tuple(value.shape[2:])
    weights = _by_chunks(space, sums, value.dtype)
    return _channel_sums(value, weights)


def sums_around(
    value: torch.Tensor, change: Callable[[torch.Tensor], object], sums: int, *, after: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the position sums of a value before and after it is changed in place.

    This is done piece by piece, so that a large value is read once from memory.

    Parameters
    ----------
    value
        (images, C, *space), float32 or float64, with channels last in memory.
    change
        Changes a contiguous tensor in place, every element by itself.
    sums
        Number of sums with independent weights.
    after
        Whether the sums after the change are wanted, too; otherwise they are None.
    """
    last = channels_last_view(value)
    if last is None:
        before = position_sums(value, sums)
        change(value)
        return before, position_sums(value, sums) if after else None
    images, channels = value.shape[:2]
    weights = _by_chunks(tuple(value.shape[2:]), sums, value.dtype)
    chunks, _, positions = weights.shape
    flat = last.reshape(images, chunks, positions, channels)
    per_image = max(1, flat[0].numel() * value.itemsize)
    found = value.new_zeros((2 if after else 1, images, sums, channels), dtype=torch.float64)
    if chunks == 1:
        run = max(1, PIECE_BYTES // per_image)
        for start in range(0, images, run):
            piece = flat[start : start + run, 0]
            rows = weights.expand(len(piece), -1, -1)
            found[0, start : start + run] = torch.bmm(rows, piece)
            change(piece)
            if after:
                found[1, start : start + run] = torch.bmm(rows, piece)
    else:
        run = max(1, PIECE_BYTES * chunks // per_image)
        for image in range(images):
            for start in range(0, chunks, run):
                piece, rows = flat[image, start : start + run], weights[start : start + run]
                found[0, image] += torch.bmm(rows, piece).sum(dim=0, dtype=torch.float64)
                change(piece)
                if after:
                    found[1, image] += torch.bmm(rows, piece).sum(dim=0, dtype=torch.float64)
    return found[0], found[1] if after else None


def position_weights(space: tuple[int, ...], sums: int) -> torch.Tensor:
    """Return the weights of all positions of a value of this size, (sums, positions) in float64."""
    whole = torch.ones((sums, 1), dtype=torch.float64)
    for axis, size in enumerate(space):
        of_axis = axis_weights(axis, size, sums)
        whole = (whole[:, :, None] * of_axis[:, None]).flatten(1)
    return whole


def axis_weights(axis: int, size: int, sums: int) -> torch.Tensor:
    """Return the weights of the positions along one axis, (sums, size) in float64.

    Along the first axis they are cosines of a position times an angle, each sum a quarter turn
    later: of two sums one is at least 0.7 everywhere. The third and further ones turn faster. Along
    others they are random numbers.
    """
    if axis:
        return random_weights((sums, size), 0, 2 + axis)
    place = torch.arange(size, dtype=torch.float64)
    turns = _START + _ANGLE * torch.outer(torch.arange(sums) // 2 + 1.0, place)
    return torch.cos(turns - _QUARTER * (torch.arange(sums) % 2)[:, None])


def random_weights(shape: tuple[int, int], seed: int, stream: int) -> torch.Tensor:
    """Return weights of random sign between ¾ and 1¼, float64 and exact in float32.

    A longer row begins with a shorter one of the same seed and stream.
    """
    rows = []
    for row in range(shape[0]):
        generator = torch.Generator().manual_seed((seed * 8 + stream) * 8 + row + 1)
        drawn = torch.rand((shape[1], 2), generator=generator, dtype=torch.float64)
        size = torch.round((0.75 + drawn[:, 0] / 2) * 4096) / 4096
        rows.append(torch.where(drawn[:, 1] < 0.5, -size, size))
    return torch.stack(rows)


def summable(value: torch.Tensor) -> torch.Tensor:
    """Return a value in a dtype whose sums are accurate: float32 or float64."""
    return value if value.dtype in (torch.float32, torch.float64) else value.to(torch.float32)


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


def _in_chunks(weights: torch.Tensor, first_size: int, dtype: torch.dtype) -> torch.Tensor:
    """Return (chunks, sums, positions of a chunk) for (sums, positions).

    Chunks are whole slices of the first axis.
    """
    per_slice = weights.shape[1] // max(first_size, 1)
    most = max(1, SUMMED_TOGETHER // max(per_slice, 1))
    slices = max((d for d in range(1, min(first_size, most) + 1) if first_size % d == 0), default=1)
    chunks = max(1, first_size // slices)
    return weights.reshape(len(weights), chunks, -1).transpose(0, 1).to(dtype).contiguous()


@lru_cache(maxsize=_KEPT_SIZES)
def _by_chunks(space: tuple[int, ...], sums: int, dtype: torch.dtype) -> torch.Tensor:
    with torch.inference_mode(mode=False):  # kept, and used in other modes, too
        return _in_chunks(position_weights(space, sums), space[0] if space else 1, dtype)


def _channel_sums(value: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return (images, sums, C) in float64 for weights (chunks, sums, positions of a chunk)."""
    images, channels = value.shape[:2]
    chunks, sums, positions = weights.shape
    last = channels_last_view(value)
    if last is None:
        # A few rows times many columns: the other way round takes several times as long.
        flat = value.reshape(images * channels, chunks, positions)
        made = torch.stack([weights[c] @ flat[:, c].T for c in range(chunks)])
        whole = made.to(torch.float64).sum(dim=0)
        return whole.reshape(sums, images, channels).transpose(0, 1)
    if chunks == 1:
        flat = last.reshape(images, positions, channels)
        return torch.bmm(weights.expand(images, -1, -1), flat).to(torch.float64)
    flat = last.reshape(images, chunks, positions, channels)
    return torch.stack([torch.bmm(weights, f).sum(dim=0, dtype=torch.float64) for f in flat])


class InputSums(NamedTuple):
    """How the sums of a convolution's output follow from its input, for one size of the input.

    Parameters
    ----------
    first
        (chunks, rows, positions) where the kernel has one element: weights of all positions.
        Else (1, rows, size): sums along the first axis.
    others
        (sums · kernel, size) for every further axis.
    combine
        (sums, kernel, rows): what elements of the kernel along the first axis make of the rows.
    is_plain
        Whether the sums are those of :func:`position_sums`.
    summed
        The most terms that are added up in the dtype of the input.
    """

    first: torch.Tensor
    others: tuple[torch.Tensor, ...]
    combine: torch.Tensor
    is_plain: bool
    is_pointwise: bool
    summed: int

    @classmethod
    def of(
        cls,
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
        spread = [m.spread(axis_weights(axis, m.out, sums)) for axis, m in enumerate(maps)]
        if math.prod(kernel) == 1:
            whole = spread[0][:, 0]
            for of_axis in spread[1:]:
                whole = (whole[:, :, None] * of_axis).flatten(1)
            first = _in_chunks(whole, space[0], dtype)
            is_plain = space == out and not any(before) and set(stride) == {1}
            nothing = torch.zeros((0, 0, 0), dtype=torch.float64)
            return cls(first, (), nothing, is_plain, True, first.shape[2])
        basis, combine = _first_axis(maps[0], spread[0])
        return cls(
            basis[None].to(dtype),
            tuple(of_axis.flatten(0, 1).to(dtype) for of_axis in spread[1:]),
            combine,
            is_plain=False,
            is_pointwise=False,
            summed=sum(space) + SUMMED_TOGETHER,
        )

    def coefficients(self, filters: torch.Tensor, *, channels_last: bool) -> torch.Tensor:
        """Return (runs, numbers of a run, sums): what the numbers of :meth:`apply` count for.

        The numbers of a run are added up in the dtype of the input, if the kernel has more than
        one element, and all runs in float64.

        Parameters
        ----------
        filters
            Sums of the filters, (sums, C, *kernel) in float64.
        channels_last
            The order of the numbers.
        """
        sums, channels, *kernel = filters.shape
        if self.is_pointwise:
            flat = filters.reshape(sums, channels)
            return torch.diag_embed(flat.T).transpose(0, 1).reshape(1, sums * channels, sums)
        # (sums, rows, C, other elements of the kernel)
        by_row = filters.reshape(sums, channels, kernel[0], -1)
        made = torch.einsum("skr,scke->srce", self.combine, by_row)
        rows = made.shape[1]
        others = len(kernel) - 1
        whole = torch.zeros(
            (sums, rows, channels, *(n for k in kernel[1:] for n in (sums, k))),
            dtype=torch.float64,
        )
        for s in range(sums):
            own = [n for _ in range(others) for n in (s, slice(None))]
            place = (s, slice(None), slice(None), *own)
            whole[place] = made[s].reshape(rows, channels, *kernel[1:])
        whole = whole.reshape(sums, rows, channels, -1)
        whole = whole.movedim(2, 3) if channels_last else whole.movedim(2, 1)
        found = whole.reshape(sums, -1).T
        run = _length_of_runs(len(found), channels)
        return found.reshape(-1, run, sums).to(self.first.dtype).contiguous()

    def sums_of(self, x: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
        """Return (images, sums) in float64: what the output's sums must be, without bias.

        Parameters
        ----------
        x
            The unpadded input.
        coefficients
            Of :meth:`coefficients`, for the memory layout of ``x``.
        """
        return contracted(self.apply(x), coefficients)

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """Return the numbers for every image, (images, numbers)."""
        if self.is_pointwise:
            return _channel_sums(x, self.first).flatten(1)
        images, channels, *space = x.shape
        last = channels_last_view(x)
        if last is not None:
            value = last.reshape(images, space[0], -1)
            value = torch.bmm(self.first.expand(images, -1, -1), value)
            for of_axis, size in zip(self.others, space[1:], strict=True):
                value = torch.matmul(of_axis, value.reshape(*value.shape[:-1], size, -1))
            return value.reshape(images, -1)
        value = x.reshape(images * channels, space[0], -1)
        value = torch.matmul(self.first[0], value)
        for of_axis, size in zip(self.others, space[1:], strict=True):
            value = value.reshape(*value.shape[:-1], size, -1)
            if value.shape[-1] == 1:
                value = torch.matmul(value[..., 0], of_axis.T)[..., None]
            else:
                value = torch.matmul(of_axis, value)
        return value.reshape(images, -1)


def contracted(numbers: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
    """Return (images, sums) in float64 for (images, numbers) and (runs, length, sums)."""
    runs, length, _ = coefficients.shape
    split = numbers.reshape(len(numbers), runs, length).transpose(0, 1)
    return torch.bmm(split, coefficients).sum(dim=0, dtype=torch.float64)


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


def _first_axis(axis: _AxisMap, spread: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return few sums along the first axis, and how those for every element of the kernel follow.

    The weights are a cosine and a sine of the position: moving them by one turns them, so sums for
    the next element of the kernel are combinations of the same two, except at the edges, whose
    elements are taken by themselves. Where that is no fewer, the sums are those for every element.

    Returns
    -------
    basis, combine
        (rows, size), and (sums, kernel, rows).
    """
    sums = len(spread)
    direct = spread.flatten(0, 1)
    as_it_is = torch.eye(len(direct), dtype=torch.float64).reshape(sums, axis.kernel, -1)
    # The weight of the output in which x[q] would meet the first element of the kernel.
    place = (torch.arange(axis.size) + axis.before).to(torch.float64) / axis.stride
    rows = []
    for remainder in range(axis.stride):
        here = (torch.arange(axis.size) % axis.stride) == remainder
        rows += [
            torch.where(here, torch.cos(_ANGLE * place - start * _QUARTER), 0.0)
            for start in range(min(sums, 2))
        ]
    outside = set()
    for column in range(axis.kernel):
        places = torch.arange(axis.size) + axis.before - column * axis.dilation
        met = (places % axis.stride == 0) & ((places < 0) | (places // axis.stride >= axis.out))
        outside.update(torch.nonzero(met).flatten().tolist())
    edges = sorted(outside)
    if len(rows) + len(edges) >= len(direct):
        return direct, as_it_is
    alone = torch.zeros((len(edges), axis.size), dtype=torch.float64)
    alone[torch.arange(len(edges)), edges] = 1.0
    basis = torch.cat([torch.stack(rows), alone])
    combine = torch.linalg.lstsq(basis.T, direct.T, driver="gelsd").solution.T
    if not torch.allclose(combine @ basis, direct, rtol=0.0, atol=1e-9):
        return direct, as_it_is
    return basis, combine.reshape(sums, axis.kernel, -1)

"""NSCTC, numerically stable coded tensor convolution: one coded layer, from end to end.

A :class:`CodedConv` is the value that says how one convolution is coded: its geometry, its
code, and whether its input is split by rows or by images. Its methods are the steps of the
scheme (paper, section III and algorithms 1 to 5): encode what a share needs, convolve,
decode. They run anywhere; nothing here knows about machines.

Results of shares have one layout, whether the share was coded or not:

- split by rows: (B, ell_b · N', ell_a · h, W' …), the share's outputs one below the other;
- split by images: (ell_a · b, ell_b · N', H', W' …), one after the other,

with N' output channels, h rows and b images to a part. In a grouped convolution the
channels are ordered by group, then by coded filter. A share whose parts came uncoded is
*plain*: its inputs are one strip, or one run of images, its filters one run of filters, and
its work one ordinary convolution that gives the same layout.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, get_args

import torch

from .apcp import ImagePartition, RowPartition, padded_rows, partition_images, partition_rows
from .code import Code, Float64Array
from .errors import Abandoned, CodeError, GeometryError, NotDecodableError, TensorError
from .geometry import ConvGeometry, Padding
from .kccp import FilterPartition, partition_filters, split_filters

__all__ = ["CodedConv", "Split", "coded_conv"]

Split = Literal["rows", "images"]

_DTYPES = (torch.float32, torch.float64)


@dataclass(frozen=True)
class CodedConv:
    """One convolution layer, coded.

    Parameters
    ----------
    geometry
        The convolution.
    code
        The code of its shares.
    split
        Whether the code's input parts are runs of output rows, or of the block's images.
    """

    geometry: ConvGeometry
    code: Code
    split: Split = "rows"

    def __post_init__(self) -> None:
        if self.split not in get_args(Split):
            raise CodeError(f"split {self.split!r}; expected 'rows' or 'images'")

    @cached_property
    def filters(self) -> FilterPartition:
        """How the filters are split."""
        return partition_filters(self.geometry, self.code.k_b)

    @cached_property
    def strips(self) -> RowPartition:
        """How rows are split; one part if the split is by images."""
        return partition_rows(self.geometry, self.code.k_a if self.split == "rows" else 1)

    def images(self, batch: int) -> ImagePartition:
        """How the images of a block are split; one part if the split is by rows."""
        return partition_images(batch, self.code.k_a if self.split == "images" else 1)

    def output_shape(self, batch: int) -> tuple[int, ...]:
        """Return the shape of the layer's output, (B, N, H', W' …)."""
        return (batch, self.geometry.out_channels, *self.geometry.output_spatial)

    def share_shape(self, share: int, batch: int) -> tuple[int, ...]:
        """Return the shape of the result of one share, the same for every share."""
        _checked_share(self.code, share)
        _, *others = self.geometry.output_spatial
        channels = self.code.ell_b * self.filters.channels
        if self.split == "rows":
            return (batch, channels, self.code.ell_a * self.strips.rows, *others)
        images = self.code.ell_a * self.images(batch).per_part
        return (images, channels, *self.geometry.output_spatial)

    def is_plain(self, share: int) -> bool:
        """Return whether a share is one plain convolution: uncoded parts, in a row."""
        return _plain_runs(self.code, share) is not None

    def encode_input(self, x: torch.Tensor, share: int) -> torch.Tensor:
        """Return what a share convolves.

        Parameters
        ----------
        x
            The whole unpadded input of the layer, (B, C, *space), float32 or float64.
        share
            Index of the share.

        Returns
        -------
        torch.Tensor
            By rows, (ell_a · B, C, Ĥ, W + 2p …), or one padded strip
            (B, C, (ell_a · h − 1) s + KH, W + 2p …) where the share is plain. By images,
            (ell_a · b, C, *space), unpadded. Not a copy where nothing has to be computed.
        """
        self._check_input(x)
        runs = _plain_runs(self.code, share)
        first, parts = (0, 0) if runs is None else (runs[0], self.code.ell_a)
        if self.split == "images":
            return self._encode_images(x, share, first, parts)
        if parts:
            start = first * self.strips.step
            return padded_rows(x, self.geometry, start, self.strips.span(parts))
        return self._encode_rows(x, share)

    def encode_filters(self, weight: torch.Tensor, share: int) -> torch.Tensor:
        """Return the filters of a share, (G · ell_b · N'/G, C / G, *kernel).

        Parameters
        ----------
        weight
            (N, C / G, *kernel), float32 or float64.
        share
            Index of the share.
        """
        if tuple(weight.shape) != self.geometry.weight_shape:
            raise GeometryError(
                f"filters of shape {tuple(weight.shape)}; expected {self.geometry.weight_shape}"
            )
        _check_dtype(weight)
        runs = _plain_runs(self.code, share)
        if runs is not None:
            return split_filters(weight, self.filters, runs[1], self.code.ell_b).flatten(0, 2)
        parts = split_filters(weight, self.filters).to(torch.float64)
        matrix = torch.from_numpy(self.code.filter_matrix[share].copy()).to(weight.device)
        coded = torch.einsum("ib,gb...->gi...", matrix, parts)
        return coded.flatten(0, 2).to(weight.dtype)

    def convolve(
        self,
        coded_input: torch.Tensor,
        coded_filters: torch.Tensor,
        share: int,
        wanted: Callable[[], bool] | None = None,
        slices: int = 1,
    ) -> torch.Tensor:
        """Return the result of a share.

        Parameters
        ----------
        coded_input, coded_filters
            From :meth:`encode_input` and :meth:`encode_filters` for this share.
        share
            Index of the share.
        wanted
            Asked before every slice whether anybody still waits for the share.
        slices
            How many slices to work in: runs of the stacked images, and of output rows where
            there are fewer images than slices.

        Raises
        ------
        Abandoned
            If ``wanted`` said no.
        """
        _check_alike(coded_input, coded_filters)
        stacked = self.split == "rows" and not self.is_plain(share)
        ell = self.code.ell_a if stacked else 1
        images = len(coded_input)
        rows = self.strips.rows * (self.code.ell_a if self.split == "rows" and ell == 1 else 1)
        pieces = list(_pieces(images, rows, slices))
        out: torch.Tensor | None = None
        for image_run, row_run in pieces:
            if wanted is not None and not wanted():
                raise Abandoned(f"share {share} is no longer wanted; stopped between two slices")
            piece = self._convolve_rows(coded_input[image_run], coded_filters, row_run)
            if len(pieces) == 1 and ell == 1:
                return piece
            if out is None:
                shape = (images // ell, piece.shape[1], ell, rows, *piece.shape[3:])
                out = piece.new_empty(shape)
            _place(piece, out, image_run, row_run)
        assert out is not None  # noqa: S101 - there is at least one piece
        return out.flatten(2, 3)

    def decode(self, shares: Mapping[int, torch.Tensor], batch: int) -> torch.Tensor:
        """Return the layer's output, (B, N, H', W' …), without bias.

        Parameters
        ----------
        shares
            Results of :meth:`convolve` by share. All of them are used: with more than the
            recovery threshold, by least squares.
        batch
            Images of the block, B.

        Raises
        ------
        NotDecodableError
            If the shares do not decode.
        """
        decoder = self.code.decoder(shares)
        results = [self._parts_of(shares[share], share, batch) for share in decoder.survivors]
        rows = list(itertools.chain.from_iterable(results))
        first = shares[decoder.survivors[0]]
        for result in shares.values():
            _check_alike(first, result)
        out = first.new_empty(self.output_shape(self._whole(batch)))
        for product, row in decoder.copied:
            _copy_cut(self._product(out, product), rows[row])
        which = [
            i for i, product in enumerate(decoder.solved) if self._product(out, product).numel()
        ]
        if which:
            for i, values in zip(which, decoder.solve(rows, which), strict=True):
                _copy_cut(self._product(out, decoder.solved[i]), values)
        return out[:batch]

    def _encode_rows(self, x: torch.Tensor, share: int) -> torch.Tensor:
        """Return combinations of strips, (ell_a · B, C, Ĥ, W + 2p …)."""
        matrix = self.code.input_matrix[share]
        needed = self.code.parts_needed(share)
        strips = torch.stack(
            [
                padded_rows(x, self.geometry, self.strips.starts[a], self.strips.input_rows)
                for a in needed
            ]
        )
        return _combine(matrix[:, list(needed)], strips).flatten(0, 1)

    def _encode_images(self, x: torch.Tensor, share: int, first: int, parts: int) -> torch.Tensor:
        """Return combinations of runs of images, or some runs as they are."""
        partition = self.images(len(x))
        if parts:
            chosen = x[partition.run(first, parts)]
            return _fill(chosen, parts * partition.per_part)
        matrix = self.code.input_matrix[share]
        padded = _fill(x, partition.k_a * partition.per_part)
        return _combine(matrix, torch.unflatten(padded, 0, (partition.k_a, -1))).flatten(0, 1)

    def _convolve_rows(
        self, coded_input: torch.Tensor, coded_filters: torch.Tensor, rows: slice
    ) -> torch.Tensor:
        """Return the convolution of some images, only these output rows."""
        geometry = self.geometry
        start = rows.start * geometry.stride[0]
        count = (rows.stop - rows.start - 1) * geometry.stride[0] + geometry.effective_kernel[0]
        if self.split == "rows":
            coded_input = coded_input.narrow(2, start, count)
        elif rows == slice(0, self.strips.rows):
            return geometry.convolve(coded_input, coded_filters)
        else:
            coded_input = padded_rows(coded_input, geometry, start, count)
        return geometry.convolve_padded(coded_input, (0,) * geometry.ndim, coded_filters)

    def _parts_of(self, result: torch.Tensor, share: int, batch: int) -> list[torch.Tensor]:
        """Return the ell_a · ell_b outputs of a share as views, (images, G, filters, h, …)."""
        shape = self.share_shape(share, batch)
        if tuple(result.shape) != shape:
            raise GeometryError(
                f"share {share} has a result of shape {tuple(result.shape)}; expected {shape} for "
                f"{batch} images"
            )
        code, filters = self.code, self.filters
        by_filter = torch.unflatten(result, 1, (filters.groups, code.ell_b, filters.per_group))
        if self.split == "rows":
            by_part = torch.unflatten(by_filter, 4, (code.ell_a, self.strips.rows)).movedim(4, 0)
        else:
            by_part = torch.unflatten(by_filter, 0, (code.ell_a, self.images(batch).per_part))
        return [
            by_part[i, :, :, j] for i, j in itertools.product(range(code.ell_a), range(code.ell_b))
        ]

    def _whole(self, batch: int) -> int:
        """Return the images of a block with the zero images that fill its last part."""
        partition = self.images(batch)
        return partition.k_a * partition.per_part

    def _product(self, out: torch.Tensor, product: int) -> torch.Tensor:
        """Return the place of one product in an output of all images, as a view, cut to it."""
        a, b = divmod(product, self.code.k_b)
        filters = self.filters
        grouped = torch.unflatten(out, 1, (filters.groups, filters.group_filters))
        place = grouped[:, :, filters.run(b)]
        if self.split == "rows":
            return place[:, :, :, self.strips.output_run(a)]
        return place[self.images(len(out)).run(a)]

    def _check_input(self, x: torch.Tensor) -> None:
        expected = (self.geometry.in_channels, *self.geometry.spatial)
        if tuple(x.shape[1:]) != expected:
            raise GeometryError(
                f"input of shape {tuple(x.shape)}; expected (batch, C, *space) = "
                f"(batch, {', '.join(map(str, expected))})"
            )
        _check_dtype(x)


def coded_conv(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding | Sequence[Sequence[int]] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    code: Code,
    survivors: Iterable[int] | None = None,
    split: Split = "rows",
) -> torch.Tensor:
    """Return a convolution, computed in coded shares and decoded from some of them.

    The same as ``torch.nn.functional.conv1d``, ``conv2d`` or ``conv3d``, up to rounding.

    Parameters
    ----------
    x
        (batch, C, *space), or (C, *space) for one image; float32 or float64.
    weight
        (N, C / groups, *kernel).
    bias
        (N,), added after decoding; None for none.
    stride, padding, dilation, groups
        As in torch; padding also as pairs (before, after).
    code
        The code, see :func:`fcdcc.coding.make_code`.
    survivors
        The shares to compute and to decode from; by default the first δ.
    split
        Split the input by 'rows' or by 'images'.

    Raises
    ------
    GeometryError
        If the arguments do not fit together.
    TensorError
        If dtypes or devices differ, or are not supported.
    NotDecodableError
        If the survivors do not decode.
    """
    _check_dtype(x)
    for other in (weight, bias):
        if other is not None:
            _check_alike(x, other)
    geometry = ConvGeometry.of(x.shape, weight.shape, stride, padding, dilation, groups)
    if bias is not None and tuple(bias.shape) != (geometry.out_channels,):
        raise GeometryError(
            f"bias of shape {tuple(bias.shape)}; expected ({geometry.out_channels},)"
        )
    layer = CodedConv(geometry, code, split)
    images = x if x.ndim == geometry.ndim + 2 else x[None]
    results = {}
    for share in _first_decodable(code) if survivors is None else sorted(set(survivors)):
        coded_input = layer.encode_input(images, share)
        results[share] = layer.convolve(coded_input, layer.encode_filters(weight, share), share)
    out = layer.decode(results, len(images))
    if bias is not None:
        out = out + bias.view(-1, *[1] * geometry.ndim)
    return out if x.ndim == images.ndim else out[0]


def _first_decodable(code: Code) -> range:
    for count in range(code.recovery_threshold, code.n + 1):
        if code.is_decodable(range(count)):
            return range(count)
    raise NotDecodableError(f"the {code.name} code does not decode from all its {code.n} shares")


@lru_cache(maxsize=4096)
def _plain_runs(code: Code, share: int) -> tuple[int, int] | None:
    """Return the first input part and the first filter part of a plain share, else None."""
    _checked_share(code, share)
    first_input = _uncoded_run(code.input_matrix[share])
    first_filter = _uncoded_run(code.filter_matrix[share])
    if first_input is None or first_filter is None:
        return None
    return first_input, first_filter


def _uncoded_run(matrix: Float64Array) -> int | None:
    """Return the first part if the rows of (ell, k) are uncoded parts in a row, else None."""
    ell, k = matrix.shape
    first = int(matrix[0].argmax())
    if first + ell > k:
        return None
    plain = matrix[:, first : first + ell]
    is_run = all(plain[i, i] == 1.0 for i in range(ell)) and (matrix != 0.0).sum() == ell
    return first if is_run else None


def _combine(matrix: Float64Array, parts: torch.Tensor) -> torch.Tensor:
    """Return (ell, *shape), the combinations of (k, *shape) by an (ell, k) matrix."""
    coefficients = torch.from_numpy(matrix.copy()).to(device=parts.device, dtype=parts.dtype)
    return (coefficients @ parts.flatten(1)).reshape(len(matrix), *parts.shape[1:])


def _fill(x: torch.Tensor, images: int) -> torch.Tensor:
    """Return ``x`` with zero images at its end, ``x`` itself where it has as many as asked."""
    if len(x) == images:
        return x
    return torch.cat([x, x.new_zeros((images - len(x), *x.shape[1:]))])


def _pieces(images: int, rows: int, slices: int) -> Iterator[tuple[slice, slice]]:
    """Yield runs of images and of output rows: about as many as there should be slices."""
    image_runs = list(_runs(images, slices))
    row_slices = math.ceil(slices / len(image_runs))
    yield from itertools.product(image_runs, _runs(rows, row_slices))


def _runs(length: int, slices: int) -> Iterator[slice]:
    slices = max(1, min(length, slices))
    edges = [length * i // slices for i in range(slices + 1)]
    yield from (slice(start, stop) for start, stop in itertools.pairwise(edges))


def _place(piece: torch.Tensor, out: torch.Tensor, images: slice, rows: slice) -> None:
    """Copy results of stacked images into ``out``, (B, channels, ell, rows, …)."""
    batch = max(len(out), 1)
    for i in range(images.start // batch, -(-images.stop // batch)):
        start, stop = max(images.start, i * batch), min(images.stop, (i + 1) * batch)
        target = out[start - i * batch : stop - i * batch, :, i, rows]
        target.copy_(piece[start - images.start : stop - images.start])


def _copy_cut(target: torch.Tensor, source: torch.Tensor) -> None:
    """Copy (images, G, filters, h, …) into a target that may have fewer filters and rows."""
    target.copy_(source[:, :, : target.shape[2], : target.shape[3]])


def _checked_share(code: Code, share: int) -> None:
    if not 0 <= share < code.n:
        raise CodeError(f"share {share} of a code with shares 0 to {code.n - 1}")


def _check_dtype(tensor: torch.Tensor) -> None:
    if tensor.dtype not in _DTYPES:
        raise TensorError(
            f"tensor of {tensor.dtype}; expected torch.float32 or torch.float64: convert it"
        )


def _check_alike(first: torch.Tensor, second: torch.Tensor) -> None:
    if first.dtype != second.dtype or first.device != second.device:
        raise TensorError(
            f"tensors of {first.dtype} on {first.device} and of {second.dtype} on "
            f"{second.device}; expected one dtype and one device: convert one of them"
        )

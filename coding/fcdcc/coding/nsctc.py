"""NSCTC, numerically stable coded tensor convolution: one coded layer, from end to end.

A :class:`CodedConv` is a value that says how one convolution is coded: its geometry, its code,
and whether its input is split by rows or by images. Its methods are the steps of the scheme
(paper, section III and algorithms 1 to 5): encode the input and the filters of a share,
convolve, decode. They do not depend on where they run.

Results of all shares have one layout, whether the share is coded or not:

- split by rows: (B, ell_b · N', ell_a · h, W' …), the share's outputs one below the other;
- split by images: (ell_a · b, ell_b · N', H', W' …), one after the other,

with N' output channels, h rows and b images to a part. In a grouped convolution the
channels are ordered by group, then by coded filter.

A share whose inputs are consecutive uncoded parts convolves them as one strip or one run of
images. If its filters are consecutive uncoded parts, too, the share is *plain*: an ordinary
convolution, whose result is a part of the layer's output without decoding.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias, get_args

import torch

from .apcp import ImagePartition, RowPartition, padded_rows, partition_images, partition_rows
from .checks import check_alike, check_dtype, check_shape
from .code import Code
from .encoding import combine_images, combine_strips, take_images
from .errors import Abandoned, CodeError
from .geometry import ConvGeometry
from .kccp import FilterPartition, partition_filters, split_filters
from .slicing import pieces, tiles

__all__ = ["CodedConv", "Split"]

Split = Literal["rows", "images"]

ConvolutionCheck: TypeAlias = Callable[
    [torch.Tensor, tuple[tuple[int, int], ...], torch.Tensor], None
]
"""What looks at an input, the zeros added around it, and the output of a convolution."""


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

    Examples
    --------
    >>> import torch
    >>> from fcdcc.coding import ConvGeometry, make_code
    >>> x, weight = torch.ones(2, 3, 8, 8), torch.ones(4, 3, 3, 3)
    >>> code = make_code("systematic", n=6, k_a=16, k_b=1)
    >>> layer = CodedConv(ConvGeometry.of(x.shape, weight.shape), code)
    >>> shares = {
    ...     share: layer.convolve(
    ...         layer.encode_input(x, share), layer.encode_filters(weight, share), share
    ...     )
    ...     for share in (0, 2, 4, 5)
    ... }
    >>> y = layer.decode(shares, batch=2)
    >>> torch.allclose(y, torch.nn.functional.conv2d(x, weight), atol=1e-4)
    True
    """

    geometry: ConvGeometry
    code: Code
    split: Split = "rows"

    def __post_init__(self) -> None:
        if self.split not in get_args(Split):
            raise CodeError(f"split {self.split!r}; expected 'rows' or 'images'")

    @cached_property
    def filters(self) -> FilterPartition:
        """The split of the filters."""
        return partition_filters(self.geometry, self.code.k_b)

    @cached_property
    def strips(self) -> RowPartition:
        """The split of the rows; one part if the split is by images."""
        return partition_rows(self.geometry, self.code.k_a if self.split == "rows" else 1)

    def images(self, batch: int) -> ImagePartition:
        """Return the split of a block's images; one part if the split is by rows."""
        return partition_images(batch, self.code.k_a if self.split == "images" else 1)

    def output_shape(self, batch: int) -> tuple[int, ...]:
        """Return the shape of the layer's output, (B, N, H', W' …)."""
        return (batch, self.geometry.out_channels, *self.geometry.output_spatial)

    def share_shape(self, share: int, batch: int) -> tuple[int, ...]:
        """Return the shape of the result of one share, the same for every share."""
        self.code.check_share(share)
        _, *others = self.geometry.output_spatial
        channels = self.code.ell_b * self.filters.channels
        if self.split == "rows":
            return (batch, channels, self.code.ell_a * self.strips.rows, *others)
        images = self.code.ell_a * self.images(batch).per_part
        return (images, channels, *self.geometry.output_spatial)

    def is_plain(self, share: int) -> bool:
        """Return whether a share is an ordinary convolution of uncoded inputs and filters."""
        code = self.code
        return code.input_run(share) is not None and code.filter_run(share) is not None

    def rows_of(self, share: int) -> range:
        """Return the output rows of a plain share, split by rows, that have to be computed.

        Rows after the last one that touches the input are zero: they only make all parts
        equally large. The last of the returned rows may lie below the layer's output;
        decoding other shares needs them.
        """
        geometry = self.geometry
        first = self.code.input_run(share)
        if first is None:
            raise CodeError(f"share {share} is coded; expected a plain one")
        below = geometry.spatial[0] + geometry.padding[0][0]  # the first padded row below x
        touched = max(-(-below // geometry.stride[0]), geometry.output_spatial[0])
        start, stop = first * self.strips.rows, (first + self.code.ell_a) * self.strips.rows
        return range(min(start, touched), min(stop, touched))

    def recover(self, shares: Mapping[int, torch.Tensor], share: int, batch: int) -> torch.Tensor:
        """Return the result of a missing plain share, computed from the results of others.

        Parameters
        ----------
        shares
            Results of :meth:`convolve` by share, without bias. All of them are used. Those of
            plain shares split by rows may lack their last rows, which are zeros.
        share
            The share that is missing.
        batch
            Images of the block, B.

        Returns
        -------
        torch.Tensor
            Of :meth:`share_shape`.

        Raises
        ------
        NotDecodableError
            If the shares do not decode.
        """
        decoder = self.code.decoder(shares)
        rows: list[torch.Tensor] = []
        for survivor in decoder.survivors:
            rows += self.all_outputs(shares[survivor], survivor, batch)
        out = rows[0].new_empty(self.share_shape(share, batch))
        products = self.code.share_matrices[share].argmax(axis=1)
        copied, solved = dict(decoder.copied), dict[int, torch.Tensor]()
        for product, target in zip(products, self.outputs(out, share, batch), strict=True):
            if int(product) in copied:  # another share is a copy of it
                target.copy_(rows[copied[int(product)]])
            else:
                solved[decoder.solved.index(int(product))] = target
        for images, filters in tiles(rows[0].shape, len(decoder.rows)) if solved else ():
            tile = decoder.solve([row[images, :, filters] for row in rows], list(solved))
            for target, values in zip(solved.values(), tile, strict=True):
                target[images, :, filters].copy_(values)
        return out

    def encode_input(self, x: torch.Tensor, share: int) -> torch.Tensor:
        """Return the coded input of a share.

        Parameters
        ----------
        x
            The whole unpadded input of the layer, (B, C, *space), float32 or float64.
        share
            Index of the share.

        Returns
        -------
        torch.Tensor
            By rows, (ell_a · B, C, Ĥ, W + 2p …); or, if the share's input is uncoded, one
            padded strip (B, C, (ell_a · h − 1) s + KH, W + 2p …). By images, (ell_a · b, C,
            *space), unpadded. A view of ``x`` if nothing has to be computed or padded.
        """
        check_shape("input", x, (len(x), self.geometry.in_channels, *self.geometry.spatial))
        check_dtype(x)
        first, ell = self.code.input_run(share), self.code.ell_a
        matrix = self.code.input_matrix[share]
        if self.split == "images":
            partition = self.images(len(x))
            if first is None:
                return combine_images(x, matrix, partition)
            return take_images(x, partition, first, ell)
        if first is None:
            return combine_strips(x, matrix, self.geometry, self.strips)
        return padded_rows(x, self.geometry, self.strips.starts[first], self.strips.span(ell))

    def encode_filters(self, weight: torch.Tensor, share: int) -> torch.Tensor:
        """Return the coded filters of a share, (G · ell_b · N' / G, C / G, *kernel).

        Parameters
        ----------
        weight
            (N, C / G, *kernel), float32 or float64.
        share
            Index of the share.

        Combinations are computed in float64 and rounded once. A view of ``weight`` if nothing
        has to be computed.
        """
        check_shape("filters", weight, self.geometry.weight_shape)
        check_dtype(weight)
        first = self.code.filter_run(share)
        if first is not None:
            return split_filters(weight, self.filters, first, self.code.ell_b).flatten(0, 2)
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
        check: ConvolutionCheck | None = None,
    ) -> torch.Tensor:
        """Return the result of a share.

        Parameters
        ----------
        coded_input, coded_filters
            From :meth:`encode_input` and :meth:`encode_filters` for this share.
        share
            Index of the share.
        wanted
            Called before every slice; returns whether the share's result is still needed.
        slices
            Least number of slices to compute the share in, as far as there are images and rows.
        check
            Called after every slice with its input, the zeros that the convolution has added
            around that, as ``ConvGeometry.padding``, and its output. What it raises ends the share.

        Raises
        ------
        Abandoned
            If ``wanted`` returned False.
        """
        check_alike(coded_input, coded_filters)
        # Coded strips lie one after the other and have to be put one below the other.
        stacked = self.split == "rows" and self.code.input_run(share) is None
        ell = self.code.ell_a if stacked else 1
        images = len(coded_input)
        rows = self.strips.rows * (1 if stacked or self.split == "images" else self.code.ell_a)
        work = list(pieces(images, rows, slices))
        out: torch.Tensor | None = None
        for image_run, row_run in work:
            if wanted is not None and not wanted():
                raise Abandoned(f"share {share} is no longer wanted; stopped between two slices")
            piece = self._convolve_rows(coded_input[image_run], coded_filters, row_run, rows, check)
            if len(work) == 1 and ell == 1:
                return piece
            if out is None:
                shape = (images // ell, piece.shape[1], ell, rows, *piece.shape[3:])
                out = piece.new_empty(shape)
            _place(piece, out, image_run, row_run)
        assert out is not None  # noqa: S101 - there is at least one piece of work
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
        rows: list[torch.Tensor] = []
        first = shares[decoder.survivors[0]]
        for share in decoder.survivors:
            check_alike(first, shares[share])
            rows += self.outputs(shares[share], share, batch)
        partition = self.images(batch)
        out = first.new_empty(self.output_shape(partition.k_a * partition.per_part))
        self._copy_uncoded(out, shares, rows, decoder.copied, decoder.survivors)
        # Products that lie wholly in the adaptive padding are cut off and not solved for.
        which = [i for i, p in enumerate(decoder.solved) if self.place_of(out, p).numel()]
        if which:
            for images, filters in tiles(rows[0].shape, len(decoder.rows)):
                tile = decoder.solve([row[images, :, filters] for row in rows], which)
                for i, values in zip(which, tile, strict=True):
                    place = self.place_of(out, decoder.solved[i])
                    _copy_cut(place[images, :, filters], values)
        return out[:batch]

    def _convolve_rows(
        self,
        coded_input: torch.Tensor,
        coded_filters: torch.Tensor,
        run: slice,
        rows: int,
        check: ConvolutionCheck | None,
    ) -> torch.Tensor:
        """Return a run of the ``rows`` output rows of some images."""
        geometry = self.geometry
        start = run.start * geometry.stride[0]
        count = (run.stop - run.start - 1) * geometry.stride[0] + geometry.effective_kernel[0]
        is_whole = self.split == "images" and run == slice(0, rows)
        if self.split == "rows":
            coded_input = coded_input.narrow(2, start, count)
        elif not is_whole:
            coded_input = padded_rows(coded_input, geometry, start, count)
        if is_whole:
            padding = geometry.padding
            made = geometry.convolve(coded_input, coded_filters)
        else:
            padding = ((0, 0),) * geometry.ndim
            made = geometry.convolve_padded(coded_input, (0,) * geometry.ndim, coded_filters)
        if check is not None:
            check(coded_input, padding, made)
        return made

    def outputs(self, result: torch.Tensor, share: int, batch: int) -> list[torch.Tensor]:
        """Return the ell_a · ell_b outputs of a share as views, (images, G, filters, h, …)."""
        check_shape(
            f"share {share} of {batch} images: result", result, self.share_shape(share, batch)
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

    def all_outputs(self, result: torch.Tensor, share: int, batch: int) -> list[torch.Tensor]:
        """Return :meth:`outputs` of a result that may lack its last rows, which are zeros."""
        whole = _with_zeros(result, self.share_shape(share, batch))
        return self.outputs(whole, share, batch)

    def place_of(self, out: torch.Tensor, product: int) -> torch.Tensor:
        """Return the place of one product in an output of all images: a view, within the output."""
        a, b = divmod(product, self.code.k_b)
        return self._place_of_run(out, a, 1, b, 1)

    def _place_of_run(
        self, out: torch.Tensor, first_a: int, parts_a: int, first_b: int, parts_b: int
    ) -> torch.Tensor:
        """Return the place of consecutive parts, (images, G, filters, h, …)."""
        filters = self.filters
        grouped = torch.unflatten(out, 1, (filters.groups, filters.group_filters))
        place = grouped[:, :, filters.run(first_b, parts_b)]
        if self.split == "rows":
            return place[:, :, :, self.strips.output_run(first_a, parts_a)]
        return place[self.images(len(out)).run(first_a, parts_a)]

    def _copy_uncoded(
        self,
        out: torch.Tensor,
        shares: Mapping[int, torch.Tensor],
        rows: list[torch.Tensor],
        copied: tuple[tuple[int, int], ...],
        survivors: tuple[int, ...],
    ) -> None:
        """Copy the uncoded products; those of a plain share all at once."""
        code, done = self.code, set[int]()
        for product, row in copied:
            share = survivors[row // (code.ell_a * code.ell_b)]
            first_a, first_b = code.input_run(share), code.filter_run(share)
            if first_a is None or first_b is None:
                _copy_cut(self.place_of(out, product), rows[row])
            elif share not in done:
                done.add(share)
                place = self._place_of_run(out, first_a, code.ell_a, first_b, code.ell_b)
                _copy_cut(place, torch.unflatten(shares[share], 1, (self.filters.groups, -1)))


def _place(piece: torch.Tensor, out: torch.Tensor, images: slice, rows: slice) -> None:
    """Copy results of stacked images into ``out``, (B, channels, ell, rows, …)."""
    batch = max(len(out), 1)
    for i in range(images.start // batch, -(-images.stop // batch)):
        start, stop = max(images.start, i * batch), min(images.stop, (i + 1) * batch)
        target = out[start - i * batch : stop - i * batch, :, i, rows]
        target.copy_(piece[start - images.start : stop - images.start])


def _with_zeros(result: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Return a result with the rows of zeros at its end that were not computed."""
    missing = shape[2] - result.shape[2]
    if missing <= 0:
        return result
    zeros = result.new_zeros((*result.shape[:2], missing, *result.shape[3:]))
    return torch.cat([result, zeros], dim=2)


def _copy_cut(target: torch.Tensor, source: torch.Tensor) -> None:
    """Copy (images, G, filters, h, …) into a target that may have fewer filters and rows."""
    target.copy_(source[:, :, : target.shape[2], : target.shape[3]])

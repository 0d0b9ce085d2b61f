"""APCP, adaptive-padding coded partitioning: the input of a layer in k_a parts.

By rows (:class:`RowPartition`), a part holds the input rows that one strip, a run of output
rows, needs. With H' output rows, stride s and a kernel of KH rows (dilated), a strip has
h = ⌈H' / k_a⌉ rows and needs Ĥ = (h − 1) s + KH input rows; those of strip a begin at padded
row a h s::

    padded input   |------ part 0 ------|
                              |------ part 1 ------|         h s rows on
                                         |------ part 2 ------|
                   .................................... zero rows: the adaptive padding

Neighbours share KH − s rows; if that is negative, the rows between them are not used. All
parts have the same size, so that they can be added; surplus output rows of the last parts are
cut off after decoding (paper, section III).

By images (:class:`ImagePartition`), a part is a run of the block's images: the same
arithmetic with a kernel of 1 and stride 1 along the batch axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .errors import GeometryError
from .geometry import ConvGeometry, pad_space

__all__ = [
    "ImagePartition",
    "RowPartition",
    "padded_rows",
    "partition_images",
    "partition_rows",
]


@dataclass(frozen=True)
class RowPartition:
    """The input and output rows of k_a parts, from :func:`partition_rows`.

    Parameters
    ----------
    k_a
        Number of parts.
    output_rows
        Rows of the whole output, H'.
    rows
        Output rows of one part, h.
    input_rows
        Input rows of one part, Ĥ.
    step
        Padded input rows between the beginnings of neighbours, h s.
    """

    k_a: int
    output_rows: int
    rows: int
    input_rows: int
    step: int

    @property
    def starts(self) -> tuple[int, ...]:
        """First row of each part in the padded input."""
        return tuple(a * self.step for a in range(self.k_a))

    def output_run(self, first: int, parts: int = 1) -> slice:
        """Return the output rows of consecutive parts, without rows below the output."""
        start = min(first * self.rows, self.output_rows)
        return slice(start, min((first + parts) * self.rows, self.output_rows))

    def span(self, parts: int) -> int:
        """Return the number of padded input rows that so many consecutive parts need."""
        return (parts - 1) * self.step + self.input_rows


@dataclass(frozen=True)
class ImagePartition:
    """A block's images in k_a runs, from :func:`partition_images`.

    Parameters
    ----------
    k_a
        Number of parts.
    images
        Images of the block.
    """

    k_a: int
    images: int

    @property
    def per_part(self) -> int:
        """Images of one part, ⌈images / k_a⌉; the last parts are filled with zero images."""
        return -(-self.images // self.k_a)

    def run(self, first: int, parts: int = 1) -> slice:
        """Return the images of consecutive parts, without zero images."""
        start = min(first * self.per_part, self.images)
        return slice(start, min((first + parts) * self.per_part, self.images))


def partition_rows(geometry: ConvGeometry, k_a: int) -> RowPartition:
    """Return the partition of a layer's input into k_a parts along its first dimension.

    Examples
    --------
    >>> geometry = ConvGeometry.of((1, 3, 28, 28), (6, 3, 5, 5), padding=2)
    >>> partition_rows(geometry, 4)
    RowPartition(k_a=4, output_rows=28, rows=7, input_rows=11, step=7)
    """
    if k_a < 1:
        raise GeometryError(f"input in {k_a} parts; expected 1 or more")
    output_rows = geometry.output_spatial[0]
    rows = -(-output_rows // k_a)
    step = rows * geometry.stride[0]
    input_rows = (rows - 1) * geometry.stride[0] + geometry.effective_kernel[0]
    return RowPartition(
        k_a=k_a,
        output_rows=output_rows,
        rows=rows,
        input_rows=input_rows,
        step=step,
    )


def partition_images(images: int, k_a: int) -> ImagePartition:
    """Return the partition of a block of images into k_a runs."""
    if k_a < 1 or images < 0:
        raise GeometryError(f"{images} images in {k_a} parts; expected 1 part or more")
    return ImagePartition(k_a, images)


def padded_rows(x: torch.Tensor, geometry: ConvGeometry, start: int, count: int) -> torch.Tensor:
    """Return a run of rows of the padded input; rows below the input are zeros.

    Parameters
    ----------
    x
        The unpadded input, (B, C, *space).
    start, count
        First row, in rows of the padded input, and number of rows.

    Returns
    -------
    torch.Tensor
        (B, C, count, …), padded in the other dimensions too; a view if no zeros are needed.
    """
    inside, above, below = rows_inside(geometry, start, count)
    return pad_space(x[:, :, inside], ((above, below), *geometry.padding[1:]))


def rows_inside(geometry: ConvGeometry, start: int, count: int) -> tuple[slice, int, int]:
    """Return the rows of the unpadded input in a run of padded rows, and the zeros around.

    Returns
    -------
    tuple
        The rows as a slice, and the numbers of zero rows above and below them.
    """
    size, before = geometry.spatial[0], geometry.padding[0][0]
    first = min(max(start - before, 0), size)
    last = min(max(start + count - before, first), size)
    above = min(max(before - start, 0), count)
    return slice(first, last), above, count - above - (last - first)

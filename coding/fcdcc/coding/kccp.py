"""KCCP, kernel-channel coded partitioning: the filters of a layer in k_b parts.

A part is a run of filters. In a grouped convolution a part has a run of every group's own
filters, ⌈(N / G) / k_b⌉ of them, since a filter only uses the input channels of its group;
so combinations of parts are grouped convolutions again. The last part is filled with zero
filters, whose outputs are cut off after decoding (paper, section III).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .errors import GeometryError
from .geometry import ConvGeometry

__all__ = ["FilterPartition", "partition_filters", "split_filters"]


@dataclass(frozen=True)
class FilterPartition:
    """The filters of each part, from :func:`partition_filters`.

    Parameters
    ----------
    k_b
        Number of parts.
    groups
        Groups of the convolution, G.
    group_filters
        Filters of one group, N / G.
    """

    k_b: int
    groups: int
    group_filters: int

    @property
    def per_group(self) -> int:
        """Filters of one part in one group, ⌈(N / G) / k_b⌉."""
        return -(-self.group_filters // self.k_b)

    @property
    def channels(self) -> int:
        """Output channels of one part, zero filters included."""
        return self.groups * self.per_group

    def run(self, first: int, parts: int = 1) -> slice:
        """Return the filters of consecutive parts within each group, without zero filters."""
        start = min(first * self.per_group, self.group_filters)
        stop = min((first + parts) * self.per_group, self.group_filters)
        return slice(start, stop)


def partition_filters(geometry: ConvGeometry, k_b: int) -> FilterPartition:
    """Return the partition of a layer's filters into k_b parts."""
    if k_b < 1:
        raise GeometryError(f"filters in {k_b} parts; expected 1 or more")
    return FilterPartition(k_b, geometry.groups, geometry.out_channels // geometry.groups)


def split_filters(
    weight: torch.Tensor, partition: FilterPartition, first: int = 0, parts: int | None = None
) -> torch.Tensor:
    """Return consecutive parts, (G, parts, per_group, C / G, *kernel).

    A view of ``weight`` if no zero filters are needed.
    """
    parts = partition.k_b - first if parts is None else parts
    grouped = torch.unflatten(weight, 0, (partition.groups, partition.group_filters))
    chosen = grouped[:, partition.run(first, parts)]
    missing = parts * partition.per_group - chosen.shape[1]
    if missing:
        zeros = chosen.new_zeros((partition.groups, missing, *chosen.shape[2:]))
        chosen = torch.cat([chosen, zeros], dim=1)
    return torch.unflatten(chosen, 1, (parts, partition.per_group))

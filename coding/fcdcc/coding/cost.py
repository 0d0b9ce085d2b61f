"""Costs of a share in entries moved, entries stored and multiply-adds; the cheapest split.

The costs of one worker in the paper (section V), with sizes rounded up, and with groups:

- upload, the coded inputs: ell_a C Ĥ (W + 2p);
- download, the result: ell_a ell_b N' h W', with N' the channels of one filter part;
- stored, the coded filters: ell_b N' (C / G) KH KW;
- multiply-adds: the download times (C / G) KH KW.

All are for a block of images, except what is stored, which is independent of the block. Parts
by images are uploaded unpadded: ell_a b C H W.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from .apcp import partition_images, partition_rows
from .errors import CodeError
from .geometry import ConvGeometry
from .kccp import partition_filters
from .nsctc import CodedConv, Split

__all__ = [
    "COMMUNICATION_WEIGHT",
    "STORAGE_WEIGHT",
    "Cost",
    "Objective",
    "Partition",
    "cheapest",
    "coded_share_cost",
    "crme_partitions",
    "share_cost",
]

COMMUNICATION_WEIGHT = 0.09
"""λ_comm: price of moving one entry (paper: dollars per gigabyte out of a cloud)."""

STORAGE_WEIGHT = 0.023
"""λ_store: price of storing one entry (paper: dollars per gigabyte and month)."""

Objective = Literal["work", "paper"]


@dataclass(frozen=True)
class Cost:
    """The cost of one share.

    Parameters
    ----------
    upload
        Entries of the coded inputs.
    download
        Entries of the result.
    stored
        Entries of the coded filters.
    multiply_adds
        Of the convolution.
    """

    upload: int
    download: int
    stored: int
    multiply_adds: int

    @property
    def communication(self) -> int:
        """Entries moved, upload and download."""
        return self.upload + self.download

    def price(
        self, communication: float = COMMUNICATION_WEIGHT, storage: float = STORAGE_WEIGHT
    ) -> float:
        """Return λ_comm · (upload + download) + λ_store · stored, the objective of the paper."""
        return communication * self.communication + storage * self.stored


class Partition(NamedTuple):
    """How a layer is split: parts of input and filters, and coded parts of each per share."""

    k_a: int
    k_b: int
    ell_a: int
    ell_b: int


@lru_cache(maxsize=4096)
def coded_share_cost(
    geometry: ConvGeometry, partition: Partition, split: Split = "rows", batch: int = 1
) -> Cost:
    """Return the cost of one coded share for a block of ``batch`` images."""
    k_a, k_b, ell_a, ell_b = partition
    strips = partition_rows(geometry, k_a if split == "rows" else 1)
    images = partition_images(batch, k_a if split == "images" else 1).per_part
    if split == "rows":
        image = strips.input_rows * math.prod(geometry.padded_spatial[1:])
    else:
        image = math.prod(geometry.spatial)
    channels = ell_b * partition_filters(geometry, k_b).channels
    per_output = math.prod(geometry.weight_shape[1:])
    rows = strips.rows * math.prod(geometry.output_spatial[1:])
    download = ell_a * images * channels * rows
    return Cost(
        upload=ell_a * images * geometry.in_channels * image,
        download=download,
        stored=channels * per_output,
        multiply_adds=download * per_output,
    )


def share_cost(layer: CodedConv, share: int, batch: int = 1) -> Cost:
    """Return the cost of one share of a layer for a block of ``batch`` images.

    A share of uncoded strips uploads them as one strip: rows that neighbours share count once.
    """
    code, geometry = layer.code, layer.geometry
    partition = Partition(code.k_a, code.k_b, code.ell_a, code.ell_b)
    cost = coded_share_cost(geometry, partition, layer.split, batch)
    if layer.split == "images" or code.input_run(share) is None:
        return cost
    rows = layer.strips.span(code.ell_a)
    strip = batch * geometry.in_channels * rows * math.prod(geometry.padded_spatial[1:])
    return Cost(strip, cost.download, cost.stored, cost.multiply_adds)


def crme_partitions(delta: int) -> tuple[Partition, ...]:
    """Return all partitions with which the CRME has recovery threshold ``delta``.

    Examples
    --------
    >>> [(k_a, k_b) for k_a, k_b, *_ in crme_partitions(4)]
    [(1, 8), (2, 8), (4, 4), (8, 1), (8, 2)]
    """
    if delta < 1:
        raise CodeError(f"recovery threshold {delta}; expected 1 or more")
    found = {Partition(1, 2 * delta, 1, 2), Partition(2 * delta, 1, 2, 1)}
    if delta == 1:
        found.add(Partition(1, 1, 1, 1))
    for half in range(1, delta + 1):
        if delta % half == 0:
            found.add(Partition(2 * half, 2 * delta // half, 2, 2))
    return tuple(sorted(found))


def cheapest(
    geometry: ConvGeometry,
    candidates: Iterable[Partition],
    objective: Objective = "work",
    *,
    split: Split = "rows",
    batch: int = 1,
    communication: float = COMMUNICATION_WEIGHT,
    storage: float = STORAGE_WEIGHT,
) -> Partition:
    """Return the candidate whose shares are cheapest.

    Among candidates of equal work, the first. With the objective of the paper, a side in one
    part often costs the same as in two; then the candidate with more parts is taken, as in the
    paper.

    Parameters
    ----------
    geometry
        The layer.
    candidates
        For example :func:`crme_partitions`.
    objective
        'work': fewest multiply-adds, then fewest entries moved, then fewest kept. 'paper':
        least λ_comm · (upload + download) + λ_store · stored.
    split, batch
        How the input is split, and the images of a block.
    communication, storage
        λ_comm and λ_store.

    Examples
    --------
    An early layer is split by rows, a late one by filters:

    >>> early = ConvGeometry.of((1, 3, 224, 224), (64, 3, 3, 3), padding=1)
    >>> late = ConvGeometry.of((1, 512, 14, 14), (512, 512, 3, 3), padding=1)
    >>> [cheapest(layer, crme_partitions(16), "paper")[:2] for layer in (early, late)]
    [(32, 2), (1, 32)]
    """

    def rank(partition: Partition) -> tuple[float, ...]:
        cost = coded_share_cost(geometry, partition, split, batch)
        if objective == "paper":
            return (cost.price(communication, storage), -partition.k_a * partition.k_b)
        return (cost.multiply_adds, cost.communication, cost.stored)

    return min(candidates, key=rank)

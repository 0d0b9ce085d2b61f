"""The Dask graph of one block of images, static and right for every Dask scheduler.

With the any-k plugin, a task that needs any δ of n shares starts as soon as δ are done
(:mod:`fcdcc.pipeline.anyk`). Three forms: :mod:`.gathered` serves every code and split;
:mod:`.by_images` leaves runs of images with their workers, :mod:`.by_rows` strips of rows.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Literal, TypeAlias

from ..anyk.keys import ATTEMPT_STRIDE
from ..halo import Rows
from ..model.network import Network
from ..plans.plan import Plan
from ..plans.row_layout import row_layout
from .block_graph import Block, BlockGraph, ImageReader
from .by_images import build_by_images
from .by_rows import build_by_rows
from .gathered import build_gathered
from .store_reader import StoreReader

__all__ = [
    "Block",
    "BlockGraph",
    "ImageReader",
    "RetryMode",
    "StoreReader",
    "build_block",
    "build_retry",
]

RetryMode: TypeAlias = Literal["recheck", "uncoded", "elsewhere"]
"""How a block is computed again: with all its shares made and checked, without a code, or as at
first, by other workers."""


def build_block(network: Network, plan: Plan, block: Block, band: Rows | None = None) -> BlockGraph:
    """Return the graph that takes one block of images through the network.

    With ``band``, of a plan with bands, only these rows of the prediction are made; the executable
    is for them, too.
    """
    if plan.form == "rows":
        return build_by_rows(network, row_layout(network, plan, band), block)
    build = build_by_images if plan.form == "images" else build_gathered
    return build(network, plan, block)


def build_retry(
    network: Network,
    plan: Plan,
    block: Block,
    band: Rows | None,
    mode: RetryMode,
    attempt: int,
    allowed_workers: Collection[str] = (),
) -> BlockGraph:
    """Return the graph of a block that is computed again, after wrong or not finite results.

    A band is computed in strips again: its wrong shares are detected in every layer, but not
    located.

    Parameters
    ----------
    network, plan, block, band
        As for :func:`build_block`.
    mode
        ``recheck``: make and check all shares of every layer; ``uncoded``: use no code;
        ``elsewhere``: as at first.
    attempt
        How often the block was tried before.
    allowed_workers
        Addresses of the workers that make the shares; any, if none are named.
    """
    block = replace(block, first_position=attempt * ATTEMPT_STRIDE, allowed_workers=allowed_workers)
    if mode == "elsewhere":
        return build_block(network, plan, block, band)
    if band is None:
        return build_gathered(network, plan, block, mode)
    if mode == "uncoded":
        plan = replace(plan, redundancy="off", verify="off")
    else:  # check every layer, since its shares are in doubt
        plan = replace(plan, verify="all")
    return build_by_rows(network, row_layout(network, plan, band), block)

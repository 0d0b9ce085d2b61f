"""The Dask graph of one block of images, static and right for every Dask scheduler.

Where the any-k plugin runs, what needs any δ of n shares starts as soon as they are there
(:mod:`fcdcc.pipeline.anyk`). Three forms: :mod:`.gathered` serves every code and split;
:mod:`.by_images` leaves runs of images with their workers, :mod:`.by_rows` strips of rows.
"""

from __future__ import annotations

from ..model.network import Network
from ..plans import Plan
from ..rows import Rows
from ..strips import row_layout
from .by_images import build_by_images
from .by_rows import build_by_rows
from .common import BlockGraph, Held, Reader
from .gathered import build_gathered

__all__ = ["BlockGraph", "Reader", "build_block"]


def build_block(
    network: Network,
    plan: Plan,
    executable: Held,
    run: str,
    block: int,
    images: int,
    reader: Reader,
    band: Rows | None = None,
) -> BlockGraph:
    """Return the graph that takes one block of images through the network.

    Parameters
    ----------
    network, plan
        What to run and how.
    executable
        What the tasks refer to: the workers hold it, or it is a task of the same graph.
    run, block
        Stand in the task keys.
    images
        Images in this block.
    reader
        Says how runs of them are read.
    band
        The rows of the prediction that are made; None for all. The executable is for them,
        too.
    """
    if plan.in_place or band is not None:
        layout = row_layout(network, plan, band)
        return build_by_rows(network, layout, executable, run, block, images, reader)
    build = build_by_images if plan.split == "images" else build_gathered
    return build(network, plan, executable, run, block, images, reader)

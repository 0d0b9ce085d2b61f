"""The Dask graph of one block of images, static and right for every Dask scheduler.

Where the any-k plugin runs, what needs any δ of n shares starts as soon as they are there
(:mod:`fcdcc.pipeline.anyk`). Three forms: :mod:`.gathered` serves every code and split;
:mod:`.by_images` leaves runs of images with their workers, :mod:`.by_rows` strips of rows.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Literal, TypeAlias

from ..model.network import Network
from ..plans import Plan
from ..rows import Rows
from ..strips import row_layout
from .by_images import build_by_images
from .by_rows import build_by_rows
from .careful import APART, build_careful, build_whole
from .common import BlockGraph, Held, Reader
from .gathered import build_gathered

__all__ = ["BlockGraph", "Manner", "Reader", "build_again", "build_block"]

Manner: TypeAlias = Literal["careful", "whole"]
"""How a block is done again: with all its shares made and checked, or without a code."""


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


def build_again(
    network: Network,
    plan: Plan,
    executable: Held,
    run: str,
    block: int,
    images: int,
    reader: Reader,
    band: Rows | None,
    manner: Manner,
    attempt: int,
    among: Collection[str] = (),
) -> BlockGraph:
    """Return the graph of a block that is done again because its shares were not right.

    A band is done in strips again: wrong shares of it are noticed in every layer, and not
    located.

    Parameters
    ----------
    network, plan, executable, run, block, images, reader, band
        As for :func:`build_block`.
    manner
        In which form.
    attempt
        How often the block was tried before.
    among
        Addresses of the workers that make the shares; any, if none are named.
    """
    given = (executable, run, block, images, reader)
    if band is None and manner == "careful":
        return build_careful(network, plan, *given, attempt, among)
    if band is None:
        return build_whole(network, plan, *given, attempt)
    if manner == "whole":
        plan = replace(plan, redundancy="off", verify="off")
    else:  # nothing of what is in doubt goes without a check
        plan = replace(plan, verify="all")
    layout = row_layout(network, plan, band)
    return build_by_rows(network, layout, *given, apart=attempt * APART, among=among)

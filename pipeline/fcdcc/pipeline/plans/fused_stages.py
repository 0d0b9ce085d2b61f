"""Which stages of a network one task runs.

Every stage could be a task of its own for every part of a block. Most would be short, and a task
costs a millisecond or two whatever it does. So a stage whose outputs only one other task reads
becomes part of that task::

    conv* ─ relu ─ conv ─ relu ─ conv* ─ relu ─ pool ─ linear         * coded

    unit 1: conv*          unit 2: relu, conv, relu, conv*          unit 3: relu, pool, linear

A unit ends with a coded convolution, whose result is a share, or with a stage whose values several
tasks read. The stages in front of a coded convolution belong to its share: parity of a late share
covers all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..model.network import Network

OUTSIDE = -1
"""Stands for the reader of the prediction, which is no stage."""


UnitKind: TypeAlias = Literal["share", "glue", "whole", "gathered"]
"""What the tasks of a unit do. Those of a ``share`` end with a coded convolution, whose result is
a share, and those of ``glue`` make other values, each for one part of a block. The task of a
``whole`` unit runs once, on whole values. A ``gathered`` unit is one convolution, which is coded in
the gathered form."""


@dataclass(frozen=True)
class FusedStages:
    """A unit: stages that one task runs for one part of a block, or for all of it.

    Parameters
    ----------
    kind
        What its tasks make.
    stages
        Indices of stages, in the order in which they run; the last gives the unit its number.
    inputs, outputs
        Values that it reads and makes for others.
    """

    kind: UnitKind
    stages: tuple[int, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def number(self) -> int:
        """The layer number of its tasks: its last stage."""
        return self.stages[-1]


def fuse_stages(network: Network, joins: Callable[[int, int], bool]) -> list[tuple[int, ...]]:
    """Return the stages of every unit of a network, in an order in which the units can run.

    Parameters
    ----------
    network
        The stages.
    joins
        Whether a stage may become part of a unit; both are given by their numbers. Only called
        where no other unit reads what the stage makes.
    """
    unit_of: dict[int, int] = {}
    readers: dict[str, set[int]] = {network.output: {OUTSIDE}}
    for stage in reversed(network.stages):
        found = {unit for name in stage.outputs for unit in readers.get(name, ())}
        only = next(iter(found)) if len(found) == 1 else OUTSIDE
        is_part = only != OUTSIDE and joins(stage.index, only)
        unit_of[stage.index] = only if is_part else stage.index
        for name in stage.inputs:
            readers.setdefault(name, set()).add(unit_of[stage.index])
    members: dict[int, list[int]] = {}
    for stage in network.stages:
        members.setdefault(unit_of[stage.index], []).append(stage.index)
    return [tuple(stages) for _, stages in sorted(members.items())]


def values_read(network: Network, stages: Iterable[int]) -> tuple[str, ...]:
    """Return the values that a unit of these stages reads from others."""
    stages = tuple(stages)
    made = {name for index in stages for name in network.stages[index].outputs}
    read = (name for index in stages for name in network.stages[index].inputs)
    return tuple(dict.fromkeys(name for name in read if name not in made))


def image_units(network: Network, coded: Collection[int]) -> tuple[FusedStages, ...]:
    """Return the units of a block whose parts are runs of its images.

    Parameters
    ----------
    network
        The stages.
    coded
        Indices of the convolutions whose results are shares.
    """
    units = fuse_stages(network, lambda stage, _: stage not in coded)
    return tuple(
        FusedStages(
            "share" if stages[-1] in coded else "glue",
            stages,
            values_read(network, stages),
            network.stages[stages[-1]].outputs,
        )
        for stages in units
    )

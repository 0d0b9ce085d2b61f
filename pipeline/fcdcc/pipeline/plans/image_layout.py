"""Which stages one task runs, where the parts of a block stay with their workers.

Every stage could be a task for every part. Most would be short, and a task costs a
millisecond or two whatever it does; so a stage whose outputs only one other task reads
becomes part of that task::

    conv* ─ relu ─ conv ─ relu ─ conv* ─ relu ─ pool ─ linear         * coded

    unit 1: conv*          unit 2: relu, conv, relu, conv*          unit 3: relu, pool, linear

A unit ends with a coded convolution, whose result is a share, or it makes values that
several others read. The work in front of a coded convolution belongs to the share: a share
that is late is covered whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..model.network import Network


@dataclass(frozen=True)
class FusedStages:
    """Stages that one task runs for one part.

    Parameters
    ----------
    stages
        Indices of stages, in the order in which they run; the last gives the unit its number.
    inputs, outputs
        Values that it reads and makes for others.
    is_share
        Whether its last stage is a coded convolution.
    """

    stages: tuple[int, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    is_share: bool

    @property
    def number(self) -> int:
        """The layer number of its tasks: its last stage."""
        return self.stages[-1]


def find_units(network: Network, coded: frozenset[int]) -> tuple[FusedStages, ...]:
    """Return the units of a network, in an order in which they can run.

    Parameters
    ----------
    network
        The stages.
    coded
        Indices of the convolutions whose results are shares.
    """
    unit_of = _assign(network, coded)
    members: dict[int, list[int]] = {}
    for stage in network.stages:
        members.setdefault(unit_of[stage.index], []).append(stage.index)
    return tuple(
        _unit(network, tuple(stages), number in coded) for number, stages in sorted(members.items())
    )


def _assign(network: Network, coded: frozenset[int]) -> Mapping[int, int]:
    """Return for every stage the last stage of its unit."""
    unit_of: dict[int, int] = {}
    readers: dict[str, set[int]] = {network.output: {-1}}  # somebody outside
    for stage in reversed(network.stages):
        mine = {unit for name in stage.outputs for unit in readers.get(name, ())}
        own = stage.index in coded or len(mine) != 1 or -1 in mine
        unit_of[stage.index] = stage.index if own else mine.pop()
        for name in stage.inputs:
            readers.setdefault(name, set()).add(unit_of[stage.index])
    return unit_of


def _unit(network: Network, stages: tuple[int, ...], is_share: bool) -> FusedStages:
    made = {name for index in stages for name in network.stages[index].outputs}
    inputs = dict.fromkeys(_reads(network, stages, made))
    return FusedStages(stages, tuple(inputs), network.stages[stages[-1]].outputs, is_share)


def _reads(network: Network, stages: tuple[int, ...], made: set[str]) -> Iterator[str]:
    for index in stages:
        yield from (name for name in network.stages[index].inputs if name not in made)

"""Strips that stay put: which rows each task of a block makes, and which it needs.

Where a convolution is coded in place, δ workers each have a strip of its output. What
follows is done to each strip where it lies, as long as it can be done row by row; a strip's
neighbours send only the rows that the next convolution, or pooling, sees beyond its own::

    conv* ─ relu ─ pool ─ conv* ─ relu ─ mean ─ linear               * coded in place

    strip 0   share 0 ─┬─ share 0 ─┐
    strip 1   share 1 ─┼─ share 1 ─┼─ mean, linear         ┼ some rows change workers
    strip 2   share 2 ─┴─ share 2 ─┘

As where the parts are images (:mod:`.units`), one task runs all stages up to the next coded
convolution, or up to a value that several others read. Rows that its stages need of each
other are found by going backwards (:mod:`.rows`), so a convolution that is not coded itself
is done twice for the rows that two strips need. A stage that needs all rows runs once, where
the strips are gathered.

Where a block is a *band*, some rows of the prediction of an image that is too large to be
computed at once, every value is only the rows of it that the band needs, and the strips are
strips of these. Rows keep their numbers in the whole value; a convolution is one of the rows
that the band has, padded where the image ends, and coded as such.

A :class:`RowLayout` follows from the network, its plan and the band alone: workers make it
themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, TypeAlias

from ..errors import PlanError
from ..halo import (
    NetworkRows,
    RowLocal,
    RowPlan,
    Rows,
    Window,
    analyse_network,
    barrier_stage,
    hull,
    never_empty,
    plan_rows,
    ranges_for,
    window,
)
from ..model.network import ConvStage, GlueStage, Network, Stage
from .plan import LayerPlan, Plan

Kind: TypeAlias = Literal["share", "strips", "whole", "gathered"]
_StageKind: TypeAlias = Literal["share", "strips", "whole", "gathered", "mixed"]

Needs: TypeAlias = Mapping[str, Rows | None]
"""Rows of each value; None for a value that has none and is needed whole."""


@dataclass(frozen=True)
class RowTask:
    """Stages that one task runs: for each strip, or once.

    Parameters
    ----------
    kind
        ``share`` ends with a convolution coded in place; ``strips`` makes strips of other
        values; ``whole`` runs once, on gathered values; ``gathered`` is a convolution coded
        in the gathered form.
    stages
        In the order in which they run; the last gives the unit its number.
    inputs, outputs
        Values that it reads and makes for others.
    """

    kind: Kind
    stages: tuple[int, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def number(self) -> int:
        """The layer number of its tasks: its last stage."""
        return self.stages[-1]


@dataclass(frozen=True)
class ConvRows:
    """Some output rows of a convolution, and the input rows that they are made from."""

    layer: int
    out: Rows
    window: Window


RowStep: TypeAlias = ConvRows | RowPlan
"""What is done for a strip by one stage."""


class RowLayout:
    """Which strips there are of which value.

    Parameters
    ----------
    network
        The network.
    plan
        Made for it, split by rows.
    band
        The rows of the prediction that a block makes; None for all of them. Only of a network
        without barriers.
    found
        The network, analysed, where that has been done.

    Attributes
    ----------
    plan
        The plan, with every convolution as the band has it.

    Raises
    ------
    RowsError
        If a value's shape cannot be found out.
    """

    def __init__(
        self,
        network: Network,
        plan: Plan,
        band: Rows | None = None,
        found: NetworkRows | None = None,
    ) -> None:
        self.network = network
        self.parts = plan.delta
        self._found = analysed(network, plan.image_shape) if found is None else found
        self._rows = _rows_of(self._found, band)
        # By convolution: its first input and output row here, which its geometry counts from.
        self._first: dict[int, tuple[int, int]] = {}
        self.plan = plan if band is None else self._of_band(plan)
        self._whole = band is None
        self._ranges: dict[str, tuple[Rows, ...]] = {}
        self._steps: dict[tuple[int, int | None], tuple[tuple[RowStep, ...], Needs]] = {}
        kinds: dict[int, _StageKind] = {s.index: self._look_at(s) for s in network.stages}
        self.units: tuple[RowTask, ...] = tuple(self._find_units(kinds))

    def ranges(self, name: str) -> tuple[Rows, ...] | None:
        """Return the rows of a value's strips, some of them empty; None if it is in one place."""
        return self._ranges.get(name)

    def axis(self, name: str) -> int:
        """Return the row axis of a value: 2 for (N, C, *space)."""
        layout = self._found.layouts.get(name)
        return 2 if layout is None or layout.axis is None else layout.axis

    def all_rows(self, name: str) -> Rows | None:
        """Return all rows of a value that is in strips; None for another one."""
        ranges = self.ranges(name)
        return None if ranges is None else _joined(ranges)

    def held(self, name: str) -> Rows | None:
        """Return the rows of a value in one place, where they are not all of it."""
        return None if self._whole else self._rows.get(name)

    def needs(self, unit: RowTask, part: int | None) -> Needs:
        """Return the rows of each input that a unit needs for its strip; empty if it has none.

        For ``None``, what it needs for all rows at once.
        """
        return self._planned(unit, part)[1]

    def steps(self, unit: RowTask, part: int | None) -> tuple[RowStep, ...]:
        """Return what a unit does for a strip, in order; a share's convolution comes last.

        For ``None``, what it does for all rows at once.
        """
        return self._planned(unit, part)[0]

    def barrier(self, unit: RowTask) -> GlueStage | None:
        """Return what a whole unit runs of a stage of which the rest is done strip by strip."""
        found = self._found.stages.get(unit.number)
        if found is None or set(unit.outputs) == set(found.stage.outputs):
            return None
        return barrier_stage(found, unit.outputs)

    # ----------------------------------------------------------------- looking

    def _look_at(self, stage: Stage) -> _StageKind:
        """Return how a stage is run, and note the strips that it makes."""
        if isinstance(stage, ConvStage):
            return self._look_at_convolution(stage)
        if not any(map(self._can_be_cut, stage.inputs)):
            return "whole"
        outputs = self._found.stages[stage.index].outputs
        local = {name: found for name, found in outputs.items() if isinstance(found, RowLocal)}
        for name in local:
            self._ranges[name] = self._cut(name, stage.inputs)
        if not local:
            return "whole"
        alone = len(local) == len(outputs) and not any(found.requires for found in local.values())
        return "strips" if alone else "mixed"

    def _look_at_convolution(self, stage: ConvStage) -> Kind:
        layer = self.plan.layer(stage.index)
        if layer.in_place:
            runs = (layer.coded_conv.rows_of(part) for part in range(self.parts))
            first, last = self._rows[stage.output]
            self._ranges[stage.output] = tuple(
                Rows(min(first + run.start, last), min(first + run.stop, last)) for run in runs
            )
            return "share"
        if layer.code is not None:
            return "gathered"
        found = self._found.layouts
        rows_stay = found[stage.output].axis == self.axis(stage.input) == 2
        if self._can_be_cut(stage.input) and rows_stay:
            self._ranges[stage.output] = self._cut(stage.output, stage.inputs)
            return "strips"
        return "whole"

    def _can_be_cut(self, name: str) -> bool:
        """Return whether what is made of a value is made strip by strip, where it can be."""
        return name in self._ranges or name == self.network.input

    def _cut(self, name: str, inputs: Iterable[str]) -> tuple[Rows, ...]:
        """Return strips of a value: those of an input with as many rows, or equal ones."""
        layouts, rows = self._found.layouts, self._rows[name]
        for source in inputs:
            known = self._ranges.get(source)
            as_many = known is not None and layouts[source].rows == layouts[name].rows
            if known is not None and as_many and rows.within(_joined(known)):
                return tuple(_cut_to(part, rows) for part in known)
        each = -(-rows.size // self.parts)
        strips = (Rows(part * each, (part + 1) * each) for part in range(self.parts))
        return tuple(
            _cut_to(Rows(rows.start + start, rows.start + stop), rows) for start, stop in strips
        )

    # ------------------------------------------------------------------ fusing

    def _find_units(self, kinds: Mapping[int, _StageKind]) -> Iterator[RowTask]:
        """Yield the units in an order in which they can run."""
        network = self.network
        unit_of: dict[int, int] = {}
        readers: dict[str, set[int]] = {network.output: {-1}}  # somebody outside
        for stage in reversed(network.stages):
            mine = {unit for name in stage.outputs for unit in readers.get(name, ())}
            reader = next(iter(mine)) if len(mine) == 1 else -1
            fits = {"strips": ("share", "strips"), "whole": ("whole",)}
            joins = reader >= 0 and kinds[reader] in fits.get(kinds[stage.index], ())
            unit_of[stage.index] = reader if joins else stage.index
            for name in stage.inputs:
                readers.setdefault(name, set()).add(unit_of[stage.index])
        members: dict[int, list[int]] = {}
        for index in range(len(network.stages)):
            members.setdefault(unit_of[index], []).append(index)
        for number, stages in sorted(members.items()):
            yield from self._units_of(kinds[number], tuple(stages))

    def _units_of(self, kind: _StageKind, stages: tuple[int, ...]) -> Iterator[RowTask]:
        network, last = self.network, self.network.stages[stages[-1]]
        if kind != "mixed":
            made = {name for index in stages for name in network.stages[index].outputs}
            read = (name for index in stages for name in network.stages[index].inputs)
            inputs = tuple(dict.fromkeys(name for name in read if name not in made))
            yield RowTask(kind, stages, inputs, last.outputs)
            return
        # What needs all rows once, and what is local to rows strip by strip.
        outputs = self._found.stages[last.index].outputs
        local = {name: found for name, found in outputs.items() if isinstance(found, RowLocal)}
        required = (name for found in local.values() for name in found.requires)
        others = (name for name in outputs if name not in local)
        whole = tuple(dict.fromkeys((*required, *others)))
        part = barrier_stage(self._found.stages[last.index], whole)
        if part is None:
            raise PlanError(f"stage {last.index} makes nothing that it needs whole")
        yield RowTask("whole", stages, part.inputs, whole)
        yield RowTask("strips", stages, (*last.inputs, *whole), tuple(local))

    # ---------------------------------------------------------------- planning

    def _planned(self, unit: RowTask, part: int | None) -> tuple[tuple[RowStep, ...], Needs]:
        key = (unit.number, part)
        if key not in self._steps:
            self._steps[key] = self._plan_strip(unit, part)
        return self._steps[key]

    def _plan_strip(self, unit: RowTask, part: int | None) -> tuple[tuple[RowStep, ...], Needs]:
        asked: dict[str, Rows | None] = {}
        steps: list[RowStep] = []
        for name in unit.outputs:
            made = self._made(unit, name, part)
            if made.size:
                asked[name] = made
        for index in reversed(unit.stages):
            stage = self.network.stages[index]
            wanted = {name: rows for name in stage.outputs if (rows := asked.get(name))}
            if not wanted:
                continue
            step: RowStep
            if isinstance(stage, ConvStage):
                whole = part is None and stage.output in unit.outputs
                step = self._conv_rows(stage, wanted[stage.output], whole)
                _ask(asked, stage.input, self._never_empty(stage, step.window.rows))
            else:
                step = plan_rows(self._found.stages[index], wanted)
                for name, some in step.needs.items():
                    _ask(asked, name, some)
            steps.append(step)
        needs = {name: asked[name] for name in unit.inputs if name in asked}
        return tuple(reversed(steps)), needs

    def _made(self, unit: RowTask, name: str, part: int | None) -> Rows:
        """Return the rows that a strip's task computes: those of the strip, or a few more."""
        if part is None:
            return self._rows[name]
        if unit.kind == "share":
            run = self.plan.layer(unit.number).coded_conv.rows_of(part)
            first = self._rows[name].start
            return Rows(first + run.start, first + run.stop)
        return self._ranges[name][part]

    def _conv_rows(self, stage: ConvStage, out: Rows, whole: bool) -> ConvRows:
        """Return what some output rows are made from; or all of them, and all the input."""
        geometry = self.plan.layer(stage.index).geometry
        first_in, first_out = self._first.get(stage.index, (0, 0))
        if whole:
            size = geometry.spatial[0]
            return ConvRows(
                stage.index, out, Window(Rows(first_in, first_in + size), *geometry.padding[0])
            )
        found = window(
            Rows(out.start - first_out, out.stop - first_out),
            kernel=geometry.effective_kernel[0],
            stride=geometry.stride[0],
            before=geometry.padding[0][0],
            size=geometry.spatial[0],
        )
        rows = Rows(found.rows.start + first_in, found.rows.stop + first_in)
        return ConvRows(stage.index, out, found._replace(rows=rows))

    def _never_empty(self, stage: ConvStage, rows: Rows) -> Rows:
        """Return input rows of a convolution, or one beside them: a value tells its batch."""
        held = self._rows.get(stage.input) or Rows(0, 1)
        near = never_empty(Rows(rows.start - held.start, rows.stop - held.start), held.size)
        return Rows(near.start + held.start, near.stop + held.start)

    # ------------------------------------------------------------------- bands

    def _of_band(self, plan: Plan) -> Plan:
        return replace(plan, layers=tuple(self._layer_of_band(layer) for layer in plan.layers))

    def _layer_of_band(self, layer: LayerPlan) -> LayerPlan:
        """Return a convolution as the band has it, and note where its rows begin."""
        stage, geometry = self.network.stages[layer.layer], layer.geometry
        out = self._rows.get(stage.outputs[0])
        if out is None:  # it has no rows, like all that is made from it
            return layer
        found = window(
            out,
            kernel=geometry.effective_kernel[0],
            stride=geometry.stride[0],
            before=geometry.padding[0][0],
            size=geometry.spatial[0],
        )
        if not out.size or not found.rows.size:
            return replace(layer, code=None, in_place=False, reason="outside the band")
        self._first[layer.layer] = (found.rows.start, out.start)
        spatial = (found.rows.size, *geometry.spatial[1:])
        padding = ((found.above, found.below), *geometry.padding[1:])
        return replace(layer, geometry=replace(geometry, spatial=spatial, padding=padding))


@lru_cache(maxsize=2)
def analysed(network: Network, image_shape: tuple[int, ...]) -> NetworkRows:
    """Return a network analysed for images of a shape, made once for all blocks."""
    # With a batch of one a reshape may look as if it kept the rows.
    return analyse_network(network, (2, *image_shape))


@lru_cache(maxsize=8)
def row_layout(network: Network, plan: Plan, band: Rows | None = None) -> RowLayout:
    """Return the layout of a network and its plan, made once for all blocks that share it."""
    return RowLayout(network, plan, band)


def _rows_of(found: NetworkRows, band: Rows | None) -> dict[str, Rows]:
    """Return the rows that there are of each value that has some: all, or what a band needs."""
    rows = {name: layout.rows for name, layout in found.layouts.items() if layout.axis is not None}
    if band is None:
        return {name: Rows(0, size) for name, size in rows.items()}
    needed = ranges_for(found, {found.network.output: band})
    return {name: needed.get(name) or Rows(0, 0) for name in rows}


def _joined(ranges: Iterable[Rows]) -> Rows:
    """Return the rows of strips that follow each other, empty ones left out."""
    filled = [rows for rows in ranges if rows.size]
    return Rows(filled[0].start, filled[-1].stop) if filled else Rows(0, 0)


def _cut_to(rows: Rows, other: Rows) -> Rows:
    """Return the rows that are in another range, too; empty ones where it ends."""
    start = min(max(rows.start, other.start), other.stop)
    return Rows(start, max(min(rows.stop, other.stop), start))


def _ask(asked: dict[str, Rows | None], name: str, rows: Rows | None) -> None:
    before = asked.get(name)
    asked[name] = hull(before, rows) if before and rows else rows or before

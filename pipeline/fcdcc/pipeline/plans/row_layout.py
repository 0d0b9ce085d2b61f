"""Which rows each task of a block makes, and which it needs, where strips of rows stay put.

Where a convolution is coded in place, δ workers each have a strip of its output. Later stages run
on each strip on the same worker, as long as they are local to rows; the neighbours of a strip send
only the rows that the next convolution or pooling needs beyond the strip::

    conv* ─ relu ─ pool ─ conv* ─ relu ─ mean ─ linear               * coded in place

    strip 0   share 0 ─┬─ share 0 ─┐
    strip 1   share 1 ─┼─ share 1 ─┼─ mean, linear         ┼ some rows change workers
    strip 2   share 2 ─┴─ share 2 ─┘

As where the parts are images, one task runs all stages up to the next coded convolution, or up to
a value that several others read (:mod:`.fused_stages`). The rows that its stages need of each
other are found by going backwards (:mod:`fcdcc.pipeline.halo`), so a convolution that is not coded
itself is computed twice for the rows that two strips need. A stage that needs all rows runs once,
where the strips are gathered.

Where a block is a *band*, some rows of the prediction of an image that is too large to be computed
at once, every value is only the rows of it that the band needs, and the strips are strips of these.
Rows keep their numbers in the whole value. A convolution has the geometry of the band's rows, is
padded only where the image ends, and is coded with this geometry.

A :class:`RowLayout` follows from the network, its plan and the band alone: workers make it
themselves, and tasks need not carry it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

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
from .fused_stages import FusedStages, UnitKind, fuse_stages, values_read
from .plan import LayerPlan, Plan

_StageKind: TypeAlias = UnitKind | Literal["mixed"]
"""The kind of unit that a stage becomes; ``mixed``: a whole unit, and one that runs for each
strip."""

_JOINS: Mapping[_StageKind, frozenset[_StageKind]] = {
    "glue": frozenset({"share", "glue"}),
    "whole": frozenset({"whole"}),
}
"""Which units a stage of each kind may become part of."""

Needs: TypeAlias = Mapping[str, Rows | None]
"""Rows of each value; None for a value that has none and is needed whole."""


class Piece(NamedTuple):
    """An argument of a task: a value, or rows of it.

    The array may have further rows after these: all shares have as many rows as the longest strip.

    Parameters
    ----------
    name
        The value.
    rows
        Which rows of it; None for all of a value that is in one place, or has none.
    part
        The strip that they are from; None for a value in one place.
    """

    name: str
    rows: Rows | None
    part: int | None


@dataclass(frozen=True)
class ConvRows:
    """Some output rows of a convolution, and the input rows that they are made from."""

    layer: int
    out: Rows
    window: Window


RowStep: TypeAlias = ConvRows | RowPlan
"""One stage of a strip's task."""


class RowLayout:
    """The strips of each value, and the units that make them.

    Parameters
    ----------
    network
        The network.
    plan
        Made for it, split by rows.
    band
        The rows of the prediction that a block makes; None for all of them. Only of a network
        without barriers.

    Attributes
    ----------
    plan
        The plan, with every convolution as the band has it.
    units
        In an order in which they can run.

    Raises
    ------
    RowsError
        If a value's shape cannot be found out.
    """

    def __init__(self, network: Network, plan: Plan, band: Rows | None = None) -> None:
        self.network = network
        self.parts = plan.delta
        self._found = analysed(network, plan.image_shape)
        self._rows = _rows_of(self._found, band)
        # By convolution: its first input and output row here, which its geometry counts from.
        self._first: dict[int, tuple[int, int]] = {}
        self.plan = plan if band is None else self._plan_of_band(plan)
        self._is_band = band is not None
        self._ranges: dict[str, tuple[Rows, ...]] = {}
        self._steps: dict[tuple[int, int | None], tuple[tuple[RowStep, ...], Needs]] = {}
        kinds: dict[int, _StageKind] = {s.index: self._kind_of(s) for s in network.stages}
        self.units: tuple[FusedStages, ...] = tuple(self._find_units(kinds))
        self._by_number = {(unit.number, unit.kind == "whole"): unit for unit in self.units}

    def unit(self, number: int) -> FusedStages:
        """Return the unit with this number that runs for each strip."""
        return self._by_number[number, False]

    def whole_unit(self, number: int) -> FusedStages:
        """Return the unit with this number that runs once."""
        return self._by_number[number, True]

    # ------------------------------------------------------------------ values

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

    def band_rows(self, name: str) -> Rows | None:
        """Return the rows that a band has of a value in one place; None where it has all."""
        return self._rows.get(name) if self._is_band else None

    # ------------------------------------------------------------------- tasks

    def needs(self, unit: FusedStages, part: int | None) -> Needs:
        """Return the rows of each input that a unit needs for its strip; empty if it has none.

        For ``None``, what it needs for all rows at once.
        """
        return self._planned(unit, part)[1]

    def steps(self, unit: FusedStages, part: int | None) -> tuple[RowStep, ...]:
        """Return the steps of a unit for a strip, in order; a share's convolution comes last.

        For ``None``, the steps for all rows at once.
        """
        return self._planned(unit, part)[0]

    def pieces(self, unit: FusedStages, part: int | None) -> tuple[Piece, ...]:
        """Return the inputs of a unit's task, in the order of its arguments.

        The task of a strip reads its own strips, and the rows that it needs of others. For
        ``None``: all of every input.
        """
        if part is None:
            return tuple(piece for name in unit.inputs for piece in self.all_pieces(name))
        needs = self.needs(unit, part)
        return tuple(
            piece for name, rows in needs.items() for piece in self._pieces_of(name, rows, part)
        )

    def all_pieces(self, name: str) -> Iterator[Piece]:
        """Yield all pieces of a value: the value itself if it is in one place, or its strips."""
        ranges = self.ranges(name)
        if ranges is None:
            yield Piece(name, self.band_rows(name), None)
            return
        for part, rows in enumerate(ranges):
            if rows.size:
                yield Piece(name, rows, part)

    def _pieces_of(self, name: str, rows: Rows | None, own: int) -> Iterator[Piece]:
        ranges = self.ranges(name)
        if rows is None or ranges is None:
            yield Piece(name, rows, None)
            return
        for part, has in enumerate(ranges):
            start, stop = max(rows.start, has.start), min(rows.stop, has.stop)
            if start < stop:
                yield Piece(name, has if part == own else Rows(start, stop), part)

    def barrier(self, unit: FusedStages) -> GlueStage | None:
        """Return the part of a stage that a whole unit runs, if the rest runs strip by strip."""
        found = self._found.stages.get(unit.number)
        if found is None or set(unit.outputs) == set(found.stage.outputs):
            return None
        return barrier_stage(found, unit.outputs)

    # ------------------------------------------------------------------ strips

    def _kind_of(self, stage: Stage) -> _StageKind:
        """Return how a stage is run, and note the strips that it makes."""
        if isinstance(stage, ConvStage):
            return self._kind_of_convolution(stage)
        if not any(map(self._can_be_cut, stage.inputs)):
            return "whole"
        outputs = self._found.stages[stage.index].outputs
        local = {name: found for name, found in outputs.items() if isinstance(found, RowLocal)}
        for name in local:
            self._ranges[name] = self._strips_of(name, stage.inputs)
        if not local:
            return "whole"
        alone = len(local) == len(outputs) and not any(found.requires for found in local.values())
        return "glue" if alone else "mixed"

    def _kind_of_convolution(self, stage: ConvStage) -> UnitKind:
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
            self._ranges[stage.output] = self._strips_of(stage.output, stage.inputs)
            return "glue"
        return "whole"

    def _can_be_cut(self, name: str) -> bool:
        """Return whether stages that read a value run strip by strip if they can."""
        return name in self._ranges or name == self.network.input

    def _strips_of(self, name: str, inputs: Iterable[str]) -> tuple[Rows, ...]:
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

    # ------------------------------------------------------------------- units

    def _find_units(self, kinds: Mapping[int, _StageKind]) -> Iterator[FusedStages]:
        """Yield the units in an order in which they can run."""

        def joins(stage: int, unit: int) -> bool:
            return kinds[unit] in _JOINS.get(kinds[stage], ())

        for stages in fuse_stages(self.network, joins):
            kind, last = kinds[stages[-1]], self.network.stages[stages[-1]]
            if kind != "mixed":
                inputs = values_read(self.network, stages)
                yield FusedStages(kind, stages, inputs, last.outputs)
            else:
                yield from self._mixed_units(stages, last)

    def _mixed_units(self, stages: tuple[int, ...], last: Stage) -> Iterator[FusedStages]:
        """Yield a whole unit for steps that need all rows, and a unit of strips for the others."""
        outputs = self._found.stages[last.index].outputs
        local = {name: found for name, found in outputs.items() if isinstance(found, RowLocal)}
        required = (name for found in local.values() for name in found.requires)
        others = (name for name in outputs if name not in local)
        whole = tuple(dict.fromkeys((*required, *others)))
        part = barrier_stage(self._found.stages[last.index], whole)
        if part is None:
            raise PlanError(f"stage {last.index} makes nothing that it needs whole")
        yield FusedStages("whole", stages, part.inputs, whole)
        yield FusedStages("glue", stages, (*last.inputs, *whole), tuple(local))

    # ------------------------------------------------------------------- steps

    def _planned(self, unit: FusedStages, part: int | None) -> tuple[tuple[RowStep, ...], Needs]:
        key = (unit.number, part)
        if key not in self._steps:
            self._steps[key] = self._plan_strip(unit, part)
        return self._steps[key]

    def _plan_strip(self, unit: FusedStages, part: int | None) -> tuple[tuple[RowStep, ...], Needs]:
        needed: dict[str, Rows | None] = {}
        steps: list[RowStep] = []
        for name in unit.outputs:
            made = self._rows_made(unit, name, part)
            if made.size:
                needed[name] = made
        for index in reversed(unit.stages):
            stage = self.network.stages[index]
            wanted = {name: rows for name in stage.outputs if (rows := needed.get(name))}
            if not wanted:
                continue
            step: RowStep
            if isinstance(stage, ConvStage):
                whole = part is None and stage.output in unit.outputs
                step = self._conv_rows(stage, wanted[stage.output], whole)
                _add_need(needed, stage.input, self._never_empty(stage, step.window.rows))
            else:
                step = plan_rows(self._found.stages[index], wanted)
                for name, some in step.needs.items():
                    _add_need(needed, name, some)
            steps.append(step)
        needs = {name: needed[name] for name in unit.inputs if name in needed}
        return tuple(reversed(steps)), needs

    def _rows_made(self, unit: FusedStages, name: str, part: int | None) -> Rows:
        """Return the rows that a strip's task computes: those of the strip, or a few more."""
        if part is None:
            return self._rows[name]
        if unit.kind == "share":
            run = self.plan.layer(unit.number).coded_conv.rows_of(part)
            first = self._rows[name].start
            return Rows(first + run.start, first + run.stop)
        return self._ranges[name][part]

    def _conv_rows(self, stage: ConvStage, out: Rows, whole: bool) -> ConvRows:
        """Return the input rows of some output rows; or all of both."""
        layer = self.plan.layer(stage.index)
        first_in, first_out = self._first.get(stage.index, (0, 0))
        if whole:
            size, padding = layer.geometry.spatial[0], layer.geometry.padding[0]
            return ConvRows(stage.index, out, Window(Rows(first_in, first_in + size), *padding))
        found = _window(layer, Rows(out.start - first_out, out.stop - first_out))
        rows = Rows(found.rows.start + first_in, found.rows.stop + first_in)
        return ConvRows(stage.index, out, found._replace(rows=rows))

    def _never_empty(self, stage: ConvStage, rows: Rows) -> Rows:
        """Return a convolution's input rows; if none, one near them, which has the batch size."""
        there = self._rows.get(stage.input) or Rows(0, 1)
        near = never_empty(Rows(rows.start - there.start, rows.stop - there.start), there.size)
        return Rows(near.start + there.start, near.stop + there.start)

    # ------------------------------------------------------------------- bands

    def _plan_of_band(self, plan: Plan) -> Plan:
        return replace(plan, layers=tuple(map(self._layer_of_band, plan.layers)))

    def _layer_of_band(self, layer: LayerPlan) -> LayerPlan:
        """Return a convolution as the band has it, and note where its rows begin."""
        stage, geometry = self.network.stages[layer.layer], layer.geometry
        out = self._rows.get(stage.outputs[0])
        if out is None:  # it has no rows, nor have the values made from it
            return layer
        found = _window(layer, out)
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
    fixed = network.fixed_batch
    return analyse_network(network, (2 if fixed is None else fixed.images, *image_shape))


@lru_cache(maxsize=8)
def row_layout(network: Network, plan: Plan, band: Rows | None = None) -> RowLayout:
    """Return the layout of a network and its plan, made once for all blocks that share it."""
    return RowLayout(network, plan, band)


def _window(layer: LayerPlan, out: Rows) -> Window:
    """Return the input rows of some output rows of a convolution, counted as its geometry does."""
    geometry = layer.geometry
    return window(
        out,
        kernel=geometry.effective_kernel[0],
        stride=geometry.stride[0],
        before=geometry.padding[0][0],
        size=geometry.spatial[0],
    )


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


def _add_need(needed: dict[str, Rows | None], name: str, rows: Rows | None) -> None:
    before = needed.get(name)
    needed[name] = hull(before, rows) if before and rows else rows or before

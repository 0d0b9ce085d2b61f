"""The graph of one block whose strips stay put: rows travel only where a strip ends.

::

    read ─┬─ halo ─ share 0 ─ part 0 ─┬───────── share 0 ─ part 0 ─ …
          ├─ halo ─ share 1 ─ part 1 ─┼─ halo ─  share 1 ─ part 1 ─ …
          └─ …               ╲ ╱      └─ …                ╲ ╱
                           parity                       parity

A systematic share is the convolution of one strip of rows, with all that stands in front of it. Its
part is the share itself, or decoded from any δ of the group; so it stays where it was made. The
neighbours take the rows that they need beyond their own, which are cut by tasks of their own, since
Dask moves whole values. Stages that need all rows run once, on gathered strips; their results are
split again. A layer that the plan codes in the gathered form is gathered.
"""

from __future__ import annotations

from collections.abc import Iterator

from dask._task_spec import Task, TaskRef

from ..anyk import Share
from ..halo import Rows
from ..model.network import Network
from ..plans.fused_stages import FusedStages
from ..plans.row_layout import Piece, RowLayout
from ..worker.kernels import row_kernels
from ..worker.kernels.task_specs import (
    CutRows,
    JoinStrips,
    PartOutput,
    StripGlue,
    StripParity,
    StripShare,
    WholeGlue,
)
from .block_graph import Block, BlockGraph, GraphBuilder, TaskOutputs, ValueRef
from .gathered import add_gathered


def build_by_rows(network: Network, layout: RowLayout, block: Block) -> BlockGraph:
    """Return the graph of one block whose parts are strips of rows that stay put."""
    return _RowGraphBuilder(network, layout, block).build()


class _RowGraphBuilder(GraphBuilder):
    """Builds one block. A value is on one worker as a whole, or in strips."""

    def __init__(self, network: Network, layout: RowLayout, block: Block) -> None:
        super().__init__(network, layout.plan, block)
        self._layout = layout
        self._placed = TaskOutputs(self.tasks)
        self._strips = [TaskOutputs(self.tasks) for _ in range(layout.parts)]
        self._cuts: dict[Piece, TaskRef] = {}
        self._gathered: set[str] = set()

    def build(self) -> BlockGraph:
        """Return the whole graph."""
        block, name = self.block, self.network.input
        rows = self._layout.band_rows(name)
        self._placed.add(
            block.reader(block.key("read", 0), 0, block.images, self.images, rows), name
        )
        for unit in self._layout.units:
            if unit.kind == "share":
                self._add_group(unit)
            elif unit.kind == "glue":
                self._add_strips(unit)
            elif unit.kind == "whole":
                self._add_whole(unit)
            else:
                value = self._in_one_place(unit.inputs[0], unit.number)
                layer = self.plan.layer(unit.number)
                self._placed.add(add_gathered(self, layer, value), *unit.outputs)
        return self.graph(self._prediction())

    def _prediction(self) -> ValueRef:
        return self._in_one_place(self.network.output, len(self.network.stages))

    # ------------------------------------------------------------------- units

    def _add_group(self, unit: FusedStages) -> None:
        """Add the shares of a convolution coded in place, and its parts."""
        layer, number = self.plan.layer(unit.number), unit.number

        def make_share(position: int) -> Share:
            if position in layer.parity:
                kernel, parity = row_kernels.parity, StripParity(number, position)
                return self.share(layer, position, kernel, parity, *self._all_inputs(unit))
            share = StripShare(number, position, self.images)
            inputs = self._inputs(unit, position)
            return self.share(layer, position, row_kernels.share, share, *inputs)

        group = self.add_group(layer, make_share)
        for part, rows in enumerate(self._layout.ranges(unit.outputs[0]) or ()):
            if rows.size or part == 0:  # a value without rows has one strip, for its batch
                spec = PartOutput(number, part, self.images)
                node = self.part(group, part, row_kernels.strip_output, spec)
                self._strips[part].add(node, *unit.outputs)
        self.add_check(group, self.images)

    def _add_strips(self, unit: FusedStages) -> None:
        for part in range(self._layout.parts):
            if self._layout.steps(unit, part):
                key = self.block.key("glue", unit.number, part)
                spec = StripGlue(unit.number, part)
                task = self.task(key, row_kernels.glue, spec, *self._inputs(unit, part))
                self._strips[part].add(task, *unit.outputs)

    def _add_whole(self, unit: FusedStages) -> None:
        position = self._layout.parts  # behind those of the strips, if the stage has some
        inputs = list(self._all_alone(unit))
        key, spec = self.block.key("glue", unit.number, position), WholeGlue(unit.number)
        self._placed.add(self.task(key, row_kernels.whole, spec, *inputs), *unit.outputs)

    # ------------------------------------------------------------------ inputs

    def _inputs(self, unit: FusedStages, part: int) -> list[ValueRef]:
        """Return the inputs of a strip's task: its own strips, and rows of others."""
        found = []
        for piece in self._layout.pieces(unit, part):
            if piece.part == part:
                found.append(self._strips[part][piece.name])
            elif piece.part is None and piece.rows is None:
                found.append(self._placed[piece.name])
            else:
                found.append(self._travelling(piece, unit.number))
        return found

    def _all_inputs(self, unit: FusedStages) -> Iterator[ValueRef]:
        """Yield all of every input of a unit, for parity.

        It reads the results of the strips' tasks as they are: tasks that cut rows out would run
        even if parity does not start.
        """
        for name, _, part in self._layout.pieces(unit, None):
            yield self._placed[name] if part is None else self._strips[part][name]

    def _all_alone(self, unit: FusedStages) -> Iterator[ValueRef]:
        """Yield all of every input of a unit: strips, without other results of their tasks."""
        for piece in self._layout.pieces(unit, None):
            is_placed = piece.part is None
            yield self._placed[piece.name] if is_placed else self._travelling(piece, unit.number)

    def _travelling(self, piece: Piece, number: int) -> ValueRef:
        """Return a piece for another worker: a strip, if it is its task's only result, or rows."""
        name, rows, part = piece
        if rows is None:
            raise TypeError(f"value {name!r} without rows is not cut")
        if part is None:
            has = self._layout.band_rows(name) or Rows(0, rows.stop)
            return self._cut(piece, self._placed[name], rows, has.start, number)
        ranges = self._layout.ranges(name) or ()
        source = self._strips[part][name]
        if rows == ranges[part] and isinstance(source, TaskRef):
            return source
        return self._cut(piece, source, rows, ranges[part].start, number)

    def _cut(self, piece: Piece, source: ValueRef, rows: Rows, start: int, number: int) -> TaskRef:
        """Return rows of a value that begins with row ``start``, cut where the value is."""
        if piece not in self._cuts:
            key = self.block.key("halo", number, len(self._cuts))
            axis = self._layout.axis(piece.name)
            spec = CutRows(axis, rows.start - start, rows.stop - start)
            self._cuts[piece] = self.add(Task(key, row_kernels.cut, spec, source))
        return self._cuts[piece]

    def _in_one_place(self, name: str, number: int) -> ValueRef:
        """Return a value gathered on one worker."""
        ranges = self._layout.ranges(name)
        if ranges is not None and name not in self._gathered:
            pieces = list(self._layout.all_pieces(name))
            counts = tuple(piece.rows.size for piece in pieces if piece.rows is not None)
            spec = JoinStrips(self._layout.axis(name), counts)
            strips = [self._travelling(piece, number) for piece in pieces]
            join = Task(self.block.key("gather", number), row_kernels.join_strips, spec, *strips)
            self._placed.add(join, name)
            self._gathered.add(name)
        return self._placed[name]

"""The graph of one block whose strips stay put: rows travel only where a strip ends.

::

    read ─┬─ halo ─ share 0 ─ part 0 ─┬───────── share 0 ─ part 0 ─ …
          ├─ halo ─ share 1 ─ part 1 ─┼─ halo ─  share 1 ─ part 1 ─ …
          └─ …               ╲ ╱      └─ …                ╲ ╱
                           parity                       parity

A systematic share is the convolution of one strip of rows, with all that stands in front of
it. Its part is the share itself, or decoded from any δ of the group; so it stays where it
was made, and the neighbours take the rows that they need beyond their own, as keys of their
own, since Dask moves whole values. What needs all rows runs once, on gathered strips, and
what follows is split again. A layer that the plan codes in the gathered form is gathered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from dask._task_spec import GraphNode, Task, TaskRef
from dask.typing import Key

from ..anyk import AnyK, Share
from ..halo import Rows
from ..model.network import ConvStage, Network
from ..plans.row_layout import Needs, RowLayout, RowTask
from ..worker.kernels import common, row_kernels
from ..worker.kernels.row_kernels import Piece
from .block_graph import Block, BlockGraph, Decodable, Source, TaskOutputs
from .gathered import add_gathered


def build_by_rows(network: Network, layout: RowLayout, block: Block) -> BlockGraph:
    """Return the graph of one block whose parts are strips of rows that stay put."""
    return _RowGraphBuilder(network, layout, block).build()


class _RowGraphBuilder:
    """Builds one block. A value is in one place, or each of its strips has a source."""

    def __init__(self, network: Network, layout: RowLayout, block: Block) -> None:
        self._network = network
        self._plan = layout.plan
        self._layout = layout
        self._block = block
        self._executable = block.executable
        self._padded = layout.plan.batch if layout.plan.fixed_batch else block.images
        self._tasks: dict[Key, GraphNode] = {}
        self._checks: list[TaskRef] = []
        self._placed = TaskOutputs(self._tasks)
        self._strips = [TaskOutputs(self._tasks) for _ in range(layout.parts)]
        self._cuts: dict[tuple[str, int | None, Rows], TaskRef] = {}
        self._gathered: set[str] = set()

    def build(self) -> BlockGraph:
        """Return the whole graph."""
        name = self._network.input
        block, held = self._block, self._layout.held(name)
        read = block.reader(block.key("read", 0), 0, block.images, self._padded, held)
        self._placed.add(read, name)
        for unit in self._layout.units:
            if unit.kind == "share":
                self._add_group(unit)
            elif unit.kind == "strips":
                self._add_strips(unit)
            elif unit.kind == "whole":
                self._add_whole(unit)
            else:
                self._add_gathered(unit)
        return BlockGraph(self._tasks, self._prediction(), tuple(self._checks))

    def _prediction(self) -> Source:
        name = self._network.output
        source = self._in_one_place(name, len(self._network.stages))
        if self._padded == self._block.images:
            return source
        take = Task(
            self._block.key("gather", len(self._network.stages) + 1, 0),
            common.take,
            source,
            self._block.images,
        )
        self._tasks[take.key] = take
        return TaskRef(take.key)

    # ------------------------------------------------------------------- units

    def _add_group(self, unit: RowTask) -> None:
        """Add the shares of a convolution coded in place, and its parts."""
        layer, number = self._plan.layer(unit.number), unit.number
        shares: dict[int, Key] = {}
        for position in self._plan.shares_started(layer):
            if position in layer.parity:
                pieces, sources = self._all_of(unit.inputs)
                task = Share(
                    self._block.key("parity", number, position),
                    row_kernels.parity, self._executable, unit, position, pieces, *sources,
                )  # fmt: skip
            else:
                pieces, sources = self._pieces(unit, position)
                task = Share(
                    self._block.key("share", number, position),
                    row_kernels.share, self._executable, unit, position, self._padded, pieces,
                    *sources,
                )  # fmt: skip
            self._tasks[task.key] = task
            shares[position] = task.key
        ready = Decodable(layer.coded_conv.code, self._plan.dtype)
        ranges = self._layout.ranges(unit.outputs[0]) or ()
        for own, rows in enumerate(ranges):
            if not rows.size and own > 0:
                continue
            node = AnyK(
                self._block.key("part", number, own),
                row_kernels.part,
                self._plan.shares_of_part(layer, shares, own),
                ready,
                self._executable,
                number,
                own,
                self._padded,
                own=own,
                standby=self._plan.standby_positions(layer),
                seats=self._plan.placement.seats(self._plan.shares_of_part(layer, shares, own)),
                allowed_workers=self._block.allowed_workers,
            )
            self._strips[own].add(node, *unit.outputs)
        if self._plan.verify == "all":
            check = AnyK(
                self._block.key("check", number, 0),
                row_kernels.check,
                shares,
                replace(ready, at_least=self._plan.shares_waited_for(layer)),
                self._executable,
                number,
                self._padded,
                standby=self._plan.standby_positions(layer),
                seats=self._plan.placement.seats(shares),
                plain=layer.uncoded,
                allowed_workers=self._block.allowed_workers,
            )
            self._tasks[check.key] = check
            self._checks.append(TaskRef(check.key))

    def _add_strips(self, unit: RowTask) -> None:
        for own in range(self._layout.parts):
            if self._layout.steps(unit, own):
                pieces, sources = self._pieces(unit, own)
                task = Task(
                    self._block.key("glue", unit.number, own),
                    row_kernels.glue, self._executable, unit, own, pieces, *sources,
                )  # fmt: skip
                self._strips[own].add(task, *unit.outputs)

    def _add_whole(self, unit: RowTask) -> None:
        pieces, sources = self._all_of(unit.inputs, unit.number)
        position = self._layout.parts  # behind those of the strips, if the stage has some
        task = Task(
            self._block.key("glue", unit.number, position),
            row_kernels.whole, self._executable, unit, pieces, *sources,
        )  # fmt: skip
        self._placed.add(task, *unit.outputs)

    def _add_gathered(self, unit: RowTask) -> None:
        stage = self._network.stages[unit.number]
        if not isinstance(stage, ConvStage):
            raise TypeError(f"stage {unit.number} is glue; expected a convolution")
        self._in_one_place(stage.input, unit.number)
        make_key = partial(self._block.key, layer=stage.index)
        layer = self._plan.layer(stage.index)
        given = (stage, layer, self._plan, self._executable, make_key)
        add_gathered(self._placed, *given, self._block.allowed_workers)

    # ------------------------------------------------------------------ values

    def _pieces(self, unit: RowTask, part: int) -> tuple[list[Piece], list[Source]]:
        """Return what a strip's task is given: its own strips, and rows of others."""
        needs = self._layout.needs(unit, part)
        found = [piece for name in needs for piece in self._pieces_of(name, needs, unit, part)]
        return [piece for piece, _ in found], [source for _, source in found]

    def _pieces_of(
        self, name: str, needs: Needs, unit: RowTask, part: int
    ) -> Iterator[tuple[Piece, Source]]:
        ranges, rows = self._layout.ranges(name), needs[name]
        if rows is None:
            yield Piece(name, None), self._placed[name]
        elif ranges is None:
            held = self._layout.held(name)
            first = 0 if held is None else held.start
            inside = Rows(rows.start - first, rows.stop - first)
            yield Piece(name, rows), self._cut(name, None, rows, inside, unit.number)
        else:
            for other, has in enumerate(ranges):
                start, stop = max(rows.start, has.start), min(rows.stop, has.stop)
                if start >= stop:
                    continue
                if other == part:
                    yield Piece(name, has), self._strips[other][name]
                elif (start, stop) == has:
                    yield Piece(name, has), self._alone(name, other, has, unit.number)
                else:
                    wanted = Rows(start, stop)
                    inside = Rows(start - has.start, stop - has.start)
                    yield Piece(name, wanted), self._cut(name, other, wanted, inside, unit.number)

    def _alone(self, name: str, part: int, rows: Rows, number: int) -> Source:
        """Return a strip for another worker: without what else its task has made."""
        source = self._strips[part][name]
        if isinstance(source, TaskRef):
            return source
        return self._cut(name, part, rows, Rows(0, rows.size), number)

    def _cut(self, name: str, part: int | None, rows: Rows, inside: Rows, number: int) -> TaskRef:
        """Return rows of a value as a key of their own, made where the value is."""
        known = self._cuts.get((name, part, rows))
        if known is None:
            source = self._placed[name] if part is None else self._strips[part][name]
            key = self._block.key("halo", number, len(self._cuts))
            task = Task(key, row_kernels.cut, source, self._layout.axis(name), *inside)
            self._tasks[task.key] = task
            known = self._cuts[name, part, rows] = TaskRef(task.key)
        return known

    def _all_of(
        self, names: Sequence[str], number: int | None = None
    ) -> tuple[list[Piece], list[Source]]:
        """Return values whole: in one place, or all their strips.

        With the number of a unit, without what else the tasks of strips have made; parity does
        without such keys, which would be there whether it starts or not.
        """
        found: list[tuple[Piece, Source]] = []
        for name in names:
            ranges = self._layout.ranges(name)
            if ranges is None:
                found.append((Piece(name, self._layout.held(name)), self._placed[name]))
                continue
            for part, rows in enumerate(ranges):
                if rows.size:
                    strip = self._strips[part][name]
                    if number is not None:
                        strip = self._alone(name, part, rows, number)
                    found.append((Piece(name, rows), strip))
        return [piece for piece, _ in found], [source for _, source in found]

    def _in_one_place(self, name: str, number: int) -> Source:
        """Return a value gathered on one worker."""
        ranges = self._layout.ranges(name)
        if ranges is not None and name not in self._gathered:
            filled = [part for part, rows in enumerate(ranges) if rows.size]
            task = Task(
                self._block.key("gather", number, 0),
                row_kernels.join,
                self._layout.axis(name),
                [ranges[part].size for part in filled],
                *(self._alone(name, part, ranges[part], number) for part in filled),
            )
            self._placed.add(task, name)
            self._gathered.add(name)
        return self._placed[name]

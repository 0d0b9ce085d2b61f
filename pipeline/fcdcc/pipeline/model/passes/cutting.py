"""Cuts a sequence of items into stages.

Each glue step is given the index of the latest convolution that it needs, directly or not.
Steps with the same index that read each other's results form one stage. A step that needs
convolution i and no later one runs after it and before convolution i + 1, so ordering the
stages by that index is an order in which they can run. Everything here takes time linear in
the number of items.

Numbers (the size of a batch, products of sizes) are not passed between stages: each stage
computes the numbers that it needs from one of its tensors. A size is read from a tensor that
the stage already has, if one of them is known to have the same size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from ..budget import ImportBudget
from ..network import ConvStage, GlueStage, Ref, Stage, Step
from ..operators import is_number
from ..rewriting import Item, NameSource, inputs_of, output_of, redirect_step

Sizes: TypeAlias = tuple[int | str, ...]

_USUAL_SOURCES = 16
"""Tensors that a number may be computed from without counting as further steps."""


def cut(
    items: Sequence[Item],
    output: str,
    tensors: Iterable[str],
    sizes: Mapping[str, Sizes],
    budget: ImportBudget,
) -> tuple[Stage, ...]:
    """Return the stages of a network, in an order in which they can run.

    Parameters
    ----------
    items
        Steps and convolutions in an order in which they can run; the result of each is used.
    output
        The name of the network's prediction.
    tensors
        The names that stand for tensors of the model.
    sizes
        Of values, as far as known; see :attr:`~fcdcc.pipeline.model.network.Network.sizes`.
    budget
        How many steps there may be, copies of numbers for several stages included.
    """
    numbers = _numbers(items)
    groups = _grouped(items, numbers, budget)
    names = NameSource(output_of(item) for item in items)
    builder = _StageBuilder(numbers, frozenset(tensors), sizes, names, budget)
    stages = [builder.stage(group) for group in groups]
    read_elsewhere = {output}.union(*(stage.inputs for stage in stages))
    return tuple(_finished(stage, index, read_elsewhere) for index, stage in enumerate(stages))


def joined(stages: Iterable[Stage]) -> list[Item]:
    """Return the items of some stages as one sequence: the inverse of :func:`cut`."""
    items: list[Item] = []
    for stage in stages:
        if isinstance(stage, ConvStage):
            items.append(stage)
        else:
            items.extend(stage.steps)
    return items


def _finished(stage: Stage, index: int, read_elsewhere: set[str]) -> Stage:
    if isinstance(stage, ConvStage):
        return replace(stage, index=index)
    outputs = tuple(step.name for step in stage.steps if step.name in read_elsewhere)
    return replace(stage, index=index, outputs=outputs)


def _grouped(
    items: Sequence[Item], numbers: Mapping[str, Step], budget: ImportBudget
) -> list[list[Item]]:
    """Return the items of each stage, number steps left out, in the order of the stages."""
    sources = _sources(items, numbers, budget)
    latest: dict[str, int] = {}
    group_of: dict[str, _Group] = {}
    groups: list[_Group] = []
    convolutions = 0
    for item in items:
        name = output_of(item)
        if name in numbers:
            continue
        if isinstance(item, ConvStage):
            groups.append(_Group((convolutions, -1), [item]))
            latest[name] = convolutions
            convolutions += 1
            continue
        reads = [source for ref in item.references for source in sources.get(ref, (ref,))]
        latest[name] = max((latest.get(ref, -1) for ref in reads), default=-1)
        group = _Group((latest[name], len(group_of)), [item])
        groups.append(group)
        for ref in reads:
            if ref in group_of and latest[ref] == latest[name]:
                group = group.merged(group_of[ref])
        group_of[name] = group
    roots = sorted((group for group in groups if group.above is None), key=lambda g: g.order)
    order = {output_of(item): position for position, item in enumerate(items)}
    return [sorted(group.items, key=lambda item: order[output_of(item)]) for group in roots]


def _numbers(items: Sequence[Item]) -> dict[str, Step]:
    """Return the steps that make numbers, members of lists of numbers among them."""
    numbers: dict[str, Step] = {}
    for item in items:
        if isinstance(item, Step) and (
            is_number(item.op) or (item.op == "operator.getitem" and item.references[0] in numbers)
        ):
            numbers[item.name] = item
    return numbers


def _sources(
    items: Sequence[Item], numbers: Mapping[str, Step], budget: ImportBudget
) -> dict[str, tuple[str, ...]]:
    """Return, for each number, the tensors that it is computed from."""
    sources: dict[str, tuple[str, ...]] = {}
    for item in items:
        if output_of(item) in numbers:
            found = [source for ref in inputs_of(item) for source in sources.get(ref, (ref,))]
            sources[output_of(item)] = tuple(dict.fromkeys(found))
            budget.take_steps(max(len(found) - _USUAL_SOURCES, 0))
    return sources


class _Group:
    """A set in a disjoint-set forest; the root holds the items."""

    def __init__(self, order: tuple[int, int], items: list[Item]) -> None:
        self.order = order
        self.items = items
        self.above: _Group | None = None

    def root(self) -> _Group:
        group = self
        while group.above is not None:
            if group.above.above is not None:
                group.above = group.above.above
            group = group.above
        return group

    def merged(self, other: _Group) -> _Group:
        """Unite two sets and return the root of both."""
        large, small = self.root(), other.root()
        if large is small:
            return large
        if len(large.items) < len(small.items):
            large, small = small, large
        large.items.extend(small.items)
        large.order = min(large.order, small.order)
        small.items, small.above = [], large
        return large


class _StageBuilder:
    """Turns the steps of a group into a stage, with the numbers that they need."""

    def __init__(
        self,
        numbers: Mapping[str, Step],
        tensors: frozenset[str],
        sizes: Mapping[str, Sizes],
        names: NameSource,
        budget: ImportBudget,
    ) -> None:
        self.numbers = numbers
        self.tensors = tensors
        self.sizes = sizes
        self.names = names
        self.copied_numbers: set[str] = set()
        self.budget = budget

    def stage(self, group: list[Item]) -> Stage:
        """Return a stage; the caller fills in its index and outputs."""
        if isinstance(group[0], ConvStage):
            return group[0]
        steps = [item for item in group if isinstance(item, Step)]
        own = {step.name for step in steps}
        inputs = dict.fromkeys(
            ref
            for step in steps
            for ref in step.references
            if ref not in own and ref not in self.tensors and ref not in self.numbers
        )
        collected = _StageSteps(self, inputs)
        for step in steps:
            collected.append(step)
        return GlueStage(-1, tuple(collected.inputs), (), tuple(collected.steps))


class _StageSteps:
    """Collects the steps of one stage."""

    def __init__(self, builder: _StageBuilder, inputs: dict[str, None]) -> None:
        self.builder = builder
        self.inputs = inputs
        self.steps: list[Step] = []
        self.made: set[str] = set()
        self.copies: dict[str, Ref] = {}
        self.axis_of_size: dict[int | str, tuple[str, int]] = {}
        for name in inputs:
            self._note_sizes(name)

    def append(self, step: Step) -> None:
        for ref in step.references:
            if ref in self.builder.numbers:
                self._copy_number(ref)
        self._add(redirect_step(step, self.copies))
        self._note_sizes(step.name)

    def _add(self, step: Step) -> None:
        self.steps.append(step)
        self.made.add(step.name)

    def _note_sizes(self, name: str) -> None:
        for axis, size in enumerate(self.builder.sizes.get(name, ())):
            if isinstance(size, str):
                self.axis_of_size.setdefault(size, (name, axis))

    def _copy_number(self, name: str) -> None:
        """Append the steps that compute a number, once per stage."""
        pending = [name]
        while pending:
            current = pending[-1]
            original = self.builder.numbers[current]
            missing = [
                ref
                for ref in original.references
                if ref in self.builder.numbers and ref not in self.copies
            ]
            if current in self.copies or missing:
                pending.extend(missing)
                if not missing:
                    pending.pop()
                continue
            pending.pop()
            self.builder.budget.take_steps()
            taken = current in self.builder.copied_numbers
            own = self.builder.names.fresh(current) if taken else current
            self.builder.copied_numbers.add(own)
            step = redirect_step(original, self.copies)
            step = self._size_from_stage(Step(own, step.op, step.args, step.kwargs))
            self.copies[current] = Ref(own)
            self._add(step)

    def _size_from_stage(self, step: Step) -> Step:
        """Read a size from a tensor of the stage; if there is none, add the tensor as an input."""
        for ref in step.references:
            if ref in self.made or ref in self.inputs or ref in self.builder.tensors:
                continue
            sizes = self.builder.sizes.get(ref)
            reads_size = step.op == "aten.sym_size.int" and sizes is not None
            size = sizes[step.args[1]] if reads_size and sizes is not None else None
            if size in self.axis_of_size:
                name, axis = self.axis_of_size[size]
                return Step(step.name, step.op, (Ref(name), axis), {})
            self.inputs[ref] = None
            self._note_sizes(ref)
        return step

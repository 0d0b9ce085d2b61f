"""What each task of a block's graph has to do, and what it makes: read off the graph itself.

There is a function for every kernel, so that a plan is judged by the very tasks that will
run, whatever form the graph has. A kernel that has none costs nothing and makes as much as it
reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from operator import getitem
from typing import Any, NamedTuple, TypeAlias

from dask._task_spec import GraphNode, Task, TaskRef
from dask.typing import Key

from fcdcc.coding.cost import share_cost

from ...anyk import AnyK
from ...model.network import ConvStage, Network
from ...plans.forecast import Work, convolution_work
from ...plans.image_layout import FusedStages
from ...plans.plan import LayerPlan, Plan
from ...plans.row_layout import ConvRows, RowLayout, RowStep, RowTask
from ...worker.kernels import common, gathered_kernels, image_kernels, row_kernels
from .profile import Profile


class ValueSize(NamedTuple):
    """A value that a task makes: its bytes, and its rows if it has some."""

    bytes: float
    rows: int = 0


Result: TypeAlias = "ValueSize | dict[str, ValueSize]"


@dataclass(frozen=True)
class TaskCost:
    """What one task costs.

    Parameters
    ----------
    work
        What it has to do.
    result
        What it makes.
    workspace
        Bytes that it needs while it runs, beside what it was given.
    """

    work: Work
    result: Result
    workspace: float = 0.0

    @property
    def bytes(self) -> float:
        """Bytes of all that it makes."""
        made = self.result
        return (
            made.bytes if isinstance(made, ValueSize) else sum(one.bytes for one in made.values())
        )


def block_costs(
    network: Network,
    plan: Plan,
    layout: RowLayout | None,
    profile: Profile,
    tasks: Mapping[Key, GraphNode],
    images: int,
) -> dict[Key, TaskCost]:
    """Return the cost of every task of a block's graph, in an order in which they can run.

    Parameters
    ----------
    network, plan
        What the graph is of; where the block is a band, the plan of the band.
    layout
        Its strips, where they stay put.
    profile
        What the stages have to do.
    tasks
        The graph.
    images
        Images of the block.
    """
    table = _TaskCosts(network, plan, layout, profile, images)
    for key in _in_order(tasks):
        task = tasks[key]
        table.costs[key] = table.cost(task) if isinstance(task, Task) else _NOTHING
    return table.costs


CHECKS = (image_kernels.check, row_kernels.check)
"""They compare shares and make next to nothing."""

_NOTHING = TaskCost(Work(), ValueSize(0.0))


def _in_order(tasks: Mapping[Key, GraphNode]) -> Iterator[Key]:
    done: set[Key] = set()
    for first in tasks:
        pending = [first]
        while pending:
            key = pending[-1]
            missing = [k for k in tasks[key].dependencies if k in tasks and k not in done]
            if key in done:
                pending.pop()
            elif missing:
                pending += missing
            else:
                done.add(pending.pop())
                yield key


class _TaskCosts:
    """The costs found so far, and how the next is found from its task."""

    def __init__(
        self,
        network: Network,
        plan: Plan,
        layout: RowLayout | None,
        profile: Profile,
        images: int,
    ) -> None:
        self.costs: dict[Key, TaskCost] = {}
        self._network = network
        self._plan = plan
        self._rows = layout
        self._profile = profile
        self._images = plan.batch if plan.fixed_batch else images
        self._per_part = plan.images_per_share(images) if plan.split == "images" else images
        self._stage_of = {name: s.index for s in network.stages for name in s.outputs}
        self._kernels: dict[Callable[..., Any], Callable[[tuple[Any, ...]], TaskCost]] = {
            image_kernels.share: self._image_share,
            image_kernels.parity: self._image_parity,
            image_kernels.glue: self._image_glue,
            row_kernels.share: self._strip_share,
            row_kernels.parity: self._strip_parity,
            row_kernels.glue: self._strip_glue,
            row_kernels.whole: self._whole,
            row_kernels.cut: self._cut,
            gathered_kernels.encode: self._encode,
            gathered_kernels.share: self._share,
            gathered_kernels.encode_and_share: self._share,
            gathered_kernels.convolve_whole: self._convolve_whole,
            common.glue: self._glue,
        }  # fmt: skip

    def cost(self, task: Task) -> TaskCost:
        if isinstance(task, AnyK):
            return self._any_k(task)
        known = self._kernels.get(task.func)
        if known is not None:
            return known(task.args)
        sources = list(map(self._made, _sources(task.args)))
        if not sources:  # it reads images
            return self._read(task.args)
        total = sum(made.bytes for made in sources)
        return TaskCost(
            Work(touched=2 * total), ValueSize(total, sum(made.rows for made in sources))
        )

    # -------------------------------------------------------------- any form

    def _made(self, source: TaskRef | Task) -> ValueSize:
        """Return what an argument of a task is."""
        if isinstance(source, Task) and source.func is getitem:
            ref, name = source.args
            result = self.costs[ref.key].result
            return result[name] if isinstance(result, dict) else result
        cost = self.costs[source.key]
        return cost.result if isinstance(cost.result, ValueSize) else ValueSize(cost.bytes)

    def _read(self, args: tuple[Any, ...]) -> TaskCost:
        """Return what it costs to read so many images: bytes become numbers, and are scaled."""
        name = self._network.input
        images, rows, all_rows = float(args[4]), args[5], self._profile.rows(name, 2)
        count = all_rows if rows is None else rows.size
        made = ValueSize(images * self._profile.image_bytes[name] * count / all_rows, count)
        return TaskCost(_reading(made.bytes), made, made.bytes)

    def _any_k(self, task: AnyK) -> TaskCost:
        if task.func in CHECKS:
            given = sum(self._made(TaskRef(key)).bytes for key in task.shares.values())
            return TaskCost(Work(touched=2 * given), ValueSize(0.0))
        if task.own is not None:  # its own share as it is
            return TaskCost(Work(), self._made(TaskRef(task.shares[task.own])))
        stage = self._convolution(_layer(task.key))
        made = self._of_images(stage.output, self._images)
        spent = Work(touched=2 * made.bytes)
        layer = self._plan.layer(stage.index)
        if not layer.uncoded:
            spent += Work(
                multiply_adds=self._entries(made) * layer.coded_conv.code.recovery_threshold
            )
        return TaskCost(spent, made, made.bytes)

    def _of_images(self, name: str, images: float) -> ValueSize:
        shape = self._profile.shapes.get(name, ())
        rows = shape[2] if len(shape) > 2 else 0
        return ValueSize(images * self._profile.image_bytes.get(name, 0.0), rows)

    def _entries(self, made: ValueSize) -> float:
        return made.bytes / self._profile.itemsize

    def _convolution(self, layer: int) -> ConvStage:
        stage = self._network.stages[layer]
        if not isinstance(stage, ConvStage):
            raise TypeError(f"stage {layer} is glue; expected a convolution")
        return stage

    def _stages(self, stages: Sequence[int], images: float) -> tuple[Work, float]:
        """Return what stages do for so many whole images, and what they need meanwhile."""
        spent = Work()
        for index in stages:
            spent += self._profile.work[index].times(images)
        return spent, self._rooms([(index, images) for index in stages])

    def _rooms(self, stages: Sequence[tuple[int, float]]) -> float:
        """Return the most bytes that stages need in turn, each for so many images."""
        known, room = self._profile.image_bytes, 0.0
        inside = [self._network.stages[index] for index, _ in stages]
        last = {name: number for number, stage in enumerate(inside) for name in stage.inputs}
        held: dict[str, float] = {}  # what was made here, and is needed again
        for number, (index, images) in enumerate(stages):
            stage = inside[number]
            others = sum(size for name, size in held.items() if name not in stage.inputs)
            room = max(room, others + images * self._profile.room[index])
            held |= {name: images * known.get(name, 0.0) for name in stage.outputs}
            held = {name: size for name, size in held.items() if last.get(name, -1) > number}
        return room

    def _outputs(self, names: Sequence[str], images: float) -> Result:
        made = {name: self._of_images(name, images) for name in names}
        return made[names[0]] if len(names) == 1 else made

    def _parity(self, layer: LayerPlan, position: int, images: int) -> TaskCost:
        """Return what a share costs that is coded, or gathered, of so many images of a block."""
        cost = share_cost(layer.coded_conv, position, images)
        itemsize = self._profile.itemsize
        made = ValueSize(cost.download * itemsize)
        given = cost.upload * itemsize
        spent = convolution_work(cost.multiply_adds, given + made.bytes, cost.stored * itemsize)
        return TaskCost(spent, made, given + 2 * made.bytes)

    # ------------------------------------------------------- parts are images

    def _image_share(self, args: tuple[Any, ...]) -> TaskCost:
        unit: FusedStages = args[1]
        spent, room = self._stages(unit.stages, self._per_part)
        return TaskCost(spent, self._outputs(unit.outputs, self._per_part), room)

    def _image_glue(self, args: tuple[Any, ...]) -> TaskCost:
        return self._image_share(args)

    def _image_parity(self, args: tuple[Any, ...]) -> TaskCost:
        unit: FusedStages = args[1]
        images = self._per_part * self._plan.delta
        before, room = self._stages(unit.stages[:-1], images)
        share = self._parity(self._plan.layer(unit.number), args[2], images)
        return TaskCost(before + share.work, share.result, room + share.workspace)

    # --------------------------------------------------------- parts are rows

    @property
    def _layout(self) -> RowLayout:
        if self._rows is None:
            raise TypeError("strips in a graph without any")
        return self._rows

    def _strip_share(self, args: tuple[Any, ...]) -> TaskCost:
        unit: RowTask = args[1]
        position, images = args[2], args[3]
        coded = self._plan.layer(unit.number).coded_conv
        rows = len(coded.rows_of(position))
        spent, room = self._strip(unit, position, images, self._layout.steps(unit, position))
        shape = coded.share_shape(position, images)
        size = prod((*shape[:2], rows, *shape[3:])) * self._profile.itemsize
        return TaskCost(spent, ValueSize(size, rows), room)

    def _strip_glue(self, args: tuple[Any, ...]) -> TaskCost:
        unit: RowTask = args[1]
        position = args[2]
        steps = self._layout.steps(unit, position)
        spent, room = self._strip(unit, position, self._images, steps)
        made = {}
        for name in unit.outputs:
            ranges = self._layout.ranges(name)
            if ranges is not None and ranges[position].size:
                made[name] = self._of_rows(name, ranges[position].size, self._images)
        alone = len(unit.outputs) == 1
        return TaskCost(spent, made.get(unit.outputs[0], ValueSize(0.0)) if alone else made, room)

    def _strip(
        self, unit: RowTask, position: int | None, images: float, steps: Sequence[RowStep]
    ) -> tuple[Work, float]:
        """Return what steps of a unit do for a strip, or for all rows, and need meanwhile."""
        spent, room = Work(), 0.0
        needs = self._layout.needs(unit, position)
        for name, rows in needs.items():
            size = self._of_rows(name, rows.size if rows else None, images).bytes
            room += size  # put together from pieces
            spent += Work(touched=2 * size)
        parts = [self._part(step) for step in steps]
        for index, part in parts:
            spent += self._profile.work[index].times(images * part)
        return spent, room + self._rooms([(index, images * part) for index, part in parts])

    def _part(self, step: RowStep) -> tuple[int, float]:
        """Return the stage of a step, and which part of its rows is made."""
        if isinstance(step, ConvRows):
            name = self._convolution(step.layer).output
            return step.layer, step.out.size / self._profile.rows(name, 2)
        parts = (
            rows.size / self._profile.rows(name, self._layout.axis(name))
            for name, rows in step.wanted.items()
        )
        return self._stage_of[next(iter(step.wanted))], max(parts)

    def _of_rows(self, name: str, rows: int | None, images: float) -> ValueSize:
        if name not in self._profile.shapes:
            return ValueSize(0.0)
        size = images * self._profile.image_bytes[name]
        if rows is None:
            return ValueSize(size)
        return ValueSize(size * rows / self._profile.rows(name, self._layout.axis(name)), rows)

    def _strip_parity(self, args: tuple[Any, ...]) -> TaskCost:
        unit: RowTask = args[1]
        *before, _ = self._layout.steps(unit, None)
        spent, room = self._strip(unit, None, self._images, before)
        share = self._parity(self._plan.layer(unit.number), args[2], self._images)
        return TaskCost(spent + share.work, share.result, room + share.workspace)

    def _whole(self, args: tuple[Any, ...]) -> TaskCost:
        unit: RowTask = args[1]
        spent, room = self._stages(unit.stages, self._images)
        given = sum(self._of_images(name, self._images).bytes for name in unit.inputs)
        return TaskCost(spent, self._outputs(unit.outputs, self._images), room + given)

    def _cut(self, args: tuple[Any, ...]) -> TaskCost:
        source, _, start, stop = args
        made = self._made(source)
        size = made.bytes * (stop - start) / max(1, made.rows)
        return TaskCost(Work(touched=2 * size), ValueSize(size, stop - start))

    # --------------------------------------------------------------- gathered

    def _encode(self, args: tuple[Any, ...]) -> TaskCost:
        layer, position = args[1], args[2]
        cost = share_cost(self._plan.layer(layer).coded_conv, position, self._images)
        made = ValueSize(cost.upload * self._profile.itemsize)
        code = self._plan.layer(layer).coded_conv.code
        plain = code.input_run(position) is not None
        touched = made.bytes * (1 if plain else code.k_a) + made.bytes
        return TaskCost(Work(touched=touched), made, 0.0 if plain else made.bytes)

    def _share(self, args: tuple[Any, ...]) -> TaskCost:
        return self._parity(self._plan.layer(args[1]), args[2], self._images)

    def _convolve_whole(self, args: tuple[Any, ...]) -> TaskCost:
        return self._whole_stage(args[1])

    def _glue(self, args: tuple[Any, ...]) -> TaskCost:
        return self._whole_stage(args[1])

    def _whole_stage(self, index: int) -> TaskCost:
        spent, room = self._stages((index,), self._images)
        return TaskCost(
            spent, self._outputs(self._network.stages[index].outputs, self._images), room
        )


def read_work(profile: Profile, network: Network, images: float) -> Work:
    """Return what it is to read so many whole images."""
    return _reading(images * profile.image_bytes[network.input])


def _reading(size: float) -> Work:
    """Return what it is to read so many bytes: stored numbers become others, and are scaled."""
    return Work(touched=4 * size)


def _layer(key: Key) -> int:
    if not isinstance(key, tuple) or not isinstance(key[1], int):
        raise TypeError(f"{key!r} is no key of a block's task")
    return key[1]


def _sources(args: Sequence[Any]) -> Iterator[TaskRef | Task]:
    for arg in args:
        if isinstance(arg, TaskRef) or (isinstance(arg, Task) and arg.func is getitem):
            yield arg
        elif isinstance(arg, list | tuple):
            yield from _sources(arg)

"""The work, result size and workspace of each task of a block, from the block's Dask graph.

So the forecast of a plan is for the tasks that will run, in every form of graph. The
:data:`~fcdcc.pipeline.worker.kernels.task_specs.TaskSpec` among the arguments of a task says what
it computes. A task without one is taken for a copy of its inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple, TypeAlias, assert_never

from dask._task_spec import GraphNode, Task, TaskRef
from dask.core import toposort
from dask.typing import Key

from fcdcc.coding.cost import share_cost

from ...anyk import AnyK
from ...model.network import ConvStage, Network
from ...plans.forecast import Work, convolution_work
from ...plans.fused_stages import FusedStages, image_units
from ...plans.plan import LayerPlan, Plan
from ...plans.row_layout import ConvRows, RowLayout, RowStep
from ...worker.kernels.task_specs import (
    CheckShares,
    CutRows,
    DecodeLayer,
    DecodeRightShares,
    EncodeInput,
    GatheredShare,
    ImageGlue,
    ImageParity,
    ImageShare,
    JoinRuns,
    JoinStrips,
    PartOutput,
    ReadChunk,
    ReadImages,
    RecheckShares,
    RunStage,
    StripGlue,
    StripParity,
    StripShare,
    TakeImages,
    TaskSpec,
    WholeGlue,
    find_spec,
)
from .profile import Profile


class ValueSize(NamedTuple):
    """Size of a value that a task makes: its bytes, and its rows if it has some."""

    bytes: float
    rows: int = 0


TaskResult: TypeAlias = "ValueSize | dict[str, ValueSize]"
"""What a task makes: one value, or several by name."""


@dataclass(frozen=True)
class TaskCost:
    """What one task costs.

    Parameters
    ----------
    work
        Its multiply-adds and bytes.
    result
        What it makes.
    workspace
        Bytes that it needs while it runs, in addition to inputs and result.
    """

    work: Work
    result: TaskResult
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
        The network and plan of the graph; for a band, the plan of the band.
    layout
        Its strips; None if it is not split by rows.
    profile
        The work of the stages.
    tasks
        The graph.
    images
        Images of the block.
    """
    table = _TaskCosts(network, plan, layout, profile, images)
    needs = {
        key: [need for need in task.dependencies if need in tasks] for key, task in tasks.items()
    }
    for key in toposort(tasks, dependencies=needs):
        task = tasks[key]
        table.costs[key] = table.cost(task) if isinstance(task, Task) else _NOTHING
    return table.costs


_NOTHING = TaskCost(Work(), ValueSize(0.0))


class _TaskCosts:
    """Finds the costs of tasks one by one, and keeps those that were found."""

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
        self._images = images
        self._per_part = plan.images_per_share(images) if plan.form == "images" else images
        units = image_units(network, plan.coded_layers) if plan.form == "images" else ()
        self._image_units = {unit.number: unit for unit in units}
        self._stage_of = {name: s.index for s in network.stages for name in s.outputs}

    def cost(self, task: Task) -> TaskCost:
        """Return what a task costs; the costs of what it needs must be known."""
        spec = find_spec(task.args)
        if spec is None:
            return self._copy(task)
        return self._cost_of(spec, task)

    def _cost_of(self, spec: TaskSpec, task: Task) -> TaskCost:
        match spec:
            case ReadImages():
                return self._read(spec)
            case ReadChunk():
                return self._read_chunk(spec)
            case ImageShare():
                return self._run_unit(self._image_units[spec.unit])
            case ImageGlue():
                return self._run_unit(self._image_units[spec.unit])
            case ImageParity():
                return self._image_parity(spec)
            case StripShare():
                return self._strip_share(spec)
            case StripGlue():
                return self._strip_glue(spec)
            case StripParity():
                return self._strip_parity(spec)
            case WholeGlue():
                return self._whole(self._layout.whole_unit(spec.unit))
            case CutRows():
                return self._cut(spec, task)
            case RunStage():
                return self._run_stage(spec.stage)
            case EncodeInput():
                return self._encode(spec)
            case GatheredShare():
                return self._coded_share(self._plan.layer(spec.layer), spec.position, self._images)
            case PartOutput():
                return self._part_output(spec, task)
            case DecodeLayer() | DecodeRightShares():
                return self._decode(self._plan.layer(spec.layer))
            case CheckShares() | RecheckShares():
                return TaskCost(Work(touched=2 * self._given(task).bytes), ValueSize(0.0))
            case JoinStrips() | JoinRuns() | TakeImages():
                return self._copy(task)
            case _:
                assert_never(spec)

    # ------------------------------------------------------------------ values

    def _copy(self, task: Task) -> TaskCost:
        """Return the cost of copying all inputs of a task."""
        given = self._given(task)
        return TaskCost(Work(touched=2 * given.bytes), given)

    def _given(self, task: Task) -> ValueSize:
        """Return the total size of a task's inputs."""
        given = [self._size_of(value) for value in _values(task.args)]
        return ValueSize(sum(one.bytes for one in given), sum(one.rows for one in given))

    def _size_of(self, value: TaskRef | Task) -> ValueSize:
        """Return the size of an argument of a task."""
        if isinstance(value, Task):  # one of several values by name
            ref, name = value.args
            result = self.costs[ref.key].result
            return result[name] if isinstance(result, dict) else result
        if value.key not in self.costs:  # the executable, which is no task of the block
            return ValueSize(0.0)
        cost = self.costs[value.key]
        return cost.result if isinstance(cost.result, ValueSize) else ValueSize(cost.bytes)

    def _of_images(self, name: str, images: float) -> ValueSize:
        """Return the size of a value for ``images`` images."""
        shape = self._profile.shapes.get(name, ())
        rows = shape[2] if len(shape) > 2 else 0
        return ValueSize(images * self._profile.image_bytes.get(name, 0.0), rows)

    def _of_rows(self, name: str, rows: int | None, images: float) -> ValueSize:
        """Return the size of ``rows`` rows of a value for ``images`` images; None: all of it."""
        if name not in self._profile.shapes:
            return ValueSize(0.0)
        size = images * self._profile.image_bytes[name]
        if rows is None:
            return ValueSize(size)
        return ValueSize(size * rows / self._profile.rows(name, self._layout.axis(name)), rows)

    def _outputs(self, names: Sequence[str], images: float) -> TaskResult:
        made = {name: self._of_images(name, images) for name in names}
        return made[names[0]] if len(names) == 1 else made

    # ------------------------------------------------------------------ stages

    def _stages(self, stages: Sequence[int], images: float) -> tuple[Work, float]:
        """Return the work of stages for ``images`` whole images, and their workspace in bytes."""
        spent = Work()
        for index in stages:
            spent += self._profile.work[index].times(images)
        return spent, self._workspace([(index, images) for index in stages])

    def _workspace(self, stages: Sequence[tuple[int, float]]) -> float:
        """Return the most bytes that stages need while they run in turn.

        Each stage comes with the number of images that it runs for, which may be a fraction.
        """
        known, most = self._profile.image_bytes, 0.0
        inside = [self._network.stages[index] for index, _ in stages]
        last = {name: number for number, stage in enumerate(inside) for name in stage.inputs}
        kept: dict[str, float] = {}  # what was made here, and is needed again
        for number, (index, images) in enumerate(stages):
            stage = inside[number]
            others = sum(size for name, size in kept.items() if name not in stage.inputs)
            most = max(most, others + images * self._profile.workspace[index])
            kept |= {name: images * known.get(name, 0.0) for name in stage.outputs}
            kept = {name: size for name, size in kept.items() if last.get(name, -1) > number}
        return most

    def _convolution(self, layer: int) -> ConvStage:
        stage = self._network.stages[layer]
        if not isinstance(stage, ConvStage):
            raise TypeError(f"stage {layer} is glue; expected a convolution")
        return stage

    # -------------------------------------------------------------- any form

    def _read(self, spec: ReadImages) -> TaskCost:
        """Return the cost of reading images: converting and scaling the stored numbers."""
        name, images = self._network.input, float(spec.pad_to)
        all_rows = self._profile.rows(name, 2)
        count = all_rows if spec.rows is None else spec.rows.size
        made = ValueSize(images * self._profile.image_bytes[name] * count / all_rows, count)
        return TaskCost(_reading(made.bytes), made, made.bytes)

    def _read_chunk(self, spec: ReadChunk) -> TaskCost:
        """Return the part of the cost of reading a chunk that this block has to pay."""
        images = spec.stop - spec.start
        size = spec.size * min(1.0, self._images / images)
        return TaskCost(Work(touched=2 * size), ValueSize(size, images))

    def _part_output(self, spec: PartOutput, task: Task) -> TaskCost:
        """Return the cost of a part if nothing is lost: it returns its own share unchanged."""
        if not isinstance(task, AnyK):
            raise TypeError(f"the part {task.key!r} is no any-k node")
        return TaskCost(Work(), self._size_of(TaskRef(task.shares[spec.part])))

    def _coded_share(self, layer: LayerPlan, position: int, images: int) -> TaskCost:
        """Return the cost of a parity share, or of a share of a gathered layer."""
        cost = share_cost(layer.coded_conv, position, layer.entries(images))
        itemsize = self._profile.itemsize
        made = ValueSize(cost.download * itemsize)
        given = cost.upload * itemsize
        spent = convolution_work(cost.multiply_adds, given + made.bytes, cost.stored * itemsize)
        return TaskCost(spent, made, given + 2 * made.bytes)

    # ------------------------------------------------------- parts are images

    def _run_unit(self, unit: FusedStages) -> TaskCost:
        """Return the cost of a unit for one run of images."""
        spent, workspace = self._stages(unit.stages, self._per_part)
        return TaskCost(spent, self._outputs(unit.outputs, self._per_part), workspace)

    def _image_parity(self, spec: ImageParity) -> TaskCost:
        unit = self._image_units[spec.unit]
        images = self._per_part * self._plan.delta
        before, workspace = self._stages(unit.stages[:-1], images)
        share = self._coded_share(self._plan.layer(unit.number), spec.position, images)
        return TaskCost(before + share.work, share.result, workspace + share.workspace)

    # --------------------------------------------------------- parts are rows

    @property
    def _layout(self) -> RowLayout:
        if self._rows is None:
            raise TypeError("a task for strips in a block that is not split by rows")
        return self._rows

    def _strip_share(self, spec: StripShare) -> TaskCost:
        unit = self._layout.unit(spec.unit)
        layer = self._plan.layer(unit.number)
        coded = layer.coded_conv
        rows = len(coded.rows_of(spec.position))
        steps = self._layout.steps(unit, spec.position)
        spent, workspace = self._strip(unit, spec.position, spec.images, steps)
        shape = coded.share_shape(spec.position, layer.entries(spec.images))
        size = prod((*shape[:2], rows, *shape[3:])) * self._profile.itemsize
        return TaskCost(spent, ValueSize(size, rows), workspace)

    def _strip_glue(self, spec: StripGlue) -> TaskCost:
        unit, part = self._layout.unit(spec.unit), spec.part
        steps = self._layout.steps(unit, part)
        spent, workspace = self._strip(unit, part, self._images, steps)
        made = {}
        for name in unit.outputs:
            ranges = self._layout.ranges(name)
            if ranges is not None and ranges[part].size:
                made[name] = self._of_rows(name, ranges[part].size, self._images)
        if len(unit.outputs) != 1:
            return TaskCost(spent, made, workspace)
        [only] = unit.outputs
        return TaskCost(spent, made.get(only, ValueSize(0.0)), workspace)

    def _strip_parity(self, spec: StripParity) -> TaskCost:
        unit = self._layout.unit(spec.unit)
        *before, _ = self._layout.steps(unit, None)
        spent, workspace = self._strip(unit, None, self._images, before)
        share = self._coded_share(self._plan.layer(unit.number), spec.position, self._images)
        return TaskCost(spent + share.work, share.result, workspace + share.workspace)

    def _strip(
        self, unit: FusedStages, part: int | None, images: float, steps: Sequence[RowStep]
    ) -> tuple[Work, float]:
        """Return the work and the workspace of a unit's steps for a strip, or for all rows."""
        spent, workspace = Work(), 0.0
        for name, rows in self._layout.needs(unit, part).items():
            size = self._of_rows(name, rows.size if rows else None, images).bytes
            workspace += size  # the input, joined from pieces
            spent += Work(touched=2 * size)
        parts = [self._part_of_stage(step) for step in steps]
        for index, part_of_rows in parts:
            spent += self._profile.work[index].times(images * part_of_rows)
        made = self._workspace([(index, images * some) for index, some in parts])
        return spent, workspace + made

    def _part_of_stage(self, step: RowStep) -> tuple[int, float]:
        """Return the stage of a step, and the fraction of its rows that the step computes."""
        if isinstance(step, ConvRows):
            name = self._convolution(step.layer).output
            return step.layer, step.out.size / self._profile.rows(name, 2)
        parts = (
            rows.size / self._profile.rows(name, self._layout.axis(name))
            for name, rows in step.wanted.items()
        )
        return self._stage_of[next(iter(step.wanted))], max(parts)

    def _whole(self, unit: FusedStages) -> TaskCost:
        """Return the cost of a unit that runs once, on values that are joined from strips."""
        spent, workspace = self._stages(unit.stages, self._images)
        given = sum(self._of_images(name, self._images).bytes for name in unit.inputs)
        return TaskCost(spent, self._outputs(unit.outputs, self._images), workspace + given)

    def _cut(self, spec: CutRows, task: Task) -> TaskCost:
        given, rows = self._given(task), spec.stop - spec.start
        size = given.bytes * rows / max(1, given.rows)
        return TaskCost(Work(touched=2 * size), ValueSize(size, rows))

    # --------------------------------------------------------------- gathered

    def _run_stage(self, index: int) -> TaskCost:
        spent, workspace = self._stages((index,), self._images)
        outputs = self._network.stages[index].outputs
        return TaskCost(spent, self._outputs(outputs, self._images), workspace)

    def _encode(self, spec: EncodeInput) -> TaskCost:
        layer = self._plan.layer(spec.layer)
        coded = layer.coded_conv
        cost = share_cost(coded, spec.position, layer.entries(self._images))
        made = ValueSize(cost.upload * self._profile.itemsize)
        is_plain = coded.code.input_run(spec.position) is not None
        touched = made.bytes * (1 if is_plain else coded.code.k_a) + made.bytes
        return TaskCost(Work(touched=touched), made, 0.0 if is_plain else made.bytes)

    def _decode(self, layer: LayerPlan) -> TaskCost:
        made = self._of_images(self._convolution(layer.layer).output, self._images)
        spent = Work(touched=2 * made.bytes)
        if not layer.uncoded:
            entries = made.bytes / self._profile.itemsize
            spent += Work(multiply_adds=entries * layer.coded_conv.code.recovery_threshold)
        return TaskCost(spent, made, made.bytes)


def read_work(profile: Profile, network: Network, images: float) -> Work:
    """Return the work of reading ``images`` whole images."""
    return _reading(images * profile.image_bytes[network.input])


def _reading(size: float) -> Work:
    """Return the work of reading ``size`` bytes: converting and scaling the stored numbers."""
    return Work(touched=4 * size)


def _values(args: Iterable[Any]) -> list[TaskRef | Task]:
    """Return the arguments of a task that are results of other tasks."""
    return [arg for arg in args if isinstance(arg, TaskRef | Task)]

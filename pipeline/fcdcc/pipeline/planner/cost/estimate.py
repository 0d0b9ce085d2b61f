"""Make a :class:`~fcdcc.pipeline.plans.forecast.Forecast` of a network, a plan and workers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import ceil
from typing import NamedTuple

from dask._task_spec import GraphNode, Task, TaskRef
from dask.typing import Key

from fcdcc.coding.conditioning import measure
from fcdcc.coding.cost import share_cost

from ...anyk import AnyK
from ...anyk.keys import parse_key, task_key
from ...graph import Block, build_block
from ...halo import Rows
from ...model.network import Network
from ...plans.forecast import Forecast, LayerForecast, Speeds, Work, WorkerPool
from ...plans.plan import LayerPlan, Plan
from ...plans.row_layout import analysed, row_layout
from ...worker.kernels import common, reading
from ...worker.kernels.task_specs import ReadImages
from ...worker.memory import MAX_KEPT_BYTES
from .profile import Profile, profile_network
from .simulation import BlockTasks, SimulatedRun, block_tasks, simulate
from .task_costs import TaskCost, block_costs, read_work

SIMULATED_ROUNDS = 3
"""Blocks that are simulated for each block in flight; longer runs are taken to go on at the rate
of these."""

MAX_SIMULATED_WORKERS = 24
"""Most workers that are simulated, or 2 n if that is more. A larger cluster is scaled down to
these, with the same number of blocks for each worker."""

WEIGHT_COPIES = 3.0
"""Copies of the weights in a worker: as they came over the network, in use, and about once more in
the layouts that convolutions bring filters into (measured: docs/planning.md)."""


def forecast(
    network: Network,
    plan: Plan,
    workers: WorkerPool,
    speeds: Speeds,
    images: int | None = None,
    blocks: Sequence[int] | None = None,
) -> Forecast:
    """Return what a plan costs on some workers.

    Parameters
    ----------
    network, plan
        The network, and how it is run.
    workers, speeds
        The workers that run it, and their speeds.
    images
        How many images there are; None if that is unknown.
    blocks
        How many images each block has that is computed, in this order; by default those of a run
        over all images.
    """
    profile = profile_network(network, plan.image_shape)
    model = _BlockModel(network, plan, profile, speeds)
    small = min(workers.count, max(MAX_SIMULATED_WORKERS, 2 * plan.n))
    each = workers.count / small  # workers that one simulated worker stands for
    in_flight = max(1, round(plan.in_flight / each))
    most = round(SIMULATED_ROUNDS * in_flight * each)
    described = [plan.batch]  # without ``blocks``, figures of a block are those of a full one
    if blocks is not None:
        images, described = max(1, ceil(sum(blocks) / model.bands)), [*blocks]
    sizes = _block_sizes(plan, images, model.bands, most) if blocks is None else described[:most]
    simulated = simulate(
        [model.tasks(size) for size in sizes[:: max(1, round(each))]],
        in_flight,
        small,
        workers.slots,
        replace(speeds, parallel=max(1.0, speeds.parallel / each)),
    )
    ends = sorted(simulated.ends)
    tasks = len(model.costs(plan.batch))
    # However many workers there are, the scheduler handles one task at a time.
    pace = max(ends[-1] / len(ends), each * tasks * speeds.scheduler)
    layers = tuple(_layers(model.plan, simulated, model.costs(plan.batch)))
    uncoded = profile.glue_convolutions * plan.batch / model.bands
    work = sum(layer.multiply_adds for layer in layers) + uncoded
    used = simulated.peak_bytes * (workers.count if workers.in_one_process else 1)
    return Forecast(
        workers=workers,
        speeds=speeds,
        images=images,
        ends=tuple(end for end in ends for _ in range(round(each))),
        block_seconds=pace / each,
        block_bytes=sum(simulated.bytes_sent.values()) / len(ends),
        block_multiply_adds=work,
        extra_work=_extra_work(plan, model, profile, described),
        peak_memory=speeds.memory_at_rest
        + WEIGHT_COPIES * profile.weights
        + used
        + min(used, MAX_KEPT_BYTES),  # freed memory that the allocator keeps
        plain_seconds=_plain_seconds(network, profile, plan, workers, speeds, images),
        tasks=tasks,
        layers=layers,
        bands=model.bands,
        parity_memory=model.parity_memory(max(described)),
    )


def _block_sizes(plan: Plan, images: int | None, bands: int, most: int) -> list[int]:
    """Return the number of images of each block, of the first ``most`` blocks at most."""
    if images is None or images * bands >= most * plan.batch:
        return [plan.batch] * most
    last = images % plan.batch
    whole = [plan.batch] * (images // plan.batch) + ([last] if last else [])
    return [size for size in whole for _ in range(bands)]


class _ModelledBlock(NamedTuple):
    """A block's graph, the costs of its tasks, and these tasks for the simulation."""

    graph: Mapping[Key, GraphNode]
    costs: dict[Key, TaskCost]
    tasks: BlockTasks


class _BlockModel:
    """The tasks of a block and their costs, made once for each number of images.

    Attributes
    ----------
    bands
        Number of blocks that hold the same images, each for another band of rows.
    plan
        The plan, with the geometry that every convolution has in one band.
    """

    def __init__(self, network: Network, plan: Plan, profile: Profile, speeds: Speeds) -> None:
        self.bands, self._band = 1, None
        if plan.band is not None:  # model the middle band, which has neighbours on both sides
            rows = analysed(network, plan.image_shape).layouts[network.output].rows
            size = min(plan.band, rows)
            self.bands, start = ceil(rows / plan.band), (rows - size) // 2
            self._band = Rows(start, start + size)
        is_in_strips = plan.form == "rows"
        self._layout = row_layout(network, plan, self._band) if is_in_strips else None
        self.plan = plan if self._layout is None else self._layout.plan
        self._network = network
        self._whole_plan = plan
        self._profile = profile
        self._speeds = speeds
        self._blocks: dict[int, _ModelledBlock] = {}

    def tasks(self, images: int) -> BlockTasks:
        """Return the tasks of a block of ``images`` images."""
        return self._block(images).tasks

    def costs(self, images: int) -> dict[Key, TaskCost]:
        """Return what each task of such a block costs."""
        return self._block(images).costs

    def parity_memory(self, images: int) -> float:
        """Return the bytes of the largest task on standby: inputs, result and workspace."""
        graph, costs, _ = self._block(images)
        nodes = (node for node in graph.values() if isinstance(node, AnyK))
        standby = {node.shares[position] for node in nodes for position in node.standby}
        sizes = (
            sum(costs[need].bytes for need in graph[key].dependencies if need in costs)
            + (costs[key].bytes + costs[key].workspace)
            for key in standby
        )
        return max(sizes, default=0.0)

    def _block(self, images: int) -> _ModelledBlock:
        if images not in self._blocks:
            executable: Key = "executable"
            block = Block(TaskRef(executable), "plan", 0, images, _read_nothing)
            built = build_block(self._network, self._whole_plan, block, self._band)
            last = task_key("write", "plan", len(self._network.stages), 0)
            graph = {**built.tasks, last: Task(last, common.same, built.prediction)}
            costs = block_costs(
                self._network, self.plan, self._layout, self._profile, graph, images
            )
            tasks = block_tasks(graph, costs, last, self._speeds, self._profile.itemsize)
            self._blocks[images] = _ModelledBlock(graph, costs, tasks)
        return self._blocks[images]


def _read_nothing(key: Key, start: int, stop: int, pad_to: int, rows: Rows | None = None) -> Task:
    return Task(key, reading.read, None, None, ReadImages(start, stop, pad_to, rows))


def _layers(
    plan: Plan, simulated: SimulatedRun, costs: Mapping[Key, TaskCost]
) -> Iterator[LayerForecast]:
    """Yield what each convolution costs in a block."""
    blocks = len(simulated.ends)
    memory: defaultdict[int, float] = defaultdict(float)
    for key, cost in costs.items():
        task = parse_key(key)
        if task is not None:
            memory[task.layer] = max(memory[task.layer], cost.bytes + cost.workspace)
    for layer in plan.layers:
        sent, condition = simulated.bytes_sent[layer.layer] / blocks, None
        work = _layer_work(plan, layer, plan.batch)
        if layer.code is not None:
            lossless = plan.redundancy == "off" or layer.code.n == plan.delta
            condition = None if lossless else measure(layer.code.code).worst
        yield LayerForecast(layer.layer, work, sent, memory[layer.layer], condition)


def _layer_work(plan: Plan, layer: LayerPlan, images: int) -> float:
    """Return the multiply-adds of a convolution in a block of so many images, nothing lost."""
    if layer.code is None:
        return float(layer.multiply_adds * images)
    return sum(
        share_cost(layer.coded_conv, position, layer.entries(images)).multiply_adds
        for position in plan.shares_started(layer)
        if position not in plan.standby_positions(layer)
    )


def _extra_work(plan: Plan, model: _BlockModel, profile: Profile, blocks: Sequence[int]) -> float:
    """Return (multiply-adds of blocks − uncoded) / uncoded."""
    work = plain = 0.0
    for images, number in Counter(blocks).items():
        uncoded = profile.glue_convolutions * images / model.bands
        coded = sum(_layer_work(model.plan, layer, images) for layer in model.plan.layers)
        work += number * (coded + uncoded)
        plain += number * (plan.multiply_adds * images / model.bands + uncoded)
    return work / plain - 1 if plain else 0.0


def _plain_seconds(
    network: Network,
    profile: Profile,
    plan: Plan,
    workers: WorkerPool,
    speeds: Speeds,
    images: int | None,
) -> float:
    """Return how long plain data-parallel inference takes: one task for each block.

    If there are few images, blocks are smaller, so that every worker has one. If there are many,
    the time is the number of blocks divided by their rate, as in the forecast of a plan: no worker
    is taken to be idle in the last round.
    """
    total = images or plan.batch * workers.count
    places = workers.count * workers.slots
    batch = min(plan.batch, ceil(total / places))
    work = sum(profile.work.values(), Work()).times(batch) + read_work(profile, network, batch)
    alone = speeds.task + speeds.seconds(work, profile.itemsize)
    blocks = total / batch

    def together(some: float) -> float:
        return alone * max(1.0, some / speeds.parallel)

    if images is None or blocks >= SIMULATED_ROUNDS * places:
        return blocks / places * together(places)
    rounds, rest = divmod(blocks, places)
    return rounds * together(places) + min(1.0, rest) * together(rest)

"""The graph of one block that is split by images: data-parallel, with parity in reserve.

::

    worker 0   read ─ share 0 ─ part 0 ─ share 0 ─ part 0 ─ …
    worker 1   read ─ share 1 ─ part 1 ─ share 1 ─ part 1 ─ …
       …                    ╲ ╱      ╲           ╲ ╱
    worker n              parity      parity   (any δ shares give every part)

Convolution is linear in each image and images do not meet, so the parts of a block may be
runs of its images (APCP with kernel 1 and stride 1 along the batch). A systematic share is
then an ordinary convolution of an ordinary run of images, all glue is local to it, and
nothing travels between workers until a share is late. A parity share combines images of all
runs; it pulls them only when it starts.
"""

from __future__ import annotations

from dask._task_spec import GraphNode, Task, TaskRef
from dask.typing import Key

from ..anyk import AnyK, Share
from ..model.network import Network
from ..plans.image_layout import FusedStages, find_units
from ..plans.plan import Plan
from ..worker.kernels import image_kernels
from .block_graph import Block, BlockGraph, Decodable, Source, TaskOutputs


def build_by_images(network: Network, plan: Plan, block: Block) -> BlockGraph:
    """Return the graph of one block whose parts are runs of its images."""
    return _ImageGraphBuilder(network, plan, block).build()


class _ImageGraphBuilder:
    """Builds one block; the values of every part by their names."""

    def __init__(self, network: Network, plan: Plan, block: Block) -> None:
        self._network = network
        self._plan = plan
        self._block = block
        self._executable = block.executable
        self._parts = plan.delta
        self._per_part = plan.images_per_share(block.images)
        self._tasks: dict[Key, GraphNode] = {}
        self._checks: list[TaskRef] = []
        self._values = [TaskOutputs(self._tasks) for _ in range(self._parts)]

    def build(self) -> BlockGraph:
        """Return the whole graph."""
        for part, values in enumerate(self._values):
            first = min(part * self._per_part, self._block.images)
            last = min(first + self._per_part, self._block.images)
            read = self._block.reader(self._block.key("read", 0, part), first, last, self._per_part)
            values.add(read, self._network.input)
        for unit in find_units(self._network, self._plan.coded_layers):
            if unit.is_share:
                self._add_group(unit)
            else:
                self._add_glue(unit)
        gather = Task(
            self._block.key("gather", len(self._network.stages), 0),
            image_kernels.gather,
            self._block.images,
            *(values[self._network.output] for values in self._values),
        )
        self._tasks[gather.key] = gather
        return BlockGraph(self._tasks, TaskRef(gather.key), tuple(self._checks))

    def _add_group(self, unit: FusedStages) -> None:
        """Add the shares of a coded convolution, and its parts."""
        layer = self._plan.layer(unit.number)
        code = layer.coded_conv.code
        shares: dict[int, Key] = {}
        for position in self._plan.shares_started(layer):
            if position not in layer.parity:
                task = Share(
                    self._block.key("share", unit.number, position),
                    image_kernels.share, self._executable, unit, position,
                    *self._inputs(unit, position),
                )  # fmt: skip
            else:
                task = Share(
                    self._block.key("parity", unit.number, position),
                    image_kernels.parity, self._executable, unit, position,
                    *self._inputs_of_all(unit),
                )  # fmt: skip
            self._tasks[task.key] = task
            shares[position] = task.key
        for part, values in enumerate(self._values):
            node = AnyK(
                self._block.key("part", unit.number, part),
                image_kernels.part,
                self._plan.shares_of_part(layer, shares, part),
                Decodable(code, self._plan.dtype),
                self._executable,
                unit.number,
                part,
                own=part,
                standby=self._plan.standby_positions(layer),
                seats=self._plan.placement.seats(self._plan.shares_of_part(layer, shares, part)),
            )
            values.add(node, *unit.outputs)
        if self._plan.verify == "all":
            check = AnyK(
                self._block.key("check", unit.number, 0),
                image_kernels.check,
                shares,
                Decodable(code, self._plan.dtype, self._plan.shares_waited_for(layer)),
                self._executable,
                unit.number,
                standby=self._plan.standby_positions(layer),
                seats=self._plan.placement.seats(shares),
                plain=layer.uncoded,
            )
            self._tasks[check.key] = check
            self._checks.append(TaskRef(check.key))

    def _add_glue(self, unit: FusedStages) -> None:
        for part, values in enumerate(self._values):
            task = Task(
                self._block.key("glue", unit.number, part),
                image_kernels.glue,
                self._executable,
                unit,
                *self._inputs(unit, part),
            )
            values.add(task, *unit.outputs)

    def _inputs(self, unit: FusedStages, part: int) -> list[Source]:
        return [self._values[part][name] for name in unit.inputs]

    def _inputs_of_all(self, unit: FusedStages) -> list[Source]:
        return [source for part in range(self._parts) for source in self._inputs(unit, part)]

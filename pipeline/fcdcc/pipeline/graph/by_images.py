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

from dask._task_spec import Task

from ..anyk import Share
from ..model.network import Network
from ..plans.fused_stages import FusedStages, image_units
from ..plans.plan import Plan
from ..worker.kernels import image_kernels
from ..worker.kernels.task_specs import ImageGlue, ImageParity, ImageShare, JoinRuns, PartOutput
from .block_graph import Block, BlockGraph, GraphBuilder, TaskOutputs, ValueRef


def build_by_images(network: Network, plan: Plan, block: Block) -> BlockGraph:
    """Return the graph of one block whose parts are runs of its images."""
    return _ImageGraphBuilder(network, plan, block).build()


class _ImageGraphBuilder(GraphBuilder):
    """Builds one block; it has the values of every part by their names."""

    def __init__(self, network: Network, plan: Plan, block: Block) -> None:
        super().__init__(network, plan, block)
        self._per_part = plan.images_per_share(block.images)
        self._values = [TaskOutputs(self.tasks) for _ in range(plan.delta)]

    def build(self) -> BlockGraph:
        """Return the whole graph."""
        network, block = self.network, self.block
        for part, values in enumerate(self._values):
            first = min(part * self._per_part, block.images)
            last = min(first + self._per_part, block.images)
            read = block.reader(block.key("read", 0, part), first, last, self._per_part)
            values.add(read, network.input)
        for unit in image_units(network, self.plan.coded_layers):
            if unit.kind == "share":
                self._add_group(unit)
            else:
                self._add_glue(unit)
        join = Task(
            block.key("gather", len(network.stages)),
            image_kernels.join_runs,
            JoinRuns(block.images),
            *(values[network.output] for values in self._values),
        )
        return self.graph(self.add(join))

    def _add_group(self, unit: FusedStages) -> None:
        """Add the shares of a coded convolution, and its parts."""
        layer = self.plan.layer(unit.number)

        def make_share(position: int) -> Share:
            if position in layer.parity:
                kernel, parity = image_kernels.parity, ImageParity(unit.number, position)
                return self.share(layer, position, kernel, parity, *self._inputs_of_all(unit))
            share = ImageShare(unit.number, position)
            inputs = self._inputs(unit, position)
            return self.share(layer, position, image_kernels.share, share, *inputs)

        group = self.add_group(layer, make_share)
        images = self._per_part * len(self._values)
        for part, values in enumerate(self._values):
            spec = PartOutput(unit.number, part, images)
            values.add(self.part(group, part, image_kernels.run_output, spec), *unit.outputs)
        self.add_check(group, images)

    def _add_glue(self, unit: FusedStages) -> None:
        for part, values in enumerate(self._values):
            key = self.block.key("glue", unit.number, part)
            spec = ImageGlue(unit.number)
            task = self.task(key, image_kernels.glue, spec, *self._inputs(unit, part))
            values.add(task, *unit.outputs)

    def _inputs(self, unit: FusedStages, part: int) -> list[ValueRef]:
        return [self._values[part][name] for name in unit.inputs]

    def _inputs_of_all(self, unit: FusedStages) -> list[ValueRef]:
        parts = range(len(self._values))
        return [value for part in parts for value in self._inputs(unit, part)]

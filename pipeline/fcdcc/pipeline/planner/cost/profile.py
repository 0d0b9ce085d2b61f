"""The work of each stage of a network for one image, found without computing values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from ...model.image_analysis import ImageAnalysis, analyse_images
from ...model.image_rules.facts import Facts
from ...model.interpreter import network_shapes
from ...model.network import ConvStage, GlueStage, Network, Step
from ...model.operators import words
from ...plans.forecast import Work, convolution_work

SLOW_OPERATIONS = ("pool", "upsample", "softmax")
"""Words in the names of operations that take :data:`SLOW_FACTOR` times as long for a byte."""

SLOW_FACTOR = 10.0
"""How many times as long as a copy windows and resampling take for a byte (measured on one core:
1 to 1.6 GB/s, where sums and concatenations have 36 to 45)."""

CHANNEL_BLOCK = 16
"""Channels that a convolution computes together; fewer take as long (benchmarks/operations.py)."""

PLACE_BYTES = 8
"""Bytes of the place of a maximum, which pooling writes beside it."""

PRODUCTS = words(
    """
    matmul mm bmm linalg_matmul mv addmm baddbmm linear einsum scaled_dot_product_attention
    _scaled_dot_product_attention_math _scaled_dot_product_flash_attention_for_cpu lstm gru
    rnn_tanh rnn_relu conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d
    convolution _convolution
    """
)
"""Operators whose multiply-adds count; those of others are as many as they read and write."""

REORDERING_VIEWS = words("permute transpose t swapaxes swapdims movedim moveaxis mT numpy_T unfold")
VIEWS = words(
    """
    alias detach select slice narrow squeeze unsqueeze expand expand_as broadcast_to diagonal
    chunk split split_with_sizes tensor_split unbind view_as_real view_as_complex getitem
    sym_size sym_numel as_strided
    """
)
VIEWS_IN_ORDER = words(
    "view reshape reshape_as view_as flatten unflatten ravel contiguous to type_as"
)
"""Operators that copy only values that are not in the order of their axes in memory."""

PROFILED_BATCH = 2
"""Images that a network is profiled with, if its batch is not fixed."""


@dataclass(frozen=True)
class Profile:
    """The quantities of a network that the cost model uses.

    Parameters
    ----------
    image_bytes
        Bytes of every value that passes between stages, for one image.
    shapes
        Of these values, for :data:`PROFILED_BATCH` images or the network's fixed batch.
    work
        Of every stage, for one image.
    workspace
        Bytes that a stage needs at most for what it reads and makes, for one image.
    glue_convolutions
        Multiply-adds of the convolutions that are in glue, for one image.
    weights
        Bytes of all weights.
    itemsize
        Bytes of a number.
    """

    image_bytes: Mapping[str, float]
    shapes: Mapping[str, tuple[int, ...]]
    work: Mapping[int, Work]
    workspace: Mapping[int, float]
    glue_convolutions: float
    weights: int
    itemsize: int

    def rows(self, name: str, axis: int) -> int:
        """Return how many rows a value has."""
        return self.shapes[name][axis]


@lru_cache(maxsize=4)
def profile_network(network: Network, image_shape: tuple[int, ...]) -> Profile:
    """Return the profile of a network for an image of shape (C, *space).

    Raises
    ------
    ModelError
        If the network does not take such images.
    """
    batch = PROFILED_BATCH if network.fixed_batch is None else network.fixed_batch.images
    shapes = network_shapes(network, (batch, *image_shape))
    itemsize = network.input_dtype.itemsize
    image_bytes = {name: prod(shape) * itemsize / batch for name, shape in shapes.items()}
    analysis = analyse_images(network, image_shape)
    if len(network.outputs) > 1:  # a value of single bytes
        image_bytes[network.output] = prod(shapes[network.output]) / batch
    work, workspace, glue_convolutions = {}, {}, 0.0
    for stage in network.stages:
        if isinstance(stage, ConvStage):
            weight = network.tensors[stage.weight]
            made = prod(shapes[stage.output]) / batch
            touched = image_bytes[stage.input] + image_bytes[stage.output]
            fixed = weight.numel() * itemsize
            adds = made * prod(weight.shape[1:])
            work[stage.index] = convolution_work(adds, touched, fixed)
            workspace[stage.index] = touched + _ordered(
                image_bytes[stage.input], image_bytes[stage.output], weight.shape[0]
            )
        else:
            meter = _metered(network, stage, analysis, batch)
            adds = meter.multiply_adds / batch
            work[stage.index] = Work(adds, meter.touched / batch, meter.fixed)
            workspace[stage.index] = meter.peak / batch
            glue_convolutions += meter.convolutions / batch
    weights = sum(tensor.numel() * tensor.itemsize for tensor in network.tensors.values())
    return Profile(image_bytes, shapes, work, workspace, glue_convolutions, weights, itemsize)


def _metered(network: Network, stage: GlueStage, analysis: ImageAnalysis, batch: int) -> _Meter:
    """Return a meter that has counted all that a stage of glue does for a batch."""
    meter = _Meter(network, stage, analysis, batch)
    for place, step in enumerate(stage.steps):
        meter.count(place, step)
    return meter


def _ordered(given: float, made: float, channels: int) -> float:
    """Return the bytes of a convolution's inputs and outputs in the layout that it computes in."""
    return given + made * (-(-channels // CHANNEL_BLOCK) * CHANNEL_BLOCK / max(channels, 1))


class _Meter:
    """Adds up what the steps of a stage do, from the shapes of their operands and results."""

    def __init__(
        self, network: Network, stage: GlueStage, analysis: ImageAnalysis, batch: int
    ) -> None:
        self.multiply_adds = self.touched = self.fixed = self.convolutions = 0.0
        self._values = analysis.values
        self._work = analysis.work
        self._weights = network.tensors
        self._batch = batch
        self.peak = self._bytes_alive = float(sum(map(self._bytes, stage.inputs)))
        self._out_of_order: set[str] = set()
        self._views = {step.name for step in stage.steps if self._is_view(step)}
        # A value is alive as long as one of its views is.
        last = {name: len(stage.steps) for name in (*stage.inputs, *stage.outputs)}
        for place, step in reversed(list(enumerate(stage.steps))):
            if step.references and step.name in self._views:
                shown = step.references[0]
                last[shown] = max(last.get(shown, 0), last.get(step.name, place))
            for name in step.references:
                last[name] = max(last.get(name, 0), place)
        self._freed: dict[int, list[str]] = {}
        for name, place in last.items():
            self._freed.setdefault(place, []).append(name)
        self._alive: dict[str, float] = {}

    def count(self, place: int, step: Step) -> None:
        """Add what one step does."""
        if step.name not in self._views:
            slow = SLOW_FACTOR if self._is_slow(step) else 1.0
            size = self._bytes(step.name)
            if "max_pool" in step.op and isinstance(self._values[step.name], Facts):
                size += size / self._values[step.name].dtype.itemsize * PLACE_BYTES
            self.touched += slow * size
            for name in step.references:
                if name in self._weights:
                    self.fixed += self._bytes(name)
                else:
                    self.touched += slow * self._bytes(name)
            self._alive[step.name] = size
            self._bytes_alive += size
            self.peak = max(self.peak, self._bytes_alive)
            self._count_products(step, size)
        for name in self._freed.get(place, ()):
            self._bytes_alive -= self._alive.pop(name, 0.0)

    def _is_slow(self, step: Step) -> bool:
        if "adaptive_avg" in step.op and isinstance(self._values[step.name], Facts):
            made, given = self._values[step.name], self._values[step.references[0]]
            # Pooling of everything is a mean.
            return bool(made.elements != made.sizes[-3] * made.sizes[0] or given.ndim < 4)
        return any(word in step.op for word in SLOW_OPERATIONS)

    def _count_attention(self, step: Step) -> None:
        """Add the scores of attention, which are written and pass through a softmax."""
        query, key = (self._values[name] for name in step.references[:2])
        images = 1 if query.axis is None else self._batch
        scores = query.elements // query.sizes[-1] * key.sizes[-2] * images * query.dtype.itemsize
        self.touched += (2 + 2 * SLOW_FACTOR) * scores
        self.peak = max(self.peak, self._bytes_alive + 2 * scores)

    def _count_products(self, step: Step, size: float) -> None:
        packet = step.op.split(".")[1]
        if "attention" in packet:
            self._count_attention(step)
        adds = self._work.get(step.name, 0) * self._batch
        if packet in PRODUCTS:
            self.multiply_adds += adds
        if "conv" in packet:
            self.convolutions += adds
            made = self._values[step.name]
            own = _ordered(self._bytes(step.references[0]), size, made.sizes[1])
            self.peak = max(self.peak, self._bytes_alive + own)

    def _is_view(self, step: Step) -> bool:
        """Return whether a step makes no new values; note values that are not in order."""
        packet = step.op.split(".")[1]
        source = step.references[0] if step.references else ""
        if packet in REORDERING_VIEWS:
            self._out_of_order.add(step.name)
            return True
        if packet in VIEWS:
            if source in self._out_of_order:
                self._out_of_order.add(step.name)
            return True
        if packet in VIEWS_IN_ORDER:
            return source not in self._out_of_order
        return not isinstance(self._values[step.name], (Facts, list))

    def _bytes(self, name: str) -> int:
        found = self._values.get(name)
        if isinstance(found, Facts):
            images = 1 if found.axis is None else self._batch
            return found.elements * images * found.dtype.itemsize
        if isinstance(found, list):
            return sum(
                f.elements * (1 if f.axis is None else self._batch) * f.dtype.itemsize
                for f in found
            )
        return 0

"""Makes a network for any number of images of one that was exported for a fixed number.

``torch.export`` writes the number of images of its example into the graph, unless it is told
that the number may change. It occurs in a few places only, such as the sizes of reshapes. Here
they are replaced by the number of images that there are. The analysis of
:mod:`~fcdcc.pipeline.model.image_analysis` then proves that the result treats images one by one.
For the number of the export it computes the same as the file, so it computes the same for each
image, whatever their number.

Where that cannot be proven, :func:`looped` makes a network that runs on so many images at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch

from ..errors import ModelError
from .image_analysis import convolution_facts, step_facts
from .image_rules.facts import (
    ArgumentsError,
    BatchSize,
    Facts,
    NotPerImageError,
    constant_facts,
)
from .network import ConvStage, FixedBatch, GlueStage, Network, Ref, Step, network_fingerprint
from .passes.cutting import joined
from .rewriting import Item, NameSource, output_of

Sizes: TypeAlias = Mapping[str, tuple[int | str, ...]]

_SIZED = {
    **dict.fromkeys(("reshape", "expand", "broadcast_to", "repeat", "tile"), 1),
    "unflatten": 2,
}
"""Operators with a list of sizes of their result, and the place of the list."""

_SPREAD = {
    **dict.fromkeys(("expand", "broadcast_to", "repeat", "tile"), 1),
    **dict.fromkeys(("full", "zeros", "ones"), 0),
}
"""Operators that make constants with an entry for each image, and the place of their sizes."""


MAX_ATTEMPTS = 4
"""Times that a step is tried on average before the search for a free batch ends."""


def spread_by_images(steps: Sequence[Step], images: str, batch: int) -> list[Step]:
    """Return the steps with constants that are made as often as there are images.

    Parameters
    ----------
    steps
        In order, before constants are computed.
    images
        The name of the network's input.
    batch
        Its number of images. The first size of a constant that equals it is taken for it: what
        comes of that is proven later.
    """
    number = NameSource(step.name for step in steps).fresh("images")
    found = [Step(number, "aten.sym_size.int", (Ref(images), 0), {})]
    of_images, is_spread = {images}, False
    for step in steps:
        if not of_images.isdisjoint(step.references):
            of_images.add(step.name)
            found.append(step)
            continue
        place = _SPREAD.get(step.op.split(".")[1])
        sizes = _sizes_of(step, place)
        if sizes is None or place is None or batch not in sizes:
            found.append(step)
        else:
            found.append(_with_size(step, place, sizes.index(batch), Ref(number)))
            of_images.add(step.name)
            is_spread = True
    return found if is_spread else list(steps)


@dataclass(frozen=True)
class FreedItems:
    """The items of a network, rewritten for any number of images.

    Parameters
    ----------
    items
        In order.
    sizes
        The shapes of values, with a text where a size depends on the number of images.
    """

    items: list[Item]
    sizes: dict[str, tuple[int | str, ...]]


def freed(
    items: Sequence[Item],
    tensors: Mapping[str, torch.Tensor],
    images: str,
    shape: Sequence[int],
    dtype: torch.dtype,
    sizes: Sizes,
) -> FreedItems:
    r"""Return items for any number of images, of those for a fixed number.

    Parameters
    ----------
    items
        In order.
    tensors
        The network's tensors by name.
    images
        The name of the network's input.
    shape
        (batch, C, \*space) of the input.
    dtype
        Its type.
    sizes
        The shapes of values, as far as known.

    Raises
    ------
    ModelError
        If a step is not proven to treat any number of images one by one; the message says which.
    """
    freeing = _Freeing(items, tensors, images, shape, dtype)
    freeing.choose()
    return freeing.freed(images, sizes)


class _Choice(NamedTuple):
    """A form of an item that is possible, and what is then known about its result."""

    simplicity: tuple[int, int]
    item: Item
    facts: Any


class _Freeing:
    """Looks for a form of every item that is proven right.

    A size that equals the number of images may be that number by chance. The simplest form is
    taken first, and the next one if no later step is possible then.
    """

    def __init__(
        self,
        items: Sequence[Item],
        tensors: Mapping[str, torch.Tensor],
        images: str,
        shape: Sequence[int],
        dtype: torch.dtype,
    ) -> None:
        self.items = items
        self.tensors = tensors
        self.batch, *space = shape
        self.values: dict[str, Any] = {images: Facts((1, *space), dtype, 0)}
        self.names = NameSource((images, *tensors, *map(output_of, items)))
        self.numbers: dict[int, str] = {}
        self.chosen: list[list[_Choice]] = []
        """The forms of each item that are left, the one that is taken first."""

    def choose(self) -> None:
        """Take a form for every item."""
        attempts = MAX_ATTEMPTS * len(self.items)
        first_reason: ModelError | None = None
        while len(self.chosen) < len(self.items):
            attempts -= 1
            try:
                self.chosen.append(self._choices(self.items[len(self.chosen)]))
            except ModelError as error:
                first_reason = first_reason or error
                self._go_back(first_reason if attempts > 0 else None, first_reason)
            name = output_of(self.items[len(self.chosen) - 1])
            self.values[name] = self.chosen[-1][0].facts

    def _go_back(self, going: ModelError | None, reason: ModelError) -> None:
        """Take the next form of the latest item that has one."""
        while self.chosen and len(self.chosen[-1]) == 1:
            self.chosen.pop()
        if going is None or not self.chosen:
            raise reason
        del self.chosen[-1][0]

    def freed(self, images: str, sizes: Sizes) -> FreedItems:
        """Return what was chosen."""
        number = self._number(1)
        items: list[Item] = [Step(number, "aten.sym_size.int", (Ref(images), 0), {})]
        for factor, name in self.numbers.items():
            if factor != 1:
                items.append(Step(name, "operator.mul", (Ref(number), factor), {}))
        items += [choices[0].item for choices in self.chosen]
        names = (images, *map(output_of, self.items))
        return FreedItems(
            items, {name: self._sizes(name, sizes) for name in names if self._has_sizes(name)}
        )

    def _has_sizes(self, name: str) -> bool:
        return isinstance(self.values[name], Facts)

    def _sizes(self, name: str, recorded: Sizes) -> tuple[int | str, ...]:
        found = self.values[name]
        sizes: list[int | str] = [*recorded.get(name, found.sizes)]
        if found.axis is not None and len(sizes) == found.ndim:
            sizes[found.axis] = f"{found.sizes[found.axis]}*images"
        return tuple(sizes)

    def _lookup(self, name: str) -> Any:
        found = self.values.get(name)
        if found is None:
            found = self.values[name] = constant_facts(self.tensors[name])
        return found

    def _choices(self, item: Item) -> list[_Choice]:
        """Return the forms of an item that are possible, the simplest first."""
        if isinstance(item, ConvStage):
            return [_Choice((0, 0), item, self._convolved(item))]
        found: list[_Choice] = []
        reason: ModelError | None = None
        for step in self._forms(item):
            try:
                facts, _ = step_facts(step, self._lookup, None)
            except ModelError as error:
                reason = reason or error
                continue
            found.append(_Choice(_simplicity(facts), step, facts))
        if reason is not None and not found:
            raise reason
        return sorted(found, key=lambda choice: choice.simplicity)

    def _convolved(self, stage: ConvStage) -> Facts:
        bias = None if stage.bias is None else self.tensors[stage.bias]
        x = self._lookup(stage.input)
        try:
            return convolution_facts(stage, x, self.tensors[stage.weight], bias)
        except (ArgumentsError, NotPerImageError) as error:
            raise ModelError(f"the convolution {stage.name}: {error}") from error

    def _forms(self, step: Step) -> Iterator[Step]:
        """Yield the step, and with each of its sizes that may be a multiple of the images."""
        yield step
        place = _SIZED.get(step.op.split(".")[1]) if step.op.startswith("aten.") else None
        sizes = _sizes_of(step, place)
        if sizes is None or place is None:
            return
        for axis, size in enumerate(sizes):
            if type(size) is int and size > 0 and size % self.batch == 0:
                yield _with_size(step, place, axis, Ref(self._number(size // self.batch)))

    def _number(self, factor: int) -> str:
        """Return the name of a multiple of the number of images."""
        if factor not in self.numbers:
            name = "images" if factor == 1 else f"images_{factor}"
            name = self.numbers[factor] = self.names.fresh(name)
            self.values[name] = BatchSize(factor)
        return self.numbers[factor]


def _simplicity(facts: Any) -> tuple[int, int]:
    """Return what is smallest for the right place of the images: groups, and entries of each."""
    if not isinstance(facts, Facts) or facts.axis is None:
        return 0, 0
    return facts.outer, facts.sizes[facts.axis]


def _sizes_of(step: Step, place: int | None) -> list[Any] | None:
    """Return the sizes in a step's arguments, if they are there as one list."""
    if place is None or len(step.args) <= place:
        return None
    sizes = step.args[place]
    return list(sizes) if isinstance(sizes, (list, tuple)) else None


def _with_size(step: Step, place: int, axis: int, size: Ref) -> Step:
    sizes = list(step.args[place])
    sizes[axis] = size
    args = (*step.args[:place], sizes, *step.args[place + 1 :])
    return Step(step.name, step.op, args, step.kwargs)


# ------------------------------------------------------------------------- loop


def looped(network: Network, reason: str) -> Network:
    """Return a network that runs in a loop over the number of images that it was exported for.

    Parameters
    ----------
    network
        One whose ``input_shape`` begins with a number.
    reason
        What depends on that number, in words.
    """
    batch, *space = network.input_shape
    if batch is None:
        raise ModelError("a loop over a batch of any size; expected a fixed one")
    stages = (in_one_stage(network),)
    return Network(
        stages=stages,
        input=network.input,
        output=network.output,
        input_shape=(None, *space),
        input_dtype=network.input_dtype,
        tensors=network.tensors,
        fingerprint=network_fingerprint(
            stages, f"{network.input} x {batch}", network.output, network.tensors
        ),
        sizes={},
        fixed_batch=FixedBatch(batch, reason),
    )


def in_one_stage(network: Network) -> GlueStage:
    """Return all that a network does as one stage of glue, its convolutions among the steps."""
    items = joined(network.stages)
    names = NameSource((network.input, *network.tensors, *map(output_of, items)))
    steps = [step for item in items for step in _as_steps(item, names)]
    return GlueStage(0, (network.input,), (network.output,), tuple(steps))


def _as_steps(item: Item, names: NameSource) -> Iterator[Step]:
    if isinstance(item, Step):
        yield item
        return
    image = Ref(item.input)
    padding = [before for before, _ in item.padding]
    if any(before != after for before, after in item.padding):
        image = Ref(names.fresh(f"{item.output}_padded"))
        both = [number for pair in reversed(item.padding) for number in pair]
        yield Step(image.name, "aten.constant_pad_nd.default", (Ref(item.input), both, 0), {})
        padding = [0] * len(item.padding)
    bias = None if item.bias is None else Ref(item.bias)
    stride, dilation = list(item.stride), list(item.dilation)
    outer = [0] * len(item.stride)
    args = (image, Ref(item.weight), bias, stride, padding, dilation, False, outer, item.groups)
    yield Step(item.output, "aten.convolution.default", args, {})

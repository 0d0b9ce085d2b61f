"""Engines: how a worker computes a run of stages of a network.

Between two coded points a task runs many operations in a row. An engine turns such a run of
stages into a *program* once per worker, and the program is then called for every batch. All
engines compute the same function; they differ in speed, and in the last bits of the answers.

``eager``
    Every operation by itself, as PyTorch runs a module.
``fused``
    Two-dimensional convolutions in float32 run in oneDNN, through PyTorch, with weights that
    are packed once, the activation or the residual sum that follows fused into them, and
    activations in the memory format ``channels_last``. No compiler is needed. Everything else
    runs as in ``eager``. Strips of rows use its convolutions, nothing fused into them.

Where PyTorch's operators for ``fused`` are not there, or give other answers than its public ones
(:func:`.packed_convolutions.fused_is_available`), ``eager`` takes its place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from fcdcc.coding import Abandoned

from ..model.interpreter import in_fixed_batches, run_step
from ..model.network import ConvStage, Network, Ref, Step
from .layer_checks import KnownSums, LayerChecks
from .packed_convolutions import (
    ACTIVATIONS,
    NO_ACTIVATION,
    RELU,
    FusedActivation,
    PackedConvolution,
    PackedWeights,
    activated,
    can_be_packed,
    channels_last,
    convolve,
    fused_is_available,
    in_place,
)

EngineName: TypeAlias = Literal["auto", "eager", "fused"]
"""``auto`` is the fastest that needs nothing but PyTorch: ``fused``."""

MICRO_BATCH_BYTES = 64 * 2**20
"""Bytes of the largest value of a program, from which on a batch is split: values of few images
stay in the caches, and a task that is not wanted any more ends soon."""

_RESHAPES = {"aten.view.default": "aten.reshape.default"}
"""Operators that demand a memory layout, and those that do the same for every layout."""

_LAYOUT_READERS = frozenset({"aten.view.dtype", "aten.as_strided.default"})
"""Operators whose result depends on the memory layout: a run that has one runs eagerly."""


@dataclass(frozen=True)
class ProgramOperation:
    """One operation of a program: a convolution or a step, with what is fused into it.

    Parameters
    ----------
    output, inputs
        Names of the value that it makes and of the values that it reads.
    work
        What it computes.
    activation
        Applied to the result of a convolution.
    residual
        A value that is added to the result of a convolution before the activation.
    last_used
        Values that no later operation reads.
    """

    output: str
    inputs: tuple[str, ...]
    work: ConvStage | Step
    activation: FusedActivation = NO_ACTIVATION
    residual: str | None = None
    last_used: tuple[str, ...] = ()


class StageProgram:
    """A run of stages that is ready to be called, on one batch after another.

    Parameters
    ----------
    network
        The network; its tensors are not changed.
    stages
        Indices of the stages, in the order in which they run.
    outputs
        Names of the values that are returned.
    engine
        Which one runs it.
    packed
        The packed weights of the network, which its programs share; by default this program has
        its own.
    checks
        The checksums of the network's layers. With them every convolution and linear layer is
        checked; activations are then applied in place after the check, not within oneDNN, because
        the check needs the output before them.
    """

    def __init__(
        self,
        network: Network,
        stages: Sequence[int],
        outputs: Collection[str],
        engine: EngineName = "auto",
        packed: PackedWeights | None = None,
        checks: LayerChecks | None = None,
    ) -> None:
        self._tensors = network.tensors
        self._checks = checks
        operations = _operations(network, stages)
        readers = {op.work.op for op in operations if isinstance(op.work, Step)} & _LAYOUT_READERS
        self.is_fused = engine != "eager" and not readers and fused_is_available()
        if self.is_fused:
            operations = _fused(operations, outputs, self._tensors)
        self.operations = _with_last_uses(operations, outputs)
        self._outputs = tuple(outputs)
        self._image_bytes = 0.0
        self._packed: dict[str, PackedConvolution] = {}
        if self.is_fused:
            packed = PackedWeights() if packed is None else packed
            for operation in self.operations:
                stage = operation.work
                if isinstance(stage, ConvStage) and can_be_packed(stage, self._tensors):
                    activation = operation.activation if checks is None else NO_ACTIVATION
                    self._packed[operation.output] = PackedConvolution(
                        stage, self._tensors, activation, packed
                    )
        self._residuals = {op.residual for op in self.operations}
        self._read_by = _convolutions_by_input(self.operations)
        self._keeping_nan: StageProgram | None = None
        if any(op.activation != NO_ACTIVATION for op in self.operations):
            # oneDNN's activations turn NaN into numbers, and PyTorch's keep it.
            self._keeping_nan = StageProgram(network, stages, outputs, "eager", checks=checks)
        self._images = network.input
        self._fixed_batch = network.fixed_batch

    def __call__(
        self, values: Mapping[str, Tensor], is_wanted: Callable[[], bool] = lambda: True
    ) -> dict[str, Tensor]:
        """Return the outputs by name.

        Parameters
        ----------
        values
            The inputs by name, images along axis 0; they are not changed.
        is_wanted
            Called between two operations.

        A batch whose largest value would have more than :data:`MICRO_BATCH_BYTES` is computed
        in several runs of images, and a network of a fixed batch in runs of so many. Images that
        hold NaN or infinity are computed eagerly.

        Raises
        ------
        Abandoned
            When the result is not wanted any more.
        FailedCheckError
            If a layer's result fails its check.
        """
        images = values.get(self._images)
        if self._fixed_batch is not None and images is not None:

            def run(batch: Tensor) -> dict[str, Tensor]:
                if not is_wanted():
                    raise Abandoned("this share is not needed any more")
                return self._run({self._images: batch}, is_wanted)

            return in_fixed_batches(images, self._fixed_batch.images, run)
        if self._keeping_nan is not None and images is not None and not _is_finite(images):
            return self._keeping_nan(values, is_wanted)
        batch = _batch_of(values)
        runs = (
            1 if batch is None else min(batch, ceil(batch * self._image_bytes / MICRO_BATCH_BYTES))
        )
        if batch is None or runs <= 1:
            return self._run(values, is_wanted)
        split = {name: value.tensor_split(runs) for name, value in values.items()}
        made = [
            self._run({name: pieces[run] for name, pieces in split.items()}, is_wanted)
            for run in range(runs)
        ]
        return {name: torch.cat([outputs[name] for outputs in made]) for name in self._outputs}

    def _run(
        self, values: Mapping[str, Tensor], is_wanted: Callable[[], bool]
    ) -> dict[str, Tensor]:
        known = dict(values)
        if self.is_fused and len(self.operations) > 1:
            known = {name: channels_last(value) for name, value in known.items()}
        largest, sums = 0, KnownSums()
        for operation in self.operations:
            if isinstance(operation.work, Step):
                known[operation.output] = run_step(
                    operation.work, known, self._tensors, self._checks
                )
            else:
                if not is_wanted():
                    raise Abandoned("this share is not needed any more")
                known[operation.output] = self._convolve(operation, operation.work, known, sums)
            made = known[operation.output]
            if isinstance(made, Tensor):
                largest = max(largest, made.nbytes)
            for name in operation.last_used:
                del known[name]
                sums.forget(name)
        outputs = {name: known[name] for name in self._outputs}
        self._note_size(values, outputs, largest)
        return outputs

    def _note_size(
        self, values: Mapping[str, Tensor], outputs: Mapping[str, Tensor], largest: int
    ) -> None:
        """Note the bytes of the largest value for each image, where batches can be split."""
        batch = _batch_of(values)
        if batch and all(output.ndim and len(output) == batch for output in outputs.values()):
            self._image_bytes = largest / batch

    def _convolve(
        self,
        operation: ProgramOperation,
        stage: ConvStage,
        known: Mapping[str, Tensor],
        sums: KnownSums,
    ) -> Tensor:
        value = known[stage.input]
        packed = self._packed.get(operation.output)
        residual = None if operation.residual is None else known[operation.residual]
        if self._checks is None:
            if packed is None:
                return convolve(stage, value, self._tensors)
            return packed(value, residual)
        fits = residual is None or (packed is not None and packed.can_add(residual, value))
        added = residual if fits else None
        made = convolve(stage, value, self._tensors) if packed is None else packed(value, added)
        named, output = {name: known[name] for name in operation.inputs}, operation.output
        change = in_place(operation.activation) if fits else None
        if change is not None:
            is_summed_later = output in self._residuals or any(
                self._checks.uses_sums(reader, made) for reader in self._read_by.get(output, ())
            )
            sums_of = sums.of_changed(
                named, (output, made), change, is_summed_later=is_summed_later
            )
            self._checks.convolution(stage, value, made, added, sums_of)
            return made
        if operation.activation == NO_ACTIVATION and fits:
            named[output] = made
        self._checks.convolution(stage, value, made, added, sums.of(named))
        if residual is not None and not fits:
            made = made + residual
        return activated(made, operation.activation)


def _is_finite(images: Tensor) -> bool:
    """Return whether all values are finite, or nearly so large that their sum is not."""
    return bool(images.sum().isfinite())


def prepared_convolution(
    stage: ConvStage,
    tensors: Mapping[str, Tensor],
    engine: EngineName,
    packed: PackedWeights,
    checks: LayerChecks | None = None,
) -> Callable[[Tensor], Tensor]:
    """Return one convolution of (B, C, *space) by an engine, bias included, nothing fused into it.

    The parameters are those of :class:`StageProgram`; the result is checked if there are checks.
    """
    made: Callable[[Tensor], Tensor]
    if engine != "eager" and can_be_packed(stage, tensors) and fused_is_available():
        made = PackedConvolution(stage, tensors, NO_ACTIVATION, packed)
        layout = channels_last
    else:
        made = partial(convolve, stage, tensors=tensors)
        layout = _as_it_is

    def convolution(value: Tensor) -> Tensor:
        value = layout(value)
        result = made(value)
        if checks is not None:
            checks.convolution(stage, value, result)
        return result

    return convolution


def _as_it_is(value: Tensor) -> Tensor:
    return value


def _batch_of(values: Mapping[str, Tensor]) -> int | None:
    """Return the number of images in a batch, if all values have the same along axis 0."""
    sizes = {len(value) if value.ndim else None for value in values.values()}
    return sizes.pop() if len(sizes) == 1 else None


def _operations(network: Network, stages: Sequence[int]) -> list[ProgramOperation]:
    """Return the operations of some stages in order, nothing fused."""
    found = []
    for index in stages:
        stage = network.stages[index]
        if isinstance(stage, ConvStage):
            found.append(ProgramOperation(stage.output, (stage.input,), stage))
        else:
            for step in stage.steps:
                inputs = tuple(n for n in step.references if n not in network.tensors)
                found.append(ProgramOperation(step.name, inputs, step))
    return found


def _with_last_uses(
    operations: Sequence[ProgramOperation], outputs: Collection[str]
) -> list[ProgramOperation]:
    """Return the operations, each with the values that can be dropped after it."""
    last = {op.output: index for index, op in enumerate(operations)}
    for index, op in enumerate(operations):
        last.update(dict.fromkeys(op.inputs, index))
    dropped: dict[int, list[str]] = {}
    for name, index in last.items():
        if name not in outputs:
            dropped.setdefault(index, []).append(name)
    return [
        ProgramOperation(
            op.output, op.inputs, op.work, op.activation, op.residual, tuple(dropped.get(i, ()))
        )
        for i, op in enumerate(operations)
    ]


def _fused(
    operations: Sequence[ProgramOperation], outputs: Collection[str], tensors: Mapping[str, Tensor]
) -> list[ProgramOperation]:
    """Return the operations with activations and residual sums fused into convolutions."""
    uses = Counter(name for op in operations for name in op.inputs)
    uses.update(outputs)
    reader = {name: index for index, op in enumerate(operations) for name in op.inputs}
    made_at = {op.output: index for index, op in enumerate(operations)}

    def only_reader(name: str) -> int | None:
        """Return the index of the operation that alone reads a value, if there is just one."""
        return reader[name] if uses[name] == 1 and name in reader else None

    fused_away: set[int] = set()
    found = []
    for index, op in enumerate(operations):
        if index in fused_away:
            continue
        if isinstance(op.work, Step):
            found.append(_any_layout(op))
            continue
        made, residual, activation = op.output, None, NO_ACTIVATION
        following = only_reader(made) if can_be_packed(op.work, tensors) else None
        if following is not None:
            residual = _residual(operations[following], made)
            if residual is not None and made_at.get(residual, -1) > index:
                residual = None  # it is computed later: that convolution may take in the sum
        if residual is not None and following is not None:
            fused_away.add(following)
            made = operations[following].output
            following = only_reader(made)
            # No other activation may follow a sum within one call of oneDNN.
            if following is not None and _activation(operations[following]) != RELU:
                following = None
        if following is not None and (known := _activation(operations[following])) is not None:
            fused_away.add(following)
            made, activation = operations[following].output, known
        inputs = op.inputs if residual is None else (*op.inputs, residual)
        found.append(ProgramOperation(made, inputs, op.work, activation, residual))
    return found


def _residual(operation: ProgramOperation, made: str) -> str | None:
    """Return the value that an operation adds to ``made``, if it is a plain sum of two values."""
    step = operation.work
    if not isinstance(step, Step) or step.op != "aten.add.Tensor" or step.kwargs:
        return None
    if len(step.args) != 2 or not all(isinstance(arg, Ref) for arg in step.args):
        return None
    others = [name for name in operation.inputs if name != made]
    return others[0] if len(others) == 1 and len(operation.inputs) == 2 else None


def _activation(operation: ProgramOperation) -> FusedActivation | None:
    """Return the activation that an operation is, if it can be fused."""
    step = operation.work
    if not isinstance(step, Step) or not step.args or not isinstance(step.args[0], Ref):
        return None
    if step.op in ACTIVATIONS and len(step.args) == 1 and not step.kwargs:
        return FusedActivation(ACTIVATIONS[step.op])
    if step.op == "aten.hardtanh.default" and not step.kwargs:
        low, high = (*step.args[1:], -1.0, 1.0)[:2] if len(step.args) != 2 else (step.args[1], 1.0)
        if isinstance(low, int | float) and isinstance(high, int | float):
            return FusedActivation("hardtanh", (float(low), float(high)))
    if step.op == "aten.leaky_relu.default" and not step.kwargs:
        slope = step.args[1] if len(step.args) > 1 else 0.01
        if isinstance(slope, int | float):
            return FusedActivation("leaky_relu", (float(slope),))
    if step.op == "aten.gelu.default" and len(step.args) == 1:
        algorithm = step.kwargs.get("approximate", "none")
        if set(step.kwargs) <= {"approximate"} and algorithm in ("none", "tanh"):
            return FusedActivation("gelu", (), str(algorithm))
    return None


def _convolutions_by_input(
    operations: Sequence[ProgramOperation],
) -> Mapping[str, Sequence[ConvStage]]:
    """Return the convolutions that read a value, by its name."""
    found: dict[str, list[ConvStage]] = {}
    for op in operations:
        if isinstance(op.work, ConvStage):
            found.setdefault(op.work.input, []).append(op.work)
    return found


def _any_layout(operation: ProgramOperation) -> ProgramOperation:
    """Return an operation that takes its input in whichever memory layout it has."""
    step = operation.work
    if not isinstance(step, Step) or step.op not in _RESHAPES:
        return operation
    replaced = Step(step.name, _RESHAPES[step.op], step.args, step.kwargs)
    return ProgramOperation(operation.output, operation.inputs, replaced)

"""Runs glue stages, and whole networks uncoded for tests and small inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

from ..errors import ModelError, one_line
from .image_analysis import analyse_images, shapes_of
from .network import ConvStage, GlueStage, Network, Ref, Step
from .operators import needs_device, resolve
from .output_bundle import taken_apart
from .rewriting import convert


class StepCheck(Protocol):
    """Checks what operations of glue compute."""

    def step(self, step: Step, x: Any, y: Any, *, is_part: bool = False) -> None:
        """Raise an error if ``y`` cannot be the result of a step whose first argument is ``x``.

        With ``is_part`` both may be some rows of what they are in the network.
        """


def run_steps(
    stage: GlueStage,
    values: Mapping[str, torch.Tensor],
    tensors: Mapping[str, torch.Tensor],
    checks: StepCheck | None = None,
) -> dict[str, torch.Tensor]:
    """Run a glue stage.

    Parameters
    ----------
    stage
        The stage.
    values
        The stage's inputs by name. They are not changed, but outputs may share their memory.
    tensors
        The network's tensors by name, on the same device as the values.
    checks
        Looks at every result.

    Returns
    -------
    The stage's outputs by name.

    Raises
    ------
    ModelError
        If a step cannot run on values of these shapes.
    """
    known: dict[str, Any] = {name: values[name] for name in stage.inputs}
    with torch.no_grad():
        for step, dead in zip(stage.steps, _dead_after(stage), strict=True):
            known[step.name] = run_step(step, known, tensors, checks)
            for name in dead:
                del known[name]
    return {name: known[name] for name in stage.outputs}


def run_step(
    step: Step,
    values: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    checks: StepCheck | None = None,
) -> Any:
    """Return what one step computes.

    Parameters
    ----------
    step
        The step.
    values
        Values by name, those that the step reads among them.
    tensors
        The network's tensors by name, on the same device as the values.
    checks
        Looks at the result.

    Raises
    ------
    ModelError
        If the step cannot run on values of these shapes.
    """

    def leaf(value: Any) -> Any:
        if isinstance(value, Ref):
            return values[value.name] if value.name in values else tensors[value.name]
        # Values are on the device of this run, not on that of the export.
        return _device(values) if isinstance(value, torch.device) else value

    args, kwargs = convert(step.args, leaf), convert(step.kwargs, leaf)
    if needs_device(step.op):
        kwargs["device"] = _device(values)
    try:
        made = resolve(step.op)(*args, **kwargs)
    except (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError) as error:
        shapes = [tuple(a.shape) for a in args if isinstance(a, torch.Tensor)]
        raise ModelError(
            f"{step!r:.200} cannot run on values of the shapes {shapes}: {one_line(error)}; "
            "expected images of a size that the model was exported for"
        ) from error
    if checks is not None:
        checks.step(step, args[0] if args else None, made)
    return made


def _device(values: Mapping[str, Any]) -> torch.device:
    """Return the device of the first tensor; the CPU where there is none."""
    tensors = (value for value in values.values() if isinstance(value, torch.Tensor))
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def _dead_after(stage: GlueStage) -> list[list[str]]:
    """Return, for each step, the values that no later step reads."""
    last = {step.name: index for index, step in enumerate(stage.steps)}
    local = {*stage.inputs, *last}
    for index, step in enumerate(stage.steps):
        last.update((name, index) for name in step.references if name in local)
    dead: list[list[str]] = [[] for _ in stage.steps]
    for name, index in last.items():
        if name not in stage.outputs:
            dead[index].append(name)
    return dead


def in_fixed_batches(
    images: torch.Tensor,
    batch: int,
    function: Callable[[torch.Tensor], Mapping[str, torch.Tensor]],
) -> dict[str, torch.Tensor]:
    """Return what a function of ``batch`` images, and of no other number, makes of any number.

    Parameters
    ----------
    images
        One or more, along the first axis. The last of them is repeated to fill the last batch.
    batch
        Images of one call.
    function
        Returns values by name, with an entry for each image along the first axis.
    """
    made = []
    for first in range(0, len(images), batch):
        piece = images[first : first + batch]
        missing = batch - len(piece)
        if missing:
            copies = piece[-1:].expand(missing, *piece.shape[1:])
            made.append(function(torch.cat([piece, copies])))
        else:
            made.append(function(piece))
    return {name: torch.cat([values[name] for values in made])[: len(images)] for name in made[0]}


def run_network(network: Network, images: torch.Tensor) -> torch.Tensor:
    """Run a whole network, uncoded, in one place; several outputs are returned as a bundle.

    Parameters
    ----------
    network
        The network.
    images
        (batch, C, *space) of the network's dtype, not changed.

    Raises
    ------
    ModelError
        If the network does not take images of this shape.
    """

    def run(batch: torch.Tensor) -> Mapping[str, torch.Tensor]:
        return run_stages(network, network.tensors, batch)

    fixed = network.fixed_batch
    made = run(images) if fixed is None else in_fixed_batches(images, fixed.images, run)
    return made[network.output]


def run_outputs(network: Network, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Run a whole network, uncoded, in one place; return its outputs by their names.

    The parameters and errors are those of :func:`run_network`.
    """
    made = run_network(network, images)
    if len(network.outputs) == 1:
        return dict.fromkeys(network.outputs, made)
    known = analyse_images(network, images.shape[1:]).values
    facts = [known[value] for value in network.outputs.values()]
    forms = [(one.sizes[1:], str(one.dtype).removeprefix("torch.")) for one in facts]
    parts = taken_apart(made.numpy(), forms)
    return {name: torch.from_numpy(part) for name, part in zip(network.outputs, parts, strict=True)}


def network_shapes(network: Network, input_shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every value that passes between stages, without computing values.

    Parameters
    ----------
    network
        The network.
    input_shape
        (batch, C, *space) of the images.

    Raises
    ------
    ModelError
        If the network does not take images of this shape.
    """
    return shapes_of(network, input_shape)


def run_stages(
    network: Network,
    tensors: Mapping[str, torch.Tensor],
    images: torch.Tensor,
    *,
    keep: bool = False,
) -> dict[str, torch.Tensor]:
    """Run all stages; return the values that are left, all of them with ``keep``."""
    values = {network.input: images}
    readers: dict[str, int] = {network.output: 1}
    for stage in network.stages:
        for name in stage.inputs:
            readers[name] = readers.get(name, 0) + 1
    for stage in network.stages:
        if isinstance(stage, ConvStage):
            values[stage.output] = _convolve(stage, values[stage.input], tensors)
        else:
            values.update(run_steps(stage, values, tensors))
        for name in stage.inputs:
            readers[name] -= 1
            if not readers[name] and not keep:
                del values[name]
    return values


_CONVOLVE = {
    1: torch.nn.functional.conv1d,
    2: torch.nn.functional.conv2d,
    3: torch.nn.functional.conv3d,
}


def _convolve(
    stage: ConvStage, images: torch.Tensor, tensors: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    weight = tensors[stage.weight]
    bias = None if stage.bias is None else tensors[stage.bias]
    padding: tuple[int, ...] = tuple(before for before, _ in stage.padding)
    if any(before != after for before, after in stage.padding):
        both = [number for pair in reversed(stage.padding) for number in pair]
        images = torch.nn.functional.pad(images, both)
        padding = (0,) * len(stage.padding)
    try:
        with torch.no_grad():
            return _CONVOLVE[len(stage.stride)](
                images, weight, bias, stage.stride, padding, stage.dilation, stage.groups
            )
    except RuntimeError as error:
        raise ModelError(
            f"the convolution {stage.name} cannot take {tuple(images.shape)}: {one_line(error)}"
        ) from error

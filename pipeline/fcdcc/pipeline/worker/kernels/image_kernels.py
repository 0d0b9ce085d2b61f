"""What the tasks do of a block that is split by images: :mod:`fcdcc.pipeline.graph.by_images`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fcdcc.coding.slicing import runs

from ...anyk import abandonable, wanted
from ...plans.fused_stages import FusedStages
from ..executable import Executable, find
from ..share_checks import ShareMessage, as_message, share_values
from .common import (
    Array,
    ExecutableOrRef,
    NamedArrays,
    add_bias,
    check_wanted,
    recovered,
    stage_outputs,
    to_array,
    to_arrays,
    to_tensor,
)
from .task_specs import ImageGlue, ImageParity, ImageShare, JoinRuns, PartOutput


def share(ref: ExecutableOrRef, spec: ImageShare, *inputs: Array) -> ShareMessage:
    """Return a systematic share, bias included: the unit's work for one run of images.

    It stops between two stages, or slices of its convolution, if it is not needed any more.
    """
    executable, is_wanted = find(ref), wanted()
    unit = executable.image_unit(spec.unit)
    with abandonable(), torch.inference_mode():
        value = _entering(executable, unit, inputs, is_wanted)
        result = to_array(_convolve(executable, unit.number, value, is_wanted))
        return as_message(executable, unit.number, spec.position, result, value)


def parity(ref: ExecutableOrRef, spec: ImageParity, *inputs: Array) -> ShareMessage:
    """Return a parity share, from the inputs of every run of images, run after run.

    What stands in front of the convolution is not linear, so it is done again for each run.
    """
    executable, is_wanted = find(ref), wanted()
    unit, position = executable.image_unit(spec.unit), spec.position
    count = len(unit.inputs)
    runs = [inputs[first : first + count] for first in range(0, len(inputs), count)]
    with abandonable(), torch.inference_mode():
        images = torch.cat([_entering(executable, unit, run, is_wanted) for run in runs])
        layer = executable.plan.layer(unit.number)
        entering = layer.coded_conv.encode_input(images, position)
        result = layer.coded_conv.convolve(
            entering,
            executable.filters(unit.number, position),
            position,
            wanted=is_wanted,
            slices=layer.slices(len(images)),
        )
        return as_message(executable, unit.number, position, to_array(result), entering)


def run_output(shares: Mapping[int, ShareMessage], ref: ExecutableOrRef, spec: PartOutput) -> Array:
    """Return a layer's output for one run of images: its own share, or decoded from others."""
    if spec.part in shares:
        return share_values(shares[spec.part])
    executable = find(ref)
    with torch.inference_mode():
        output = recovered(executable, spec.layer, shares, spec.part, spec.images)
        return to_array(add_bias(output, executable.bias(spec.layer)))


def glue(ref: ExecutableOrRef, spec: ImageGlue, *inputs: Array) -> Array | NamedArrays:
    """Return what a unit without a coded convolution makes: an array, or several by name."""
    executable = find(ref)
    unit = executable.image_unit(spec.unit)
    with torch.inference_mode():
        values = _run(executable, unit.stages, _named(unit, inputs), wanted(), unit.outputs)
        return to_arrays(values, unit.outputs)


def join_runs(spec: JoinRuns, *parts: Array) -> Array:
    """Return the predictions of a block from those of its runs, without the padding."""
    return np.concatenate(parts)[: spec.images]


def _entering(
    executable: Executable,
    unit: FusedStages,
    inputs: Sequence[Array],
    is_wanted: Callable[[], bool],
) -> Tensor:
    """Return what enters the coded convolution at the end of a unit."""
    name = executable.convolution(unit.number).input
    return _run(executable, unit.stages[:-1], _named(unit, inputs), is_wanted, (name,))[name]


def _run(
    executable: Executable,
    stages: Sequence[int],
    values: dict[str, Tensor],
    is_wanted: Callable[[], bool],
    kept: Collection[str],
) -> dict[str, Tensor]:
    """Run stages in order; ``values`` are taken over, and of all only those kept are left."""
    last = {name: index for index in stages for name in executable.network.stages[index].inputs}
    for index in stages:
        check_wanted(is_wanted)
        stage = executable.network.stages[index]
        values |= stage_outputs(executable, index, values)
        for name in {*stage.inputs, *stage.outputs}:
            if name not in kept and last.get(name, index) <= index:
                del values[name]
    return values


def _convolve(
    executable: Executable, layer: int, value: Tensor, is_wanted: Callable[[], bool]
) -> Tensor:
    """Return the convolution of some images, bias added."""
    planned = executable.plan.layer(layer)
    weight, bias = executable.weight(layer), executable.bias(layer)
    made = []
    for run in runs(len(value), planned.slices(len(value) * executable.plan.delta)):
        check_wanted(is_wanted)
        made.append(planned.geometry.convolve(value[run], weight, bias))
    return made[0] if len(made) == 1 else torch.cat(made)


def _named(unit: FusedStages, inputs: Sequence[Array]) -> dict[str, Tensor]:
    return {name: to_tensor(value) for name, value in zip(unit.inputs, inputs, strict=True)}

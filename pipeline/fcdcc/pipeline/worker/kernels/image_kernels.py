"""What the tasks do of a block that is split by images: :mod:`fcdcc.pipeline.graph.by_images`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ...anyk import abandonable, wanted
from ...plans.fused_stages import FusedStages
from ..executable import Executable, find
from ..share_checks import ShareMessage, as_message, check_form, share_values
from .common import (
    Array,
    ExecutableOrRef,
    NamedArrays,
    add_bias,
    encoded_input,
    recovered,
    to_array,
    to_arrays,
    to_tensor,
)
from .task_specs import ImageGlue, ImageParity, ImageShare, JoinRuns, PartOutput


def share(ref: ExecutableOrRef, spec: ImageShare, *inputs: Array) -> ShareMessage:
    """Return a systematic share, bias included: the unit's work for one run of images.

    It stops between two operations if it is not needed any more.
    """
    executable, is_wanted = find(ref), wanted()
    unit = executable.image_unit(spec.unit)
    convolution = executable.convolution(unit.number)
    compared = executable.plan.compares_shares
    outputs = (convolution.output, convolution.input) if compared else (convolution.output,)
    with abandonable(), torch.inference_mode():
        values = executable.program(unit.stages, outputs)(_named(unit, inputs), is_wanted)
        result = to_array(values[convolution.output])
        entering = values.get(convolution.input)
        return as_message(executable, unit.number, spec.position, result, entering)


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
        entering = encoded_input(executable, unit.number, images, position)
        result = layer.coded_conv.convolve(
            entering,
            executable.filters(unit.number, position),
            position,
            wanted=is_wanted,
            slices=layer.slices(len(images)),
            check=executable.share_check(unit.number, position),
        )
        return as_message(executable, unit.number, position, to_array(result), entering)


def run_output(shares: Mapping[int, ShareMessage], ref: ExecutableOrRef, spec: PartOutput) -> Array:
    """Return a layer's output for one run of images: its own share, or decoded from others."""
    executable = find(ref)
    entries = executable.plan.layer(spec.layer).entries(spec.images)
    check_form(executable, spec.layer, shares, entries)
    if spec.part in shares:
        return share_values(shares[spec.part])
    with torch.inference_mode():
        output = recovered(executable, spec.layer, shares, spec.part, entries)
        return to_array(add_bias(output, executable.bias(spec.layer)))


def glue(ref: ExecutableOrRef, spec: ImageGlue, *inputs: Array) -> Array | NamedArrays:
    """Return what a unit without a coded convolution makes: an array, or several by name."""
    executable = find(ref)
    unit = executable.image_unit(spec.unit)
    with torch.inference_mode():
        program = executable.program(unit.stages, unit.outputs)
        return to_arrays(program(_named(unit, inputs), wanted()), unit.outputs)


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
    return executable.program(unit.stages[:-1], (name,))(_named(unit, inputs), is_wanted)[name]


def _named(unit: FusedStages, inputs: Sequence[Array]) -> dict[str, Tensor]:
    return {name: to_tensor(value) for name, value in zip(unit.inputs, inputs, strict=True)}

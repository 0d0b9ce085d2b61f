"""What the tasks of a block do that is split by images; see :mod:`.graph.by_images`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fcdcc.coding import Abandoned
from fcdcc.coding.slicing import runs

from ...anyk import abandonable, wanted
from ...model.interpreter import run_steps
from ...model.network import GlueStage
from ...plans.image_layout import FusedStages
from ..executable import Executable, find
from ..share_checks import Finding, ShareMessage, as_message, share_values
from .common import (
    Array,
    ExecutableOrRef,
    NamedArrays,
    add_bias,
    check_spare,
    convolved,
    recovered,
    to_array,
    to_tensor,
)


def share(
    program: ExecutableOrRef, unit: FusedStages, position: int, *inputs: Array
) -> ShareMessage:
    """Return a systematic share, bias included: the unit's work for one run of images.

    It stops between two stages, or slices of its convolution, if nobody waits for it.
    """
    executable, is_wanted = find(program), wanted()
    with abandonable(), torch.inference_mode():
        value = _entering(executable, unit, inputs, is_wanted)
        result = to_array(_convolve(executable, unit.number, value, is_wanted))
        return as_message(executable, unit.number, position, result, value)


def parity(
    program: ExecutableOrRef, unit: FusedStages, position: int, *inputs: Array
) -> ShareMessage:
    """Return a parity share, from the inputs of every run of images, run after run.

    What stands in front of the convolution is not linear, so it is done again for each run.
    """
    executable, is_wanted = find(program), wanted()
    count = len(unit.inputs)
    runs = [inputs[first : first + count] for first in range(0, len(inputs), count)]
    with abandonable(), torch.inference_mode():
        images = torch.cat([_entering(executable, unit, run, is_wanted) for run in runs])
        layer = executable.plan.layer(unit.number)
        coded = layer.coded_conv
        entering = coded.encode_input(images, position)
        result = coded.convolve(
            entering,
            executable.filters(unit.number, position),
            position,
            wanted=is_wanted,
            slices=layer.slices(len(images)),
        )
        return as_message(executable, unit.number, position, to_array(result), entering)


def part(
    shares: Mapping[int, ShareMessage], program: ExecutableOrRef, layer: int, own: int
) -> Array:
    """Return a layer's output for one run of images: its own share, or decoded from others."""
    if own in shares:
        return share_values(shares[own])
    executable = find(program)
    with torch.inference_mode():
        images = _images(executable, layer, shares)
        return to_array(
            add_bias(recovered(executable, layer, shares, own, images), executable.bias(layer))
        )


def check(shares: Mapping[int, ShareMessage], program: ExecutableOrRef, layer: int) -> Finding:
    """Check shares of a layer against each other; see :func:`.kernels.check_spare`."""
    executable = find(program)
    layer_plan = executable.plan.layer(layer)
    check_spare(executable, layer, shares, _images(executable, layer, shares), layer_plan.uncoded)
    return Finding(layer, layer_plan.name)


def _images(executable: Executable, layer: int, shares: Mapping[int, ShareMessage]) -> int:
    """Return the images of a block, those of zeros included."""
    code = executable.coded(layer).code
    return len(share_values(next(iter(shares.values())))) * code.k_a // code.ell_a


def glue(program: ExecutableOrRef, unit: FusedStages, *inputs: Array) -> Array | NamedArrays:
    """Return what a unit without a coded convolution makes: an array, or several by name."""
    executable = find(program)
    with torch.inference_mode():
        values = _run(executable, unit.stages, _named(unit, inputs), wanted(), unit.outputs)
        made = {name: to_array(values[name]) for name in unit.outputs}
    return made[unit.outputs[0]] if len(made) == 1 else made


def gather(images: int, *parts: Array) -> Array:
    """Return the predictions of a block from those of its runs, without the padding."""
    return np.concatenate(parts)[:images]


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
        if not is_wanted():
            raise Abandoned("nobody waits for this share any more")
        stage = executable.network.stages[index]
        if isinstance(stage, GlueStage):
            given = {name: values[name] for name in stage.inputs}
            values |= run_steps(stage, given, executable.network.tensors)
        else:
            values[stage.output] = convolved(executable, index, values[stage.input])
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
        if not is_wanted():
            raise Abandoned("nobody waits for this share any more")
        made.append(planned.geometry.convolve(value[run], weight, bias))
    return made[0] if len(made) == 1 else torch.cat(made)


def _named(unit: FusedStages, inputs: Sequence[Array]) -> dict[str, Tensor]:
    return {name: to_tensor(value) for name, value in zip(unit.inputs, inputs, strict=True)}

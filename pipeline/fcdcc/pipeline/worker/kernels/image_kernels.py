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
from ...plans.image_layout import Unit
from ..executable import Executable, find
from ..share_checks import Finding, Given, bare, noted
from .common import (
    Array,
    Program,
    Values,
    add_bias,
    check_spare,
    convolved,
    recovered,
    to_array,
    to_tensor,
)

__all__ = ["check", "gather", "glue", "parity", "part", "share"]


def share(program: Program, unit: Unit, position: int, *inputs: Array) -> Given:
    """Return a systematic share, bias included: the unit's work for one run of images.

    It stops between two stages, or slices of its convolution, if nobody waits for it.
    """
    held, is_wanted = find(program), wanted()
    with abandonable(), torch.inference_mode():
        value = _entering(held, unit, inputs, is_wanted)
        result = to_array(_convolve(held, unit.number, value, is_wanted))
        return noted(held, unit.number, position, result, value)


def parity(program: Program, unit: Unit, position: int, *inputs: Array) -> Given:
    """Return a parity share, from the inputs of every run of images, run after run.

    What stands in front of the convolution is not linear, so it is done again for each run.
    """
    held, is_wanted = find(program), wanted()
    count = len(unit.inputs)
    runs = [inputs[first : first + count] for first in range(0, len(inputs), count)]
    with abandonable(), torch.inference_mode():
        images = torch.cat([_entering(held, unit, run, is_wanted) for run in runs])
        layer = held.plan.layer(unit.number)
        coded = layer.coded_conv
        entering = coded.encode_input(images, position)
        result = coded.convolve(
            entering,
            held.filters(unit.number, position),
            position,
            wanted=is_wanted,
            slices=layer.slices(len(images)),
        )
        return noted(held, unit.number, position, to_array(result), entering)


def part(shares: Mapping[int, Given], program: Program, layer: int, own: int) -> Array:
    """Return a layer's output for one run of images: its own share, or decoded from others."""
    if own in shares:
        return bare(shares[own])
    held = find(program)
    with torch.inference_mode():
        images = _images(held, layer, shares)
        return to_array(add_bias(recovered(held, layer, shares, own, images), held.bias(layer)))


def check(shares: Mapping[int, Given], program: Program, layer: int) -> Finding:
    """Check shares of a layer against each other; see :func:`.kernels.check_spare`."""
    held = find(program)
    layer_plan = held.plan.layer(layer)
    check_spare(held, layer, shares, _images(held, layer, shares), layer_plan.uncoded)
    return Finding(layer, layer_plan.name)


def _images(held: Executable, layer: int, shares: Mapping[int, Given]) -> int:
    """Return the images of a block, those of zeros included."""
    code = held.coded(layer).code
    return len(bare(next(iter(shares.values())))) * code.k_a // code.ell_a


def glue(program: Program, unit: Unit, *inputs: Array) -> Array | Values:
    """Return what a unit without a coded convolution makes: an array, or several by name."""
    held = find(program)
    with torch.inference_mode():
        values = _run(held, unit.stages, _named(unit, inputs), wanted(), unit.outputs)
        made = {name: to_array(values[name]) for name in unit.outputs}
    return made[unit.outputs[0]] if len(made) == 1 else made


def gather(images: int, *parts: Array) -> Array:
    """Return the predictions of a block from those of its runs, without the padding."""
    return np.concatenate(parts)[:images]


def _entering(
    held: Executable, unit: Unit, inputs: Sequence[Array], is_wanted: Callable[[], bool]
) -> Tensor:
    """Return what enters the coded convolution at the end of a unit."""
    name = held.convolution(unit.number).input
    return _run(held, unit.stages[:-1], _named(unit, inputs), is_wanted, (name,))[name]


def _run(
    held: Executable,
    stages: Sequence[int],
    values: dict[str, Tensor],
    is_wanted: Callable[[], bool],
    kept: Collection[str],
) -> dict[str, Tensor]:
    """Run stages in order; ``values`` are taken over, and of all only those kept are left."""
    last = {name: index for index in stages for name in held.network.stages[index].inputs}
    for index in stages:
        if not is_wanted():
            raise Abandoned("nobody waits for this share any more")
        stage = held.network.stages[index]
        if isinstance(stage, GlueStage):
            given = {name: values[name] for name in stage.inputs}
            values |= run_steps(stage, given, held.network.tensors)
        else:
            values[stage.output] = convolved(held, index, values[stage.input])
        for name in {*stage.inputs, *stage.outputs}:
            if name not in kept and last.get(name, index) <= index:
                del values[name]
    return values


def _convolve(held: Executable, layer: int, value: Tensor, is_wanted: Callable[[], bool]) -> Tensor:
    """Return the convolution of some images, bias added."""
    planned = held.plan.layer(layer)
    weight, bias = held.weight(layer), held.bias(layer)
    made = []
    for run in runs(len(value), planned.slices(len(value) * held.plan.delta)):
        if not is_wanted():
            raise Abandoned("nobody waits for this share any more")
        made.append(planned.geometry.convolve(value[run], weight, bias))
    return made[0] if len(made) == 1 else torch.cat(made)


def _named(unit: Unit, inputs: Sequence[Array]) -> dict[str, Tensor]:
    return {name: to_tensor(value) for name, value in zip(unit.inputs, inputs, strict=True)}

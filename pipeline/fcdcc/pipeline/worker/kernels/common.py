"""NEW."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from fcdcc.coding import Code
from fcdcc.coding.conditioning import is_enough

from ...model.interpreter import run_steps
from ..executable import Executable, ExecutableRef, find
from ..share_checks import (
    Finding,
    ShareMessage,
    compare_shares,
    is_finite,
    raise_not_finite,
    raise_wrong_shares,
    share_values,
)

Array = NDArray[Any]

ExecutableOrRef = ExecutableRef | Executable

NamedArrays = Mapping[str, Array]


def same(value: Array, *checks: Finding) -> Array:  # noqa: ARG001 - what is waited for
    """Return a value under another key, when all that checks it is through."""
    return value


def take(prediction: Array, images: int) -> Array:
    """Return the predictions of the first ``images`` images: without those of the padding."""
    return prediction[:images]


def convolved(executable: Executable, layer: int, value: Tensor) -> Tensor:
    """Return the output of a convolution, bias added, run whole."""
    output = executable.plan.layer(layer).geometry.convolve(value, executable.weight(layer))
    return add_bias(output, executable.bias(layer))


def glue(program: ExecutableOrRef, layer: int, *inputs: Array) -> Array | NamedArrays:
    """Return what a glue stage makes: an array, or several by name.

    ``inputs`` are in the order of ``GlueStage.inputs``.
    """
    executable = find(program)
    stage = executable.glue(layer)
    with torch.inference_mode():
        given = {name: to_tensor(v) for name, v in zip(stage.inputs, inputs, strict=True)}
        values = run_steps(stage, given, executable.network.tensors)
        made = {name: to_array(values[name]) for name in stage.outputs}
    return made[stage.outputs[0]] if len(made) == 1 else made


def recovered(
    executable: Executable, layer: int, shares: Mapping[int, ShareMessage], own: int, images: int
) -> Tensor:
    """Return a plain share that is not there from shares that are, without bias.

    Plain shares come with their bias, others without.
    """
    coded, bias = executable.coded(layer), executable.bias(layer)
    uncoded = executable.plan.layer(layer).uncoded
    check_spare(executable, layer, shares, images, uncoded)
    there = {position: to_tensor(share_values(share)) for position, share in shares.items()}
    some = next(iter(there.values()))
    results = {
        position: add_bias(there[position], None if bias is None else -bias)
        if position in uncoded
        else there[position]
        for position in survivors_used(coded.code, there, some.dtype)
    }
    check_finite(executable, layer, results)
    return coded.recover(results, own, images)


def check_spare(
    executable: Executable,
    layer: int,
    shares: Mapping[int, ShareMessage],
    images: int,
    with_bias: Collection[int] = (),
) -> None:
    """Check shares against each other where that was asked for and there are more than needed.

    Raises
    ------
    WrongSharesError, NotFiniteError
        If they contradict each other, or hold values that are not finite.
    """
    if (
        executable.plan.verify == "off"
        or len(shares) <= executable.coded(layer).code.recovery_threshold
    ):
        return
    with torch.inference_mode():
        verdict = compare_shares(executable, layer, shares, images, with_bias)
    if not verdict.consistent:
        raise_wrong_shares(executable, layer, shares, verdict)


def check_finite(executable: Executable, layer: int, shares: Mapping[int, Tensor]) -> None:
    """Check that shares that are to be decoded hold numbers.

    Raises
    ------
    NotFiniteError
        If one does not.
    """
    odd = [position for position, share in shares.items() if not is_finite(share.numpy())]
    if odd:
        raise_not_finite(executable, layer, odd)


def survivors_used(code: Code, there: Iterable[int], dtype: torch.dtype) -> tuple[int, ...]:
    """Return the shortest run of the first positions that decodes well, or all of them."""
    positions = sorted(there)
    for count in range(code.recovery_threshold, len(positions)):
        if is_enough(code, positions[:count], dtype):
            return tuple(positions[:count])
    return tuple(positions)


def add_bias(output: Tensor, bias: Tensor | None) -> Tensor:
    """Add a bias of shape (N,) to an output of shape (B, N, *space)."""
    if bias is None:
        return output
    return output + bias.reshape(-1, *[1] * (output.ndim - 2))


def to_tensor(array: Array) -> Tensor:
    """Return a tensor on the same memory; an array that must not be written is copied."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def to_array(tensor: Tensor) -> Array:
    """Return a contiguous array on the same memory where the tensor is contiguous."""
    array: Array = tensor.contiguous().numpy()
    return array

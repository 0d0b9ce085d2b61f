"""What the kernels of all forms share, and the kernels that all of them use.

Between tasks travel NumPy arrays, which Dask serialises without a copy; inside, PyTorch works on
the same memory. No kernel changes what it is given: Dask may give the same array to other tasks, or
run the task again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from fcdcc.coding import Abandoned, Code
from fcdcc.coding.combination_checks import (
    coded_input,
    decoded_output,
    recovered_share,
    wrong_decoder,
)
from fcdcc.coding.conditioning import is_enough

from ..executable import Executable, ExecutableRef, GraphExecutable, find
from ..layer_checks import check_combinations
from ..share_checks import (
    Finding,
    ShareMessage,
    check_form,
    compare_shares,
    is_finite,
    raise_not_finite,
    raise_wrong_shares,
    share_values,
)
from .task_specs import CheckShares, RunStage, TakeImages

Array = NDArray[Any]

ExecutableOrRef = ExecutableRef | Executable | GraphExecutable

NamedArrays = Mapping[str, Array]

# ---------------------------------------------------------------------- kernels


def same(value: Array, *checks: Finding) -> Array:  # noqa: ARG001 - the task depends on them
    """Return a value under another key, once all checks of it are done."""
    return value


def take(spec: TakeImages, prediction: Array) -> Array:
    """Return the predictions of a block's images, without those of the padding."""
    return prediction[: spec.images]


def run_stage(ref: ExecutableOrRef, spec: RunStage, *inputs: Array) -> Array | NamedArrays:
    """Return what one stage makes of whole values: an array, or several by name.

    ``inputs`` are in the order of the stage's own.
    """
    executable = find(ref)
    stage = executable.network.stages[spec.stage]
    with torch.inference_mode():
        given = {name: to_tensor(v) for name, v in zip(stage.inputs, inputs, strict=True)}
        return to_arrays(stage_outputs(executable, spec.stage, given), stage.outputs)


def check_shares(
    shares: Mapping[int, ShareMessage], ref: ExecutableOrRef, spec: CheckShares
) -> Finding:
    """Check plain shares and parity of a layer against each other; see :func:`check_spare`."""
    executable = find(ref)
    layer = executable.plan.layer(spec.layer)
    entries = layer.entries(spec.images)
    check_form(executable, spec.layer, shares, entries)
    check_spare(executable, spec.layer, shares, entries, layer.uncoded)
    return Finding(spec.layer, layer.name)


# ----------------------------------------------------------------------- stages


def stage_outputs(
    executable: Executable, index: int, values: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return what one stage makes of whole values."""
    stage = executable.network.stages[index]
    given = {name: values[name] for name in stage.inputs}
    return executable.program((index,), stage.outputs)(given)


def check_wanted(is_wanted: Callable[[], bool]) -> None:
    """Stop a task between two stages, or slices, if its result is not needed any more.

    Raises
    ------
    Abandoned
        If ``is_wanted`` returns False.
    """
    if not is_wanted():
        raise Abandoned("this share is not needed any more")


# ----------------------------------------------------------------------- shares


def recovered(
    executable: Executable, layer: int, shares: Mapping[int, ShareMessage], own: int, entries: int
) -> Tensor:
    """Return a plain share that is not there from shares that are, without bias.

    Plain shares come with their bias, others without.
    """
    coded, bias = executable.coded(layer), executable.bias(layer)
    uncoded = executable.plan.layer(layer).uncoded
    check_spare(executable, layer, shares, entries, uncoded)
    there = {position: to_tensor(share_values(share)) for position, share in shares.items()}
    some = next(iter(there.values()))
    results = {
        position: add_bias(there[position], None if bias is None else -bias)
        if position in uncoded
        else there[position]
        for position in survivors_used(coded.code, there, some.dtype)
    }
    check_finite(executable, layer, results)
    made = coded.recover(results, own, entries)
    if executable.checks is not None:
        found = recovered_share(coded, results, own, entries, made)
        what = f"{executable.shown(layer)}: share {own}, decoded from others,"
        check_combinations(found, what, wrong_decoder(coded.code, results))
    return made


def encoded_input(executable: Executable, layer: int, x: Tensor, position: int) -> Tensor:
    """Return the coded input of a share from the layer's whole input."""
    coded = executable.coded(layer)
    made = coded.encode_input(x, position)
    if executable.checks is not None:
        found = coded_input(coded, x, position, made)
        check_combinations(found, f"{executable.shown(layer)}: the coded input of share {position}")
    return made


def decoded(
    executable: Executable, layer: int, shares: Mapping[int, Tensor], entries: int
) -> Tensor:
    """Return the output of a layer from shares without bias, itself without bias."""
    coded = executable.coded(layer)
    made = coded.decode(shares, entries)
    if executable.checks is not None:
        found = decoded_output(coded, shares, entries, made)
        what = f"{executable.shown(layer)}: the decoded output"
        check_combinations(found, what, wrong_decoder(coded.code, shares))
    return made


def check_spare(
    executable: Executable,
    layer: int,
    shares: Mapping[int, ShareMessage],
    entries: int,
    with_bias: Collection[int] = (),
) -> None:
    """Check shares against each other if the plan says so and there are more than needed.

    Raises
    ------
    WrongSharesError, NotFiniteError
        If they contradict each other, or hold values that are not finite.
    """
    if (
        not executable.plan.compares_shares
        or len(shares) <= executable.coded(layer).code.recovery_threshold
    ):
        return
    with torch.inference_mode():
        verdict = compare_shares(executable, layer, shares, entries, with_bias)
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


# ----------------------------------------------------------------------- arrays


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


def to_arrays(values: Mapping[str, Tensor], names: Sequence[str]) -> Array | NamedArrays:
    """Return what a task makes: one value as an array, of several those that there are by name."""
    if len(names) == 1:
        return to_array(values[names[0]])
    return {name: to_array(values[name]) for name in names if name in values}

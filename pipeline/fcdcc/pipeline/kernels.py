"""What the tasks of a block do, one function per stage of the key scheme.

Between tasks travel NumPy arrays, which Dask serialises without a copy; inside, torch
works on the same memory. No kernel changes what it was given: Dask may hand the same array
to others, or run the task again.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fcdcc.coding import Code
from fcdcc.coding.survivors import is_enough
from fcdcc.storage.images import ImageSource
from fcdcc.storage.preparation import Preparation

from .anyk import abandonable, wanted
from .anyk.notices import announce, here
from .checking import Finding, Given, bare, examine, is_finite, noted, refuse, refuse_odd
from .executable import Executable, ExecutableRef, find
from .model.interpreter import run_steps

__all__ = [
    "Array",
    "Values",
    "check_spare",
    "convolve_whole",
    "decode",
    "decode_all",
    "encode",
    "encode_and_share",
    "glue",
    "prepare",
    "prepare_some",
    "read",
    "recovered",
    "same",
    "share",
    "survivors_used",
    "take",
]

logger = logging.getLogger(__name__)

Array = NDArray[Any]
Program = ExecutableRef | Executable
Values = Mapping[str, Array]


def read(
    source: ImageSource,
    preparation: Preparation,
    start: int,
    stop: int,
    pad_to: int,
    rows: tuple[int, int] | None = None,
) -> Array:
    """Return images start … stop − 1 of a store, prepared, as (pad_to, C, *space).

    With ``rows`` only these, of the first spatial axis. Images that hold NaN or infinity are
    named in the log.
    """
    first, last = (0, source.shape[2]) if rows is None else rows
    prepared = prepare(source.read_rows(start, stop, first, last), preparation, pad_to)
    if not is_finite(prepared):
        odd = ~np.isfinite(prepared.reshape(len(prepared), -1)).all(axis=1)
        numbers = [start + int(i) for i in np.flatnonzero(odd)]
        logger.warning("images %s hold values that are not finite", _some(numbers))
        announce("not-finite", [(0, here())])
    return prepared


def prepare(images: Array, preparation: Preparation, pad_to: int) -> Array:
    """Return images (B, C, *space), prepared, with zeros behind them up to ``pad_to``.

    A network with a fixed batch gets a whole one for the last images, too.
    """
    prepared: Array = preparation.apply(images)
    missing = pad_to - len(prepared)
    if missing <= 0:
        return prepared
    return np.concatenate([prepared, np.zeros((missing, *prepared.shape[1:]), prepared.dtype)])


def prepare_some(
    images: Array,
    preparation: Preparation,
    start: int,
    stop: int,
    pad_to: int,
    rows: tuple[int, int] | None = None,
) -> Array:
    """Return images start … stop − 1 of an array, prepared; see :func:`read`."""
    chosen = images[start:stop] if rows is None else images[start:stop, :, slice(*rows)]
    return prepare(chosen, preparation, pad_to)


def same(value: Array, *checks: Finding) -> Array:  # noqa: ARG001 - what is waited for
    """Return a value under another key, when all that checks it is through."""
    return value


def _some(numbers: Sequence[int]) -> str:
    """Return some numbers in words, the first twenty of them."""
    return ", ".join(map(str, numbers[:20])) + (", …" if len(numbers) > 20 else "")


def take(prediction: Array, images: int) -> Array:
    """Return the predictions of the first ``images`` images: without those of the padding."""
    return prediction[:images]


def encode(program: Program, layer: int, position: int, value: Array) -> Array:
    """Return the coded inputs of one share from the layer's whole input (paper, eq. 33)."""
    coded = find(program).coded(layer)
    with torch.inference_mode():
        return to_array(coded.encode_input(to_tensor(value), position))


def share(program: Program, layer: int, position: int, coded_input: Array) -> Given:
    """Return one share: the coded inputs convolved with the coded filters.

    It runs in slices, and stops between two of them if nobody waits for it any more.
    """
    held = find(program)
    with abandonable(), torch.inference_mode():
        entering = to_tensor(coded_input)
        result = held.coded(layer).convolve(
            entering,
            held.filters(layer, position),
            position,
            wanted=wanted(),
            slices=held.plan.layer(layer).slices(coded_input.shape[0]),
        )
        return noted(held, layer, position, to_array(result), entering)


def encode_and_share(program: Program, layer: int, position: int, value: Array) -> Given:
    """Return one share from the layer's whole input."""
    return share(program, layer, position, encode(program, layer, position, value))


def decode(shares: Mapping[int, Given], program: Program, layer: int) -> Array:
    """Return the output of a layer split by rows, bias added, from the shares that are there.

    The first that suffice are used, uncoded ones before parity: what else has arrived in the
    meantime costs time, unless shares are to be checked against each other.
    """
    images = len(bare(next(iter(shares.values()))))
    held = find(program)
    check_spare(held, layer, shares, images)
    return decode_all(held, layer, shares, images)


def decode_all(held: Executable, layer: int, shares: Mapping[int, Given], images: int) -> Array:
    """Return the output of a layer, bias added, from shares that are right."""
    coded = held.coded(layer)
    with torch.inference_mode():
        there = {position: to_tensor(bare(share)) for position, share in shares.items()}
        some = next(iter(there.values()))
        used = survivors_used(coded.code, there, some.dtype)
        chosen = {position: there[position] for position in used}
        if not held.plan.layer(layer).uncoded >= chosen.keys():
            check_finite(held, layer, chosen)
        output = coded.decode(chosen, images)
        return to_array(add_bias(output, held.bias(layer)))


def convolve_whole(program: Program, layer: int, value: Array) -> Array:
    """Return the output of a convolution that the plan leaves uncoded."""
    with torch.inference_mode():
        return to_array(convolved(find(program), layer, to_tensor(value)))


def convolved(held: Executable, layer: int, value: Tensor) -> Tensor:
    """Return the output of a convolution, bias added, run whole."""
    output = held.plan.layer(layer).geometry.convolve(value, held.weight(layer))
    return add_bias(output, held.bias(layer))


def glue(program: Program, layer: int, *inputs: Array) -> Array | Values:
    """Return what a glue stage makes: an array, or several by name.

    ``inputs`` are in the order of ``GlueStage.inputs``.
    """
    held = find(program)
    stage = held.glue(layer)
    with torch.inference_mode():
        given = {name: to_tensor(v) for name, v in zip(stage.inputs, inputs, strict=True)}
        values = run_steps(stage, given, held.network.tensors)
        made = {name: to_array(values[name]) for name in stage.outputs}
    return made[stage.outputs[0]] if len(made) == 1 else made


def recovered(
    held: Executable, layer: int, shares: Mapping[int, Given], own: int, images: int
) -> Tensor:
    """Return a plain share that is not there from shares that are, without bias.

    Plain shares come with their bias, others without.
    """
    coded, bias = held.coded(layer), held.bias(layer)
    uncoded = held.plan.layer(layer).uncoded
    check_spare(held, layer, shares, images, uncoded)
    there = {position: to_tensor(bare(share)) for position, share in shares.items()}
    some = next(iter(there.values()))
    results = {
        position: add_bias(there[position], None if bias is None else -bias)
        if position in uncoded
        else there[position]
        for position in survivors_used(coded.code, there, some.dtype)
    }
    check_finite(held, layer, results)
    return coded.recover(results, own, images)


def check_spare(
    held: Executable,
    layer: int,
    shares: Mapping[int, Given],
    images: int,
    with_bias: Collection[int] = (),
) -> None:
    """Check shares against each other where that was asked for and there are more than needed.

    Raises
    ------
    WrongSharesError, NotFiniteError
        If they contradict each other, or hold values that are not finite.
    """
    if held.plan.verify == "off" or len(shares) <= held.coded(layer).code.recovery_threshold:
        return
    with torch.inference_mode():
        verdict = examine(held, layer, shares, images, with_bias)
    if not verdict.consistent:
        refuse(held, layer, shares, verdict)


def check_finite(held: Executable, layer: int, shares: Mapping[int, Tensor]) -> None:
    """Check that shares that are to be decoded hold numbers.

    Raises
    ------
    NotFiniteError
        If one does not.
    """
    odd = [position for position, share in shares.items() if not is_finite(share.numpy())]
    if odd:
        refuse_odd(held, layer, odd)


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

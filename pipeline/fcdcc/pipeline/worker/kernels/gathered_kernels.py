"""What the tasks of a block do, one function per stage of the key scheme.

Between tasks travel NumPy arrays, which Dask serialises without a copy; inside, torch
works on the same memory. No kernel changes what it was given: Dask may hand the same array
to others, or run the task again.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ...anyk import abandonable, wanted
from ..executable import Executable, find
from ..share_checks import ShareMessage, as_message, share_values
from .common import (
    Array,
    ExecutableOrRef,
    add_bias,
    check_finite,
    check_spare,
    convolved,
    survivors_used,
    to_array,
    to_tensor,
)


def encode(program: ExecutableOrRef, layer: int, position: int, value: Array) -> Array:
    """Return the coded inputs of one share from the layer's whole input (paper, eq. 33)."""
    coded = find(program).coded(layer)
    with torch.inference_mode():
        return to_array(coded.encode_input(to_tensor(value), position))


def share(program: ExecutableOrRef, layer: int, position: int, coded_input: Array) -> ShareMessage:
    """Return one share: the coded inputs convolved with the coded filters.

    It runs in slices, and stops between two of them if nobody waits for it any more.
    """
    executable = find(program)
    with abandonable(), torch.inference_mode():
        entering = to_tensor(coded_input)
        result = executable.coded(layer).convolve(
            entering,
            executable.filters(layer, position),
            position,
            wanted=wanted(),
            slices=executable.plan.layer(layer).slices(coded_input.shape[0]),
        )
        return as_message(executable, layer, position, to_array(result), entering)


def encode_and_share(
    program: ExecutableOrRef, layer: int, position: int, value: Array
) -> ShareMessage:
    """Return one share from the layer's whole input."""
    return share(program, layer, position, encode(program, layer, position, value))


def decode(shares: Mapping[int, ShareMessage], program: ExecutableOrRef, layer: int) -> Array:
    """Return the output of a layer split by rows, bias added, from the shares that are there.

    The first that suffice are used, uncoded ones before parity: what else has arrived in the
    meantime costs time, unless shares are to be checked against each other.
    """
    images = len(share_values(next(iter(shares.values()))))
    executable = find(program)
    check_spare(executable, layer, shares, images)
    return decode_all(executable, layer, shares, images)


def decode_all(
    executable: Executable, layer: int, shares: Mapping[int, ShareMessage], images: int
) -> Array:
    """Return the output of a layer, bias added, from shares that are right."""
    coded = executable.coded(layer)
    with torch.inference_mode():
        there = {position: to_tensor(share_values(share)) for position, share in shares.items()}
        some = next(iter(there.values()))
        used = survivors_used(coded.code, there, some.dtype)
        chosen = {position: there[position] for position in used}
        if not executable.plan.layer(layer).uncoded >= chosen.keys():
            check_finite(executable, layer, chosen)
        output = coded.decode(chosen, images)
        return to_array(add_bias(output, executable.bias(layer)))


def convolve_whole(program: ExecutableOrRef, layer: int, value: Array) -> Array:
    """Return the output of a convolution that the plan leaves uncoded."""
    with torch.inference_mode():
        return to_array(convolved(find(program), layer, to_tensor(value)))

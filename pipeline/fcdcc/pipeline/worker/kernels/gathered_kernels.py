"""What the tasks of the gathered form do, where every layer is decoded on one worker.

The last two kernels are for a block that is computed again with all its shares, because they
contradicted each other: see :mod:`fcdcc.pipeline.graph.gathered`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ...anyk import abandonable, wanted
from ...anyk.worker import report_shares
from ..executable import Executable, find
from ..share_checks import (
    Finding,
    ShareMessage,
    as_message,
    check_form,
    compare_shares,
    malformed_shares,
    raise_wrong_shares,
    share_values,
    worker_of,
)
from .common import (
    Array,
    ExecutableOrRef,
    add_bias,
    check_finite,
    check_spare,
    decoded,
    encoded_input,
    survivors_used,
    to_array,
    to_tensor,
)
from .task_specs import DecodeLayer, DecodeRightShares, EncodeInput, GatheredShare, RecheckShares


def encode(ref: ExecutableOrRef, spec: EncodeInput | GatheredShare, value: Array) -> Array:
    """Return the coded inputs of one share from the layer's whole input (paper, eq. 33)."""
    with torch.inference_mode():
        return to_array(encoded_input(find(ref), spec.layer, to_tensor(value), spec.position))


def share(ref: ExecutableOrRef, spec: GatheredShare, coded_input: Array) -> ShareMessage:
    """Return one share: the coded inputs convolved with the coded filters.

    It runs in slices, and stops between two of them if it is not needed any more.
    """
    executable, layer = find(ref), spec.layer
    with abandonable(), torch.inference_mode():
        entering = to_tensor(coded_input)
        result = executable.coded(layer).convolve(
            entering,
            executable.filters(layer, spec.position),
            spec.position,
            wanted=wanted(),
            slices=executable.plan.layer(layer).slices(coded_input.shape[0]),
            check=executable.share_check(layer, spec.position),
        )
        return as_message(executable, layer, spec.position, to_array(result), entering)


def encode_and_share(ref: ExecutableOrRef, spec: GatheredShare, value: Array) -> ShareMessage:
    """Return one share from the layer's whole input."""
    return share(ref, spec, encode(ref, spec, value))


def decode(shares: Mapping[int, ShareMessage], ref: ExecutableOrRef, spec: DecodeLayer) -> Array:
    """Return the output of a layer split by rows, bias added, from the shares that are done.

    The first that suffice are decoded, uncoded ones before parity. Further shares are used only
    for checks, because they cost time.
    """
    executable = find(ref)
    entries = executable.plan.layer(spec.layer).entries(spec.images)
    check_form(executable, spec.layer, shares, entries)
    check_spare(executable, spec.layer, shares, entries)
    return _decoded(executable, spec.layer, shares, entries)


def recheck(
    shares: Mapping[int, ShareMessage], ref: ExecutableOrRef, spec: RecheckShares
) -> Finding:
    """Return which of all shares of a layer are wrong, and report them to the scheduler.

    A share of another shape or type is wrong, and takes no part in the comparison.

    Raises
    ------
    WrongSharesError
        If some are wrong and cannot be located, because there are γ or more of them.
    NotFiniteError
        If they hold values that are not finite because the images led to them.
    """
    executable, layer = find(ref), spec.layer
    entries = executable.plan.layer(layer).entries(spec.images)
    malformed = malformed_shares(executable, layer, shares, entries)
    rest = {position: share for position, share in shares.items() if position not in malformed}
    enough = executable.coded(layer).code.recovery_threshold
    if len(rest) <= enough:
        check_form(executable, layer, shares, entries)
    with torch.inference_mode():
        verdict = compare_shares(executable, layer, rest, entries)
    name = executable.plan.layer(layer).name
    if verdict.consistent and not malformed:
        return Finding(layer, name)
    # δ shares or fewer never contradict each other, so they cannot be checked.
    located = verdict.consistent or verdict.located
    if not located or len(rest) - len(verdict.wrong) <= enough:
        raise_wrong_shares(executable, layer, rest, verdict)
    positions = sorted({*malformed, *verdict.wrong})
    wrong = tuple((position, worker_of(shares[position])) for position in positions)
    report_shares("corrupt-share", wrong)
    return Finding(layer, name, wrong)


def decode_right(
    shares: Mapping[int, ShareMessage],
    ref: ExecutableOrRef,
    spec: DecodeRightShares,
    finding: Finding,
) -> Array:
    """Return the output of a layer, bias added, from the shares that are right."""
    wrong = {position for position, _ in finding.wrong}
    right = {position: share for position, share in shares.items() if position not in wrong}
    executable = find(ref)
    entries = executable.plan.layer(spec.layer).entries(spec.images)
    return _decoded(executable, spec.layer, right, entries)


def _decoded(
    executable: Executable, layer: int, shares: Mapping[int, ShareMessage], entries: int
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
        output = decoded(executable, layer, chosen, entries)
        return to_array(add_bias(output, executable.bias(layer)))

"""Kernels of a block that is computed again; see :mod:`fcdcc.pipeline.graph.recheck`."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ...anyk.worker import announce
from ..executable import find
from ..share_checks import CheckedShare, Finding, ShareMessage, compare_shares, raise_wrong_shares
from .common import Array, ExecutableOrRef
from .gathered_kernels import decode_all


def check(
    shares: Mapping[int, ShareMessage], program: ExecutableOrRef, layer: int, images: int
) -> Finding:
    """Return which of all shares of a layer are wrong; the scheduler is told of them.

    Raises
    ------
    WrongSharesError
        If some are, and which cannot be found out: as many as may be lost, or more.
    NotFiniteError
        If they hold values that are not finite because the images led to them.
    """
    executable = find(program)
    with torch.inference_mode():
        verdict = compare_shares(executable, layer, shares, images)
    name = executable.plan.layer(layer).name
    if verdict.consistent:
        return Finding(layer, name)
    left = len(shares) - len(verdict.wrong)
    # Without a share to spare, those that are left agree whatever they say.
    if not verdict.located or left <= executable.coded(layer).code.recovery_threshold:
        raise_wrong_shares(executable, layer, shares, verdict)
    wrong = tuple((p, _worker(shares[p])) for p in verdict.wrong)
    announce("corrupt-share", wrong)
    return Finding(layer, name, wrong)


def decode(
    shares: Mapping[int, ShareMessage],
    program: ExecutableOrRef,
    layer: int,
    images: int,
    finding: Finding,
) -> Array:
    """Return the output of a layer, bias added, from the shares that are right."""
    wrong = {position for position, _ in finding.wrong}
    right = {position: share for position, share in shares.items() if position not in wrong}
    return decode_all(find(program), layer, right, images)


def _worker(share: ShareMessage) -> str:
    return share.worker if isinstance(share, CheckedShare) else ""

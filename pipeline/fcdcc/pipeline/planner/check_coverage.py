"""Which part of a network's arithmetic is checked by checksums, in words."""

from __future__ import annotations

from collections import Counter

from ..formatting import percent
from ..model.image_analysis import analyse_images
from ..model.network import ConvStage, Network
from ..worker.layer_checks import is_checked
from .cost.profile import PRODUCTS, profile_network

UNCOUNTED = "operations without products, such as activations, pooling and sums"
"""What no checksum covers and no multiply-adds are counted for."""


def check_coverage(network: Network, image_shape: tuple[int, ...], *, in_rows: bool = False) -> str:
    """Return what ``--verify checksum`` covers of a network, in words.

    Convolutions and linear layers are covered, and encoding and decoding. Products of two computed
    values, as in attention, recurrent layers and transposed convolutions are not.

    Parameters
    ----------
    network
        The network.
    image_shape
        (C, *space) of the images.
    in_rows
        Whether tasks compute rows of the images, in strips or bands.
    """
    profile = profile_network(network, image_shape)
    work = analyse_images(network, image_shape).work
    covered, others = 0.0, Counter[str]()
    for stage in network.stages:
        if isinstance(stage, ConvStage):
            covered += profile.work[stage.index].multiply_adds
            continue
        for step in stage.steps:
            operator = step.op.split(".")[1]
            if operator not in PRODUCTS:
                continue
            if is_checked(step, network.tensors, in_rows=in_rows):
                covered += work.get(step.name, 0)
            else:
                others[operator] += work.get(step.name, 0)
    total = covered + others.total()
    part = percent(covered / total) if total else "none"
    missing = [f"{name} ({percent(number / total)})" for name, number in others.most_common(5)]
    left_out = ", ".join([*missing, UNCOUNTED])
    return f"{part} of the multiply-adds; also encoding and decoding; not: {left_out}"
